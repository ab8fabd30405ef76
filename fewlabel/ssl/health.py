"""Figures that tell without labels whether features are any good, and whether they have collapsed."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["alignment", "collapse_warning", "effective_rank", "feature_std", "health", "uniformity"]

COLLAPSED_UNIFORMITY = -0.04
"""About that of unit vectors with a mean cosine similarity of 0.99; evenly spread ones have about -4."""

COLLAPSED_RANK = 2.0
"""Features that vary along one line only, about any mean, have at most this effective rank."""

_ROWS = 1024
"""Rows of the similarity matrix held at a time."""


@torch.no_grad()
def health(first: Tensor, second: Tensor) -> dict[str, float]:
    """Label-free figures of the features of N images in two views, which say how a contrastive training goes.

    Meant for the projections that the loss compares, in evaluation mode; or for the backbone's features.

    Args:
        first: `(N, D)` floating-point features of one view of each image; their lengths don't count.
        second: the same images' other view, in the same order.

    Returns:
        `alignment`, `uniformity` (mean of the two views), `effective_rank` and `feature_std` (both views
        together), as the functions of these names define them.

    Raises:
        ValueError: shapes that don't fit together, or fewer than two images.
    """
    if first.ndim != 2 or first.shape != second.shape or len(first) < 2:
        raise ValueError(
            "two (N, D) tensors of the same shape with N > 1 expected, "
            f"not {tuple(first.shape)} and {tuple(second.shape)}"
        )
    both = torch.cat([first, second])
    return {
        "alignment": alignment(first, second),
        "uniformity": (uniformity(first) + uniformity(second)) / 2,
        "effective_rank": effective_rank(both),
        "feature_std": feature_std(both),
    }


def alignment(first: Tensor, second: Tensor) -> float:
    """Mean squared distance of an image's two views on the unit sphere, from 0 to 4.

    Source: Wang & Isola, Understanding Contrastive Representation Learning, arXiv 2005.10242, section 4.1.2,
    alpha = 2.
    """
    return float((_unit(first) - _unit(second)).square().sum(dim=1).mean())


def uniformity(features: Tensor) -> float:
    """Log of the mean over pairs of images of exp(-2 d^2), d their distance on the unit sphere.

    0 when all are the same, about -4 when they are evenly spread.

    Source: Wang & Isola, arXiv 2005.10242, section 4.1.2, t = 2.
    """
    unit, count = _unit(features), len(features)
    total = torch.zeros((), dtype=torch.float64, device=features.device)
    for start in range(0, count, _ROWS):
        rows = unit[start : start + _ROWS]
        # d^2 = 2 - 2 cos for unit vectors.
        terms = (4 * (rows @ unit.T) - 4).exp()
        terms[:, start : start + _ROWS].fill_diagonal_(0)
        total += terms.sum(dtype=torch.float64)
    return float((total / (count * (count - 1))).log())


def effective_rank(features: Tensor) -> float:
    """Number of directions that the features fill: exp of the entropy of the normalised singular values.

    From 1 to min(N, D), for `(N, D)` unit-length features, about the origin.

    Source: Roy & Vetterli, The Effective Rank, EUSIPCO 2007, definition 1.
    """
    unit = _unit(features).double()
    # The smaller Gram matrix has the squared singular values, at a fraction of the cost.
    gram = unit.T @ unit if unit.shape[0] > unit.shape[1] else unit @ unit.T
    singular = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()
    share = singular / singular.sum()
    return float(torch.special.entr(share).sum().exp())


def feature_std(features: Tensor) -> float:
    """Mean over dimensions of the standard deviation of unit-length features `(N, D)`.

    1/sqrt(D) when they are evenly spread, 0 when all are the same.

    Source: Chen & He, Exploring Simple Siamese Representation Learning, arXiv 2011.10566, section 4.1.
    """
    return float(_unit(features).std(dim=0).mean())


def collapse_warning(figures: Mapping[str, float]) -> str | None:
    """What to tell the user when the figures of `health` say that the features have collapsed, else None.

    Collapsed are features of different images that have nearly one direction (a uniformity above
    `COLLAPSED_UNIFORMITY`), or that vary along one line only (an effective rank below `COLLAPSED_RANK`).
    An untrained backbone's features may be so; a training that works leaves this state in its first steps.
    """
    uniform, rank = figures["uniformity"], figures["effective_rank"]
    if uniform > COLLAPSED_UNIFORMITY:
        found = f"different images have nearly the same features (uniformity {uniform:.3f}, about -4 is good)"
    elif rank < COLLAPSED_RANK:
        found = f"the features vary along one line only (effective rank {rank:.2f})"
    else:
        return None
    return (
        f"The features have collapsed: {found}. If this stays, lower --lr, take larger batches, "
        "or look with `fewlabel views` whether the augmentations leave anything to tell the images apart by."
    )


def _unit(features: Tensor) -> Tensor:
    return F.normalize(features.to(torch.promote_types(features.dtype, torch.float32)), dim=1)
