"""What `fewlabel search` tells the user before, while and after its workers train."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewlabel.console import as_typed, say, say_rows
from fewlabel.search.candidate import Slot
from fewlabel.search.claims import Rules
from fewlabel.search.compound import ALONE
from fewlabel.search.mirror import log_study
from fewlabel.search.ranking import proxy_agreement
from fewlabel.search.report import write_report
from fewlabel.search.slots import REJECTED, Ledger
from fewlabel.search.study import Studies
from fewlabel.search.table import TrialRow, multipliers, quality_name, row_of, winner_of
from fewlabel.search.verdict import verdict
from fewlabel.search.winner import write_winner
from fewlabel.tracking.report import shown

if TYPE_CHECKING:
    from fewlabel.pipelines.search import Config
    from fewlabel.pipelines.search_setup import Setup
    from fewlabel.tracking.run import Run
    from fewlabel.training.schedule import Plan

__all__ = ["Progress", "announce", "conclude", "how_to_resume"]

WORTH = {
    "probe": "of a linear probe after SimCLR pretraining",
    "supervised": "of training on the labels from scratch",
    "knn": "of the nearest images of two views after SimCLR pretraining",
}


def announce(
    setup: "Setup", config: "Config", studies: Studies, rules: Rules, slots: Sequence[Slot], directory: Path
) -> None:
    """Print what the search in `directory` derived from the options and the source."""
    search, source, objective = config.search, setup.source, setup.objective
    sizes = ", ".join(f"{len(source[split]):,} {split}" for split in source)
    base = rules.base
    left_out = [name for name in ALONE if search.mode == "compound" and all(slot.key != name for slot in slots)]
    tried = (
        f"{len(slots)} around the base, then the best coefficients scaled by phi"
        if search.mode == "compound"
        else f"{len(slots)} in all; {', '.join(_range(name, one) for name, one in setup.space.items())}"
    )
    limits = rules.budget.excess(base)
    budget = ", ".join(f"{1 / (1 + excess):.3g}x the base's {name}" for name, excess in limits.items())
    aims = f"{objective.figure} {WORTH[objective.kind]}, on validation images"
    say_rows(
        {
            "source": f"{source.name}: {sizes}; {source.channels} channel{'s' * (source.channels > 1)}",
            "base": f"{setup.model.name} at {base.image_size} px: {base.parameters:,} parameters, {base.flops:,} "
            "operations an image",
            "objective": aims + "".join(f", against {name}" for name in setup.against),
            "budget": budget or "none",
            "trials": tried,
            **(
                {"left out": f"{' and '.join(left_out)} alone: its family has no such network within the budget"}
                if left_out
                else {}
            ),
            "a trial": _length(objective.plan(full=False), objective.training(full=False).batch_size or 0)
            + f" at {objective.model(full=False).image_size} px before scaling; early stopping: {search.pruner}",
            "full length": _length(objective.plan(full=True), objective.training(full=True).batch_size or 0)
            + (f", for the base and the best {search.confirm}" if search.confirm else ", for no trial (--confirm 0)"),
            "study": f"{studies.name} in {studies.storage.engine.url.render_as_string()}",
            "workers": f"{config.study.workers} x {config.training.processes or 1} processes on "
            f"{objective.accelerator.device.type}, {config.training.precision}, seed {rules.seed}",
            "run": str(directory),
            "watch": f"{as_typed()} dashboard --study {shlex.quote(str(directory))}",
        }
    )


def _range(name: str, one: Any) -> str:
    return f"{name.replace('_', ' ')} {one.least:.3g} to {one.greatest:.3g}"


def _length(plan: "Plan", batch_size: int) -> str:
    return f"{plan.total_steps:,} steps of {batch_size} images, judged every {plan.evaluate_steps:,}"


class Progress:
    """Tells of every trial that ends while this search looks on; its value is how many trainings are settled."""

    def __init__(self, studies: Studies) -> None:
        self._studies = [studies.proxy, studies.full]
        self._told = {self._key(trial) for study in self._studies for trial in self._ended(study)}
        self._settled = self._rejected = 0

    def __call__(self) -> int:
        """Look, tell and count."""
        self._settled = 0
        for study in self._studies:
            ended = self._ended(study)
            self._settled += Ledger(ended).count_settled()
            for trial in ended:
                if self._key(trial) not in self._told:
                    self._told.add(self._key(trial))
                    self._tell(row_of(trial), quality_name(study), full=study is self._studies[1])
        return self._settled

    def _tell(self, row: TrialRow, name: str, *, full: bool) -> None:
        # A sampler may try many in vain before it has learned what is refused.
        if row.outcome.startswith(REJECTED):
            self._rejected += 1
            return
        if self._rejected:
            say(f"{self._rejected} candidate{'s' * (self._rejected > 1)} refused by counting, untrained.")
            self._rejected = 0
        say(_line(row, name, full=full))

    def _ended(self, study: Any) -> list[Any]:
        return [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]

    def _key(self, trial: Any) -> int:
        key: int = trial._trial_id
        return key


def _line(row: TrialRow, name: str, *, full: bool) -> str:
    if row.value is not None:
        value = {**row.value}
        cost = f" at {row.ratio:.2f} times the cost" if row.ratio is not None else ""
        took = f", {row.seconds:.0f} s" if row.seconds is not None else ""
        ended = f"{name} {shown(value)}{cost}{took}"
    else:
        ended = row.outcome if row.outcome != "failed" else "its worker died; it is tried again"
    length = " at full length" if full else ""
    scale = "" if row.slot == "base" else f" ({multipliers(row.candidate)})"
    return f"Trial {row.number}{length}, {row.slot}{scale}: {ended}"


def how_to_resume(directory: Path) -> str:
    """What to type to go on with the search in `directory`."""
    return f"Stopped; every finished trial is kept. Go on with:\n  {as_typed()} search --resume {_typed(directory)}"


def conclude(studies: Studies, record: "Run", figure: str, pretrain: Mapping[str, Any]) -> dict[str, Any]:
    """Write report, winner and result, and print what they say and what to type next."""
    directory = record.directory
    agreement = proxy_agreement(studies.proxy, studies.full)
    said = verdict(studies.proxy)
    winner, file = winner_of(studies.proxy), write_winner(studies.proxy, pretrain, directory)
    report = write_report(studies.proxy, directory)
    log_study(record, studies.proxy)
    tested = studies.proxy.user_attrs.get("test")
    metrics: dict[str, Any] = {}
    if winner is not None and winner.value is not None:
        metrics = {f"validation_{figure}": dict(winner.value), "cost_ratio": winner.ratio or 1.0}
    if tested:
        metrics |= {figure: tested["winner"], f"{figure}_base": tested["base"], f"{figure}_gain": tested["difference"]}
    result = record.finish(
        metrics,
        study=studies.name,
        storage=studies.storage.engine.url.render_as_string(),
        verdict=said,
        agreement=agreement.as_json(),
        candidate=None if winner is None else winner.candidate.as_json(),
        winner=None if file is None else str(file),
        report=str(report),
    )
    for sentence in said:
        say(sentence)
    say_rows(
        {
            "winner": "none: no trial was trained to its end" if file is None else str(file),
            "report": str(report),
            "run": str(directory),
            "look": f"{as_typed()} dashboard --study {_typed(directory)}",
            "next": f"{as_typed()} runs" if file is None else f"{as_typed()} pretrain --config {_typed(file)}",
        }
    )
    return result


def _typed(path: Path) -> str:
    return shlex.quote(str(path))
