"""The database that a study is kept in, and one worker at a time in it."""

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewlabel.errors import UserError
from fewlabel.files import locked

if TYPE_CHECKING:
    from optuna.storages import RDBStorage
    from sqlalchemy import URL

__all__ = ["keep_password", "one_at_a_time", "open_storage", "sqlite_url", "telling_of_loss"]

BUSY_SECONDS = 60
"""How long a process waits for others to be done with the database."""
CONNECT_SECONDS = 10
FORMS = "postgresql://USER@HOST/NAME or sqlite:///FILE"


def sqlite_url(file: Path) -> str:
    """The storage in an SQLite file; its folder must be there."""
    return f"sqlite:///{file.absolute()}"


def keep_password(url: str) -> str:
    """The same storage without the password of its URL, which PostgreSQL's own variable PGPASSWORD then holds.

    So it reaches the workers, and no run's record, log or list of processes.

    Raises:
        UserError: it is no URL of a storage.
    """
    parsed = _parsed(url)
    if parsed.password is None:
        return url
    from sqlalchemy import URL

    os.environ["PGPASSWORD"] = str(parsed.password)
    without = URL.create(
        parsed.drivername,
        parsed.username,
        host=parsed.host,
        port=parsed.port,
        database=parsed.database,
        query=parsed.query,
    ).render_as_string()
    sys.argv[:] = [argument.replace(url, without) for argument in sys.argv]
    return without


def open_storage(url: str, *, stale_after: int) -> "RDBStorage":
    """The storage at `url`, made if it is new.

    Args:
        url: of PostgreSQL, or of a file for SQLite.
        stale_after: seconds without a heartbeat after which a running trial counts as left behind.

    Raises:
        UserError: it is neither, can't be reached, is another program's, or of another Optuna.
    """
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    parsed = _parsed(url)
    sqlite = parsed.get_backend_name() == "sqlite"
    engine: dict[str, Any] = {"connect_args": {"timeout": BUSY_SECONDS}}
    if not sqlite:
        # A cluster that was made without a locale would else give bytes for text, and one that was started anew leaves
        # dead connections behind.
        connection = {"connect_timeout": CONNECT_SECONDS, "client_encoding": "utf8"}
        engine = {"connect_args": connection, "pool_pre_ping": True}
    attempts = 3
    while True:
        attempts -= 1
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                storage = optuna.storages.RDBStorage(
                    # Optuna fills a template in where it sees braces.
                    url.replace("{", "{{").replace("}", "}}"),
                    engine_kwargs=engine,
                    heartbeat_interval=max(1, stale_after // 4),
                    grace_period=stale_after,
                )
            break
        except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            # Two that make the tables at once get in each other's way; the second look finds them made.
            if not attempts or "exist" not in str(error):
                raise _unreachable(parsed, error) from error
        except RuntimeError as error:
            raise UserError(f"The storage {parsed} is of another version of Optuna. {error}") from error
    if sqlite:
        _write_in_turn(storage)
    return storage


def _parsed(url: str) -> "URL":
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        parsed = make_url(url)
    except ArgumentError:
        raise UserError(f"--storage {url} is no URL of a database: give {FORMS}.") from None
    if parsed.get_backend_name() not in ("sqlite", "postgresql"):
        raise UserError(f"--storage takes {FORMS}, not {parsed.drivername}.")
    if parsed.get_backend_name() == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise UserError("--storage sqlite:// names no file, and several processes share a study: give sqlite:///FILE.")
    return parsed


@contextmanager
def telling_of_loss(storage: "RDBStorage") -> Iterator[None]:
    """Say in the user's words that the storage went away within the block.

    Raises:
        UserError: it did.
    """
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (StorageInternalError, SQLAlchemyError) as error:
        raise UserError(
            f"The storage {storage.engine.url} was lost: {_reason(error)}. What has finished is kept in it; go on with "
            "--resume once it is back."
        ) from error


def _reason(error: Exception) -> str:
    """The first line of what began it."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    return str(cause).strip().partition("\n")[0] or type(cause).__name__


def _unreachable(url: "URL", error: Exception) -> UserError:
    if url.get_backend_name() == "sqlite":
        advice = "Its folder must exist and be writable, and the file be an Optuna study's or not be there yet."
    else:
        advice = (
            "Look whether the server runs, the address is right and the database exists (`createdb NAME`); "
            "a password may also stand in PGPASSWORD or ~/.pgpass."
        )
    return UserError(f"The storage {url} can't be reached: {_reason(error)}. {advice}")


def _write_in_turn(storage: "RDBStorage") -> None:
    """Let every transaction on SQLite begin as a writer's.

    Else two processes may read the same state of a trial and both change it: SQLite has no row to lock, and Python's
    driver begins a transaction no earlier than with its first change (SQLAlchemy, "SQLite", on transactions).
    """
    from sqlalchemy import Connection, event

    @event.listens_for(storage.engine, "connect")
    def leave_transactions_alone(connection: Any, record: object) -> None:
        connection.isolation_level = None

    @event.listens_for(storage.engine, "begin")
    def begin_as_writer(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    storage.engine.dispose()


@contextmanager
def one_at_a_time(storage: "RDBStorage", study: str) -> Iterator[None]:
    """Let one process at a time of all that work on `study` into the block, on whatever machine.

    The lock goes with the process or its connection, however either ends.
    """
    from sqlalchemy import text

    if storage.engine.dialect.name == "sqlite":
        file = Path(str(storage.engine.url.database))
        with locked(file.with_name(f"{file.name}.lock")):
            yield
        return
    key = int.from_bytes(blake2b(study.encode(), digest_size=8).digest(), "big", signed=True)
    with storage.engine.begin() as connection:
        # A machine that is gone must not keep the others out for as long as the network takes to notice.
        connection.execute(text(f"SET LOCAL idle_in_transaction_session_timeout = '{5 * BUSY_SECONDS}s'"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": key})
        yield
