"""`config.json` of an encoder directory: what it holds, and how a stranger's is read."""

import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from fewlabel.errors import UserError
from fewlabel.files import read_json

__all__ = ["CONFIG", "FORMAT", "WEIGHTS", "EncoderConfig", "read_config"]

CONFIG = "config.json"
WEIGHTS = "model.safetensors"

FORMAT = 1
"""Version of the directory's layout; raised when an older reader would go wrong."""


@dataclass(frozen=True)
class EncoderConfig:
    """Everything about an encoder but its weights.

    Raises:
        ValueError: values that no encoder can have.
    """

    name: str
    """The backbone, as `fewlabel.backbones.create` takes it."""
    options: dict[str, Any]
    image_size: int
    in_chans: int
    scale: dict[str, float]
    """Multipliers of depth and width (see `Scale`); that of resolution is in `image_size`."""
    num_features: int
    mean: tuple[float, ...]
    """Per channel on the [0, 1] scale, subtracted from the pixels."""
    std: tuple[float, ...]
    """Per channel, which the difference is divided by."""
    bits: int
    """Depth of the training images."""
    timm_call: dict[str, Any] | None
    """How plain timm makes the network; None where it is none of timm's. For readers: never executed."""
    made_with: dict[str, str]
    """Versions of the packages that wrote it."""
    provenance: dict[str, Any]
    """Where it comes from, as the maker wished to record it."""

    def __post_init__(self) -> None:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != self.in_chans or not all(map(math.isfinite, values)):
                raise ValueError(f"{name} must be {self.in_chans} finite numbers, one a channel, not {values}")
        if not all(value > 0 for value in self.std):
            raise ValueError(f"std must be above 0, not {self.std}")
        if {"image_size", "in_chans", "scale"} & self.options.keys():
            raise ValueError("image_size, in_chans and scale are no options")
        if self.scale.keys() != {"depth", "width", "resolution"} or self.scale["resolution"] != 1:
            raise ValueError(f"scale must have depth, width and a resolution of 1, not {self.scale}")
        if self.bits not in (8, 16):
            raise ValueError(f"bits must be 8 or 16, not {self.bits}")

    def as_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)


_TYPES: dict[str, tuple[type, ...]] = {
    "name": (str,),
    "options": (dict,),
    "image_size": (int,),
    "in_chans": (int,),
    "scale": (dict,),
    "num_features": (int,),
    "mean": (list,),
    "std": (list,),
    "bits": (int,),
    "timm_call": (dict, type(None)),
    "made_with": (dict,),
    "provenance": (dict,),
}


def read_config(directory: Path) -> EncoderConfig:
    """Read the configuration of an encoder; every value is checked, as it may come from anyone.

    Whether the named backbone exists and takes its options and size is for `create` to say.

    Raises:
        UserError: no encoder there, a newer format, or values that make no sense.
    """
    path = directory / CONFIG
    if not directory.is_dir():
        raise UserError(f"There is no encoder directory {directory}. Pretraining writes one as RUN/encoder.")
    if not path.is_file():
        raise UserError(f"{directory} is no encoder directory: it has no {CONFIG}. Is it RUN/encoder that you want?")
    values = read_json(path)
    if not isinstance(values, dict) or type(values.get("format")) is not int:
        raise UserError(f"{path} was not written by Fewlabel: it states no format.")
    if values["format"] != FORMAT:
        raise UserError(
            f"{path} has format {values['format']} and this version reads {FORMAT}: install the version "
            "of Fewlabel that wrote it."
        )
    # Encoders of before there were scales are unscaled.
    values.setdefault("scale", {"depth": 1.0, "width": 1.0, "resolution": 1.0})
    for field in fields(EncoderConfig):
        if type(values.get(field.name)) not in _TYPES[field.name]:
            raise UserError(f"{path} is damaged: {field.name} is {values.get(field.name)!r}.")
    for name in ("mean", "std"):
        if not all(type(value) in (int, float) for value in values[name]):
            raise UserError(f"{path} is damaged: {name} is {values[name]!r}, expected numbers.")
        values[name] = tuple(map(float, values[name]))
    try:
        return EncoderConfig(**{field.name: values[field.name] for field in fields(EncoderConfig)})
    except (ValueError, OverflowError) as error:
        raise UserError(f"{path} is damaged: {error}.") from error
