"""The linear probe on frozen features, beside 90 epochs of SGD on augmented images as lightly's benchmark does it.

Both sides take the same encoder, the same labelled training images and the same test images, which nothing is
chosen on.
"""

from pathlib import Path

import numpy as np

from benchmarks.rows import Row, at_least
from benchmarks.sides import PEER_SETTINGS, Side
from fewlabel.supervised.bootstrap import difference, replicates
from fewlabel.supervised.metrics import Predictions

__all__ = ["run"]

EPOCHS = 90
LEAST_RATIO = 20.0
MOST_POINTS_LOWER = 0.5


def run(labelled: Path, encoder: Path) -> list[Row]:
    """Time and accuracy; `labelled` is a source whose images all have a class, `encoder` an encoder directory."""
    arguments = (str(labelled.resolve()), str(encoder.resolve()))
    with (
        Side("benchmarks.probe_fewlabel", *arguments) as ours,
        Side("benchmarks.probe_lightly", *arguments, settings=PEER_SETTINGS) as peer,
    ):
        # The first turn of each warms up.
        ours.ask("probe")
        peer.ask("probe 1")
        found, other = ours.ask("probe"), peer.ask(f"probe {EPOCHS}")
        facts, peer_facts = ours.facts, peer.facts
    what = f"linear probe on {facts['images']:,} labelled images"
    labels = facts["labels"]
    figures, other_figures = (
        replicates([_said(side["test"], labels["test"])], None, seed=0) for side in (found, other)
    )
    lead = {name: difference(figures[name], other_figures[name]) for name in ("accuracy", "auroc")}
    mine, theirs = figures["accuracy"][0], other_figures["accuracy"][0]
    seen, other_seen = (100 * _said(side["val"], labels["val"]).figures()["accuracy"] for side in (found, other))
    accuracy = Row(
        name=f"accuracy on test images, {what}",
        ours=100 * mine,
        peer=100 * theirs,
        ratio=mine / theirs,
        unit="%",
        target=f"at most {MOST_POINTS_LOWER:g} points lower",
        met=100 * (theirs - mine) <= MOST_POINTS_LOWER,
        note=f"{100 * lead['accuracy'].mean:+.1f} points (95 % interval {100 * lead['accuracy'].low:+.1f} to "
        f"{100 * lead['accuracy'].high:+.1f}) over {len(labels['test']):,} test images; AUROC "
        f"{figures['auroc'][0]:.4f} against {other_figures['auroc'][0]:.4f} ({lead['auroc'].low:+.4f} to "
        f"{lead['auroc'].high:+.4f}); on {len(labels['val']):,} validation images, by which our penalty is chosen, "
        f"{seen:.1f} against {other_seen:.1f} %; source {facts['fingerprint']}; the peer's order and augmentations are "
        "unseeded",
    )
    time = at_least(
        LEAST_RATIO,
        f"time, {what}",
        found["seconds"],
        other["seconds"],
        "s",
        lower_is_better=True,
        note=f"from decoded images at {facts['side']} px to the classifier; the peer takes {EPOCHS} epochs with "
        f"{peer_facts['workers']} loader workers",
    )
    return [time, accuracy]


def _said(probabilities: list[list[float]], labels: list[int]) -> Predictions:
    return Predictions(np.array(probabilities), np.array(labels), threshold=None, ordinal=False)
