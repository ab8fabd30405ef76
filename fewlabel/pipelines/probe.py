"""`fewlabel probe`: what an encoder's frozen features are worth with few labels."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewlabel.console import as_typed, console
from fewlabel.data.config import SourceConfig
from fewlabel.errors import UserError
from fewlabel.pipelines.configuration import as_dict
from fewlabel.supervised.config import ProbeConfig
from fewlabel.tracking.config import RunConfig

if TYPE_CHECKING:
    from fewlabel.backbones.encoder import Encoder
    from fewlabel.data.store import ImageStore
    from fewlabel.supervised.few_labels import Curve, Part
    from fewlabel.supervised.leaks import Leak
    from fewlabel.training.feature_store import Features

COMMAND = "probe"


@dataclass(frozen=True)
class Config:
    """Say what an encoder's features are worth with few labels: linear probe and kNN."""

    encoder: Path | None = None
    """Encoder directory, or the run that made it. Default: the newest in runs/."""
    source: SourceConfig = field(default_factory=SourceConfig)
    labels: tuple[float, ...] = ()
    """Shares of the training labels to learn from. Default: 0.01 0.1 1.0."""
    shots: tuple[int, ...] = ()
    """Labelled images a class, in place of shares, e.g. 1 5 20."""
    draws: int = 5
    """How often each share is drawn, each time other images."""
    ordinal: bool = False
    """The classes are grades in the order of their names: report the quadratic kappa too."""
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    seed: int = 0
    """Of the draws, the folds and the intervals."""
    run: RunConfig = field(default_factory=RunConfig)
    json: bool = False
    """Print the result alone, as JSON, on standard output."""

    def __post_init__(self) -> None:
        """Check the ranges, so that a typing error shows before anything is computed."""
        for share in self.labels:
            if not 0 < share <= 1:
                raise UserError(f"--labels has {share:g}; give shares above 0 and at most 1 (0.1 is 10 %).")
        for shots in self.shots:
            if shots < 1:
                raise UserError(f"--shots has {shots}; give numbers of images from 1 on.")
        if self.draws < 1:
            raise UserError(f"--draws is {self.draws}; it must be 1 or more.")
        if self.labels and self.shots:
            raise UserError("--labels and --shots both say how many labels: give one of them.")


def run(config: Config) -> int:
    """Run the command; its exit status."""
    from fewlabel.backbones.encoder import load_encoder
    from fewlabel.data.source import load, require_labels
    from fewlabel.tracking.run import Run

    if not config.labels and not config.shots:
        config = replace(config, labels=(0.01, 0.1, 1.0))
    directory = _find_encoder(config.encoder)
    config = replace(config, encoder=directory.resolve())
    encoder = load_encoder(directory)
    source = load(config.source)
    require_labels(source)
    parent = str(encoder.config.provenance.get("run", directory))
    with Run.create(
        COMMAND,
        as_dict(replace(config, run=replace(config.run, out=None), json=False)),
        out=config.run.out,
        slug=f"{encoder.config.name.replace('/', '-')}-{source.name}",
        parents={"encoder": f"{parent}@{encoder.hash[:16]}", "source": f"{source.name}@{source.fingerprint}"},
        source={"name": source.name, "data": config.source.data, "fingerprint": source.fingerprint},
        project=config.run.project,
    ) as record:
        metrics, leaks = _probe(config, encoder, source)
        result = record.finish(
            metrics, backbone=encoder.config.name, encoder=str(directory), leaks=[asdict(leak) for leak in leaks]
        )
        _print(f"Run:  {record.directory}")
        _print(f"Next: {as_typed()} runs")
    if config.json:
        print(json.dumps(result, indent=2))
    return 0


def _find_encoder(given: Path | None) -> Path:
    from fewlabel.tracking.catalogue import newest_encoder

    if given is not None:
        return given / "encoder" if (given / "encoder" / "config.json").is_file() else given
    found = newest_encoder(Path("runs"))
    if found is None:
        raise UserError(
            f"There is no finished run with an encoder in {Path('runs').resolve()}. Make one with "
            f"`{as_typed()} pretrain --data your/folder`, or name one with --encoder."
        )
    _print(f"Encoder: {found}, the newest")
    return found


