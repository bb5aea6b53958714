"""An MLflow database in SQLite -> facts, as MLflow's client would answer them.

A live database is copied by SQLite's own backup, which waits for writers and sees one moment of it; only the
copy is read.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from mltrack_tasks.errors import AccessError, IntegrityError, InvalidInputError, TransientError
from mltrack_tasks.mlflowdata import registryrows, rowfacts
from mltrack_tasks.mlflowdata.facts import Experiment, LoggedModel, RegisteredModel, RunFacts
from mltrack_tasks.mlflowdata.rows import Grouped, Tables

MAGIC = b"SQLite format 3\x00"
"""First bytes of every SQLite database."""
MAX_VALUE = 64 << 20
"""[bytes] of one value. MLflow's own limit for the profile of a dataset is 16 MiB; others are far below."""
_LOG_KEPT = b"\x02\x02"
"""Bytes 18 and 19 of a database that has a write-ahead log (https://www.sqlite.org/fileformat2.html)."""
_WAIT_S = 5.0
_WAITS = 12

Damaged = Callable[[str, IntegrityError], None]
"""Told the id of what was left out, and why."""
_T = TypeVar("_T")


def backup(source: Path, target: Path) -> None:
    """Copy a database that may be in use -> a new file with all that was committed.

    A writer waits meanwhile, as for any reader. Raises InvalidInputError if ``source`` is no SQLite file or
    ``target`` exists, TransientError if a writer holds the database for a minute, AccessError if something
    cannot be read or written, IntegrityError if the database is damaged; then there is no target.
    """
    _check_source(source)
    if os.path.lexists(target):
        raise InvalidInputError(f"{target} exists; a backup goes to a new file.")
    try:
        if not _copy_at_rest(source, target):
            _copy(source, target, "mode=ro")
    except BaseException:
        target.unlink(missing_ok=True)
        raise


class Database:
    """A database that nobody else writes: the copy that ``backup`` made. Use it as a context manager.

    Everything is streamed in the order of ids. What is damaged raises IntegrityError, or, if ``damaged`` is
    given, is told to it and left out. Tables and columns that MLflow added later may be absent.
    """

    def __init__(self, path: Path) -> None:
        _check_source(path)
        self._path = path
        try:
            self._connection = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True, isolation_level=None
            )
        except sqlite3.Error as error:
            raise AccessError(f"{path} cannot be opened: {error}.") from error
        try:
            self._restrict()
            self._tables = Tables(self._connection, str(path))
        except BaseException:
            self._connection.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; closing twice does nothing."""
        self._connection.close()

    @property
    def is_mlflow(self) -> bool:
        """Whether it has MLflow's tables."""
        return self._tables.has("experiments", "runs", "metrics", "params", "tags")

    def experiments(self, *, damaged: Damaged | None = None) -> Iterator[Experiment]:
        """Read the experiments, deleted ones too."""
        tags = Grouped(
            self._tables.rows("experiment_tags", ("experiment_id", "key", "value")), "experiment_tags"
        )
        rows = self._tables.rows("experiments", rowfacts.EXPERIMENT)
        yield from _each(((row, tags.take(row[0])) for row in rows), rowfacts.experiment, damaged)

    def runs(self, *, damaged: Damaged | None = None) -> Iterator[RunFacts]:
        """Read the runs, deleted ones too."""
        names: dict[Any, Any] = dict(self._tables.rows("experiments", ("experiment_id", "name")))
        yield from _each(rowfacts.gather_runs(self._tables, names), rowfacts.run, damaged)

    def logged_models(self, *, damaged: Damaged | None = None) -> Iterator[LoggedModel]:
        """Read the logged models, deleted ones too; none before MLflow 3."""
        yield from _each(rowfacts.gather_logged_models(self._tables), rowfacts.logged_model, damaged)

    def registered_models(self, *, damaged: Damaged | None = None) -> Iterator[RegisteredModel]:
        """Read the registered models with the versions that were not deleted."""
        gathered = registryrows.gather_registered_models(self._tables)
        yield from _each(gathered, registryrows.registered_model, damaged)

    def _restrict(self) -> None:
        """Deny what a made-up schema could do: write, call functions, map the file, fill the memory."""
        for pragma in ("query_only = ON", "trusted_schema = OFF", "cell_size_check = ON", "mmap_size = 0"):
            self._connection.execute(f"PRAGMA {pragma}")
        self._connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE)
        # Text that is no UTF-8 spoils the run that holds it, not the reading of all others.
        self._connection.text_factory = lambda data: data.decode("utf-8", "surrogateescape")


def _each(
    gathered: Iterable[tuple[Any, ...]], build: Callable[..., _T], damaged: Damaged | None
) -> Iterator[_T]:
    for parts in gathered:
        try:
            made = build(*parts)
        except IntegrityError as error:
            if damaged is None:
                raise
            damaged(str(parts[0][0]), error)
        else:
            yield made


def _check_source(path: Path) -> None:
    """Admit a plain file that begins as SQLite files do; a pipe or device is not even opened."""
    try:
        mode = path.lstat().st_mode
        if not stat.S_ISREG(mode):
            kind = (
                "a symbolic link: give the file that it leads to" if stat.S_ISLNK(mode) else "no plain file"
            )
            raise InvalidInputError(f"{path} is {kind}.")
        with path.open("rb") as file:
            start = file.read(len(MAGIC))
    except FileNotFoundError as error:
        raise InvalidInputError(f"There is no file {path}.") from error
    except OSError as error:
        raise AccessError(f"{path} cannot be read: {error.strerror}.") from error
    if start != MAGIC:
        raise InvalidInputError(f"{path} is no SQLite database.")


def _copy_at_rest(source: Path, target: Path) -> bool:
    """Copy a database with a write-ahead log that nobody has open; False if that cannot be told for sure.

    Read in the usual way, SQLite would leave two files beside it.
    """
    with source.open("rb") as file:
        log_kept = file.read(20)[18:] == _LOG_KEPT
    before = _state(source)
    if not log_kept or before is None:
        return False
    _copy(source, target, "mode=ro&immutable=1")
    if _state(source) == before:
        return True
    target.unlink()
    return False


def _state(source: Path) -> tuple[int, ...] | None:
    """What changes when a database is written; None while it is open: then it has its log beside it."""
    if source.with_name(f"{source.name}-wal").exists():
        return None
    now = source.stat()
    return now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns


def _copy(source: Path, target: Path, options: str) -> None:
    waits = 0

    def judge(status: int, remaining: int, total: int) -> None:
        nonlocal waits
        waits += status in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
        if waits > _WAITS:
            raise TransientError(
                f"{source} has been locked by a writer for {_WAIT_S * _WAITS:.0f} s; stop it, or try later."
            )

    opened: list[sqlite3.Connection] = []
    try:
        opened.append(sqlite3.connect(f"{source.absolute().as_uri()}?{options}", uri=True, timeout=_WAIT_S))
        opened.append(sqlite3.connect(target))
        opened[0].backup(opened[1], pages=-1, progress=judge)
    except (sqlite3.OperationalError, sqlite3.InternalError) as error:
        raise AccessError(
            f"{source} cannot be copied to {target}: {error}. See who may read it and what space is left; "
            "if a crash left it half written, MLflow must open it once."
        ) from error
    except sqlite3.Error as error:
        raise IntegrityError(f"{source} is damaged: {error}.") from error
    finally:
        for connection in opened:
            connection.close()
