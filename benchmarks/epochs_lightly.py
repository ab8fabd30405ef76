"""The peer's side of the epochs benchmark: SimCLR with the settings of lightly's benchmark on CIFAR-10.

Batches of 128, SGD at 0.06 with momentum 0.9 and a weight decay of 5e-4, a cosine over the epochs, temperature 0.5,
views without blur. The network has ImageNet's stem, as on our side, and there are no more loader workers than cores.

`python -m benchmarks.epochs_lightly DATA OUT EPOCHS` trains on all training images of DATA, and leaves an encoder
directory OUT and `seconds.json` beside it, with the seconds from decoded images to weights.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import torch
from lightly.loss import NTXentLoss
from lightly.transforms import SimCLRTransform
from lightly.transforms.utils import IMAGENET_NORMALIZE
from torch.utils.data import DataLoader

from benchmarks.images import training_images
from benchmarks.training_lightly import Images, SimCLR
from fewlabel.backbones.encoder import save_encoder
from fewlabel.backbones.registry import create
from fewlabel.files import write_json

BATCH_SIZE, IMAGE_SIZE = 128, 32


def train(data: str, out: Path, epochs: int, seed: int, scratch: Path) -> None:
    source, store = training_images(data, 10**9, IMAGE_SIZE, scratch)
    pixels = store.batch(torch.arange(len(store))).pixels.permute(0, 2, 3, 1).numpy()
    torch.manual_seed(seed)
    loader = DataLoader(
        Images(pixels, SimCLRTransform(input_size=IMAGE_SIZE, gaussian_blur=0.0)),
        batch_size=BATCH_SIZE,
        shuffle=True,
        drop_last=True,
        num_workers=min(8, len(os.sched_getaffinity(0))),
        persistent_workers=True,
    )
    model = SimCLR("imagenet")
    criterion = NTXentLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=6e-2, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    started = time.perf_counter()
    for epoch in range(epochs):
        for (first, second), _ in loader:
            loss = criterion(model(first), model(second))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        schedule.step()
        print(f"epoch {epoch + 1} of {epochs}: {time.perf_counter() - started:.0f} s", flush=True)
    seconds = time.perf_counter() - started

    backbone = create("resnet18", image_size=IMAGE_SIZE, small_stem=False)
    # Torchvision's names are timm's.
    backbone.body.load_state_dict(model.backbone.state_dict())
    provenance = {"source": source.fingerprint, "command": "lightly's recipe"}
    mean, std = IMAGENET_NORMALIZE["mean"], IMAGENET_NORMALIZE["std"]
    save_encoder(out, backbone, mean=mean, std=std, bits=8, provenance=provenance)
    write_json(out.parent / "seconds.json", {"seconds": seconds})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("out", type=Path)
    parser.add_argument("epochs", type=int)
    parser.add_argument("seed", type=int)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        train(**vars(options), scratch=Path(folder))
