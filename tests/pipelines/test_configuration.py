"""Configurations: every option is read, JSON and back, nothing unknown passes."""

import ast
import dataclasses
import json
from importlib import import_module
from pathlib import Path

import pytest

import fewlabel
from fewlabel.__main__ import COMMANDS, module_of
from fewlabel.errors import UserError
from fewlabel.pipelines import pretrain
from fewlabel.pipelines.configuration import as_dict, from_dict, load_config, parse

PACKAGE = Path(fewlabel.__file__).parent


def attributes_read():
    """Names read as `x.name` anywhere but in the configurations' own checks."""
    names = set()
    for path in PACKAGE.rglob("*.py"):
        if path.name != "config.py":
            tree = ast.parse(path.read_text(encoding="utf-8"))
            names |= {
                node.attr
                for node in ast.walk(tree)
                if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
            }
    return names


def options(kind):
    for field in dataclasses.fields(kind):
        yield field.name
        if field.default_factory is not dataclasses.MISSING:
            yield from options(field.default_factory)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_read_by_something(command):
    config = import_module(module_of(command)).Config
    assert set(options(config)) <= attributes_read()


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_make_and_of_the_commands_agree(command):
    """The summary in the list of commands is the first line of the command's own help."""
    assert import_module(module_of(command)).Config.__doc__.startswith(COMMANDS[command].split(":")[0])


def test_through_json_and_back():
    config = parse(
        pretrain.Config,
        "pretrain",
        ["--out", "some/where", "--temperature", "0.2", "--backbone", "vit", "--epochs", "3"],
    )
    assert config.run.out == Path("some/where")
    values = json.loads(json.dumps(as_dict(config)))
    assert from_dict(pretrain.Config, values, "here") == config


def test_an_unknown_key_is_refused_with_the_file_s_name():
    values = as_dict(pretrain.Config())
    values["training"]["epoch"] = 3
    with pytest.raises(UserError, match=r"here: epoch is not an option"):
        from_dict(pretrain.Config, values, "here")


def test_a_config_file_becomes_the_default_and_flags_win(tmp_path):
    config = parse(pretrain.Config, "pretrain", ["--temperature", "0.2", "--epochs", "3"])
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"command": "pretrain", "config": as_dict(config)}))
    again = parse(pretrain.Config, "pretrain", ["--config", str(file), "--epochs", "5"])
    assert (again.simclr.temperature, again.training.epochs, again.config) == (0.2, 5, file)


@pytest.mark.parametrize("content", ["[]", "{}", '{"command": "views", "config": {}}', "not json"])
def test_a_foreign_file_is_no_configuration(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match=r"config\.json"):
        load_config(pretrain.Config, "pretrain", tmp_path)


def test_make_maps_its_variables_onto_flags_that_exist():
    makefile = (PACKAGE.parent / "Makefile").read_text(encoding="utf-8")
    flags = {f"--{name.replace('_', '-')}" for name in options(pretrain.Config)}
    line = makefile[makefile.index("FLAGS :=") : makefile.index("VIEW_FLAGS")]
    used = {word for word in line.replace(")", " ").replace(",", " ").split() if word.startswith("--")}
    assert len(used) == 10
    assert used <= flags
