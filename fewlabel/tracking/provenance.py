"""What code, on what machine, made a run."""

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import fewlabel

__all__ = ["git_state", "machine", "package_versions", "provenance"]

_PACKAGES = (
    "accelerate",
    "datasets",
    "faiss-cpu",
    "lightly",
    "numpy",
    "pillow",
    "safetensors",
    "scikit-learn",
    "timm",
    "torch",
    "torchvision",
    "wandb",
)
_GIT_SECONDS = 5


def provenance() -> dict[str, Any]:
    """The commit, the versions and the machine, ready for JSON; neither host nor user is named."""
    return {
        "fewlabel": fewlabel.__version__,
        "git": git_state(Path(fewlabel.__file__).parent),
        "python": platform.python_version(),
        "packages": package_versions(),
        "machine": machine(),
    }


def git_state(package: Path) -> dict[str, Any] | None:
    """The commit that `package` is checked out at, and whether its files differ from it.

    Returns:
        {"commit": 40 hex digits, "dirty": bool}, or None where `package` isn't tracked by git: installed from
        a wheel, for instance, even where its environment lies inside some other repository.
    """
    if _git(package, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    commit = _git(package, "rev-parse", "--verify", "HEAD")
    changes = _git(package, "status", "--porcelain", "--", ".")
    if commit is None or changes is None:
        return None
    return {"commit": commit, "dirty": bool(changes)}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=_GIT_SECONDS,
            stdin=subprocess.DEVNULL,
            # Reading the state must not refresh the index under a git command that the user has running.
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def package_versions() -> dict[str, str]:
    """The installed versions of the packages that figures depend on; none of them is imported."""
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def machine() -> dict[str, Any]:
    """System, processor model, the cores this process may use, and the GPUs that torch sees.

    GPUs are listed only where torch is loaded: a run that hasn't loaded it computes on none.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"system": platform.platform(), "cpu": _cpu_model(), "cores": cores, "gpus": _gpus()}


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() in {"model name", "Model"} and value.strip():
            return value.strip()
    return platform.processor() or platform.machine()


def _gpus() -> list[str]:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
