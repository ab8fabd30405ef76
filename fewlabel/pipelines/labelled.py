"""What the commands that learn from labels share: the encoder they take, its images, and what is said of leaks."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewlabel.console import console, say
from fewlabel.data.config import SourceConfig
from fewlabel.errors import UserError
from fewlabel.pipelines.newest import newest_of
from fewlabel.supervised.config import FewLabelsConfig

if TYPE_CHECKING:
    from fewlabel.backbones.backbone import Backbone
    from fewlabel.backbones.encoder import Encoder
    from fewlabel.data.source import Source
    from fewlabel.data.store import ImageStore
    from fewlabel.supervised.few_labels import Part
    from fewlabel.supervised.leaks import Leak
    from fewlabel.supervised.subsets import Subset
    from fewlabel.training.feature_store import Features

__all__ = [
    "LEARNED_FROM_LABELS",
    "find_encoder",
    "labelled_part",
    "open_labelled",
    "saw_labels",
    "say",
    "settled_for",
    "subsets_of",
    "tell_curve",
    "tell_leaks",
]


LEARNED_FROM_LABELS = (
    "Take care: this encoder was fine-tuned on labels, so whatever it gains may come from these. Give the encoder that "
    "pretraining made to learn what pretraining is worth."
)


def find_encoder(given: Path | None) -> Path:
    """The encoder directory that was `given`, as such or as the run that made it; else the newest in runs/.

    Raises:
        UserError: none was given, and there is none.
    """
    from fewlabel.tracking.catalogue import newest_encoder

    if given is not None:
        inside = (given / "encoder", given / "classifier" / "encoder")
        return next((path for path in inside if (path / "config.json").is_file()), given)
    return newest_of("encoder", newest_encoder, "pretrain")


def open_labelled(
    source: "Source", backbone: "Backbone", config: SourceConfig, *, ordinal: bool
) -> "dict[str, ImageStore]":
    """The splits of a source with labels, at the size that suits the backbone.

    Raises:
        UserError: there are no labels to learn from or to judge by, or `ordinal` is said of labels without an order.
    """
    from fewlabel.data.sizes import stored_side
    from fewlabel.data.source import require_labels
    from fewlabel.data.store import open_split
    from fewlabel.supervised.linear_probe import targets_of

    names = require_labels(source)
    if ordinal and source.multi_label:
        raise UserError(
            f"--ordinal is for classes that are grades, but an image of {source.name} may have several labels "
            f"({', '.join(names[:3])} ...), which have no order. Leave it out."
        )
    side = stored_side(backbone.image_size, source.median_side)
    stores = {split: open_split(source, split, side, config) for split in source}
    test = stores.get("test")
    if test is None or test.labels is None or not len(test.labelled):
        raise UserError(
            f"{source.name} has no labelled test images to judge by: give a --test-share above 0, or a test split "
            "with labels."
        )
    if targets_of(test.labels[test.labelled], "none") is None:
        raise UserError(
            f"The {len(test.labelled)} labelled test images of {source.name} all have the same label, so no figure "
            "can be computed. Give a larger --test-share, or a test split with images of each class."
        )
    channels = backbone.in_chans
    if channels != source.channels:
        say(f"The encoder takes {channels} channels: the images, of {source.channels}, are converted.")
    return stores


def saw_labels(encoder: "Encoder") -> bool:
    """Whether labels had a part in the encoder's weights."""
    return bool(encoder.config.provenance.get("labels"))


def settled_for(source: "Source", config: FewLabelsConfig) -> FewLabelsConfig:
    """`config` with the shares that suit the labels of `source`, where the user named none.

    Raises:
        UserError: there are no labels to learn from.
    """
    from fewlabel.data.origin import labels_of
    from fewlabel.data.source import require_labels

    names, labels = require_labels(source), labels_of(source["train"])
    assert labels is not None
    known = (labels >= 0) if labels.ndim == 1 else (labels >= 0).any(axis=1)
    return config.settled(int(known.sum()), len(names))


def subsets_of(store: "ImageStore", config: FewLabelsConfig, seed: int) -> "list[Subset]":
    """The subsets of a split's labels that `config` asks for, by positions in the store."""
    from fewlabel.supervised.subsets import fractions_of, shots_of

    images, draw = (store.ids, store.labels, store.groups), (config.draws, seed)
    if config.shots:
        return shots_of(*images, config.shots, *draw)
    return fractions_of(*images, config.labels, *draw)


def labelled_part(store: "ImageStore", features: "Features") -> "Part":
    """The labelled images of a split."""
    from fewlabel.supervised.few_labels import Part

    assert store.labels is not None
    every = Part(store.ids, features.values, store.labels, store.groups)
    return every.at(store.labelled)


def tell_leaks(leaks: "list[Leak]") -> None:
    """Say which images stand on two sides."""
    if not leaks:
        say("No image stands in two splits, as far as copies can be seen.")
        return
    kinds = sorted({leak.kind for leak in leaks})
    counts = ", ".join(f"{sum(leak.kind == kind for leak in leaks)} {kind}" for kind in kinds)
    console.print(f"[bold yellow]Images that stand in two splits:[/] {counts}. result.json lists all.", highlight=False)
    for leak in leaks[:5]:
        say(f"  {leak.kind}: {' '.join(leak.left)} and {' '.join(leak.right)}, similarity {leak.similarity:.3f}")


def tell_curve(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the main figures of `figures_of`, a row for each method and amount of labels."""
    from rich.table import Table

    from fewlabel.supervised.methods import method_name
    from fewlabel.tracking.report import shown

    table = Table("labelled", "draws", "method", "AUROC", "accuracy", box=None)
    for row in sorted(rows, key=lambda row: row["labels"]):
        figures = [shown(row[name]) for name in ("auroc", "accuracy")]
        table.add_row(f"{row['labels']:,}", str(row["draws"]), method_name(row["method"]), *figures)
    console.print(table)
