"""What a study says, in plain words: which of depth, width and resolution to buy, and how sure that is."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fewlabel.search.candidate import Candidate
from fewlabel.search.purchases import Purchase, alone, mixed, per_doubling
from fewlabel.search.ranking import proxy_agreement
from fewlabel.search.table import (
    DIMENSIONS,
    TrialRow,
    full_length,
    multipliers,
    quality_name,
    rows_of,
    winner_of,
)
from fewlabel.tracking.report import shown

if TYPE_CHECKING:
    import optuna

__all__ = ["chosen_coefficients", "verdict"]


def verdict(study: "optuna.Study") -> list[str]:
    """Sentences for whoever decides, the most important first; for a study at any moment of its life."""
    rows = rows_of(study)
    name = quality_name(study)
    open_trials = Counter(row.outcome for row in rows if row.outcome in ("waiting", "running"))
    progress = " and ".join(f"{count} {outcome}" for outcome, count in sorted(open_trials.items()))
    if not any(row.finished for row in rows):
        return [_nothing_finished(rows, progress)]
    if any(row.slot in DIMENSIONS for row in rows):
        said = _of_compound(rows, name, chosen_coefficients(study))
    else:
        said = _of_free(study, rows, name)
    if progress:
        said.append(f"The study is not over ({progress}): this may change.")
    return said + _of_winner(study, name)


def chosen_coefficients(study: "optuna.Study") -> Candidate | None:
    """The depth, width and resolution of phi = 1 that the study scales by phi; None while they aren't chosen."""
    values = study.user_attrs.get("chosen")
    return Candidate.from_json(values) if values else None


def _nothing_finished(rows: Sequence[TrialRow], progress: str) -> str:
    if progress or not rows:
        return f"No trial has finished yet ({progress or 'none was begun'}): there is nothing to read from this study."
    ends = ", ".join(f"{count} {outcome}" for outcome, count in Counter(row.outcome for row in rows).most_common())
    return f"No trial of this study was trained to its end ({ends}): it says nothing about depth, width or resolution."


def _of_compound(rows: Sequence[TrialRow], name: str, chosen: Candidate | None) -> list[str]:
    bought = alone(rows)
    base = next((row for row in rows if row.slot == "base" and row.finished), None)
    said = []
    missing = {row.slot: row.outcome for row in rows if row.slot in DIMENSIONS}
    for one in bought:
        missing.pop(one.name)
    if base is None or base.value is None:
        said.append("The base has not been trained to its end: what depth, width or resolution buys can't be said yet.")
    elif bought:
        floor = Purchase("the base", base.value["mean"], base.value["low"], base.value["high"], 1.0)
        best, *others = bought
        rest = ", ".join(f"{one.name} {_interval(one)}" for one in others)
        if best.mean > floor.mean:
            start = f"{_at_cost(bought)}, {best.name} bought the most: {name} {_interval(best)}"
        else:
            start = f"{_at_cost(bought)}, nothing alone bought any {name}: {best.name} came to {_interval(best)}"
        said.append(f"{start} against {_interval(floor)} of the base{f'; {rest}' if rest else ''}.")
        doubt = (
            "The intervals overlap: these validation images can't tell whether any of them is worth its cost. Stay "
            "with the base, or search again with more images or longer trials."
        )
        said.append(_how_sure(best, others, floor, doubt))
    else:
        said.append("None of depth, width and resolution alone has been trained to its end yet.")
    said += [f"{slot.capitalize()} alone has no value: {outcome}." for slot, outcome in missing.items()]
    together = mixed(rows)
    if together:
        first = together[0]
        flattered = f", the best of {len(together)} that were tried, which flatters it" if len(together) > 1 else ""
        cost = "" if first.ratio is None else f"; {first.ratio:.2f} times the cost"
        against = f" {_compared(first, bought[0], base)}" if bought else ""
        said.append(f"Grown together ({first.name}{cost}{flattered}): {name} {_interval(first)}.{against}")
    elif ended := [row for row in rows if row.slot.startswith("grid/") and row.outcome not in ("waiting", "running")]:
        ends = ", ".join(f"{count} {outcome}" for outcome, count in Counter(row.outcome for row in ended).most_common())
        said.append(f"None of the mixtures of the three was trained to its end ({ends}).")
    further = [row for row in rows if row.phi is not None and row.finished and row.value]
    if further and chosen is not None:
        last = max(further, key=lambda row: row.phi or 0.0)
        said.append(
            f"The best of these larger models ({multipliers(chosen)}), scaled on to phi = {last.phi:g} "
            f"({multipliers(last.candidate)}; {last.ratio or 1:.2f} times the cost): {name} {shown(last.value)}."
        )
    return said


