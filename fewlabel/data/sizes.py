"""Which size views have when the user names none, and at which size images are kept."""

__all__ = ["stored_side", "view_side"]


def view_side(median_side: int) -> int:
    """Side of the views, in pixels, for images whose shorter sides have this median.

    224, the size most architectures were designed for, from 160 on; below, the images' own size rounded up to a
    multiple of 8, above 64 of 16, as patches and strides want.
    """
    if median_side >= 160:
        return 224
    multiple = 8 if median_side <= 64 else 16
    return -(-median_side // multiple) * multiple


def stored_side(view: int, median_side: int) -> int:
    """Side of the squares that images are kept at, in pixels.

    Crops enlarge what they show, so half as much again as a view is kept; but images are never enlarged to be kept.
    """
    return max(1, min(view + view // 2, median_side))
