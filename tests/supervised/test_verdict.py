"""The verdict says what the intervals say, compares what was named beforehand, and warns where it should."""

import pytest

from fewlabel.supervised.methods import comparisons, main_comparison, main_method, method_name
from fewlabel.supervised.verdict import verdict

UP, DOWN, OPEN = (0.05, 0.02, 0.08), (-0.05, -0.08, -0.02), (0.01, -0.03, 0.05)


def rows(*differences, pair="finetune - scratch", draws=5, amounts=(20, 200, 2000, 20_000)):
    return [
        {
            "method": pair,
            "fraction": labels / 20_000,
            "shots": None,
            "labels": labels,
            "draws": draws,
            "auroc": dict(zip(("mean", "low", "high"), difference, strict=True)),
        }
        for labels, difference in zip(amounts, differences, strict=False)
    ]


@pytest.mark.parametrize(
    ("differences", "said"),
    [
        ([UP, UP, UP], "Pretraining paid at every amount of labels, from 20 to 2,000."),
        ([UP], "Pretraining paid with 20 labels."),
        ([DOWN, DOWN], "Pretraining cost at every amount of labels, from 20 to 200."),
        (
            [UP, UP, OPEN, OPEN],
            "Pretraining paid with few labels, up to 200; with 2,000 and 20,000 these test images can't tell.",
        ),
        (
            [OPEN, OPEN],
            "These test images can't tell whether pretraining paid or cost at any amount of labels, from 20 to 200: "
            "the interval of the difference contains 0.",
        ),
        (
            [OPEN],
            "These test images can't tell whether pretraining paid or cost with 20 labels: the interval of the "
            "difference contains 0.",
        ),
        ([UP, DOWN], "Pretraining paid with 20 and cost with 200 labels."),
        (
            [UP, OPEN, DOWN],
            "Pretraining paid with 20 and cost with 2,000 labels; with 200 these test images can't tell.",
        ),
        ([OPEN, DOWN], "Pretraining cost with 200 labels; with 20 these test images can't tell."),
        ([OPEN, UP, UP], "Pretraining paid with 200 and 2,000 labels; with 20 these test images can't tell."),
        # An interval that ends at 0 contains it, as where all of ten test images are ranked right by both.
        (
            [(0.0, 0.0, 0.0)],
            "These test images can't tell whether pretraining paid or cost with 20 labels: the interval of the "
            "difference contains 0.",
        ),
    ],
)
def test_the_answer_follows_the_intervals(differences, said):
    assert verdict(rows(*differences), test_images=500)[0] == said


def test_each_difference_is_given_with_its_interval_in_the_order_of_the_labels():
    told = verdict(rows(UP, OPEN)[::-1], test_images=500)
    assert told[1:] == [
        "AUROC of the fine-tuned encoder less that of the same network trained from scratch: "
        "+0.050 (95 % interval +0.020 to +0.080) with 20 labels, +0.010 (-0.030 to +0.050) with 200."
    ]


def test_fine_tuning_decides_where_it_was_run_whatever_the_probe_says():
    gains = rows(UP, UP, pair="probe - probe_untrained") + rows(DOWN, DOWN) + rows(UP, UP, pair="knn - knn_untrained")
    assert verdict(gains, test_images=500)[0].startswith("Pretraining cost at every amount")
    probed = [row for row in gains if row["method"] != "finetune - scratch"]
    told = verdict(probed, test_images=500)
    assert told[0].startswith("Pretraining paid at every amount")
    assert told[1].startswith("AUROC of a linear probe on the encoder less that on the same network untrained: +0.050")


def test_nearest_neighbours_alone_decide_nothing():
    told = verdict(rows(UP, pair="knn - knn_untrained"), test_images=500)
    assert len(told) == 1
    assert told[0].startswith("Nothing here says whether pretraining paid")


def test_imagenet_weights_are_compared_in_the_same_use():
    probed = rows(DOWN, DOWN, pair="probe - probe_imagenet")
    told = verdict(rows(UP, UP) + probed + rows(OPEN, UP, pair="finetune - finetune_imagenet"), test_images=500)
    assert told[2] == (
        "The pretrained encoder did better than ImageNet weights with 200 labels; with 20 these test images can't tell."
    )
    assert told[3].startswith("AUROC of the fine-tuned encoder less that of fine-tuned ImageNet weights: +0.010")
    # Where they were not fine-tuned, the probe is what there is to compare.
    told = verdict(rows(UP, UP) + probed, test_images=500)
    assert (
        told[2] == "The pretrained encoder did worse than ImageNet weights at every amount of labels, from 20 to 200."
    )
    assert told[3].startswith("AUROC of a linear probe on the encoder less that on ImageNet weights: -0.050")


def test_few_test_images_or_groups_are_a_caution():
    assert verdict(rows(UP), test_images=10)[-1] == (
        "Take care: the test side has only 10 images. Intervals from so few are rough; the widest spans 0.060. "
        "Where the splits were made here, a larger --test-share tells more."
    )
    assert verdict(rows(UP), test_images=900, test_groups=7)[-1] == (
        "Take care: the test side has only 900 images, of 7 groups. Intervals from so few are rough; "
        "the widest spans 0.060. Where the splits were made here, a larger --test-share tells more."
    )
    assert not any("Take care" in sentence for sentence in verdict(rows(UP), test_images=900, test_groups=200))


def test_wide_intervals_are_a_caution_where_images_are_many():
    told = verdict(rows((0.1, 0.01, 0.2), UP), test_images=900)
    assert told[-1].startswith("Take care: the widest interval spans 0.190 of AUROC")


def test_one_difference_of_many_is_a_caution():
    assert verdict(rows(OPEN, UP, OPEN), test_images=900)[-1].startswith("Take care: of 3 amounts one alone shows")
    assert not any("one alone" in sentence for sentence in verdict(rows(UP, UP, OPEN), test_images=900))


def test_a_single_draw_is_a_caution_unless_it_is_of_all_labels():
    told = verdict(rows(UP, UP, UP, UP, draws=1), test_images=900)
    assert told[-1].startswith("Take care: 20, 200 and 2,000 labels were drawn once")


def test_the_comparison_depends_on_what_was_run_alone():
    every = ["knn", "probe", "finetune", "scratch", "probe_untrained", "knn_untrained", "probe_imagenet"]
    assert main_comparison(every) == ("finetune", "scratch")
    assert main_comparison(set(every) - {"scratch"}) == ("probe", "probe_untrained")
    assert main_comparison({"finetune", "probe", "finetune_imagenet"}) is None
    assert [main_method(methods) for methods in (every, {"knn", "probe"}, {"finetune", "knn"})] == [
        "finetune",
        "probe",
        "finetune",
    ]
    assert comparisons(every) == [
        ("finetune", "scratch"),
        ("probe", "probe_untrained"),
        ("knn", "knn_untrained"),
        ("probe", "probe_imagenet"),
    ]
    assert method_name("finetune_imagenet", in_sentence=True) == "fine-tuned ImageNet weights"
