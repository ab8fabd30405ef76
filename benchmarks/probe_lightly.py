"""The peer's side of the probe benchmark: the linear evaluation of lightly's ImageNet benchmark.

Its own `LinearClassifier` under Lightning's Trainer: 90 epochs of SGD at batch 256 on augmented images (random
resized crops, mirrored half of the time), the encoder frozen and in evaluation mode. The images are decoded and in
memory before the clock starts, and the augmentations are torchvision's on tensors.

A process of `sides.Side`. It answers `probe N` with the seconds of N epochs and the probabilities of the
validation and the test images.
"""

import argparse
import logging
import os
import sys
import tempfile
import time
import warnings
from pathlib import Path

import torch
from lightly.utils.benchmarking import LinearClassifier
from pytorch_lightning import Trainer
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from benchmarks.sides import answers
from fewlabel.backbones.encoder import load_encoder
from fewlabel.data.config import SourceConfig
from fewlabel.data.loading import load
from fewlabel.data.sizes import stored_side
from fewlabel.data.store import ImageStore, open_store

EPOCHS, BATCH_SIZE = 90, 256


class Images(Dataset[tuple[Tensor, Tensor]]):
    """Decoded images in memory, augmented one by one."""

    def __init__(self, store: ImageStore, transform: v2.Transform) -> None:
        assert store.labels is not None
        self._pixels = store.batch(torch.arange(len(store))).pixels
        self._labels, self._transform = store.labels, transform

    def __len__(self) -> int:
        return len(self._pixels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self._transform(self._pixels[index]), self._labels[index]


def serve(data: str, encoder_directory: str, scratch: Path) -> None:
    answer = answers()
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    encoder = load_encoder(encoder_directory)
    source = load(SourceConfig(data=data))
    side = stored_side(encoder.image_size, source.median_side)
    stores = {
        split: open_store(source, split, side, cache_dir=scratch, workers=2, max_bad_share=0.0)
        for split in ("train", "val", "test")
    }
    normalise = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(encoder.mean, encoder.std)]
    crop = [v2.RandomResizedCrop(encoder.image_size), v2.RandomHorizontalFlip()]
    whole = [v2.Resize((encoder.image_size, encoder.image_size))]
    workers = min(8, len(os.sched_getaffinity(0)))
    train = DataLoader(
        Images(stores["train"], v2.Compose([*crop, *normalise])),
        batch_size=BATCH_SIZE,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=True,
    )
    judged = {
        split: DataLoader(Images(stores[split], v2.Compose([*whole, *normalise])), batch_size=BATCH_SIZE)
        for split in ("val", "test")
    }
    answer({"workers": workers})
    for line in sys.stdin:
        epochs = int(line.split()[1])
        classifier = LinearClassifier(
            encoder.backbone,
            batch_size_per_device=BATCH_SIZE,
            feature_dim=encoder.num_features,
            num_classes=len(source.class_names or ()),
            topk=(1,),
        )
        trainer = Trainer(
            max_epochs=epochs,
            accelerator="auto",
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=str(scratch),
        )
        started = time.perf_counter()
        trainer.fit(classifier, train)
        seconds = time.perf_counter() - started
        classifier.eval()
        with torch.no_grad():
            said = {
                split: torch.cat([classifier(images).softmax(dim=1) for images, _ in loader]).tolist()
                for split, loader in judged.items()
            }
        answer({"seconds": seconds, **said})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("encoder_directory")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        serve(**vars(options), scratch=Path(folder))
