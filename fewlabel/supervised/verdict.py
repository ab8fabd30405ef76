"""Did pretraining pay? The answer in plain words, from paired differences and their intervals alone."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from fewlabel.supervised.methods import main_comparison

__all__ = ["verdict"]

_FEW_UNITS: Final = 100
"""Test images, or groups of them, below which a 95 % percentile interval is rough."""

_WIDE: Final = 0.1

_SUBJECTS: Final = {
    ("finetune", "scratch"): "AUROC of the fine-tuned encoder less that of the same network trained from scratch",
    ("probe", "probe_untrained"): "AUROC of a linear probe on the encoder less that on the same network untrained",
    ("finetune", "finetune_imagenet"): "AUROC of the fine-tuned encoder less that of fine-tuned ImageNet weights",
    ("probe", "probe_imagenet"): "AUROC of a linear probe on the encoder less that on ImageNet weights",
}

Rows = Sequence[Mapping[str, Any]]


def verdict(gains: Rows, *, test_images: int, test_groups: int | None = None) -> list[str]:
    """Whether pretraining paid, by how much and how sure that is, in a few sentences.

    A difference counts where its 95 % interval is on one side of 0. The pair that decides is
    `methods.main_comparison`, whatever the figures.

    Args:
        gains: rows of `few_labels.gains_of`, for any of `methods.comparisons`.
        test_images: that the differences were measured on.
        test_groups: of these images, or None where each stands for itself.

    Returns:
        First whether pretraining paid; then each difference; then the same against ImageNet weights where they
        were compared; last what to be careful about, if anything.
    """
    by_pair: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for row in sorted(gains, key=lambda row: row["labels"]):
        by_pair.setdefault(tuple(row["method"].split(" - ")), []).append(row)
    pair = main_comparison({method for pair in by_pair for method in pair})
    if pair is None:
        return [
            "Nothing here says whether pretraining paid: neither training from scratch nor the untrained network was "
            "compared with the pretrained encoder."
        ]
    main = by_pair[pair]
    said = [_answer(main, "pretraining", "paid", "cost"), _differences(pair, main)]
    uses = sorted(("finetune", "probe"), key=lambda use: use != pair[0])
    other = next((other for use in uses if (other := (use, f"{use}_imagenet")) in by_pair), None)
    if other is not None:
        better, worse = (f"did {word} than ImageNet weights" for word in ("better", "worse"))
        said += [_answer(by_pair[other], "the pretrained encoder", better, worse), _differences(other, by_pair[other])]
    return said + _cautions(main, test_images, test_groups)


def _sign(row: Mapping[str, Any]) -> int:
    return int(row["auroc"]["low"] > 0) - int(row["auroc"]["high"] < 0)


def _answer(rows: Rows, subject: str, better: str, worse: str) -> str:
    """What `subject` did, at which amounts."""
    signs = [_sign(row) for row in rows]
    by_sign = {sign: [row for row in rows if _sign(row) == sign] for sign in (1, -1, 0)}
    span = f"amount of labels, from {rows[0]['labels']:,} to {rows[-1]['labels']:,}"
    alone = f"with {_listed(rows)} labels" if len(rows) == 1 else ""
    if not any(signs):
        return (
            f"These test images can't tell whether {subject} {better} or {worse} {alone or f'at any {span}'}: "
            "the interval of the difference contains 0."
        )
    subject = subject[0].upper() + subject[1:]
    if len(set(signs)) == 1:
        return f"{subject} {better if signs[0] > 0 else worse} {alone or f'at every {span}'}."
    first = signs.index(0) if 0 in signs else len(rows)
    if signs == [1] * first + [0] * (len(rows) - first):
        return (
            f"{subject} {better} with few labels, up to {rows[first - 1]['labels']:,}; "
            f"with {_listed(by_sign[0])} these test images can't tell."
        )
    clear = [f"{word} with {_listed(by_sign[sign])}" for sign, word in ((1, better), (-1, worse)) if by_sign[sign]]
    unclear = f"; with {_listed(by_sign[0])} these test images can't tell" if by_sign[0] else ""
    return f"{subject} {' and '.join(clear)} labels{unclear}."


def _differences(pair: tuple[str, str], rows: Rows) -> str:
    parts: list[str] = []
    for row in rows:
        difference = row["auroc"]
        limits = f"{difference['low']:+.3f} to {difference['high']:+.3f}"
        about, unit = ("", "") if parts else ("95 % interval ", " labels")
        parts.append(f"{difference['mean']:+.3f} ({about}{limits}) with {row['labels']:,}{unit}")
    return f"{_SUBJECTS[pair]}: {', '.join(parts)}."


def _cautions(rows: Rows, images: int, groups: int | None) -> list[str]:
    widest = max(row["auroc"]["high"] - row["auroc"]["low"] for row in rows)
    said = []
    if (groups or images) < _FEW_UNITS:
        of = f", of {groups} groups" if groups is not None else ""
        said.append(
            f"Take care: the test side has only {images:,} images{of}. Intervals from so few are rough; "
            f"the widest spans {widest:.3f}. Where the splits were made here, a larger --test-share tells more."
        )
    elif widest > _WIDE:
        said.append(
            f"Take care: the widest interval spans {widest:.3f} of AUROC, so a difference of that order can go unseen."
        )
    if len(rows) > 2 and sum(_sign(row) != 0 for row in rows) == 1:
        said.append(
            f"Take care: of {len(rows)} amounts one alone shows a difference, and with so many intervals one "
            "that misses 0 by chance is likelier than 5 %."
        )
    once = [row for row in rows if row["draws"] == 1 and row["fraction"] != 1]
    if once:
        said.append(
            f"Take care: {_listed(once)} labels were drawn once, so the interval leaves out that another draw "
            "would have given another figure."
        )
    return said


def _listed(rows: Rows) -> str:
    """The amounts of labels, as in "20, 50 and 1,000"."""
    *before, last = [f"{row['labels']:,}" for row in rows]
    return f"{', '.join(before)} and {last}" if before else last
