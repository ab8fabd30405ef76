import json
import platform
import subprocess
import sys
import types
from pathlib import Path

import pytest

from fewlabel.tracking import provenance


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    return subprocess.run(
        ["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A committed package inside a repository."""
    folder = tmp_path / "repository" / "package"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    git(folder.parent, "init", "-q")
    git(folder.parent, "add", ".")
    git(folder.parent, "commit", "-q", "-m", "first")
    return folder


def test_a_clean_checkout(package: Path) -> None:
    assert provenance.git_state(package) == {"commit": git(package, "rev-parse", "HEAD"), "dirty": False}


@pytest.mark.parametrize("name", ["__init__.py", "new.py"])
def test_a_changed_or_new_module_makes_it_dirty(package: Path, name: str) -> None:
    (package / name).write_text("changed = True\n")
    state = provenance.git_state(package)
    assert state is not None
    assert state["dirty"] is True


def test_files_beside_the_package_do_not(package: Path) -> None:
    (package.parent / "notes.txt").write_text("x")
    state = provenance.git_state(package)
    assert state is not None
    assert state["dirty"] is False


def test_an_installed_package_inside_a_strange_repository_has_no_commit(package: Path) -> None:
    installed = package.parent / ".venv" / "package"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("")
    assert provenance.git_state(installed) is None


def test_no_repository_and_no_git(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert provenance.git_state(tmp_path) is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance.git_state(package) is None


def test_versions_are_those_installed_and_nothing_is_imported() -> None:
    script = (
        "import sys; from fewlabel.tracking.provenance import provenance; record = provenance();"
        "assert not {'torch', 'timm', 'wandb', 'datasets', 'numpy'} & set(sys.modules), 'imported';"
        "print(record['packages']['torch'], record['machine']['cores'], record['machine']['gpus'])"
    )
    out = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    import torch

    version, cores, gpus = out.split()
    assert version == str(torch.__version__).partition("+")[0] or version == str(torch.__version__)
    assert int(cores) >= 1
    assert gpus == "[]"


def test_gpus_are_those_that_torch_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["A100", "T4"]
    cuda = types.SimpleNamespace(is_available=lambda: True, device_count=lambda: 2, get_device_name=names.__getitem__)
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(cuda=cuda))  # type: ignore[arg-type]
    assert provenance.machine()["gpus"] == names


def test_the_host_is_not_named() -> None:
    text = json.dumps(provenance.provenance())
    assert platform.node() not in text.split('"')
