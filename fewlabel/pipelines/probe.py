"""`fewlabel probe`: what an encoder's frozen features are worth with few labels."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewlabel.console import as_typed, track
from fewlabel.data.config import SourceConfig
from fewlabel.pipelines.configuration import as_dict
from fewlabel.pipelines.labelled import (
    LEARNED_FROM_LABELS,
    find_encoder,
    labelled_part,
    open_labelled,
    saw_labels,
    say,
    settled_for,
    subsets_of,
    tell_curve,
    tell_leaks,
)
from fewlabel.pipelines.sources import keep_left_out, record_of, shown_alike
from fewlabel.supervised.config import FewLabelsConfig, ProbeConfig
from fewlabel.tracking.config import RunConfig

if TYPE_CHECKING:
    from fewlabel.backbones.encoder import Encoder
    from fewlabel.data.store import ImageStore
    from fewlabel.supervised.few_labels import Amount, Answers
    from fewlabel.supervised.leaks import Leak
    from fewlabel.supervised.metrics import Predictions

COMMAND = "probe"


@dataclass(frozen=True)
class Config:
    """Say what an encoder's features are worth with few labels: linear probe and kNN."""

    encoder: Path | None = None
    """Encoder directory, or the run that made it. Default: the newest in runs/."""
    source: SourceConfig = field(default_factory=SourceConfig)
    few: FewLabelsConfig = field(default_factory=FewLabelsConfig)
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    seed: int = 0
    """Of the draws, the folds and the intervals."""
    run: RunConfig = field(default_factory=RunConfig)
    json: bool = False
    """Print the result alone, as JSON, on standard output."""


def run(config: Config) -> int:
    """Run the command; its exit status."""
    from fewlabel.backbones.encoder import load_encoder
    from fewlabel.data.loading import load
    from fewlabel.tracking.run import Run

    directory = find_encoder(config.encoder)
    config = replace(config, encoder=directory.resolve(), source=config.source.resolved())
    encoder = load_encoder(directory)
    config = replace(config, source=shown_alike(config.source, encoder.config.provenance))
    source = load(config.source)
    config = replace(config, few=settled_for(source, config.few))
    parent = str(encoder.config.provenance.get("run", directory))
    with Run.create(
        COMMAND,
        as_dict(replace(config, run=replace(config.run, out=None), json=False)),
        out=config.run.out,
        slug=f"{encoder.config.name}-{source.name}",
        parents={"encoder": f"{parent}@{encoder.hash[:16]}", "source": f"{source.name}@{source.fingerprint}"},
        source=record_of(source, config.source),
        project=config.run.project,
    ) as record:
        keep_left_out(source, source.bad, record.directory)
        record.log_input(f"encoder-{encoder.config.name}", "encoder", directory)
        metrics, leaks = _probe(config, encoder, source)
        if saw_labels(encoder):
            say(LEARNED_FROM_LABELS)
        result = record.finish(
            metrics, backbone=encoder.config.name, encoder=str(directory), leaks=[asdict(leak) for leak in leaks]
        )
        say(f"Run:  {record.directory}")
        say(f"Next: {as_typed()} runs")
    if config.json:
        print(json.dumps(result, indent=2))
    return 0


