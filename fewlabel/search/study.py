"""A study in its storage: who it is, and the two halves that it is kept in."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fewlabel import __version__
from fewlabel.errors import UserError
from fewlabel.search.storage import one_at_a_time
from fewlabel.search.table import FULL_LENGTH
from fewlabel.tracking.record import flattened, jsonable

if TYPE_CHECKING:
    import optuna
    from optuna.storages import RDBStorage

__all__ = ["Studies", "open_studies"]

FORMAT = 1
"""Of what the trials of a study say about themselves."""
ATTRIBUTE = "fewlabel"


@dataclass(frozen=True)
class Studies:
    """A search in its storage: the trials, and apart from them the best again at full length.

    Values of the two must not mix: the sampler and the pruner would take one for the other.
    """

    storage: "RDBStorage"
    proxy: "optuna.Study"
    full: "optuna.Study"

    @property
    def name(self) -> str:
        """As the user knows it."""
        return str(self.proxy.study_name)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Let one worker at a time of this search into the block."""
        with one_at_a_time(self.storage, self.name):
            yield

    def beat(self, trial: "optuna.Trial | optuna.trial.FrozenTrial") -> None:
        """Say that the running `trial` is alive."""
        self.storage.record_heartbeat(trial._trial_id)

    def note(self, trial: "optuna.trial.FrozenTrial", name: str, value: Any) -> None:
        """Set a user attribute of a trial that another worker has."""
        self.storage.set_trial_user_attr(trial._trial_id, name, value)


def open_studies(
    storage: "RDBStorage", name: str, *, metrics: Sequence[str], identity: Mapping[str, Any], create: bool
) -> Studies:
    """The search called `name`, new or to be joined.

    Args:
        storage: where.
        name: of the study.
        metrics: names of the objectives; the first is the quality, the greater the better, the others are costs.
        identity: everything that the value of a trial depends on, and the space that trials come from.
        create: make it if it isn't there.

    Raises:
        UserError: a study of that name seeks something else, was made by another version or another program, or isn't
            there and is not to be made.
    """
    own = jsonable({"format": FORMAT, "version": __version__, "identity": identity})
    with one_at_a_time(storage, name):
        pair = [_opened(storage, one, metrics, own, create=create) for one in (name, name + FULL_LENGTH)]
    return Studies(storage, *pair)


def _opened(
    storage: "RDBStorage", name: str, metrics: Sequence[str], own: Mapping[str, Any], *, create: bool
) -> "optuna.Study":
    import optuna
    from optuna.study import StudyDirection

    there = name in optuna.get_all_study_names(storage)
    if not there and not create:
        raise UserError(f"There is no study {name!r} in {storage.engine.url}. Begin it with `fewlabel search`.")
    directions = [StudyDirection.MAXIMIZE, *[StudyDirection.MINIMIZE] * (len(metrics) - 1)]
    study = optuna.create_study(study_name=name, storage=storage, directions=directions, load_if_exists=True)
    # A process that was killed right after making it left it bare.
    if there and (study.user_attrs or study.get_trials(deepcopy=False)):
        _compare(study, own)
        return study
    study.set_user_attr(ATTRIBUTE, own)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names(list(metrics))
    return study


def _compare(study: "optuna.Study", own: Mapping[str, Any]) -> None:
    there = study.user_attrs.get(ATTRIBUTE)
    elsewhere = "Give another name with --study, or another --storage."
    if not isinstance(there, Mapping):
        raise UserError(f"The study {study.study_name!r} in this storage was not made by Fewlabel. {elsewhere}")
    if (there.get("format"), there.get("version")) != (FORMAT, __version__):
        raise UserError(
            f"The study {study.study_name!r} was made by Fewlabel {there.get('version')}, and this is {__version__}: "
            f"their trials can't be compared. {elsewhere}"
        )
    theirs, ours = flattened(there["identity"]), flattened(own["identity"])
    differences = [
        f"{name} is {ours.get(name)} and was {theirs.get(name)}"
        for name in sorted(theirs.keys() | ours.keys())
        if theirs.get(name) != ours.get(name)
    ]
    if differences:
        raise UserError(
            f"The study {study.study_name!r} seeks something else: {'; '.join(differences)}. To join it, give the "
            f"options that it was begun with. {elsewhere}"
        )
