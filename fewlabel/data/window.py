"""Which part of a medical image's values is shown from black to white."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from fewlabel.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["AUTO", "Window", "parse_window", "percentile_window", "to_levels"]

AUTO: Final = "auto"
_NAMED: Final = (AUTO, "full", "percentile")
_PERCENTILES: Final = (0.5, 99.5)


@dataclass(frozen=True)
class Window:
    """A range of values: `low` and what lies below is black, `high` and what lies above is white."""

    low: float
    high: float
    sigmoid: bool = False
    """A smooth curve through the middle of the range instead of a straight line (DICOM PS3.3 C.11.2.1.3.1)."""

    @classmethod
    def of(cls, centre: float, width: float, function: str = "LINEAR") -> "Window":
        """The window of DICOM's centre and width (PS3.3 C.11.2.1.2), by one of its VOI LUT functions.

        Raises:
            ValueError: no image can have such a width.
        """
        if not (math.isfinite(centre) and math.isfinite(width)) or width <= 0 or (function == "LINEAR" and width < 1):
            raise ValueError(f"a window of centre {centre} and width {width}")
        if function == "LINEAR":
            # Its whole numbers are the middles of steps, as a screen shows them.
            return cls(centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2)
        return cls(centre - width / 2, centre + width / 2, sigmoid=function == "SIGMOID")


def parse_window(text: str) -> Window | None:
    """The window that `text` ("centre,width") names; None for auto, full and percentile, which depend on the file.

    Raises:
        UserError: it is none of these.
    """
    if text in _NAMED:
        return None
    try:
        centre, width = map(float, text.split(","))
        return Window.of(centre, width)
    except ValueError:
        raise UserError(
            f"--window is {text!r}; it must be {', '.join(_NAMED)}, or a centre and a width of 1 or more with a comma "
            "between, as 40,400 for soft tissue in a CT."
        ) from None


def percentile_window(values: "npt.NDArray[Any]") -> Window:
    """From the 0.5th to the 99.5th percentile of the finite `values`; from 0 to 1 where there are none."""
    import numpy as np

    finite = values[np.isfinite(values)]
    if not finite.size:
        return Window(0.0, 1.0)
    low, high = np.percentile(finite, _PERCENTILES)
    return Window(float(low), float(high))


def to_levels(values: "npt.NDArray[Any]", window: Window, white: int) -> "npt.NDArray[np.unsignedinteger[Any]]":
    """`values` of any shape as grey levels from 0 to `white` (255: uint8, 65535: uint16); not a number is black."""
    import numpy as np

    width = window.high - window.low
    with np.errstate(all="ignore"):
        if width <= 0:
            shares = (values > window.low).astype(np.float64)
        else:
            shares = (values.astype(np.float64) - window.low) / width
            if window.sigmoid:
                shares = 1 / (1 + np.exp(-4 * (shares - 0.5)))
    levels = np.rint(np.clip(np.nan_to_num(shares, nan=0.0), 0, 1) * white)
    return levels.astype(np.uint8 if white == 255 else np.uint16)
