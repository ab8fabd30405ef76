"""How far two views agree on which images are alike: what features are worth, told without labels."""

from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor
from torch.nn import functional as F

from fewlabel.data.store import ImageStore
from fewlabel.data.views import TwoViews
from fewlabel.errors import Diverged

if TYPE_CHECKING:
    from accelerate import Accelerator

    from fewlabel.backbones.featurizer import Featurizer

__all__ = ["NEIGHBOURS", "agreement_on", "mutual_neighbours"]

NEIGHBOURS: Final = 10
"""Nearest images that are compared (Huh et al. 2024, section 2)."""

_EQUAL: Final = 1e-6
"""Cosines that differ by less are equal: a few times the rounding of float32."""

_ROWS: Final = 1024
"""Rows of the similarity matrix held at a time."""


@torch.no_grad()
def mutual_neighbours(first: Tensor, second: Tensor, k: int = NEIGHBOURS, *, seed: int = 0) -> Tensor:
    """For each image the share of its k nearest others by one view that are so by the other view too.

    Nearest by cosine similarity. Equally near images are ranked by chance, in each view anew: else features that have
    collapsed to a point would look perfect. Features that say nothing get what chance gives, k / (N - 1).

    Args:
        first: `(N, D)` floating-point features of one view of each image.
        second: `(N, E)` of the same images' other view, in the same order.
        k: neighbours; at most N - 1 are taken.
        seed: of that chance.

    Returns:
        `(N,)` float32 from 0 to 1, on the CPU.

    Raises:
        ValueError: the numbers of rows differ, or are below 2.

    Source: Huh et al., The Platonic Representation Hypothesis, arXiv:2405.07987, appendix A (mutual k-nearest
    neighbours), there between two networks.
    """
    count = len(first)
    if first.ndim != 2 or second.ndim != 2 or len(second) != count or count < 2:
        raise ValueError(f"expected (N, D) and (N, E) with N > 1, not {tuple(first.shape)} and {tuple(second.shape)}")
    k = min(k, count - 1)
    generator = torch.Generator(first.device).manual_seed(seed)
    units = [F.normalize(view.float(), dim=1) for view in (first, second)]
    shares = []
    for start in range(0, count, _ROWS):
        near = [_nearest(unit, start, k, generator) for unit in units]
        shares.append((near[0][:, :, None] == near[1][:, None, :]).sum(dim=(1, 2)) / k)
    return torch.cat(shares).float().cpu()


def _nearest(unit: Tensor, start: int, k: int, generator: torch.Generator) -> Tensor:
    """The k nearest others (n, k) of some rows of `unit`."""
    # Near 1, float32 has room for a few different chances only.
    similarity = (unit[start : start + _ROWS] @ unit.T).double()
    chance = torch.rand(similarity.shape, generator=generator, dtype=similarity.dtype, device=unit.device)
    similarity += _EQUAL * chance
    similarity[:, start : start + _ROWS].fill_diagonal_(-torch.inf)
    return similarity.topk(k, dim=1).indices


@torch.no_grad()
def agreement_on(
    featurizer: "Featurizer",
    views: TwoViews,
    store: ImageStore,
    indices: Tensor,
    accelerator: "Accelerator",
    *,
    seed: int,
    batch_size: int = 256,
) -> Tensor:
    """`mutual_neighbours` of the features of two views of the images `indices` of `store`.

    The same on every process that calls it, as each looks at all images, in evaluation mode.

    Args:
        featurizer: of the backbone, on the accelerator's device; it is left in the mode that it was in.
        views: on the scale from 0 to 1 and of the featurizer's image size.
        store: where the images are.
        indices: (n,) int64, 2 or more.
        accelerator: device and precision.
        seed: of the views, which are the same for a seed and these images.
        batch_size: images at a time.

    Returns:
        (n,) float32, on the CPU.

    Raises:
        Diverged: features that are NaN or infinite.
    """
    modes = {module: module.training for module in featurizer.modules()}
    featurizer.eval()
    generator = torch.Generator(accelerator.device).manual_seed(seed)
    found: list[list[Tensor]] = [[], []]
    try:
        for chunk in torch.split(indices, batch_size):
            batch = store.batch(chunk)
            pixels, aspect = batch.pixels.to(accelerator.device), batch.aspect.to(accelerator.device)
            for side, view in zip(found, views(pixels, aspect, generator), strict=True):
                with accelerator.autocast():
                    side.append(featurizer.backbone(featurizer.normalize(view)).float())
    finally:
        for module, mode in modes.items():
            module.training = mode
    first, second = (torch.cat(side) for side in found)
    if not (first.isfinite().all() and second.isfinite().all()):
        raise Diverged(
            f"The features of {len(indices)} images are not all finite numbers, so that their neighbours can't be "
            "told. The weights are spoilt: train with a lower --lr."
        )
    return mutual_neighbours(first, second, seed=seed)
