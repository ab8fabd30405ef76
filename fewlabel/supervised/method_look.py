"""How each method of learning from few labels looks, in every picture the same."""

from typing import Any, Final

__all__ = ["look_of"]

# Colours that stay apart with every common colour blindness (Wong 2011, Nature Methods 8:441).
_COLOURS: Final = {"finetune": "#0072B2", "probe": "#D55E00", "knn": "#009E73"}
"""By how the network is used."""

_LINES: Final[dict[str, tuple[Any, str]]] = {"": ("-", "o"), "untrained": ((0, (4, 2)), "s"), "imagenet": (":", "^")}
"""Line and marker, by where the weights are from."""


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
