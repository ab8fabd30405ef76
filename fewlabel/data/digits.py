"""The embedded default source: scikit-learn's handwritten digits."""

import numpy as np
from sklearn.datasets import load_digits

from fewlabel.data.arrays import encode_png
from fewlabel.data.origin import WHOLE, Hints, Origin, make_part

__all__ = ["read_digits"]


def read_digits() -> Origin:
    """1,797 handwritten digits of 8 x 8 pixels in 17 levels of grey, scaled to 0-255; no download.

    They are the test half of the Optical Recognition of Handwritten Digits set (Alpaydin and Kaynak 1998,
    UCI).
    """
    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    return Origin(
        name="digits",
        parts={
            WHOLE: make_part(
                [{"bytes": encode_png(image), "path": None} for image in images],
                [f"digits/{index:06d}" for index in range(len(images))],
                digits.target.astype(np.int64),
                [str(name) for name in digits.target_names],
            )
        },
        # A little larger than they are: at 8 px the deepest map of a ResNet is a single place.
        hints=Hints(image_size=12, views="digits", epochs=6),
    )
