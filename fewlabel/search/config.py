"""What a user can say about a search; importing this loads neither torch nor Optuna."""

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from fewlabel.data.config import SourceConfig
from fewlabel.errors import UserError

__all__ = ["ProxyConfig", "SearchConfig", "SearchedSource", "StudyConfig"]

CostName = Literal["flops", "params", "latency"]
Tuned = Literal["lr", "temperature", "weight_decay", "view_strength"]


@dataclass(frozen=True)
class SearchedSource(SourceConfig):
    """The same, with another flag for its threads: a search's --workers are processes that train."""

    workers: Annotated[int | None, tyro.conf.arg(name="reading-threads")] = None
    """Threads that read and decode images. Default: one a core."""


@dataclass(frozen=True)
class StudyConfig:
    """Where the study is kept and who works on it: none of this changes what is found.

    Raises:
        UserError: a value out of its range.
    """

    storage: str | None = None
    """Database with the study, as postgresql://USER:PASSWORD@HOST/NAME or sqlite:///FILE. The same command on another
    machine with the same storage joins the study. Default: study.db in the run directory."""
    study: str | None = None
    """Name of the study in the storage. Default: <backbone>-<source>."""
    workers: int = 1
    """Processes on this machine that train trials at the same time, each with --processes ranks."""
    stale_after: int = 120
    """Seconds without a sign of life after which a trial is given to another worker."""

    def __post_init__(self) -> None:
        """Check the ranges, so that a typing error shows before anything is computed."""
        if self.workers < 1:
            raise UserError(f"--workers is {self.workers}; it must be 1 or more.")
        if self.stale_after < 4:
            raise UserError(f"--stale-after is {self.stale_after}; it must be 4 seconds or more.")
        if self.study is not None and not self.study.strip():
            raise UserError("--study is empty: give the study a name, or leave it out.")


@dataclass(frozen=True)
class ProxyConfig:
    """What a trial trains in place of the full length, so that many can be tried.

    Raises:
        UserError: a value out of its range.
    """

    proxy_epochs: int | None = None
    """Epochs of a trial. Default: a tenth of the full length, at least 1."""
    proxy_images: int | None = None
    """Training images of a trial, drawn once for all trials. Default: all."""
    proxy_image_size: int | None = None
    """Side of a trial's images in pixels, before scaling. Default: that of the full length."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("proxy_epochs", "proxy_images", "proxy_image_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"--{name.replace('_', '-')} is {value}; it must be 1 or more.")


@dataclass(frozen=True)
class SearchConfig:
    """What is sought, among which models, and how.

    Raises:
        UserError: a value out of its range.
    """

    mode: Literal["compound", "free"] = "compound"
    """compound: as EfficientNet was found, coefficients of depth, width and resolution on the small model, then scaled
    by phi. free: depth, width and resolution each for itself, accuracy against cost."""
    objective: Literal["auto", "probe", "supervised", "knn"] = "auto"
    """What a trial is worth, always on validation images. probe: SimCLR pretraining, then the accuracy of a linear
    probe. supervised: accuracy of training on the labels. knn: SimCLR pretraining, then how far two views of an image
    agree on its nearest images, without any label. auto: probe where there are labels, else knn."""
    trials: int = 30
    """Trainings of the proxy; in compound mode at most so many."""
    against: tuple[CostName, ...] = ("flops",)
    """Free mode: the costs that accuracy is weighed against; --against alone for none, which finds the most accurate
    model within the budget."""
    tune: tuple[Tuned, ...] = ()
    """Free mode: what else is chosen beside the scale."""
    depth_range: tuple[float, float] = (0.5, 2.0)
    """Free mode: the least and the greatest multiplier of depth."""
    width_range: tuple[float, float] = (0.5, 2.0)
    """Free mode: the least and the greatest multiplier of width."""
    resolution_range: tuple[float, float] = (0.7, 1.5)
    """Free mode: the least and the greatest multiplier of the image size."""
    budget_flops: str | None = None
    """Most floating-point operations an image: a number such as 3e9, or 2x for twice the base's. Default: in compound
    mode 4x, else no limit."""
    budget_params: str | None = None
    """Most parameters: a number such as 5M, or 2x. Default: no limit."""
    budget_latency: str | None = None
    """Most time for an image on this machine: such as 10ms, or 2x. Default: no limit."""
    pruner: Literal["auto", "halving", "hyperband", "none"] = "auto"
    """What stops trials early that look bad. auto: successive halving. With costs as objectives halving compares only
    trials that cost no more, and there is no hyperband."""
    labels: float = 1.0
    """Share of the training labels that the probe or the supervised training takes."""
    confirm: int = 3
    """Best trials that are trained again at full length, beside the base, to choose the winner and to check the proxy;
    0 for none."""

    def __post_init__(self) -> None:
        """Check the ranges, so that a typing error shows before anything is computed."""
        if self.trials < 1:
            raise UserError(f"--trials is {self.trials}; it must be 1 or more.")
        if self.confirm < 0:
            raise UserError(f"--confirm is {self.confirm}; it must be 0 or more.")
        if not 0 < self.labels <= 1:
            raise UserError(f"--labels is {self.labels:g}; give a share above 0 and at most 1 (0.1 is 10 %).")
        for name in ("depth_range", "width_range", "resolution_range"):
            least, greatest = getattr(self, name)
            if not 0.1 <= least <= greatest <= 10:
                raise UserError(
                    f"--{name.replace('_', '-')} is {least:g} {greatest:g}; give the least multiplier and then the "
                    "greatest, both from 0.1 to 10."
                )
        for name in ("against", "tune"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise UserError(f"--{name} names one thing twice: {' '.join(values)}.")
        if self.mode == "compound" and self.tune:
            raise UserError("--tune is for --mode free: compound mode changes depth, width and resolution alone.")
        if self.pruner == "hyperband" and self.mode == "free" and self.against:
            raise UserError(
                "--pruner hyperband takes one objective, but --against "
                f"{' '.join(self.against)} makes {1 + len(self.against)}. Take --pruner halving, or --against with "
                "nothing behind it."
            )
