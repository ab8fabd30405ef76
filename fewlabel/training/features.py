"""Features of a split: extracted in evaluation mode, stored by index, checked for gaps; and kNN on them."""

from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fewlabel.data.store import ImageStore
from fewlabel.errors import Diverged

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["Interval", "extract_features", "knn_accuracy", "knn_probabilities", "wilson_interval"]


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % interval."""

    mean: float
    low: float
    high: float


@torch.no_grad()
def extract_features(
    encoder: nn.Module, store: ImageStore, indices: Tensor, accelerator: "Accelerator", batch_size: int = 256
) -> Tensor:
    """Features of the images `indices` of `store`, in that order.

    Every process extracts a share. `encoder` maps raw pixels `(B, C, S, S)` to `(B, D)`; it is put into evaluation
    mode, and back into the mode it was in.

    Returns:
        `(len(indices), D)` float32 on the CPU, the same on every process.

    Raises:
        Diverged: a feature is missing, NaN or infinite.
    """
    modes = {module: module.training for module in encoder.modules()}
    encoder.eval()
    rank, world = accelerator.process_index, accelerator.num_processes
    own = torch.arange(len(indices))[rank::world]
    parts = []
    try:
        for places in torch.split(own, batch_size):
            pixels = store.batch(indices[places]).pixels.to(accelerator.device, non_blocking=True)
            with accelerator.autocast():
                parts.append(encoder(pixels).float())
    finally:
        for module, mode in modes.items():
            module.training = mode
    found = torch.cat(parts) if parts else torch.empty(0, device=accelerator.device)
    if world > 1:
        found = accelerator.pad_across_processes(found)
        placed = accelerator.pad_across_processes(own.to(accelerator.device), pad_index=-1)
        found, own = accelerator.gather(found), accelerator.gather(placed).cpu()
    kept = own >= 0
    features = torch.full((len(indices), found.shape[1]), torch.nan)
    features[own[kept]] = found.cpu()[kept]
    bad = (~features.isfinite().all(dim=1)).nonzero().flatten()
    if len(bad):
        names = ", ".join(store.ids[int(indices[place])] for place in bad[:3])
        raise Diverged(
            f"{len(bad)} of {len(indices)} images have no finite features (first: {names}). "
            "The encoder's weights are spoilt: go back to an earlier checkpoint or train with a lower --lr."
        )
    return features


def knn_accuracy(
    bank: Tensor, bank_labels: Tensor, queries: Tensor, labels: Tensor, k: int = 20, temperature: float = 0.1
) -> Interval:
    """Share of `queries` whose label the vote of their k nearest bank features gives (see `knn_probabilities`).

    Args:
        bank: `(M, D)` float. bank_labels: `(M,)` int64.
        queries: `(Q, D)` float. labels: `(Q,)` int64.
        k: neighbours, at most M are used.
        temperature: of the vote.
    """
    classes = int(max(bank_labels.max(), labels.max())) + 1
    votes = knn_probabilities(bank, bank_labels, queries, classes, k, temperature)
    correct: NDArray[np.bool_] = (votes.argmax(dim=1) == labels).numpy()
    return wilson_interval(int(correct.sum()), len(correct))


def knn_probabilities(
    bank: Tensor, bank_labels: Tensor, queries: Tensor, classes: int, k: int = 20, temperature: float = 0.1
) -> Tensor:
    """The share that each class, or the yes of each label, has in a weighted vote of the k nearest bank features.

    Cosine similarity, votes weighted by exp(similarity / temperature) (Wu et al. 2018, section 3.4).

    Args:
        bank: `(M, D)` float. bank_labels: `(M,)` int64, or `(M, K)` of 1 (yes), 0 (no) and -1 (unknown).
        queries: `(Q, D)` float.
        classes: K.
        k: neighbours, at most M are used.
        temperature: of the vote.

    Returns:
        `(Q, K)` float64. Of classes, rows with sum 1. Of labels, the neighbours that know one vote on it; where none
        does, it is the share of yes among all of the bank, and 0.5 where nobody knows.
    """
    import faiss

    normal, asked = (nn.functional.normalize(part.float()).numpy() for part in (bank, queries))
    index = faiss.IndexFlatIP(normal.shape[1])
    index.add(normal)
    similarities, neighbours = index.search(asked, min(k, len(normal)))
    weights = torch.from_numpy(similarities).double().div(temperature).exp()
    said = bank_labels[torch.from_numpy(neighbours)]
    if bank_labels.ndim == 1:
        votes = torch.zeros(len(asked), classes, dtype=torch.float64).scatter_add_(1, said, weights)
        return votes / votes.sum(dim=1, keepdim=True)
    known = (weights[:, :, None] * (said >= 0)).sum(dim=1)
    yes = (weights[:, :, None] * (said == 1)).sum(dim=1)
    overall = ((bank_labels == 1).sum(dim=0).double() / (bank_labels >= 0).sum(dim=0)).nan_to_num(0.5)
    return torch.where(known > 0, yes / known, overall)


def wilson_interval(successes: int, trials: int) -> Interval:
    """A proportion with its 95 % Wilson score interval (Wilson 1927), sound near 0 and 1 and for few trials."""
    z = 1.959963984540054
    share = successes / trials
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half))
