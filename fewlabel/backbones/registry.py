"""The registry: names of backbones to networks."""

import functools
import importlib
import pkgutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from fewlabel.backbones import families, timm_any
from fewlabel.backbones.backbone import Backbone
from fewlabel.backbones.family import Family
from fewlabel.backbones.meta import without_weights
from fewlabel.backbones.options import SMALL_IMAGE, nearest, parse_options, read_options
from fewlabel.backbones.scale import Scale
from fewlabel.backbones.timm_call import TimmCall
from fewlabel.errors import UserError

__all__ = [
    "CHANNELS",
    "IMAGE_SIZES",
    "all_families",
    "check",
    "check_name",
    "create",
    "find",
    "fit_image_size",
    "options_from",
    "register",
]

IMAGE_SIZES = range(8, 4097)
"""Sides in pixels that any backbone may be asked for; bounded, as an encoder's config.json is not trusted."""

CHANNELS = range(1, 257)
"""Input channels that any backbone may be asked for."""

UNSCALED = Scale()

_families: dict[str, Family] = {}


def register(family: Family) -> Family:
    """Add `family` to the registry; a file in `families/` calls this once, and is found by itself.

    Raises:
        ValueError: its name, or one of its members', is taken, or its `small` or `large` is no member.
    """
    taken = {name: other.name for other in _families.values() for name in (other.name, *other.members)}
    for name in (family.name, *family.members):
        if name in taken or name.startswith(timm_any.PREFIX):
            raise ValueError(f"The backbone name {name!r} is taken by {taken.get(name, 'timm')!r}.")
    if not {family.small, family.large} <= set(family.members):
        raise ValueError(f"{family.name}: small and large must be members.")
    _families[family.name] = family
    return family


@functools.cache
def _import_families() -> None:
    for module in pkgutil.iter_modules(families.__path__):
        importlib.import_module(f"{families.__name__}.{module.name}")


def all_families() -> list[Family]:
    """Every registered family, by name."""
    _import_families()
    return sorted(_families.values(), key=lambda family: family.name)


def find(name: str, image_size: int) -> tuple[Family, str]:
    """The family and the exact member that `name` stands for at `image_size` pixels.

    Raises:
        UserError: no such name; the message has the nearest ones.
    """
    if name.startswith(timm_any.PREFIX):
        timm_any.check_name(name)
        return timm_any.FAMILY, name
    for family in all_families():
        if name == family.name:
            return family, family.member(image_size)
        if name in family.members:
            return family, name
    known = [one for family in all_families() for one in (family.name, *family.members)]
    if timm_any.PREFIX + name in timm_any.names():
        advice = f"timm has it: write {timm_any.PREFIX}{name}."
    else:
        families_known = ", ".join(family.name for family in all_families())
        advice = nearest(name, known + timm_any.names()) or f"The families: {families_known}."
    raise UserError(f"There is no backbone {name!r}. {advice} `fewlabel backbones` lists all.")


def check_name(name: str) -> None:
    """Refuse a `name` that `create` doesn't know; builds nothing.

    Raises:
        UserError: no such name; the message has the nearest ones.
    """
    find(name, SMALL_IMAGE)


def check(name: str, /, *, image_size: int, in_chans: int = 3, scale: Scale = UNSCALED, **options: Any) -> None:
    """Refuse what `create` would refuse, in a moment: the network is built without weights.

    Raises:
        UserError: as `create` does.
    """
    with without_weights():
        create(name, image_size=image_size, in_chans=in_chans, scale=scale, **options)


def options_from(name: str, given: Sequence[str]) -> dict[str, Any]:
    """The options of the backbone `name` from `NAME=VALUE` texts as typed.

    Raises:
        UserError: an unknown backbone or option, or a value that it can't have; the message has the known ones.
    """
    return parse_options(find(name, SMALL_IMAGE)[0].options, given, name)


def fit_image_size(name: str, wanted: int, **options: Any) -> int:
    """The image size nearest to `wanted` that the backbone takes, the larger of two; its rules see `wanted`.

    Raises:
        UserError: as `create` does for names and options.
    """
    family, member = find(name, wanted)
    step = family.step(read_options(family.options, options, name).completed(member, wanted))
    return max(1, (wanted + step // 2) // step) * step


def create(name: str, /, *, image_size: int, in_chans: int = 3, scale: Scale = UNSCALED, **options: Any) -> Backbone:
    """Build a backbone with fresh weights, from torch's global random state.

    Args:
        name: a family (its member then follows from `image_size`), a member, or `timm/NAME`.
        image_size: side of the square input before `scale.resolution` multiplies it; up to 64 the network gets its
            small-image form.
        in_chans: input channels.
        scale: how much deeper, wider and finer than published.
        options: the family's own options; None or absent means by rule. The result records what was decided.

    Returns:
        A module (B, in_chans, side, side) -> (B, num_features), in training mode; its `image_size` is that side.

    Raises:
        UserError: unknown name or option, a size that the backbone can't take, or a scale that rounds something to
            nothing; the message helps on.
    """
    _check_range("image size", image_size, IMAGE_SIZES)
    _check_range("number of input channels", in_chans, CHANNELS)
    family, member = find(name, image_size)
    completed = read_options(family.options, options, name).completed(member, image_size)
    side = scale.side(image_size, (family.scaling_step or family.step)(completed))
    _check_range("scaled image size", side, IMAGE_SIZES)
    _check_step(member, side, family.step(completed))
    made = family.build(member, side, in_chans, scale, completed)
    body, timm_call = made.build() if isinstance(made, TimmCall) else (made, None)
    return Backbone(
        body,
        name=member,
        options=asdict(completed),
        image_size=side,
        in_chans=in_chans,
        scale=replace(scale, resolution=1.0),
        timm_call=timm_call,
        convolutional=family.convolutional,
    )


def _check_step(member: str, side: int, step: int) -> None:
    if side % step:
        below = side // step * step
        near = f"{below} and {below + step}" if below else str(step)
        raise UserError(
            f"{member} takes images whose side is a multiple of {step} px, not {side} px. The nearest that work: "
            f"{near} px."
        )


def _check_range(what: str, value: int, allowed: range) -> None:
    if type(value) is not int or value not in allowed:
        raise UserError(f"The {what} is {value!r}: give a whole number from {allowed[0]} to {allowed[-1]}.")
