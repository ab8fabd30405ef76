"""The classic sets by name: where they live on the hub, and what suits them."""

from dataclasses import dataclass
from typing import Final

from fewlabel.data.origin import Hints

__all__ = ["CLASSICS", "Home", "hints_of"]


@dataclass(frozen=True)
class Home:
    """Where a classic set lives on the hub."""

    repository: str
    hints: Hints
    image_column: str | None = None
    """Where it is not what the column rules would find."""
    label_column: str | None = None
    file: str | None = None
    """An .npz file in the repository to read, in place of the repository's tables."""
    revision: str | None = None


# MedMNIST's home is Zenodo. Its mirror on the hub needs a loading script, which `datasets` no longer runs,
# so the .npz files beside the script are read; the commit is pinned as they are found by their path.
_MEDMNIST: Final = "albertvillanova/medmnist-v2"
_MEDMNIST_REVISION: Final = "f6dd981c7400b3e3738bde12ff948b7cc8f0d623"


def _medmnist(name: str, views: str) -> Home:
    return Home(_MEDMNIST, Hints(28, views), file=f"data/{name}.npz", revision=_MEDMNIST_REVISION)


# Each repository and column was found in the hub's pages or in public code that loads it. ylecun, uoft-cs,
# ethz and microsoft keep the sets' usual homes; the dogs (12,000 and 8,580 images) and the flowers (the 3,670
# that TensorFlow publishes) are copies by members of the hub.
CLASSICS: Final[dict[str, Home]] = {
    "mnist": Home("ylecun/mnist", Hints(28, "digits")),
    "cifar10": Home("uoft-cs/cifar10", Hints(32, "natural"), "img"),
    "cifar100": Home("uoft-cs/cifar100", Hints(32, "natural"), "img", "fine_label"),
    "food101": Home("ethz/food101", Hints(views="natural")),
    "cats_vs_dogs": Home("microsoft/cats_vs_dogs", Hints(views="natural"), label_column="labels"),
    "stanford_dogs": Home("maurice-fp/stanford-dogs", Hints(views="natural")),
    "tf_flowers": Home("xiaopch/flower_photos", Hints(views="natural")),
    "pathmnist": _medmnist("pathmnist", "histology"),
    "chestmnist": _medmnist("chestmnist", "xray"),
    "dermamnist": _medmnist("dermamnist", "dermoscopy"),
    "octmnist": _medmnist("octmnist", "xray"),
    "pneumoniamnist": _medmnist("pneumoniamnist", "xray"),
    "retinamnist": _medmnist("retinamnist", "fundus"),
    "breastmnist": _medmnist("breastmnist", "xray"),
    "bloodmnist": _medmnist("bloodmnist", "histology"),
    "tissuemnist": _medmnist("tissuemnist", "histology"),
    "organamnist": _medmnist("organamnist", "xray"),
    "organcmnist": _medmnist("organcmnist", "xray"),
    "organsmnist": _medmnist("organsmnist", "xray"),
}


def hints_of(file_stem: str) -> Hints:
    """Views for a local copy that bears a classic set's name: `pneumoniamnist_64` is pneumoniamnist at 64
    px."""
    home = CLASSICS.get(file_stem.lower().split("_")[0])
    return Hints(views=home.hints.views) if home else Hints()
