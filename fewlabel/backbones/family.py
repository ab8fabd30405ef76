"""What a family of backbones declares about itself, and how its options are read."""

import difflib
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, Protocol, Union, get_args, get_origin, get_type_hints

from torch import nn

from fewlabel.backbones.timm_call import TimmCall
from fewlabel.errors import UserError

__all__ = ["SMALL_IMAGE", "Family", "Member", "Options", "check_rate", "nearest", "read_options"]

SMALL_IMAGE = 64
"""Images up to this side in pixels get a family's small-image form."""


class Options(Protocol):
    """A family's options: a frozen dataclass whose fields default to "by rule" (None) or to a value."""

    def completed(self, member: str, image_size: int) -> "Options":
        """The same options with nothing left to a rule, so that they rebuild the network anywhere.

        Raises:
            UserError: a value that the member can't have, or an `image_size` that it can't take.
        """


@dataclass(frozen=True)
class Member:
    """One architecture of a family."""

    image_size: int
    """The side in pixels that it was designed for."""
    note: str
    """What tells it from its siblings, in a few words."""


@dataclass(frozen=True)
class Family:
    """A family of architectures: all that the registry and the catalogue need to know."""

    name: str
    title: str
    paper: str
    """Authors, year and where to find it."""
    summary: str
    """The idea in one sentence."""
    members: Mapping[str, Member]
    small: str
    """The member that the family's name stands for up to `SMALL_IMAGE` pixels."""
    large: str
    """The member that the family's name stands for above."""
    options: type[Any]
    """A dataclass that follows `Options`."""
    build: Callable[[str, int, int, Any], nn.Module | TimmCall]
    """(member, image_size, in_chans, completed options) -> the network without a classifier, or the timm call
    that makes it. The network maps (B, in_chans, image_size, image_size) to (B, `head_hidden_size`), and may
    have `no_weight_decay() -> set[str]`."""


def nearest(name: str, known: list[str]) -> str:
    """A sentence for an error message: the `known` names closest to `name`; empty where none is close."""
    close = difflib.get_close_matches(name, known, n=5, cutoff=0.5)
    return f"The nearest known: {', '.join(close)}." if close else ""


def check_rate(name: str, rate: float) -> None:
    """Refuse a probability of dropping something that lies outside [0, 1)."""
    if not 0 <= rate < 1:
        raise UserError(f"{name} is {rate}: give a probability from 0 up to, but not including, 1.")


def read_options(kind: type[Any], given: Mapping[str, Any], owner: str) -> Any:
    """An instance of the options dataclass `kind` from `given`, names and types checked.

    Args:
        kind: the options dataclass of a family.
        given: option names to JSON values, from a user or from an encoder's `config.json`.
        owner: the backbone's name, for messages.

    Raises:
        UserError: an unknown option, or a value of another type than the field's.
    """
    hints = get_type_hints(kind)
    known = [field.name for field in fields(kind)]
    for name, value in given.items():
        if name not in known:
            raise UserError(f"{owner} has no option {name!r}. Its options: {', '.join(known)}.")
        if not _fits(value, hints[name]):
            raise UserError(f"{owner}: option {name} is {value!r}, expected {_words(hints[name])}.")
    return kind(**given)


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _fits(value: Any, hint: Any) -> bool:
    for one in _alternatives(hint):
        if get_origin(one) is Literal:
            if value in get_args(one):
                return True
        elif one is float:
            if type(value) in (int, float):
                return True
        # type() and not isinstance(): True is no number.
        elif type(value) is one:
            return True
    return False


def _words(hint: Any) -> str:
    names = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        types.NoneType: "nothing (by rule)",
    }
    return " or ".join(
        " or ".join(map(str, get_args(one))) if get_origin(one) is Literal else names.get(one, str(one))
        for one in _alternatives(hint)
    )
