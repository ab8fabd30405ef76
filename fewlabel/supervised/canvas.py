"""How every picture of figures looks: the size and format, the look of each method, quiet axes, names that fit."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fewlabel.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["BAND", "INK", "SOFT", "figure_for", "look_of", "quiet", "set_title", "short_name"]

INK: Final = "#1c1e21"
SOFT: Final = "#6b7280"
BAND: Final = "#f3f4f6"
_GRID: Final = "#d9dde1"
_DPI: Final = 150
_LONGEST_NAME: Final = 26

# Colours that stay apart with every common colour blindness (Wong 2011, Nature Methods 8:441).
_COLOURS: Final = {"finetune": "#0072B2", "probe": "#D55E00", "knn": "#009E73"}
"""By how the network is used."""

_LINES: Final[dict[str, tuple[Any, str]]] = {"": ("-", "o"), "untrained": ((0, (4, 2)), "s"), "imagenet": (":", "^")}
"""Line and marker, by where the weights are from."""


@contextmanager
def figure_for(path: Path, width: float, height: float) -> Iterator["Figure"]:
    """A figure of about `width` x `height` inches, written to `path` as a PNG when the block ends well.

    Raises:
        UserError: the file can't be written.
    """
    from matplotlib.figure import Figure

    figure = Figure((width, height), layout="constrained", facecolor="white")
    yield figure
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=_DPI, bbox_inches="tight", pad_inches=0.12)


def look_of(method: str) -> dict[str, Any]:
    """Colour, line and marker of a method, in every picture the same: what starts from no pretraining is dashed."""
    use, _, weights = "finetune_untrained".partition("_") if method == "scratch" else method.partition("_")
    line, marker = _LINES[weights]
    return {
        "color": _COLOURS[use],
        "linestyle": line,
        "linewidth": 1.6 if weights else 2.0,
        "marker": marker,
        "markersize": 5,
        "markerfacecolor": "white" if weights else _COLOURS[use],
    }


def quiet(axes: "Axes") -> None:
    """Leave of the axes two lines and a pale grid behind the data."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(SOFT)
    axes.grid(color=_GRID, linewidth=0.7)
    axes.set_axisbelow(True)


def set_title(axes: "Axes", title: str) -> None:
    """A title to the left, taken literally: names of classes may hold what matplotlib takes for formulas."""
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold", parse_math=False)


def short_name(name: str) -> str:
    """`name` on one line and of at most 26 characters."""
    plain = " ".join(name.split())
    return plain if len(plain) <= _LONGEST_NAME else f"{plain[: _LONGEST_NAME - 1].rstrip()}…"
