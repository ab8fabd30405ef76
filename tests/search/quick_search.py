"""A search whose trainings take no time: the value is a formula, so that what workers do to each other shows fast.

Run as a script it is one worker. Arguments: the storage, the run's directory, the worker's index, as JSON the settings
of `QuickTrainer`, and as JSON the options of `quick_search`.
"""

import fcntl
import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

from fewlabel.errors import UserError
from fewlabel.search.candidate import Candidate, Slot
from fewlabel.search.claims import Rules, Stage
from fewlabel.search.cost import Budget, Cost
from fewlabel.search.pruning import Pruning, make_pruner
from fewlabel.search.ranking import best
from fewlabel.search.sampling import Range
from fewlabel.search.storage import open_storage
from fewlabel.search.study import open_studies
from fewlabel.search.worker import Worker

STEPS = 9
SPACE = {"depth": Range(0.5, 2.0), "width": Range(0.5, 2.0), "resolution": Range(0.7, 1.5)}


def quick_cost(candidate):
    """The formula's own cost."""
    if candidate.depth < 0.55:
        raise UserError("This family takes no depth below 0.55.")
    ratio = candidate.depth * candidate.width**2 * candidate.resolution**2
    return Cost(round(1000 * candidate.width**2), round(1e6 * ratio), round(32 * candidate.resolution))


def quick_value(candidate, step=STEPS):
    """Best at depth 1.3 and width 0.9; less the earlier."""
    return 0.9 - (candidate.depth - 1.3) ** 2 - (candidate.width - 0.9) ** 2 - 0.02 * (STEPS - step)


@dataclass
class QuickTrainer:
    """Says on disk what it does: a file for each slot that is locked while the slot is trained."""

    folder: Path
    seconds: float = 0.0
    diverges_above: float = 10.0
    grows_above: float = 10.0

    def train(self, candidate, log, report, *, full, checkpoint):
        (self.folder / "trained").mkdir(exist_ok=True)
        slot = log.record["config"]["slot"].replace("/", "-") + ("-full" if full else "")
        with (self.folder / "trained" / slot).open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                (self.folder / f"twice-{slot}").touch()
            for step in range(1, STEPS + 1):
                time.sleep(self.seconds / STEPS)
                if candidate.depth > self.diverges_above:
                    from fewlabel.errors import Diverged

                    raise Diverged("The loss of step 1 is nan.")
                if candidate.width > self.grows_above:
                    raise MemoryError
                value = quick_value(candidate, step)
                log.log(step, {"objective": value})
                report(step, value)
            file.write(f"{os.getpid()}\n")
        # As `fewlabel.search.objective.Outcome`, whose module takes long to import.
        return SimpleNamespace(
            value=value, low=value - 0.1, high=value + 0.1, figures={"accuracy": value}, seconds=self.seconds
        )


def quick_rules(*, against=(), seed=0, budget=None, pruner="none"):
    return Rules(
        space=SPACE,
        seed=seed,
        count=quick_cost,
        base=quick_cost(Candidate()),
        budget=Budget(flops=budget),
        pruning=Pruning(pruner, tuple(against), 1, STEPS),
        pruner=lambda: make_pruner(pruner, objectives=1 + len(against), first_step=1, last_step=STEPS),
    )


def quick_stages(trials, confirm=2):
    base = Slot("base", 1, Candidate(), protected=True)

    def first(study):
        return [base, *(Slot(f"trial/{number}", 1) for number in range(1, trials))], {}

    def last(study):
        candidates = [Candidate.from_json(trial.user_attrs["candidate"]) for trial in best(study, confirm)]
        return [base, *(Slot(f"again/{number}", 3, one) for number, one in enumerate(candidates))], {"seen": trials}

    return [Stage(1, False, first), Stage(3, True, last)]


def quick_search(url, *, trials=8, name="quick", stale_after=4, identity=None, confirm=2, **rules):
    """The studies, stages and rules of a search."""
    against = rules.get("against", ())
    storage = open_storage(url, stale_after=stale_after)
    told = {"trials": trials, **rules} if identity is None else identity
    studies = open_studies(storage, name, metrics=["accuracy", *against], identity=told, create=True)
    return studies, quick_stages(trials, confirm), quick_rules(**rules)


def quick_worker(url, directory, index=0, trainer=None, **options):
    studies, stages, rules = quick_search(url, **options)
    return Worker(studies, stages, rules, trainer or QuickTrainer(directory), directory, index)


if __name__ == "__main__":
    url, directory, index, training, options = sys.argv[1:]
    trainer = QuickTrainer(Path(directory), **json.loads(training))
    sys.exit(quick_worker(url, Path(directory), int(index), trainer, **json.loads(options)).work())
