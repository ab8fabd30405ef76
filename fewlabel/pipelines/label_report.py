"""The report of a label curve: one page and its pictures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fewlabel.supervised.methods import comparisons, figure_name, figures_in, main_method, method_name

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fewlabel.supervised.few_labels import Amount, Curve
    from fewlabel.supervised.leaks import Leak
    from fewlabel.supervised.metrics import Predictions
    from fewlabel.tracking.report import Page

__all__ = ["write_report"]

_MISTAKES: Final = 24
_LEAKS: Final = 50

Row = Mapping[str, Any]


@dataclass(frozen=True)
class _End:
    """The smallest or the largest amount of labels, which have pictures of their own."""

    name: str
    """Of its pictures."""
    asked: str
    said: "Mapping[str, Sequence[Predictions]]"
    """By method."""


def write_report(
    directory: Path,
    *,
    title: str,
    about: Mapping[str, str],
    verdict: Sequence[str],
    metrics: Mapping[str, Any],
    curve: "Curve",
    amounts: "Sequence[Amount]",
    test_ids: Sequence[str],
    class_names: Sequence[str],
    leaks: "Sequence[Leak]",
    thumbnails: "Callable[[list[int]], NDArray[np.generic]]",
) -> tuple[Path, dict[str, Path]]:
    """Write `directory`/report.html, which holds all it shows, and `directory`/pictures/*.png.

    Args:
        directory: of the run.
        title: of the page.
        about: what was trained on what, and the commands that repeat it, by name.
        verdict: the sentences of `supervised.verdict`, or others; the first one stands out.
        metrics: "curve" and "gain", the rows of `figures_of` and of `gains_of`; and where test images stand in
            another split, "curve_without_leaks".
        curve: what each method says of the test images.
        amounts: the subsets of labels that it was trained on.
        test_ids: of the test images, in the order of the predictions.
        class_names: of the K classes or labels.
        leaks: images that stand in two splits.
        thumbnails: gives the test images at these positions as (n, C, H, W) uint8 or uint16.

    Returns:
        The page, and the pictures by name.

    Raises:
        UserError: a file can't be written.
    """
    from fewlabel.tracking.report import Page

    main = main_method(curve)
    asked = [_asked(row) for row in metrics["curve"] if row["method"] == main]
    ends = [
        _End(name, asked[place], {method: said[place] for method, said in curve.items()})
        for name, place in (("fewest", 0), ("most", len(amounts) - 1))
        if name == "most" or len(amounts) > 1
    ]
    pictures = _draw(directory / "pictures", metrics["curve"], ends, main, class_names)
    last = ends[-1].said[main]
    kinds = f"{len(class_names)} {'labels an image' if last[0].multi_label else 'classes'}"
    most = max(len(subset.indices) for subset in amounts[-1])

    page = Page(title, f"{len(test_ids):,} test images, {kinds}, up to {most:,} labelled training images")
    page.section("Verdict")
    for place, sentence in enumerate(verdict):
        page.paragraph(sentence, lead=place == 0)
    _add_figures(page, metrics, asked, pictures)
    _add_roc(page, last[0], ends, pictures)
    _add_errors(page, ends, main, pictures)
    _add_mistakes(
        page, last, f"{method_name(main, in_sentence=True)} with {asked[-1]}", test_ids, class_names, thumbnails
    )
    _add_leaks(page, leaks, metrics)
    page.section("What was trained on what")
    page.definitions(about)
    sizes = [[len(subset.indices) for subset in draws] for draws in amounts]
    page.table(
        ["Amount", "Draws", "Fewest labels", "Most labels"],
        [[name, len(drawn), min(drawn), max(drawn)] for name, drawn in zip(asked, sizes, strict=True)],
        "The labelled training images that the draws came to",
    )
    _add_method(page, last[0], len(test_ids))
    return page.write(directory / "report.html"), pictures


def _draw(
    folder: Path, rows: Sequence[Row], ends: Sequence[_End], main: str, class_names: Sequence[str]
) -> dict[str, Path]:
    """All pictures, by name."""
    from fewlabel.supervised.error_pictures import draw_calibration, draw_confusion
    from fewlabel.supervised.pictures import draw_label_aurocs, draw_label_curve, draw_roc

    drawn: dict[str, Path] = {}

    def place_of(name: str) -> Path:
        return drawn.setdefault(name, folder / f"{name}.png")

    draw_label_curve(place_of("label_curve"), rows)
    for end in ends:
        draws, title = end.said[main], f"{method_name(main)} with {end.asked}"
        draw_roc(place_of(f"roc_{end.name}_labels"), end.said, f"ROC with {end.asked}")
        if draws[0].multi_label:
            rivals = [main, *(worse for better, worse in comparisons(end.said) if better == main)]
            compared = {method: end.said[method] for method in rivals}
            title_of_labels = f"AUROC of each label with {end.asked}"
            draw_label_aurocs(place_of(f"label_aurocs_{end.name}_labels"), compared, class_names, title_of_labels)
        else:
            draw_confusion(place_of(f"confusion_{end.name}_labels"), draws, class_names, title)
        draw_calibration(place_of(f"calibration_{end.name}_labels"), main, draws, title)
    return drawn


def _add_figures(page: "Page", metrics: Mapping[str, Any], asked: Sequence[str], pictures: Mapping[str, Path]) -> None:
    page.section("Label curve")
    page.figure(
        pictures["label_curve"],
        "Mean over draws of the labels, with its 95 % interval. A colour is a way of using a network; filled marks "
        "start from the pretrained encoder, squares and dashes from no pretraining, triangles and dots from ImageNet.",
        f"Figures of every method from {asked[0]} to {asked[-1]}; the numbers are in the tables below",
    )
    page.section("Every figure")
    rows: Sequence[Row] = metrics["curve"]
    figures = figures_in(rows)
    for amount in asked:
        here = [row for row in rows if _asked(row) == amount]
        fewest, most = min(row["draws"] for row in here), max(row["draws"] for row in here)
        draws = f"{fewest} draws" if fewest > 1 else "a single draw"
        if fewest < most:
            draws += f", on which networks were trained {most} times"
        page.table(
            ["Method", *map(figure_name, figures)],
            [[method_name(row["method"]), *(row.get(name) for name in figures)] for row in here],
            f"With {amount}, {draws}: mean and 95 % interval",
        )
    if not metrics["gain"]:
        return
    page.section("Paired differences")
    page.paragraph("By how much the first method lies above the second on the same test images, with 95 % intervals.")
    for pair in dict.fromkeys(row["method"] for row in metrics["gain"]):
        better, worse = pair.split(" - ")
        page.table(
            ["Labels", "AUROC", "Accuracy", "The interval of AUROC"],
            [
                [row["labels"], row["auroc"], row["accuracy"], _reading(row["auroc"])]
                for row in metrics["gain"]
                if row["method"] == pair
            ],
            f"{method_name(better)} against {method_name(worse, in_sentence=True)}",
            signed=True,
        )


def _add_roc(page: "Page", said: "Predictions", ends: Sequence[_End], pictures: Mapping[str, Path]) -> None:
    page.section("ROC curves")
    over = (
        "the trainings and the labels"
        if said.multi_label
        else "the trainings"
        if said.probabilities.shape[1] == 2
        else "the trainings and the classes, each against the rest"
    )
    page.paragraph(f"At each false positive rate the mean over {over}. The area under it is the mean likewise.")
    for end in ends:
        page.figure(
            pictures[f"roc_{end.name}_labels"],
            f"All methods with {end.asked}.",
            f"ROC curves of all methods with {end.asked}; their areas are in the tables above",
        )


def _add_errors(page: "Page", ends: Sequence[_End], main: str, pictures: Mapping[str, Path]) -> None:
    page.section("Where it errs")
    name = method_name(main, in_sentence=True)
    for end in ends:
        draws = end.said[main]
        page.heading(f"{method_name(main)} with {end.asked}")
        if draws[0].multi_label:
            page.figure(
                pictures[f"label_aurocs_{end.name}_labels"],
                "Mean over trainings; the whiskers span the trainings, and say nothing of other test images.",
                f"AUROC of each label with {end.asked}",
            )
        else:
            counted = f", counted once for each of {len(draws)} trainings" if len(draws) > 1 else ""
            page.figure(
                pictures[f"confusion_{end.name}_labels"],
                f"The test images by true and by most probable class{counted}.",
                f"Confusion matrix of the {name} with {end.asked}",
            )
        mean = " a training. The ECE is the mean of the trainings', not that of all together" if len(draws) > 1 else ""
        page.figure(
            pictures[f"calibration_{end.name}_labels"],
            "Above the diagonal it is right more often than it is sure; below, less often. Hollow marks stand for "
            f"fewer than 10 decisions{mean}.",
            f"Reliability diagram of the {name} with {end.asked}",
        )


def _add_mistakes(
    page: "Page",
    draws: "Sequence[Predictions]",
    name: str,
    test_ids: Sequence[str],
    class_names: Sequence[str],
    thumbnails: "Callable[[list[int]], NDArray[np.generic]]",
) -> None:
    from fewlabel.supervised.mistakes import most_confident_mistakes
    from fewlabel.tracking.report import Thumbnail

    page.section("Most confident mistakes")
    mistakes = most_confident_mistakes(draws, test_ids, _MISTAKES)
    if not mistakes:
        page.paragraph(f"The {name} is right about every test image.")
        return
    by_mean = ", by the mean probability of the trainings" if len(draws) > 1 else ""
    page.paragraph(
        f"The test images about which the {name} is surest and wrong{by_mean}. A label that is itself wrong shows here "
        "too. The images are squares, as they are stored for the network."
    )
    answers = class_names if mistakes[0].column is None else ("no", "yes")
    images = thumbnails([mistake.position for mistake in mistakes])
    page.thumbnails(
        [
            Thumbnail(
                pixels,
                [
                    mistake.id,
                    *([] if mistake.column is None else [class_names[mistake.column]]),
                    f"label: {answers[mistake.label]}",
                    f"predicted: {answers[mistake.predicted]}",
                    f"confidence: {mistake.confidence:.3f}",
                ],
            )
            for mistake, pixels in zip(mistakes, images, strict=True)
        ]
    )


def _add_leaks(page: "Page", leaks: "Sequence[Leak]", metrics: Mapping[str, Any]) -> None:
    page.section("Images in two splits")
    if not leaks:
        page.paragraph("No image stands in two splits, as far as copies can be seen.")
        return
    shown = sorted(leaks, key=lambda leak: -leak.similarity)[:_LEAKS]
    rest = f"; the {len(shown)} most similar are here, all in result.json" if len(leaks) > len(shown) else ""
    page.table(
        ["Kind", "Split", "Image", "Split", "Image", "Similarity"],
        [[leak.kind, *leak.left, *leak.right, leak.similarity] for leak in shown],
        f"Pairs found: {len(leaks):,}{rest}",
    )
    if rows := metrics.get("curve_without_leaks"):
        figures = [name for name in ("auroc", "accuracy", "kappa_quadratic") if name in rows[0]]
        page.table(
            ["Labels", "Method", *map(figure_name, figures)],
            [
                [row["labels"], method_name(row["method"]), *(row[name] for name in figures)]
                for row in sorted(rows, key=lambda row: row["labels"])
            ],
            "The figures without the test images that stand elsewhere too",
        )


def _add_method(page: "Page", said: "Predictions", test_images: int) -> None:
    page.section("How the figures were made")
    auroc = (
        "the mean over the labels, unknown ones left out"
        if said.multi_label
        else "that of the second class"
        if said.probabilities.shape[1] == 2
        else "the mean over the classes, each against the rest"
    )
    at_threshold = "Sensitivity and specificity are at the threshold that the validation images chose (Youden's J)."
    page.listing(
        [
            f"All figures are on the {test_images:,} test images, on which nothing was chosen.",
            "Within a draw the labels of a smaller amount are part of each larger one, hold at least one image of "
            "every class, and never part the images of a group such as a patient.",
            "A figure is the mean over trainings: one on each draw of the labels, or from each seed where all labels "
            "are one draw. Its interval is the 2.5 to 97.5 % range of 1,000 bootstrap replicates; "
            "each picks one training and resamples the test images, whole groups where there are groups. It says where "
            "the figure of one training may lie on other images, and does not shrink as draws are added.",
            "A difference is paired: both methods are judged on the same resample, and on the same draw of the "
            "labels where both have as many trainings.",
            "The verdict compares fine-tuning with training from scratch where both were run, else the linear probe "
            "with the one on the untrained network. That does not depend on any figure.",
            f"AUROC and AUPRC are {auroc}. ECE is the expected calibration error in 15 bins of equal width.",
            *([at_threshold] if said.threshold is not None else []),
        ]
    )


def _asked(row: Row) -> str:
    share = f"{row['shots']} a class" if row["fraction"] is None else f"{100 * row['fraction']:g} %"
    return f"{row['labels']:,} labels ({share})"


def _reading(difference: Mapping[str, float]) -> str:
    return "is above 0" if difference["low"] > 0 else "is below 0" if difference["high"] < 0 else "contains 0"