def _probe(config: Config, encoder: "Encoder", source: Any) -> tuple[dict[str, Any], "list[Leak]"]:
    from fewlabel.backbones.encoder import untrained
    from fewlabel.data.sizes import stored_side
    from fewlabel.data.store import cache_folder, open_split
    from fewlabel.supervised.few_labels import amounts_of, evaluate, figures_of, gains_of
    from fewlabel.supervised.leaks import find_leaks
    from fewlabel.supervised.subsets import fractions_of, shots_of
    from fewlabel.training.config import TrainingConfig
    from fewlabel.training.feature_store import features_of
    from fewlabel.training.processes import make_accelerator

    side = stored_side(encoder.image_size, source.median_side)
    stores = {split: open_split(source, split, side, config.source) for split in source}
    if "test" not in stores:
        raise UserError(f"{source.name} has no test images to judge by: give a --test-share above 0.")
    if encoder.backbone.in_chans != source.channels:
        _print(f"The encoder takes {encoder.backbone.in_chans} channels: the images are converted.")
    accelerator = make_accelerator(TrainingConfig(), "fp32")
    cache = cache_folder(config.source)
    learned = features_of(encoder, stores, source.fingerprint, accelerator, cache_dir=cache)
    fresh = features_of(untrained(encoder, config.seed), stores, source.fingerprint, accelerator, cache_dir=cache)
    leaks = find_leaks(stores, {split: features.values for split, features in learned.items()})
    _tell(leaks)

    parts = {split: _part(store, learned[split]) for split, store in stores.items()}
    train, classes = parts["train"], len(source.class_names)
    draw = (config.draws, config.seed)
    subsets = (
        shots_of(train.ids, train.labels, train.groups, config.shots, *draw)
        if config.shots
        else fractions_of(train.ids, train.labels, train.groups, config.labels, *draw)
    )
    amounts = amounts_of(subsets)
    leaked = {image for leak in leaks for split, image in (leak.left, leak.right) if split == "test"}
    metrics: dict[str, Any] = {}
    for name, dropped in (("curve", set()), ("curve_without_leaks", leaked)):
        if name != "curve" and not dropped:
            continue
        curve: Curve = {}
        for suffix, found in (("", learned), ("_untrained", fresh)):
            own = {split: _part(store, found[split]) for split, store in stores.items()}
            kept = [place for place, image in enumerate(own["test"].ids) if image not in dropped]
            own["test"] = own["test"].at(_indices(kept))
            curve |= evaluate(
                {split: part for split, part in own.items() if len(part.ids)},
                amounts,
                classes,
                config.probe,
                suffix=suffix,
                ordinal=config.ordinal,
                seed=config.seed,
            )
        metrics[name] = figures_of(curve, amounts, own["test"].groups, config.seed)
        if name == "curve":
            metrics["gain"] = gains_of(curve, "probe", "probe_untrained", amounts, own["test"].groups, config.seed)
    most = max((row for row in metrics["curve"] if row["method"] == "probe"), key=lambda row: row["labels"])
    _report(metrics)
    return {"accuracy": most["accuracy"], "auroc": most["auroc"], **metrics}, leaks


def _indices(places: list[int]) -> Any:
    import torch

    return torch.tensor(places, dtype=torch.int64)


def _part(store: "ImageStore", features: "Features") -> "Part":
    """The labelled images of a split."""
    from fewlabel.supervised.few_labels import Part

    assert store.labels is not None
    every = Part(store.ids, features.values, store.labels, store.groups)
    return every.at((store.labels >= 0).nonzero().flatten())


def _tell(leaks: "list[Leak]") -> None:
    """Say which images stand on two sides."""
    if not leaks:
        _print("No image stands in two splits, as far as copies can be seen.")
        return
    kinds = sorted({leak.kind for leak in leaks})
    counts = ", ".join(f"{sum(leak.kind == kind for leak in leaks)} {kind}" for kind in kinds)
    console.print(f"[bold yellow]Images that stand in two splits:[/] {counts}. result.json lists all.", highlight=False)
    for leak in leaks[:5]:
        _print(f"  {leak.kind}: {' '.join(leak.left)} and {' '.join(leak.right)}, similarity {leak.similarity:.3f}")


def _report(metrics: Mapping[str, Any]) -> None:
    from rich.table import Table

    table = Table("labels", "draws", "method", "AUROC", "accuracy", box=None)
    for row in sorted(metrics["curve"], key=lambda row: row["labels"]):
        figures = [_shown(row[name]) for name in ("auroc", "accuracy")]
        table.add_row(f"{row['labels']:,}", str(row["draws"]), row["method"].replace("_", " "), *figures)
    console.print(table)
    if "curve_without_leaks" in metrics:
        _print("Without the test images that stand elsewhere too:")
        for row in metrics["curve_without_leaks"]:
            if row["method"] == "probe":
                _print(f"  {row['labels']:,} labels: AUROC {_shown(row['auroc'])}, accuracy {_shown(row['accuracy'])}")
    for gain in metrics["gain"]:
        interval = gain["auroc"]
        verdict = (
            "pretraining paid" if interval["low"] > 0 else "pretraining cost" if interval["high"] < 0 else "can't tell"
        )
        _print(
            f"With {gain['labels']:,} labels {verdict}: the probe's AUROC on these features is {interval['mean']:+.3f} "
            f"({interval['low']:+.3f} to {interval['high']:+.3f}) from that on the untrained network's."
        )


def _shown(interval: Mapping[str, float]) -> str:
    return f"{interval['mean']:.3f} ({interval['low']:.3f} to {interval['high']:.3f})"


def _print(text: str) -> None:
    """A line as it is: ids and paths may hold what rich takes for markup."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)
