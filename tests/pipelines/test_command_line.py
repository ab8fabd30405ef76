"""The command line as a newcomer meets it: real processes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fewlabel import __version__
from fewlabel.__main__ import COMMANDS, main


def fewlabel(*arguments, cwd=None):
    return subprocess.run(
        [sys.executable, "-m", "fewlabel", *arguments], capture_output=True, text=True, cwd=cwd, timeout=120
    )


def test_help_lists_every_command_and_loads_nothing_heavy():
    script = "import sys; from fewlabel.__main__ import main; main(['--help']); print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert all(command in done.stdout for command in COMMANDS)
    for heavy in ("'torch'", "'numpy'", "'wandb'", "'faiss'", "'datasets'", "'timm'"):
        assert heavy not in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_loads_no_torch(command):
    script = f"""
import sys
from fewlabel.__main__ import main
try:
    main([*{command.split()!r}, "--help"])
finally:
    print("LOADED", [name for name in ("torch", "wandb", "datasets", "faiss", "timm") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0
    # A page in the browser is no result to be printed.
    assert ("--json" in done.stdout) == (command not in ("app", "dashboard"))
    assert "LOADED []" in done.stdout


def test_a_word_with_commands_of_its_own_lists_them(capsys):
    assert main(["index", "--help"]) == 0
    told = capsys.readouterr().out
    assert "index build" in told
    assert "label-curve" not in told
    assert main(["index"]) == 2
    assert capsys.readouterr().out == told
    assert main(["index", "biuld"]) == 2
    assert "Did you mean 'index build'?" in capsys.readouterr().err


def test_version():
    assert fewlabel("--version").stdout == f"fewlabel {__version__}\n"


def test_a_mistyped_command_names_the_nearest():
    done = fewlabel("pretrian")
    assert done.returncode == 2
    assert "'pretrain'" in done.stderr


def test_an_unknown_flag_is_an_error():
    done = fewlabel("pretrain", "--temprature", "0.2")
    assert done.returncode == 2
    assert "temperature" in done.stderr + done.stdout


def test_run_as_a_file_it_says_how_to_start_it():
    """The package's folder first on sys.path would let `ssl` shadow Python's own."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parents[2] / "fewlabel" / "__main__.py"), "--help"],
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "python -m fewlabel" in done.stderr


def test_python_s_own_ssl_is_not_shadowed():
    script = "import fewlabel.__main__, ssl; print(ssl.SSLContext.__name__)"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout == "SSLContext\n"


def test_backbones_as_json():
    rows = json.loads(fewlabel("backbones", "--json").stdout)
    assert {"resnet50", "vit", "efficientnet_b0"} <= {row["name"] for row in rows}
    assert next(row for row in rows if row["name"] == "resnet50")["parameters"] == 23_508_032


def test_the_list_of_backbones_needs_no_torch():
    code = "import sys; from fewlabel.__main__ import main; main(['backbones']); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for word in ("resnet50", "cct_7_3x1", "23,508,032", "own", "arXiv:1512.03385", "timm/NAME"):
        assert word in done.stdout


def test_one_backbone_is_described_in_the_form_asked_for(capsys):
    form = ("--scale-phi", "1", "--image-size", "96", "--backbone-option", "pool=gap", "--channels", "1")
    assert main(["backbones", "vit", *form, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["name"], facts["image_size"], facts["features"]) == ("vit_small_patch16_224", 112, 432)
    assert facts["scale"]["depth"] == pytest.approx(1.2)
    assert facts["options"]["pool"]["value"] == "gap"
    assert main(["backbones", "vit", *form]) == 0
    told = capsys.readouterr().out
    for word in (
        f"{facts['parameters']:,}",
        "pool=gap",
        "multiples of 16",
        "--backbone-option pool=gap --image-size 96",
    ):
        assert word in told


def test_a_backbone_can_be_described_without_saying_more(capsys):
    for name, size in (("efficientnet_b4", 380), ("timm/convnext_atto", 224), ("cct", 224)):
        assert main(["backbones", name, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["image_size"] == size
