"""From the command line to a command's configuration, and from there to JSON and back."""

import types
from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import tyro

from fewlabel.errors import UserError
from fewlabel.files import read_json

__all__ = ["as_dict", "from_dict", "load_config", "parse"]

Config = TypeVar("Config")


def parse(kind: type[Config], command: str, arguments: Sequence[str]) -> Config:
    """The configuration of `command` from its arguments; --help and unknown flags end the process as tyro does.

    Where the command has `--config FILE` or `--resume DIR`, that run's configuration takes the place of the defaults,
    so that flags given beside it show as differences.
    """
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    default: Config | None = None
    for flag in ("resume", "config"):
        path = _value_of(f"--{flag}", arguments) if flag in names else None
        if path is not None:
            default = replace(load_config(kind, command, Path(path)), **{flag: Path(path)})  # type: ignore[type-var]
            break
    return tyro.cli(
        kind,
        prog=f"fewlabel {command}",
        args=list(arguments),
        default=kind() if default is None else default,
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
    )


def _value_of(flag: str, arguments: Sequence[str]) -> str | None:
    for place, argument in enumerate(arguments):
        if argument.startswith(f"{flag}="):
            return argument.partition("=")[2]
        if argument == flag and place + 1 < len(arguments):
            return arguments[place + 1]
    return None


def load_config(kind: type[Config], command: str, path: Path) -> Config:
    """The configuration in a run directory, or in the `config.json` of one.

    Raises:
        UserError: there is none, it is another command's, or it has keys that this version doesn't know.
    """
    file = path / "config.json" if path.is_dir() else path
    if not file.is_file():
        raise UserError(f"{path} is no run: {file} does not exist. `fewlabel runs` lists the runs.")
    record = read_json(file)
    if not isinstance(record, dict) or record.get("command") != command or "config" not in record:
        raise UserError(f"{file} is not the configuration of a `fewlabel {command}` run.")
    return from_dict(kind, record["config"], str(file))


def as_dict(config: Any) -> dict[str, Any]:
    """`config` as plain JSON values; nested dataclasses become nested objects."""

    def plain(value: Any) -> Any:
        if is_dataclass(value):
            return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
        if isinstance(value, tuple):
            return [plain(item) for item in value]
        return str(value) if isinstance(value, Path) else value

    result: dict[str, Any] = plain(config)
    return result


def from_dict(kind: type[Config], values: Any, where: str) -> Config:
    """Rebuild a configuration; unknown keys are an error, missing ones take their defaults.

    Raises:
        UserError: an unknown key, or a value of another type than the option's.
    """
    hints = get_type_hints(kind)
    if not isinstance(values, dict):
        raise UserError(f"{where}: expected an object for {kind.__name__}, not {values!r}.")
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise UserError(f"{where}: {', '.join(unknown)} is not an option of this version ({', '.join(sorted(hints))}).")
    return kind(**{name: _typed(hints[name], value, where) for name, value in values.items()})


def _typed(hint: Any, value: Any, where: str) -> Any:
    if is_dataclass(hint):
        return from_dict(hint, value, where)  # type: ignore[arg-type]
    choices = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    if Path in choices and isinstance(value, str):
        return Path(value)
    if get_origin(hint) is tuple and isinstance(value, list):
        return tuple(_typed(get_args(hint)[0], item, where) for item in value)
    if not any(_is_a(choice, value) for choice in choices):
        raise UserError(f"{where}: {value!r} stands where {' or '.join(map(_described, choices))} is expected.")
    return value


def _is_a(choice: Any, value: Any) -> bool:
    if get_origin(choice) is Literal:
        return value in get_args(choice)
    return type(value) is choice or (choice is float and type(value) is int)


def _described(choice: Any) -> str:
    if get_origin(choice) is Literal:
        return " or ".join(map(repr, get_args(choice)))
    return "null" if choice is types.NoneType else "a list" if get_origin(choice) is tuple else str(choice.__name__)
