"""Pictures of figures: real PNGs, whose lines and cells are the numbers that were given."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from sklearn.metrics import roc_auc_score

from fewlabel.errors import UserError
from fewlabel.supervised.error_pictures import draw_calibration, draw_confusion
from fewlabel.supervised.method_look import look_of
from fewlabel.supervised.methods import method_name
from fewlabel.supervised.metrics import Predictions
from fewlabel.supervised.pictures import draw_label_aurocs, draw_label_curve, draw_roc
from fewlabel.tracking.canvas import short_name

METHODS = (
    "finetune",
    "probe",
    "knn",
    "scratch",
    "probe_untrained",
    "knn_untrained",
    "finetune_imagenet",
    "probe_imagenet",
    "knn_imagenet",
)


@pytest.fixture
def drawn(monkeypatch):
    """The figures behind the PNGs."""
    figures = []
    save = Figure.savefig

    def remember(figure, *arguments, **options):
        figures.append(figure)
        return save(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", remember)
    return figures


def picture(path):
    """(H, W, 3) pixels of a PNG, which are not all alike."""
    with Image.open(path) as opened:
        assert opened.format == "PNG"
        assert round(opened.info["dpi"][0]) == 150
        pixels = np.asarray(opened.convert("RGB"))
    assert pixels.std() > 5
    return pixels


def predictions(classes=3, number=120, seed=0, **options):
    generator = np.random.default_rng(seed)
    labels = np.arange(number) % classes
    scores = generator.random((number, classes)) + 0.5 * np.eye(classes)[labels]
    return Predictions(
        scores / scores.sum(axis=1, keepdims=True), labels, **{"threshold": None, "ordinal": False, **options}
    )


def of_labels(seed=0):
    generator = np.random.default_rng(seed)
    labels = np.random.default_rng(9).integers(-1, 2, (90, 3))
    labels[:, 2] = 0
    return Predictions((generator.random((90, 3)) + labels.clip(0)) / 2, labels, threshold=None, ordinal=False)


def row(method, labels, auroc, accuracy=0.8, **more):
    around = {"auroc": auroc, "accuracy": accuracy, **more}
    return {
        "method": method,
        "labels": labels,
        **{name: {"mean": mean, "low": mean - 0.04, "high": mean + 0.02} for name, mean in around.items()},
    }


def test_the_curve_has_every_figure_where_it_belongs(tmp_path, drawn):
    rows = [row("probe", 1000, 0.9, 0.8), row("probe", 10, 0.7, 0.6), row("probe_untrained", 10, 0.55, 0.3)]
    draw_label_curve(tmp_path / "curve.png", [*rows, row("probe_untrained", 1000, 0.6, 0.4)])
    picture(tmp_path / "curve.png")
    left, right = drawn[0].axes
    assert [left.get_title("left"), right.get_title("left")] == ["AUROC", "Accuracy"]
    probe, untrained = left.lines[:2]
    assert (probe.get_xdata().tolist(), probe.get_ydata().tolist()) == ([10, 1000], [0.7, 0.9])
    assert right.lines[0].get_ydata().tolist() == [0.6, 0.8]
    assert left.get_xscale() == "log"
    # The shade of the probe reaches from the lower to the upper end of its interval.
    corners = left.collections[0].get_paths()[0].vertices
    assert {(10.0, 0.66), (10.0, 0.72), (1000.0, 0.86), (1000.0, 0.92)} <= {tuple(at) for at in corners.round(6)}
    assert (probe.get_linestyle(), untrained.get_linestyle()) == ("-", "--")
    assert probe.get_color() == untrained.get_color()
    legend = [text.get_text() for text in drawn[0].legends[0].get_texts()]
    assert legend == ["Linear probe", "Linear probe, untrained network"]
    low, high = left.get_ylim()
    assert low < 0.51
    assert high > 0.92


def test_the_curve_of_ordinal_classes_has_the_kappa(tmp_path, drawn):
    rows = [row("knn", labels, 0.8, kappa_quadratic=0.35) for labels in (10, 20)]
    draw_label_curve(tmp_path / "curve.png", rows)
    assert drawn[0].axes[1].get_title("left") == "Quadratic kappa"
    assert drawn[0].axes[1].lines[0].get_ydata().tolist() == [0.35, 0.35]


def test_one_amount_of_labels_has_whiskers_side_by_side(tmp_path, drawn):
    draw_label_curve(tmp_path / "curve.png", [row(method, 10, 0.7) for method in METHODS])
    picture(tmp_path / "curve.png")
    whiskers = drawn[0].axes[0].containers
    assert [bar[0].get_xdata()[0] for bar in whiskers] == list(range(9))
    ((_, low), (_, high)) = whiskers[0][2][0].get_segments()[0]
    assert (low, high) == pytest.approx((0.66, 0.72))


def test_amounts_that_stand_close_are_not_written_over_each_other(tmp_path, drawn):
    draw_label_curve(tmp_path / "curve.png", [row("probe", labels, 0.8) for labels in (10, 12, 100, 990, 1000)])
    axis = drawn[0].axes[0].xaxis
    assert [axis.get_major_formatter()(at) for at in axis.get_major_locator()()] == ["", "12", "100", "", "1,000"]


def test_each_method_looks_like_itself_and_like_no_other():
    looks = [look_of(method) for method in METHODS]
    assert len({(look["color"], str(look["linestyle"])) for look in looks}) == len(METHODS)
    dashed = [method for method, look in zip(METHODS, looks, strict=True) if look["marker"] == "s"]
    assert dashed == ["scratch", "probe_untrained", "knn_untrained"]
    assert len({method_name(method) for method in METHODS}) == len(METHODS)


@pytest.mark.parametrize("classes", [2, 4])
def test_roc_curves_have_the_area_that_the_legend_says(tmp_path, drawn, classes):
    draws = [predictions(classes, seed=seed) for seed in range(3)]
    draw_roc(tmp_path / "roc.png", {"probe": draws, "knn": draws[:1]}, "ROC with 10 labels")
    picture(tmp_path / "roc.png")
    axes = drawn[0].axes[0]
    expected = []
    for draw in draws:
        scores = draw.probabilities[:, 1] if classes == 2 else draw.probabilities
        expected.append(roc_auc_score(draw.labels, scores, multi_class="ovr"))
    _, probe, knn = axes.lines
    for line, area in ((probe, np.mean(expected)), (knn, expected[0])):
        assert np.trapezoid(line.get_ydata(), line.get_xdata()) == pytest.approx(area, abs=0.003)
        assert (line.get_ydata()[0], line.get_ydata()[-1]) == (0, 1)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        f"{np.mean(expected):.3f}  Linear probe",
        f"{expected[0]:.3f}  Nearest neighbours",
    ]


def test_roc_of_several_labels_leaves_out_what_is_unknown(tmp_path, drawn):
    draw = of_labels()
    draw_roc(tmp_path / "roc.png", {"probe": [draw]}, "ROC")
    known = draw.labels >= 0
    areas = [roc_auc_score(draw.labels[known[:, k], k], draw.probabilities[known[:, k], k]) for k in (0, 1)]
    line = drawn[0].axes[0].lines[1]
    assert np.trapezoid(line.get_ydata(), line.get_xdata()) == pytest.approx(np.mean(areas), abs=0.005)


def test_each_label_has_its_auroc_and_the_span_of_the_draws(tmp_path, drawn):
    draws = [of_labels(seed) for seed in range(3)]
    draw_label_aurocs(tmp_path / "labels.png", {"probe": draws, "knn": draws[:1]}, ["a", "$b$", "never"], "Labels")
    picture(tmp_path / "labels.png")
    areas = np.array([draw.auroc_of_labels()[:2] for draw in draws], dtype=float)
    probe = drawn[0].axes[0].containers[0]
    assert probe[0].get_xdata()[:2] == pytest.approx(areas.mean(axis=0))
    # The third label is never a yes: it has a name, and no mark.
    assert np.isnan(probe[0].get_xdata()[2])
    spans = [segment[:, 0] for segment in probe[2][0].get_segments()[:2]]
    assert np.array(spans) == pytest.approx(np.stack([areas.min(axis=0), areas.max(axis=0)]).T)
    assert [tick.get_text() for tick in drawn[0].axes[0].get_yticklabels()] == ["a", "$b$", "never"]


def cells(axes):
    return {(round(text.get_position()[1]), round(text.get_position()[0])): text.get_text() for text in axes.texts}


def test_confusion_counts_the_images_of_all_draws(tmp_path, drawn):
    draws = [predictions(seed=seed) for seed in range(2)]
    draw_confusion(tmp_path / "confusion.png", draws, ["a", "b", "c"], "Confusion")
    picture(tmp_path / "confusion.png")
    expected = np.zeros((3, 3), dtype=int)
    for draw in draws:
        for label, probabilities in zip(draw.labels, draw.probabilities, strict=True):
            expected[label, np.argmax(probabilities)] += 1
    shown = cells(drawn[0].axes[0])
    for (true, predicted), count in np.ndenumerate(expected):
        assert shown[true, predicted] == f"{count}\n{100 * count / expected[true].sum():.0f} %"
    shares = np.asarray(drawn[0].axes[0].images[0].get_array())
    assert shares == pytest.approx(expected / expected.sum(axis=1, keepdims=True))


def test_of_many_classes_the_most_confused_are_shown_and_none_is_lost(tmp_path, drawn):
    labels = np.repeat(np.arange(30), 4)
    said = labels.copy()
    # The ten last classes are right about all; image 0 of each other one is taken for the class after it.
    said[:80:4] = (labels[:80:4] + 1) % 20
    said[1] = 29
    said_of = Predictions(np.eye(30)[said], labels, threshold=None, ordinal=False)
    draw_confusion(tmp_path / "confusion.png", [said_of], [f"class {k}" for k in range(30)], "Confusion")
    axes = drawn[0].axes[0]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == [f"class {k}" for k in range(20)]
    assert axes.get_xticklabels()[-1].get_text() == "all others"
    shares = np.asarray(axes.images[0].get_array())
    assert shares[0].tolist() == [0.5, 0.25, *[0] * 18, 0.25]
    assert shares.sum(axis=1) == pytest.approx(np.ones(20))


def test_names_of_classes_are_taken_literally(tmp_path, drawn):
    names = [r"a $\frac$ b", "x\ny" + "z" * 90, "<script>"]
    draw_confusion(tmp_path / "confusion.png", [predictions()], names, r"of $\frac$")
    picture(tmp_path / "confusion.png")
    shown = [tick.get_text() for tick in drawn[0].axes[0].get_yticklabels()]
    assert shown == [r"a $\frac$ b", short_name(names[1]), "<script>"]
    assert shown[1].startswith("x yzzz")
    assert len(shown[1]) == 26


@pytest.mark.parametrize("make", [predictions, of_labels])
def test_calibration_shows_the_bins_that_the_ece_is_made_of(tmp_path, drawn, make):
    draw = make()
    draw_calibration(tmp_path / "calibration.png", "probe", [draw], "Calibration")
    picture(tmp_path / "calibration.png")
    upper, lower = drawn[0].axes
    _, line = upper.lines
    numbers = lower.patches[0].get_data().values
    assert numbers.sum() == (draw.labels >= 0).sum()
    gaps = np.abs(line.get_xdata() - line.get_ydata())
    assert gaps @ numbers[numbers > 0] / numbers.sum() == pytest.approx(draw.figures()["ece"])
    assert upper.get_title("left") == f"Calibration: ECE {draw.figures()['ece']:.3f}"


def test_calibration_of_several_draws_shows_each_and_their_mean_error(tmp_path, drawn):
    draws = [predictions(seed=seed) for seed in range(3)]
    draw_calibration(tmp_path / "calibration.png", "knn", draws, "Calibration")
    upper, lower = drawn[0].axes
    assert len(upper.lines) == 1 + 3 + 1
    assert lower.patches[0].get_data().values.sum() == pytest.approx(120)
    mean = np.mean([draw.figures()["ece"] for draw in draws])
    assert upper.get_title("left").endswith(f"ECE {mean:.3f}")
    assert upper.lines[-1].get_color() == look_of("knn")["color"]


def test_a_failure_leaves_the_old_picture(tmp_path, monkeypatch):
    path = tmp_path / "curve.png"
    draw_label_curve(path, [row("probe", 10, 0.8)])
    before = path.read_bytes()

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(UserError, match="No space left"):
        draw_label_curve(path, [row("probe", 10, 0.9)])
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["curve.png"]
