"""MLflow's databases in, or beside, a folder: copied by SQLite's own means, and read for runs."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from mltrack_tasks import events
from mltrack_tasks.errors import IntegrityError, InvalidInputError
from mltrack_tasks.filetree import FILE, PERMISSIONS, Entry, in_order
from mltrack_tasks.migration.groups import MLFLOW, RunGroup
from mltrack_tasks.migration.hashcache import cache_folder
from mltrack_tasks.migration.loggedmodels import Logged
from mltrack_tasks.mlflowdata.database import Database, backup
from mltrack_tasks.mlflowdata.facts import DELETED, RegisteredModel
from mltrack_tasks.mlflowdata.treelayout import TreeLayout
from mltrack_tasks.stores.files import checked_path, make_folders, os_errors

USUAL_NAME = "mlflow.db"
_BESIDE = ("-wal", "-shm", "-journal")
"""What SQLite keeps beside a database; the copy has what is in them."""


class Registry(NamedTuple):
    """The registered models of one database or file store."""

    place: str
    """Of the database or the store in the tree."""
    models: list[RegisteredModel]
    damaged: list[tuple[str, str]]
    """(model, why it cannot be read)."""


class Databases(NamedTuple):
    """Entries with the copies in the place of the databases, and the runs that these know."""

    entries: list[Entry]
    copies: dict[str, str]
    groups: list[RunGroup]
    models: dict[str, Logged]
    """Folder of a logged model -> what it is."""
    registries: list[Registry]


def read_databases(
    root: Path, entries: Sequence[Entry], found: TreeLayout, backend_db: str | Path | None
) -> Databases:
    """Copy the databases of MLflow that belong to a folder -> what is migrated of them, and their runs.

    Those in the folder, ``backend_db``, or without any ``mlflow.db`` beside the folder: one from outside is
    kept under its own name on top of the tree. Raises InvalidInputError if there are artifacts of runs that
    neither ``meta.yaml`` nor a database describes.
    """
    sources = _sources(root, found, backend_db)
    copies: dict[str, str] = {}
    known = Databases([], copies, [], {}, [])
    for path, source in sources.items():
        required = path not in found.databases
        copy = _copied(source, required=required)
        if copy is not None and _read_into(known, path, copy, found, required=required):
            copies[path] = str(copy)
    if found.bare_artifacts and not copies:
        raise InvalidInputError(
            f"{root} holds artifacts of MLflow runs ({found.bare_artifacts[0]!r}, ...) without meta.yaml, so "
            f"their database is needed: there is no {USUAL_NAME} in the folder or beside it. Give "
            "backend_db=... with the path of the SQLite file that the tracking server uses."
        )
    if not copies:
        return known._replace(entries=list(entries))
    kept = [e for e in entries if e.path not in copies and not _is_beside(e.path, copies)]
    kept += [_entry(path, sources[path], copies[path]) for path in copies]
    return known._replace(entries=in_order(kept))


def _sources(root: Path, found: TreeLayout, backend_db: str | Path | None) -> dict[str, Path]:
    """Path in the tree -> database."""
    sources = {path: root / path for path in found.databases}
    if backend_db is not None:
        given = _given(backend_db)
        inside = str(given.relative_to(root)) if given.is_relative_to(root) else given.name
        if inside in sources and sources[inside].resolve() != given:
            raise InvalidInputError(f"{root} has a {inside!r} of its own; rename {given}, or do not give it.")
        return {**sources, inside: given}
    beside = root.parent / USUAL_NAME
    if found.bare_artifacts and not sources and beside.is_file():
        return {USUAL_NAME: beside}
    return sources


def _given(backend_db: str | Path) -> Path:
    text = str(backend_db).removeprefix("sqlite:///")
    if "://" in text:
        raise InvalidInputError(f"backend_db={text!r} is an address; only SQLite files can be read.")
    path = checked_path(text).absolute()
    if not path.is_file():
        raise InvalidInputError(f"backend_db: {path} is no file here. Give the path of MLflow's SQLite file.")
    return path.resolve()


def _copied(source: Path, *, required: bool) -> Path | None:
    """Copy a database into the cache folder -> the copy; None, with a warning in the log, if it is none."""
    digest = hashlib.sha256(os.fsencode(source.absolute())).hexdigest()[:32]
    folder = cache_folder() / "databases" / digest
    fresh = folder / f"{os.getpid()}-{time.time_ns()}.db"
    with os_errors(str(folder)):
        make_folders(folder)
        folder.chmod(0o700)
        for older in folder.glob("*.db"):
            if time.time() - older.stat().st_mtime > 86_400:
                older.unlink(missing_ok=True)
    try:
        backup(source, fresh)
    except (InvalidInputError, IntegrityError) as error:
        if required:
            raise
        events.logger.warning("kept as a file only: %s", error)
        return None
    return fresh


def _read_into(known: Databases, path: str, copy: Path, found: TreeLayout, *, required: bool) -> bool:
    """Add what a database says of runs and models; False if it is not MLflow's, or damaged."""
    artifacts = found.artifacts_by_id()
    registry = Registry(path, [], [])
    try:
        with Database(copy) as database:
            if not database.is_mlflow:
                if required:
                    raise InvalidInputError("The database that was given is not one of MLflow.")
                return False
            groups = list(_groups_in(database, artifacts))
            models = {
                artifacts[model.model_id].removesuffix("/artifacts"): Logged(
                    model.model_id, model.source_run_id, model.name
                )
                for model in database.logged_models(damaged=_left_out)
                if model.source_run_id is not None and model.model_id in artifacts
            }
            _read_registry(database, registry)
    except IntegrityError as error:
        if required:
            raise
        events.logger.warning("kept as a file only: %s", error)
        return False
    known.groups.extend(groups)
    known.models.update(models)
    known.registries.append(registry)
    return True


def _read_registry(database: Database, registry: Registry) -> None:
    """Read the registered models; what is damaged of them keeps no run from being read."""
    damaged = registry.damaged
    try:
        for model in database.registered_models(damaged=lambda name, why: damaged.append((name, str(why)))):
            registry.models.append(model)
    except IntegrityError as error:
        damaged.append((f"models of {registry.place!r}", str(error)))


def _groups_in(database: Database, artifacts: Mapping[str, str]) -> Iterator[RunGroup]:
    for facts in database.runs(damaged=_left_out):
        folder = artifacts.get(facts.run_id, "").removesuffix("/artifacts")
        group = RunGroup(facts.run_id, (folder,) if folder else (), MLFLOW, facts=facts)
        if _can_be_kept(group):
            yield group._replace(trashed=facts.lifecycle == DELETED)


def _can_be_kept(group: RunGroup) -> bool:
    """Whether what the database says of a run can stand in a manifest."""
    try:
        group.facts_json  # noqa: B018 -- computed to see whether it can be
    except InvalidInputError as error:
        events.logger.warning("kept in the database only: %s", error)
        return False
    return True


def _left_out(run_id: str, error: IntegrityError) -> None:
    events.logger.warning("kept in the database only: %s: %s", run_id, error)


def _is_beside(path: str, copies: Mapping[str, str]) -> bool:
    return any(path == f"{database}{suffix}" for database in copies for suffix in _BESIDE)


def _entry(path: str, source: Path, copy: str) -> Entry:
    """Describe a database as it was copied.

    Its digest is never taken from a cache: a write-ahead log changes what is in it, and not its own times.
    """
    with os_errors(str(source)):
        status, size = source.stat(), os.stat(copy).st_size
    now = time.time_ns()
    return Entry(path, FILE, status.st_mode & PERMISSIONS, size, status.st_mtime_ns, ctime_ns=now)
