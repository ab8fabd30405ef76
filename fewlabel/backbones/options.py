"""A family's options: how they are declared, read from a user or a file, and checked."""

import ast
import difflib
import inspect
import textwrap
import types
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, Literal, Protocol, Union, get_args, get_origin, get_type_hints

from fewlabel.errors import UserError

__all__ = [
    "SMALL_IMAGE",
    "Options",
    "as_texts",
    "check_heads",
    "check_number",
    "check_rate",
    "check_stages",
    "check_whole",
    "nearest",
    "option_docs",
    "parse_options",
    "read_options",
]

SMALL_IMAGE = 64
"""Images up to this side in pixels get a family's small-image form."""


class Options(Protocol):
    """A family's options: a frozen dataclass whose fields default to "by rule" (None) or to a value.

    Field types: bool, int, float, Literal of strings, tuple[int, ...], each perhaps with None. Each field has a
    docstring, which the documentation shows.
    """

    def completed(self, member: str, image_size: int) -> "Options":
        """The same options with nothing left to a rule, so that they rebuild the network anywhere.

        Args:
            member: the exact member.
            image_size: side in pixels before any scaling, which rules may depend on; it need not fit yet.

        Raises:
            UserError: a value that the member can't have.
        """


def nearest(name: str, known: Sequence[str]) -> str:
    """A sentence for an error message: the `known` names closest to `name`; empty where none is close."""
    close = difflib.get_close_matches(name, known, n=5, cutoff=0.5)
    return f"The nearest known: {', '.join(close)}." if close else ""


def check_rate(name: str, rate: float) -> None:
    """Refuse a probability of dropping something that lies outside [0, 1)."""
    if not 0 <= rate < 1:
        raise UserError(f"{name} is {rate}: give a probability from 0 up to, but not including, 1.")


def check_whole(name: str, value: int, least: int, greatest: int) -> None:
    """Refuse a number outside `least` to `greatest`, both included."""
    if not least <= value <= greatest:
        raise UserError(f"{name} is {value}: give a whole number from {least} to {greatest}.")


def check_number(name: str, value: float, least: float, greatest: float) -> None:
    """Refuse a number that is not from `least` to `greatest`."""
    if not least <= value <= greatest:
        raise UserError(f"{name} is {value}: give a number from {least} to {greatest}.")


def check_stages(member: str, name: str, values: Sequence[int], number: int, greatest: int) -> None:
    """Refuse `values` of an option that aren't one from 1 to `greatest` for each of `number` stages."""
    if len(values) != number:
        raise UserError(f"{member} has {number} stages: give {name} {number} numbers, not {len(values)}.")
    for value in values:
        check_whole(name, value, 1, greatest)


def check_heads(width: int, heads: int, what: str = "width") -> None:
    """Refuse attention heads that don't divide the width they share."""
    if heads < 1 or width % heads:
        legal = [str(number) for number in range(1, min(width, 64) + 1) if width % number == 0]
        raise UserError(f"{heads} heads don't divide the {what} {width}: take {', '.join(legal)} heads.")


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
    values = {}
    for name, value in given.items():
        _check_known(name, kind, owner)
        # JSON has no tuples.
        values[name] = tuple(value) if isinstance(value, list) else value
        if not _fits(values[name], hints[name]):
            raise UserError(f"{owner}: option {name} is {value!r}, expected {_words(hints[name])}.")
    return kind(**values)


def parse_options(kind: type[Any], given: Sequence[str], owner: str) -> dict[str, Any]:
    """Option names to values, from `NAME=VALUE` texts as typed; `read_options` takes the result.

    Lists of numbers are separated by commas; `none` leaves an option to its rule. Of an option given several times
    the last counts, so that flags can override a configuration.

    Raises:
        UserError: a text of another form, an unknown option, or a value that its type can't have.
    """
    hints = get_type_hints(kind)
    values: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"--backbone-option {text}: write NAME=VALUE. {_known_options(kind, owner)}")
        _check_known(name, kind, owner)
        readings = [reading for one in _alternatives(hints[name]) for reading in _readings(value, one)]
        if not readings:
            raise UserError(f"{owner}: option {name} is {value!r}, expected {_words(hints[name])}.")
        values[name] = readings[0]
    return values


def as_texts(options: Mapping[str, Any]) -> tuple[str, ...]:
    """`NAME=VALUE` texts, sorted, that `parse_options` reads back as `options`."""
    return tuple(f"{name}={_text(value)}" for name, value in sorted(options.items()))


def _text(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return ",".join(map(str, value))
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def option_docs(kind: type[Any]) -> dict[str, str]:
    """Each option's docstring on one line, in the order of the fields, those of base classes first."""
    found: dict[str, str] = {}
    for owner in reversed(kind.__mro__[:-1]):
        tree = ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0]
        assert isinstance(tree, ast.ClassDef)
        for statement, following in zip(tree.body, tree.body[1:], strict=False):
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                told = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
                text = str(following.value.value) if told else ""  # type: ignore[attr-defined]
                found[statement.target.id] = " ".join(text.split())
    return {field.name: found[field.name] for field in fields(kind)}


def _check_known(name: str, kind: type[Any], owner: str) -> None:
    if name not in [field.name for field in fields(kind)]:
        raise UserError(f"{owner} has no option {name!r}. {_known_options(kind, owner)}")


def _known_options(kind: type[Any], owner: str) -> str:
    return f"Its options: {', '.join(field.name for field in fields(kind)) or 'none'}."


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _fits(value: Any, hint: Any) -> bool:
    for one in _alternatives(hint):
        if get_origin(one) is Literal:
            if value in get_args(one):
                return True
        elif get_origin(one) is tuple:
            if type(value) is tuple and value and all(type(item) is int for item in value):
                return True
        elif one is float:
            if type(value) in (int, float):
                return True
        # type() and not isinstance(): True is no number.
        elif type(value) is one:
            return True
    return False


def _readings(text: str, one: Any) -> list[Any]:
    """The value that `text` stands for as the type `one`, alone in a list; an empty list if it stands for none."""
    try:
        if get_origin(one) is Literal:
            return [choice for choice in get_args(one) if str(choice) == text]
        if get_origin(one) is tuple:
            return [tuple(int(part) for part in text.split(","))]
        if one in (bool, types.NoneType):
            return [value for value in (True, False, None) if type(value) is one and str(value) == text.capitalize()]
        return [one(text)]
    except ValueError:
        return []


def _words(hint: Any) -> str:
    names = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        types.NoneType: "none (by rule)",
    }
    return " or ".join(
        " or ".join(map(str, get_args(one)))
        if get_origin(one) is Literal
        else "whole numbers separated by commas"
        if get_origin(one) is tuple
        else names.get(one, str(one))
        for one in _alternatives(hint)
    )