def _probe(config: Config, encoder: "Encoder", source: Any) -> tuple[dict[str, Any], "list[Leak]"]:
    from fewlabel.backbones.encoder import untrained
    from fewlabel.data.store import cache_folder
    from fewlabel.supervised.few_labels import (
        amounts_of,
        answers_of,
        figures_of,
        gains_of,
        judge,
        penalties_of,
        resample,
        without,
    )
    from fewlabel.supervised.leaks import find_leaks, leaked_images
    from fewlabel.training.config import TrainingConfig
    from fewlabel.training.feature_store import features_of
    from fewlabel.training.processes import make_accelerator

    stores = open_labelled(source, encoder.backbone, config.source, ordinal=config.few.ordinal)
    accelerator = make_accelerator(TrainingConfig(), "fp32")
    cache = cache_folder(config.source)
    learned = features_of(encoder, stores, source.fingerprint, accelerator, cache_dir=cache)
    fresh = features_of(untrained(encoder, config.seed), stores, source.fingerprint, accelerator, cache_dir=cache)
    leaks = find_leaks(stores, {split: features.values for split, features in learned.items()})
    tell_leaks(leaks)

    train, classes = stores["train"], len(source.class_names)
    amounts = amounts_of(subsets_of(train, config.few, config.seed))
    if source.multi_label:
        _tell_constant_labels(train, amounts, source.class_names)
    answers: Answers = {}
    for suffix, found in (("", learned), ("_untrained", fresh)):
        own = {split: labelled_part(store, found[split]) for split, store in stores.items()}
        own = {split: part for split, part in own.items() if len(part.ids)}
        methods: Answers = {f"{method}{suffix}": [[] for _ in amounts] for method in ("probe", "knn")}
        jobs = [(place, subset) for place, draws in enumerate(amounts) for subset in draws]
        for place, subset in track(jobs, f"Probing{suffix.replace('_', ' ')}", total=len(jobs)):
            few = train.places_of(subset.indices)
            said = answers_of(own, few, classes, config.probe, seed=config.seed)
            for method, answer in said.items():
                methods[f"{method}{suffix}"][place].append(answer)
        answers |= methods
    curve = judge(answers, own["test"], own.get("val"), ordinal=config.few.ordinal)
    resampled = resample(curve, own["test"].groups, config.seed)
    metrics: dict[str, Any] = {
        "curve": figures_of(resampled, amounts),
        "gain": gains_of(resampled, "probe", "probe_untrained", amounts),
        "penalty": penalties_of(answers, amounts),
    }
    if source.multi_label:
        metrics["auroc_of_labels"] = _auroc_of_labels(curve["probe"][-1], source.class_names)
    leaked = leaked_images(leaks, "test")
    if leaked:
        fewer, clean = without(answers, leaked, own["test"])
        clean_curve = judge(fewer, clean, own.get("val"), ordinal=config.few.ordinal)
        metrics["curve_without_leaks"] = figures_of(resample(clean_curve, clean.groups, config.seed), amounts)
    most = max((row for row in metrics["curve"] if row["method"] == "probe"), key=lambda row: row["labels"])
    _report(metrics)
    return {"accuracy": most["accuracy"], "auroc": most["auroc"], **metrics}, leaks


def _tell_constant_labels(train: "ImageStore", amounts: "list[Amount]", names: list[str]) -> None:
    """Say of which labels a probe can learn nothing, as all images that it sees say the same."""
    from fewlabel.supervised.linear_probe import constant_labels

    assert train.labels is not None
    for draws in amounts:
        constant = sorted({label for subset in draws for label in constant_labels(train.labels[subset.indices])})
        if constant:
            asked = f"{draws[0].fraction:.3g} of the labels" if draws[0].shots is None else f"{draws[0].shots} shots"
            say(
                f"With {asked}, the images of a draw may all say the same of {', '.join(names[k] for k in constant)}: "
                "then the probe takes that for every image's answer."
            )


def _auroc_of_labels(draws: "list[Predictions]", names: list[str]) -> list[dict[str, Any]]:
    """The mean over draws of each label's AUROC; None for a label that is always yes or always no on the test side."""
    of_draws = zip(*(draw.auroc_of_labels() for draw in draws), strict=True)
    return [
        {"label": name, "auroc": None if None in aurocs else sum(aurocs) / len(draws)}
        for name, aurocs in zip(names, of_draws, strict=True)
    ]


def _report(metrics: Mapping[str, Any]) -> None:
    from fewlabel.tracking.report import shown

    tell_curve(metrics["curve"])
    if "curve_without_leaks" in metrics:
        say("Without the test images that stand elsewhere too:")
        for row in metrics["curve_without_leaks"]:
            if row["method"] == "probe":
                say(
                    f"  {row['labels']:,} labelled images: AUROC {shown(row['auroc'])}, "
                    f"accuracy {shown(row['accuracy'])}"
                )
    for gain in metrics["gain"]:
        interval = gain["auroc"]
        verdict = (
            "pretraining paid" if interval["low"] > 0 else "pretraining cost" if interval["high"] < 0 else "can't tell"
        )
        say(
            f"With {gain['labels']:,} labelled images {verdict}: the probe's AUROC on these features is "
            f"{interval['mean']:+.3f} ({interval['low']:+.3f} to {interval['high']:+.3f}) from that on the untrained "
            "network's."
        )
