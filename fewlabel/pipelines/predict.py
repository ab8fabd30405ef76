"""`fewlabel predict`: what a classifier says of images, as a table."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewlabel.console import as_typed, say, track
from fewlabel.data.config import SourceConfig
from fewlabel.errors import UserError
from fewlabel.pipelines.configuration import as_dict
from fewlabel.pipelines.newest import newest_of
from fewlabel.pipelines.outputs import check_ending, refuse_existing, write_table
from fewlabel.pipelines.sources import keep_left_out, load_all, record_of, shown_alike
from fewlabel.tracking.config import RunConfig

if TYPE_CHECKING:
    from torch import Tensor

    from fewlabel.data.source import Source
    from fewlabel.data.store import ImageStore
    from fewlabel.supervised.classifier import Classifier

COMMAND = "predict"

_CHUNK = 2048
"""Images between two steps of the progress bar."""


@dataclass(frozen=True)
class Config:
    """Say what a classifier sees on images: a table with a row for each."""

    classifier: Path | None = None
    """Classifier directory, or the run that made it. Default: the newest in runs/."""
    source: SourceConfig = field(default_factory=SourceConfig)
    """All images of all splits, with labels or without."""
    table: Path | None = None
    """The .csv or .parquet file to write. Default: predictions.csv in the run directory."""
    overwrite: bool = False
    """Replace --table if it exists."""
    run: RunConfig = field(default_factory=RunConfig)
    json: bool = False
    """Print the result alone, as JSON, on standard output."""

    def __post_init__(self) -> None:
        """Check the table's name, before anything is computed."""
        check_ending("--table", self.table)


def run(config: Config) -> int:
    """Run the command; its exit status."""
    from fewlabel.supervised.classifier import load_classifier
    from fewlabel.tracking.run import Run

    refuse_existing("--table", config.table, config.overwrite)
    directory = _find(config.classifier)
    config = replace(config, classifier=directory.resolve(), source=config.source.resolved())
    classifier = load_classifier(directory)
    config = replace(config, source=shown_alike(config.source, classifier.provenance))
    source = load_all(config.source)
    made_by = str(classifier.provenance.get("run", directory))
    backbone = classifier.featurizer.backbone.name
    with Run.create(
        COMMAND,
        as_dict(replace(config, run=replace(config.run, out=None), json=False)),
        out=config.run.out,
        slug=f"{backbone}-{source.name}",
        parents={
            "classifier": f"{made_by}@{(classifier.hash or '')[:16]}",
            "source": f"{source.name}@{source.fingerprint}",
        },
        source=record_of(source, config.source),
        project=config.run.project,
    ) as record:
        stores = _opened(source, classifier, config.source)
        found = _probabilities(classifier, stores)
        metrics = _judged(classifier, source, stores, found)
        table = config.table or record.directory / "predictions.csv"
        write_table(_columns(classifier, source, stores, found), table)
        bad = [*source.bad, *(image for store in stores.values() for image in store.bad)]
        keep_left_out(source, bad, record.directory)
        images = sum(map(len, stores.values()))
        result = record.finish(
            {**metrics, "images": images},
            table=str(table),
            classifier=str(directory),
            backbone=backbone,
            bad_images=[{"id": image.id, "reason": image.reason} for image in bad],
        )
        if bad:
            say(f"{len(bad)} images can't be read and have no row: result.json lists them.")
        if source.excluded:
            say(f"{len(source.excluded)} images are left out by a list and have no row: left_out.csv has them.")
        say(f"Table: {table}, {images:,} images")
        say(f"Run:   {record.directory}")
        say(f"Next:  {as_typed()} runs")
    if config.json:
        print(json.dumps(result, indent=2))
    return 0


def _find(given: Path | None) -> Path:
    from fewlabel.tracking.catalogue import newest_classifier

    if given is not None:
        return given / "classifier" if (given / "classifier" / "config.json").is_file() else given
    return newest_of("classifier", newest_classifier, "finetune")


def _opened(source: "Source", classifier: "Classifier", config: SourceConfig) -> "dict[str, ImageStore]":
    from fewlabel.data.sizes import stored_side
    from fewlabel.data.store import open_split

    takes = classifier.featurizer.backbone.in_chans
    if takes != source.channels:
        say(f"The classifier takes {takes} channels: the images, of {source.channels}, are converted.")
    side = stored_side(classifier.featurizer.image_size, source.median_side)
    return {split: open_split(source, split, side, config) for split in source}