def _of_free(study: "optuna.Study", rows: Sequence[TrialRow], name: str) -> list[str]:
    gains = per_doubling(rows)
    finished = [row for row in rows if row.finished]
    said = []
    if gains:
        listed = ", ".join(f"through {one.name} {_interval(one, signed=True)}" for one in gains)
        said.append(
            f"Doubling the cost changed {name} by: {listed} (the slopes of a plane through the "
            f"{len(finished)} finished trials)."
        )
        doubt = f"The interval of {gains[0].name} contains 0: these trials can't tell whether more compute buys {name}."
        said.append(_how_sure(gains[0], gains[1:], Purchase("nothing", 0.0, 0.0, 0.0), doubt))
    else:
        count = f"{len(finished)} trial has" if len(finished) == 1 else f"{len(finished)} trials have"
        said.append(f"{count} finished, too few to say which of depth, width and resolution to buy.")
    if len(study.directions) > 1 and (front := sorted(trial.number for trial in study.best_trials)):
        best = sorted((row for row in rows if row.number in front and row.value), key=lambda row: row.ratio or 0.0)
        ends = [f"{(row.value or {})['mean']:.3f} at {row.ratio or 1:.2f} times the cost" for row in best]
        if len(best) == 1:
            said.append(f"One model beats all others: {name} {ends[0]} of the base.")
        elif best:
            said.append(
                f"{len(best)} models are worth having, as none beats them at no more cost: from {name} {ends[0]} to "
                f"{ends[-1]}."
            )
    return said


def _of_winner(study: "optuna.Study", name: str) -> list[str]:
    winner, full = winner_of(study), full_length(study)
    if winner is None or winner.value is None:
        return []
    rows = [] if full is None else rows_of(full)
    at_full = any(row.finished for row in rows)
    length = "at full length" if at_full else "so far, by the short training of a trial"
    said = [f"Best {length}: {multipliers(winner.candidate)}, with {name} {shown(winner.value)} on validation images."]
    if full is not None and at_full:
        said.append(proxy_agreement(study, full).sentence)
    judged: Mapping[str, Any] = study.user_attrs.get("test") or {}
    if judged.keys() >= {"winner", "base", "difference"} and winner.candidate == Candidate():
        said.append(f"On the test images, which nothing was chosen by, the base comes to {shown(judged['base'])}.")
    elif judged.keys() >= {"winner", "base", "difference"}:
        difference = judged["difference"]
        said.append(
            f"On the test images, which nothing was chosen by: {shown(judged['winner'])} against "
            f"{shown(judged['base'])} of the base, a difference of {shown(difference, signed=True)}; "
            + _sign_of(difference)
        )
    return said


def _how_sure(best: Purchase, others: Sequence[Purchase], floor: Purchase, doubt: str) -> str:
    """Where intervals overlap the images can't tell, which errs on the side of not telling; `doubt` if of nothing."""
    rivals = [one.name for one in others if one.high >= best.low]
    if best.low <= floor.high:
        return doubt
    if rivals:
        return (
            f"More compute pays, but the intervals of {' and '.join([best.name, *rivals])} overlap: these validation "
            "images can't tell which of them to buy."
        )
    return f"Of the three, {best.name} is the one to buy: its interval lies above the others."


def _compared(together: Purchase, best: Purchase, base: TrialRow | None) -> str:
    if together.low > best.high:
        return f"That is better than {best.name} alone, beyond both intervals: buy them together."
    if together.high < best.low:
        return f"That is worse than {best.name} alone, beyond both intervals."
    unsure = f"can't be told from {best.name} alone: their intervals overlap."
    if base is not None and together.low > (base.value or {})["high"]:
        return f"That is better than the base, beyond both intervals, but {unsure}"
    return f"That {unsure}"


def _sign_of(difference: Mapping[str, float]) -> str:
    if difference["low"] > 0:
        return "it is better."
    return "it is worse." if difference["high"] < 0 else "these images can't tell them apart."


def _at_cost(bought: Sequence[Purchase]) -> str:
    ratios = [one.ratio for one in bought if one.ratio]
    return f"At about {sum(ratios) / len(ratios):.1f} times the cost" if ratios else "Grown alone"


def _interval(one: Purchase, *, signed: bool = False) -> str:
    return shown({"mean": one.mean, "low": one.low, "high": one.high}, signed=signed)
