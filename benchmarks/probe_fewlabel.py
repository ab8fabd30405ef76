"""Our side of the probe benchmark: features once, then logistic regression to convergence.

A process of `sides.Side`. It answers `probe` with the seconds from decoded images to a classifier, its penalty chosen
on the validation images, and the probabilities of these and of the test images.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.sides import answers
from fewlabel.backbones.encoder import load_encoder
from fewlabel.data.config import SourceConfig
from fewlabel.data.loading import load
from fewlabel.data.sizes import stored_side
from fewlabel.data.store import open_store
from fewlabel.supervised.linear_probe import choose_penalty, fit_probe
from fewlabel.training.config import TrainingConfig
from fewlabel.training.features import extract_features
from fewlabel.training.processes import choose_precision, make_accelerator

JUDGED = ("val", "test")


def serve(data: str, encoder_directory: str, scratch: Path) -> None:
    answer = answers()
    encoder = load_encoder(encoder_directory)
    source = load(SourceConfig(data=data))
    side = stored_side(encoder.image_size, source.median_side)
    stores = {
        split: open_store(source, split, side, cache_dir=scratch, workers=2, max_bad_share=0.0)
        for split in ("train", "val", "test")
    }
    accelerator = make_accelerator(TrainingConfig(), choose_precision("auto"))
    encoder.to(accelerator.device)
    train, val, test = (stores[split].labels for split in ("train", "val", "test"))
    assert train is not None
    assert val is not None
    assert test is not None
    facts = {"images": len(train), "fingerprint": source.fingerprint[:16], "side": side}
    answer(facts | {"labels": {split: stores[split].labels.tolist() for split in JUDGED}})
    for _ in sys.stdin:
        started = time.perf_counter()
        features = {
            split: extract_features(encoder, store, torch.arange(len(store)), accelerator)
            for split, store in stores.items()
            if split != "test"
        }
        penalty = choose_penalty(
            features["train"], train, None, class_weights="none", validation=(features["val"], val), seed=0
        )
        probe = fit_probe(
            features["train"], train, len(source.class_names or ()), penalty=penalty.value, class_weights="none"
        )
        seconds = time.perf_counter() - started
        features["test"] = extract_features(encoder, stores["test"], torch.arange(len(test)), accelerator)
        answer({"seconds": seconds} | {split: probe.probabilities(features[split]).tolist() for split in JUDGED})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("encoder_directory")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        serve(**vars(options), scratch=Path(folder))
