"""Quiet storages of a test's own, and no W&B but where it is the point."""

import optuna
import pytest
from postgres_server import database, postgres  # noqa: F401


@pytest.fixture(autouse=True, scope="package")
def quiet():
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "disabled")
        yield
    optuna.logging.set_verbosity(before)


@pytest.fixture
def storage():
    """A storage in memory."""
    return optuna.storages.InMemoryStorage()


@pytest.fixture
def file(tmp_path):
    """URL of a new SQLite file."""
    return f"sqlite:///{tmp_path / 'study.db'}"


@pytest.fixture(params=["sqlite", "postgresql"])
def storage_url(request):
    """URL of an empty storage, of one kind and the other."""
    return request.getfixturevalue("file" if request.param == "sqlite" else "database")
