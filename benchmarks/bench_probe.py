"""The linear probe on frozen features, beside 90 epochs of SGD on augmented images as lightly's benchmark does it.

Both sides take the same encoder, the same labelled training images and the same test images, which nothing is
chosen on.
"""

from pathlib import Path

from benchmarks.rows import Row, at_least
from benchmarks.sides import PEER_SETTINGS, Side

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
    accuracy = Row(
        name=f"accuracy on test images, {what}",
        ours=100 * found["accuracy"],
        peer=100 * other["accuracy"],
        ratio=found["accuracy"] / other["accuracy"],
        unit="%",
        target=f"at most {MOST_POINTS_LOWER:g} points lower",
        met=100 * (other["accuracy"] - found["accuracy"]) <= MOST_POINTS_LOWER,
        note=f"source {facts['fingerprint']}; the peer's order and augmentations are unseeded",
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
