"""What `index build` says of its neighbours: how often they share a label, and a look at some of them."""

import io
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

from fewlabel.console import console, say, track
from fewlabel.data.config import SourceConfig

if TYPE_CHECKING:
    from fewlabel.data.source import Source
    from fewlabel.data.store import ImageStore
    from fewlabel.retrieval.contact_sheet import Tile
    from fewlabel.retrieval.index import Index
    from fewlabel.retrieval.quality import Quality
    from fewlabel.tracking.record import Picture
    from fewlabel.tracking.run import Run

__all__ = ["judge", "show_examples"]

_EXAMPLES = 12
_NEIGHBOURS = 5
_CHUNK = 1024


def judge(index: "Index", source: "Source", reading: SourceConfig, images: int, seed: int) -> "Quality | None":
    """How often neighbours among labelled images share a label, beside the same network untrained.

    The neighbours are those of exact search by the encoder's own features.

    Args:
        index: made from `source`.
        source: where labels and groups are from.
        reading: threads and cache for the images.
        images: that are judged, drawn at random where more have labels; exact copies count once.
        seed: of the draw, the untrained weights and the intervals.

    Returns:
        None where nothing is asked, and where no image has another one of its label outside its group.
    """
    if not images or source.class_names is None:
        return None
    import numpy as np
    import torch

    from fewlabel.backbones.encoder import untrained
    from fewlabel.data.store import cache_folder, open_split
    from fewlabel.retrieval.quality import LabelledImages, measure
    from fewlabel.training.config import TrainingConfig
    from fewlabel.training.feature_store import features_of
    from fewlabel.training.features import extract_features
    from fewlabel.training.processes import make_accelerator

    side = index.description.encoder.side
    stores = {split: open_split(source, split, side, reading) for split in source}
    places = _different(source, stores)
    if len(places) > images:
        drawn = np.random.default_rng(seed).choice(len(places), images, replace=False)
        places = [places[place] for place in np.sort(drawn)]
    rows = {split: torch.tensor([row for own, row in places if own == split], dtype=torch.int64) for split in stores}
    rows = {split: found for split, found in rows.items() if len(found)}
    if not rows:
        return None
    accelerator = make_accelerator(TrainingConfig(), "fp32")
    learned = features_of(index.encoder, stores, source.fingerprint, accelerator, cache_dir=cache_folder(reading))
    fresh = untrained(index.encoder, seed).to(accelerator.device)
    labels, groups, of_learned, of_fresh = [], [], [], []
    for split, chosen in rows.items():
        store = stores[split]
        assert store.labels is not None
        labels.append(store.labels[chosen])
        groups += [(store.groups or store.ids)[row] for row in chosen.tolist()]
        of_learned.append(learned[split].values[chosen])
        chunks = torch.split(chosen, _CHUNK)
        of_fresh += [
            extract_features(fresh, store, chunk, accelerator)
            for chunk in track(chunks, f"Untrained features of {split}", total=len(chunks))
        ]
    quality = measure(
        LabelledImages.of(torch.cat(labels).numpy(), groups),
        torch.cat(of_learned).numpy(),
        torch.cat(of_fresh).numpy(),
        index.description.plan.metric,
        seed,
    )
    if quality is None:
        say("No labelled image has another one of its label outside its group: no neighbours can be judged.")
    else:
        _tell(quality)
    return quality


def show_examples(index: "Index", record: "Run", seed: int) -> None:
    """Leave images and their nearest neighbours, drawn at random: `neighbours.png` in the run, and a table in W&B.

    The table has pictures, labels and similarities, and no name of a file: it may be a patient's.
    """
    import numpy as np

    from fewlabel.retrieval.contact_sheet import Strip, Tile, draw_contact_sheet

    keys = np.unique(index.manifest.keys)
    drawn = np.random.default_rng(seed).choice(keys, min(_EXAMPLES, len(keys)), replace=False)
    found = index.search_features(index.features(drawn), _NEIGHBOURS, without=drawn)
    strips, rows = [], []
    for key, hits in zip(drawn.tolist(), found, strict=True):
        (query, *_) = index.manifest.at(index.manifest.rows_of(key))
        labels = ", ".join(query.labels)
        tiles = tuple(
            Tile(index.thumbnail(hit.entry), (f"{hit.similarity:.3f}", ", ".join(hit.entry.labels), hit.entry.id))
            for hit in hits
        )
        lead = Tile(index.thumbnail(query), ("query", labels, query.id))
        strips.append(Strip(query.id, lead, tiles))
        cells = [_cell(tile, " ".join(tile.lines[:2])) for tile in tiles]
        rows.append([_cell(lead, labels), *cells, *[None] * (_NEIGHBOURS - len(cells))])
    draw_contact_sheet(record.directory / "neighbours.png", strips)
    record.log_table("neighbours", ["query", *(f"neighbour {rank}" for rank in range(1, _NEIGHBOURS + 1))], rows)


def _different(source: "Source", stores: "Mapping[str, ImageStore]") -> list[tuple[str, int]]:
    """Split and position of the labelled images, of exact copies the first alone: they find each other anyhow."""
    from fewlabel.data.origin import column

    found: dict[bytes, tuple[str, int]] = {}
    for split, store in stores.items():
        content = dict(zip(column(source[split], "id"), source.contents[split], strict=True))
        for position in store.labelled.tolist():
            found.setdefault(content[store.ids[position]], (split, position))
    return list(found.values())


def _cell(tile: "Tile", caption: str) -> "Picture":
    from PIL import Image

    from fewlabel.tracking.record import Picture

    with Image.open(io.BytesIO(tile.picture)) as opened:
        return Picture(opened.convert("RGB"), caption)


def _tell(quality: "Quality") -> None:
    from rich.table import Table

    from fewlabel.tracking.report import shown

    table = Table("", "this encoder", "untrained", "chance", box=None)
    for name, figure in quality.learned.items():
        words = name.replace("precision_at_", "precision@").replace("_", " ")
        table.add_row(words, shown(asdict(figure)), shown(asdict(quality.untrained[name])), shown(quality.chance[name]))
    console.print(table)
    say(
        f"Neighbours with the query's label: {quality.queries:,} queries, each among the {quality.images:,} labelled "
        "images outside its group."
    )
