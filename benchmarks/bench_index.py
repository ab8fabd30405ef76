"""An index of photos: whether its neighbours share a label, what it costs to add to it, and how soon it answers.

There is no peer but the index itself: adding is set beside building an index of as many images, learned features
beside the untrained network's, and an answer beside the whole command that gives it.
"""

import io
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
from PIL import Image

from benchmarks.rows import Row, at_least
from fewlabel.backbones.encoder import Encoder, load_encoder
from fewlabel.data.config import SourceConfig
from fewlabel.data.loading import load
from fewlabel.retrieval.config import IndexConfig
from fewlabel.retrieval.index import Index

__all__ = ["run"]

LEARNING = ("--backbone", "resnet18", "--image-size", "64", "--backbone-option", "small_stem=false")
EPOCHS = 100
BATCH_SIZE = 128
SIDE = 32
"""Pixels of the crops that the growing index holds."""
SMALL = ("--backbone", "timm/test_resnet", "--image-size", str(SIDE), "--max-steps", "1", "--batch-size", "16")
"""The network of the growing index: so small that what the index itself costs shows."""
QUERIES = 50
MOST_TIMES_AS_LONG = 1.5


def run(photos: Path, encoder: Path | None, many: int = 100_000, added: int = 10_000) -> list[Row]:
    """Measure it all.

    Args:
        photos: a folder with a sub-folder of JPEG photos for each class.
        encoder: pretrained on these; else it is pretrained here, which takes minutes.
        many: images of the index that grows.
        added: images that it grows by.
    """
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        if encoder is None:
            options = (*LEARNING, "--epochs", str(EPOCHS), "--batch-size", str(BATCH_SIZE))
            _command("pretrain", "--data", str(photos), *options, "--out", str(scratch / "pretrained"))
            encoder = scratch / "pretrained" / "encoder"
        _command("pretrain", "--data", str(photos), *SMALL, "--out", str(scratch / "small"))
        return [
            *_quality(photos, encoder, scratch),
            _growth(photos, load_encoder(scratch / "small" / "encoder"), scratch, many, added),
        ]


def _quality(photos: Path, encoder: Path, scratch: Path) -> list[Row]:
    out = scratch / "photos"
    built = _command("index build", "--data", str(photos), "--encoder", str(encoder), "--out", str(out))
    figures = built["metrics"]
    rows = []
    for name in ("precision_at_5", "mean_average_precision"):
        learned, untrained, gain = figures[name], figures[f"{name}_untrained"], figures[f"{name}_gain"]
        rows.append(
            Row(
                name=f"{name.replace('_', ' ')} over {figures['judged_images']:,.0f} labelled photos, beside untrained",
                ours=learned["mean"],
                peer=untrained["mean"],
                ratio=learned["mean"] / untrained["mean"],
                unit="",
                target="above untrained and chance",
                met=gain["low"] > 0 and learned["low"] > figures[f"{name}_chance"],
                note=f"{learned['low']:.3f} to {learned['high']:.3f}, gain {gain['mean']:+.3f} ({gain['low']:+.3f} to "
                f"{gain['high']:+.3f}); by chance {figures[f'{name}_chance']:.3f}; {built['backbone']}",
            )
        )
    files = sorted(photos.rglob("*.jpg"))[:QUERIES]
    index = Index.open(out)
    index.search([files[0]])
    seconds = []
    for file in files:
        started = time.perf_counter()
        index.search([file])
        seconds.append(time.perf_counter() - started)
    started = time.perf_counter()
    _command("query", str(files[0]), "--index", str(out))
    whole = time.perf_counter() - started
    rows.append(
        Row(
            name="from an image file to its 10 neighbours, beside the whole command `fewlabel query`",
            ours=float(np.median(seconds)),
            peer=whole,
            ratio=whole / float(np.median(seconds)),
            unit="s",
            target="as it comes",
            met=True,
            note=f"median of {len(files)} photos one by one, the encoder loaded; the slowest {max(seconds):.3f} s",
        )
    )
    return rows


def _growth(photos: Path, encoder: Encoder, scratch: Path, many: int, added: int) -> Row:
    """What it costs to add to a large index, beside building one of as many images."""
    tables = {name: scratch / f"{name}.parquet" for name in ("many", "alone", "added")}
    sources = [Image.open(path).convert("RGB") for path in sorted(photos.rglob("*.jpg"))]
    for seed, (name, table) in enumerate(tables.items()):
        _write_crops(table, sources, many if name == "many" else added, seed)
    cache = scratch / "cache"

    def read(name: str) -> SourceConfig:
        return SourceConfig(data=str(tables[name]), val_share=0, test_share=0, cache_dir=cache)

    def build(name: str) -> float:
        started = time.perf_counter()
        config = read(name)
        Index.build(scratch / f"{name}-index", encoder, load(config), config=IndexConfig(), reading=config)
        return time.perf_counter() - started

    whole, alone = build("many"), build("alone")
    index = Index.open(scratch / "many-index")
    started = time.perf_counter()
    config = read("added")
    counts = index.add(load(config), reading=config)
    seconds = time.perf_counter() - started
    row = at_least(
        1 / MOST_TIMES_AS_LONG,
        f"adding {added:,} images to an index of {many:,}, beside building one of {added:,}",
        seconds,
        alone,
        "s",
        lower_is_better=True,
        note=f"{counts.new:,} were new; building all {many:,} took {whole:.1f} s; crops of photos at {SIDE} px, "
        f"{encoder.config.name} with {encoder.num_features} features; {index.description.plan.factory}",
    )
    row["target"] = f"at most {MOST_TIMES_AS_LONG:g} times as long"
    return row


def _write_crops(table: Path, sources: Sequence[Image.Image], count: int, seed: int) -> None:
    """Write `count` squares of SIDE pixels, cropped at random from random photos, as PNG into a table."""
    generator = np.random.default_rng(seed)
    cells = []
    for number in range(count):
        photo = sources[generator.integers(len(sources))]
        side = int(generator.integers(SIDE, min(photo.size) + 1))
        left, top = (int(generator.integers(extent - side + 1)) for extent in photo.size)
        encoded = io.BytesIO()
        photo.resize((SIDE, SIDE), Image.Resampling.BILINEAR, (left, top, left + side, top + side)).save(encoded, "PNG")
        cells.append({"bytes": encoded.getvalue(), "path": f"{seed}-{number:06d}.png"})
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    pyarrow.parquet.write_table(pyarrow.table({"image": pyarrow.array(cells, kind)}), table)


def _command(name: str, *arguments: str) -> Any:
    """What a command answers as JSON."""
    command = [sys.executable, "-m", "fewlabel", *name.split(), *arguments, "--json"]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
