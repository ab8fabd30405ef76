"""How every picture of figures looks: the size and format, quiet axes, names that fit."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fewlabel.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["BAND", "INK", "SOFT", "figure_for", "quiet", "set_title", "short_name"]

INK: Final = "#1c1e21"
SOFT: Final = "#6b7280"
BAND: Final = "#f3f4f6"
_GRID: Final = "#d9dde1"
_DPI: Final = 150
_LONGEST_NAME: Final = 26


@contextmanager
def figure_for(path: Path, width: float, height: float, *, fitted: bool = True) -> Iterator["Figure"]:
    """A figure of about `width` x `height` inches, written to `path` as a PNG when the block ends well.

    `fitted` makes room for whatever stands around the axes; without, they lie where the block puts them, which takes a
    third of the time.

    Raises:
        UserError: the file can't be written.
    """
    from matplotlib.figure import Figure

    figure = Figure((width, height), layout="constrained" if fitted else None, facecolor="white")
    yield figure
    around: dict[str, Any] = {"bbox_inches": "tight", "pad_inches": 0.12} if fitted else {}
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=_DPI, **around)


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
