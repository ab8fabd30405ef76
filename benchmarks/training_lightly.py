"""The peer's side of the training benchmark: SimCLR as lightly documents it for plain PyTorch.

Model, transform, loader, loss and optimiser are those of the example in lightly's documentation, with two
differences: the stem, as on our side, and no more loader workers than there are cores.

A process of `sides.Side`. It answers `train N` with the seconds of N steps.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torchvision
from lightly.loss import NTXentLoss
from lightly.models.modules import SimCLRProjectionHead
from lightly.transforms import SimCLRTransform
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.images import training_images
from benchmarks.sides import answers


class Images(Dataset[tuple[list[Tensor], int]]):
    """Decoded images in memory, made into views one by one, as torchvision's CIFAR10 does it."""

    def __init__(self, pixels: npt.NDArray[np.uint8], transform: SimCLRTransform) -> None:
        self._pixels, self._transform = pixels, transform

    def __len__(self) -> int:
        return len(self._pixels)

    def __getitem__(self, index: int) -> tuple[list[Tensor], int]:
        return self._transform(Image.fromarray(self._pixels[index])), 0


class SimCLR(nn.Module):
    def __init__(self, stem: str) -> None:
        super().__init__()
        backbone = torchvision.models.resnet18()
        if stem == "small":
            backbone.conv1 = nn.Conv2d(3, 64, kernel_size=3, padding=1, bias=False)
            backbone.maxpool = nn.Identity()
        backbone.fc = nn.Identity()
        self.backbone = backbone
        self.projection_head = SimCLRProjectionHead(512, 512, 128)

    def forward(self, views: Tensor) -> Tensor:
        return self.projection_head(self.backbone(views))


def batches(loader: DataLoader[tuple[list[Tensor], int]]) -> Iterator[list[Tensor]]:
    while True:
        for views, _ in loader:
            yield views


def serve(data: str, images: int, batch_size: int, image_size: int, stem: str, scratch: Path) -> None:
    answer = answers()
    _, store = training_images(data, images, image_size, scratch)
    pixels = store.batch(torch.arange(len(store))).pixels.permute(0, 2, 3, 1).numpy()
    workers = min(8, len(os.sched_getaffinity(0)))
    loader = DataLoader(
        Images(pixels, SimCLRTransform(input_size=image_size, gaussian_blur=0.0)),
        batch_size=batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
    )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = SimCLR(stem).to(device)
    criterion = NTXentLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.06)
    answer({"precision": "fp32", "workers": workers})
    drawn = batches(loader)
    for line in sys.stdin:
        started = time.perf_counter()
        for _ in range(int(line.split()[1])):
            first, second = (views.to(device) for views in next(drawn))
            loss = criterion(model(first), model(second))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize()
        answer({"seconds": time.perf_counter() - started})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("images", type=int)
    parser.add_argument("batch_size", type=int)
    parser.add_argument("image_size", type=int)
    parser.add_argument("stem", choices=("small", "imagenet"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        serve(**vars(options), scratch=Path(folder))