def _probabilities(classifier: "Classifier", stores: "Mapping[str, ImageStore]") -> "dict[str, Tensor]":
    """For each split (N, K) float32."""
    import torch

    from fewlabel.training.config import TrainingConfig
    from fewlabel.training.features import extract_features
    from fewlabel.training.processes import make_accelerator

    accelerator = make_accelerator(TrainingConfig(), "fp32")
    classifier.to(accelerator.device)
    found = {}
    for split, store in stores.items():
        chunks = torch.split(torch.arange(len(store)), _CHUNK)
        found[split] = torch.cat(
            [
                extract_features(classifier, store, chunk, accelerator)
                for chunk in track(chunks, f"Classifying {split}", total=len(chunks))
            ]
        )
    return found


def _judged(
    classifier: "Classifier",
    source: "Source",
    stores: "Mapping[str, ImageStore]",
    found: "Mapping[str, Tensor]",
) -> dict[str, Any]:
    """The figures with their intervals, where the images have labels of the classifier's names; else says why not."""
    import torch

    from fewlabel.supervised.bootstrap import figures_with_intervals
    from fewlabel.supervised.metrics import Predictions

    names = source.class_names
    if names is None or not any(len(store.labelled) for store in stores.values()):
        return {}
    several = source.multi_label
    if several != classifier.multi_label or not set(names) <= set(classifier.class_names):
        say(
            f"The labels of {source.name} ({', '.join(names[:5])}) are not the classifier's "
            f"({', '.join(classifier.class_names[:5])}): they stand in the table, and nothing is scored."
        )
        return {}
    judged = list(stores)
    if classifier.provenance.get("source", {}).get("fingerprint") == source.fingerprint:
        judged = [split for split in judged if split == "test"] or judged
        say(
            f"These are the images that the classifier was trained on. The figures are those of {' and '.join(judged)}"
            + (" alone, which it did not learn from." if judged == ["test"] else ": they flatter, as it has seen them.")
        )
    outputs = torch.tensor([classifier.class_names.index(name) for name in names])
    labels, answers, groups = [], [], []
    for split in judged:
        store = stores[split]
        if store.labels is None:
            continue
        known = store.labels[store.labelled]
        if several:
            placed = torch.full((len(known), len(classifier.class_names)), -1)
            placed[:, outputs] = known
        labels.append(placed if several else outputs[known])
        answers.append(found[split][store.labelled])
        groups += [(store.groups or store.ids)[place] for place in store.labelled.tolist()]
    try:
        figures = figures_with_intervals(
            [Predictions(torch.cat(answers).numpy(), torch.cat(labels).numpy(), threshold=None, ordinal=False)], groups
        )
    except UserError as error:
        say(f"No figures: {error}")
        return {}
    for name in ("accuracy", "auroc"):
        figure = figures[name]
        say(f"{name if name == 'accuracy' else 'AUROC':<9}{figure.mean:.3f} ({figure.low:.3f} to {figure.high:.3f})")
    return {name: asdict(figure) for name, figure in figures.items()}


def _columns(
    classifier: "Classifier",
    source: "Source",
    stores: "Mapping[str, ImageStore]",
    found: "Mapping[str, Tensor]",
) -> dict[str, list[Any]]:
    """The table, by column; rows in the order of the splits and of the ids in them."""
    import torch

    names, probabilities = classifier.class_names, torch.cat([found[split] for split in stores])
    table: dict[str, list[Any]] = {
        "id": [identity for store in stores.values() for identity in store.ids],
        "split": [split for split, store in stores.items() for _ in store.ids],
    }
    if classifier.multi_label:
        for place, name in enumerate(names):
            table[f"predicted_{name}"] = _yes_or_no((probabilities[:, place] > 0.5).int().tolist())
    else:
        confidence, best = probabilities.max(dim=1)
        table["predicted"] = [names[place] for place in best.tolist()]
        table["confidence"] = confidence.tolist()
    for place, name in enumerate(names):
        table[f"probability_{name}"] = probabilities[:, place].tolist()
    own = source.class_names
    if own is None:
        return table
    labels = [label for store in stores.values() if store.labels is not None for label in store.labels.tolist()]
    if source.multi_label:
        for place, name in enumerate(own):
            table[f"label_{name}"] = _yes_or_no([row[place] for row in labels])
    else:
        table["label"] = [own[label] if label >= 0 else None for label in labels]
    return table


def _yes_or_no(values: list[int]) -> list[str | None]:
    return [None if value < 0 else "yes" if value else "no" for value in values]
