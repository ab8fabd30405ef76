"""The one look at the test images: the winner beside the base, once all is trained."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewlabel.console import say
from fewlabel.search.compound import BASE
from fewlabel.search.study import Studies
from fewlabel.search.table import rows_of, winner_of

if TYPE_CHECKING:
    from fewlabel.search.objective import Objective

__all__ = ["judge_winner"]


def judge_winner(studies: Studies | None, objective: "Objective", share: Callable[[list[Any]], Any]) -> None:
    """Judge the winner and the base on test images, where both were trained at full length and lie on this machine.

    The study remembers it as `test`, so that nobody judges again.

    Args:
        studies: the search, all of which is settled; None on all processes but the main one, and on that too where
            there is nothing to judge.
        objective: how models are judged.
        share: see `fewlabel.search.worker.Share`; all processes of the worker must call this.
    """
    found: list[Any] = [None if studies is None else _to_judge(studies)]
    share(found)
    if found[0] is None:
        return
    winner, base, number = found[0]
    compared = objective.judge_on_test(winner, base)
    if studies is not None and compared is not None:
        figures = {name: _interval(getattr(compared, name)) for name in ("winner", "base", "difference")}
        studies.proxy.set_user_attr("test", {**figures, "images": compared.images, "trial": number})


def _to_judge(studies: Studies) -> tuple[Path, Path, int] | None:
    if "test" in studies.proxy.user_attrs:
        return None
    base = next((row for row in rows_of(studies.full) if row.slot == BASE and row.finished), None)
    winner = winner_of(studies.proxy)
    if base is None or base.run is None or winner is None or winner.run is None:
        return None
    for run in (winner.run, base.run):
        if not run.is_dir():
            say(f"{run} lies on another machine, so the winner is not judged on test images here.")
            return None
    return winner.run, base.run, winner.number


def _interval(interval: Any) -> dict[str, float]:
    known = asdict(interval)
    return {part: known[part] for part in ("mean", "low", "high")}
