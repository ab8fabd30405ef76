"""How good a representation is while it forms: kNN on held-out labelled images, health figures without labels."""

from typing import TYPE_CHECKING

import torch
from torch import nn

from fewlabel.data.store import ImageBatch, ImageStore
from fewlabel.ssl.health import health
from fewlabel.ssl.simclr import SimCLR
from fewlabel.training.features import Interval, extract_features, knn_accuracy

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["health_on", "knn_on"]


def knn_on(
    featurizer: nn.Module,
    bank: ImageStore,
    queries: ImageStore,
    accelerator: "Accelerator",
    *,
    seed: int,
    most_bank: int,
    most_queries: int,
) -> Interval | None:
    """kNN accuracy of labelled `queries` by the labelled images of `bank`; None where either has no labels.

    None too where an image has several labels: there is no one answer whose accuracy could be told.
    Of larger splits a fixed random part is taken, the same for a seed.
    """
    chosen, labels = [], []
    for number, (store, most) in enumerate(((bank, most_bank), (queries, most_queries))):
        labelled = store.labelled
        if store.labels is None or store.labels.ndim == 2 or len(labelled) == 0:
            return None
        order = torch.randperm(len(labelled), generator=torch.Generator().manual_seed(2 * seed + number))
        indices = labelled[order[:most].sort().values]
        chosen.append(extract_features(featurizer, store, indices, accelerator))
        labels.append(store.labels[indices])
    return knn_accuracy(chosen[0], labels[0], chosen[1], labels[1])


@torch.no_grad()
def health_on(
    task: SimCLR, store: ImageStore, accelerator: "Accelerator", *, seed: int, most: int = 512
) -> dict[str, float]:
    """Health figures (see `health`) of the projections of two views of up to `most` images, in evaluation mode.

    Empty for a store of fewer than three images, of which nothing can be said.
    """
    if len(store) < 3:
        return {}
    device = accelerator.device
    order = torch.randperm(len(store), generator=torch.Generator().manual_seed(seed))
    batch = ImageBatch(*(part.to(device) for part in store.batch(order[:most].sort().values)))
    generator = torch.Generator(device).manual_seed(seed)
    task.eval()
    try:
        with accelerator.autocast():
            first, second = task.project(batch, generator)
    finally:
        task.train()
    return health(first.float(), second.float())
