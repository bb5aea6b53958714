"""A store, or some runs of it, back into a folder."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import partial
from pathlib import Path
from typing import Any

from mltrack_tasks.errors import InvalidInputError
from mltrack_tasks.events import Observe, log_event
from mltrack_tasks.filetree import FILE
from mltrack_tasks.localtree import LocalTree
from mltrack_tasks.manifests import read_manifest
from mltrack_tasks.migrated import FIELD
from mltrack_tasks.migration.restoring import Portion, write_portions
from mltrack_tasks.migration.selecting import (
    check_together,
    portion_of_run,
    portions_of_migration,
    read_state,
)
from mltrack_tasks.migration.state import list_migrations
from mltrack_tasks.parallel import map_ordered
from mltrack_tasks.records import RunManifest
from mltrack_tasks.runlog import newest_manifests
from mltrack_tasks.runs import get_run, list_runs
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.files import checked_path, make_folders, os_errors

LAYOUTS = ("files", "store")


@dataclass(frozen=True)
class RestoreReport:
    """What a restore wrote. ``present`` counts files that were there already, with these very bytes."""

    local_path: str
    files: int
    size_bytes: int
    written_files: int
    written_bytes: int
    present: int
    seconds: float = field(default=0.0, compare=False)


def download_from_s3(
    store: Store,
    local_path: str | Path = "./mltrack_backup",
    *,
    run_ids: Sequence[str] | None = None,
    project: str | None = None,
    model: str | None = None,
    since: date | datetime | str | None = None,
    until: date | datetime | str | None = None,
    migration: str | None = None,
    layout: str = "files",
    overwrite: bool = False,
    observe: Observe = log_event,
) -> RestoreReport:
    """Write what a store holds into a folder -> what was written.

    Everything, or one ``migration``, or the runs of ``run_ids`` or that match the filters of ``list_runs``.
    Migrated files come back under their relative paths, with their bytes, permissions and times, and nothing
    is added to them; other runs become ``<run id>/<name>.<format>`` with ``manifest.json``.

    Each file appears whole or not at all, hashed while it is written; one that is there with the same bytes
    is not fetched, so the same call again continues. Raises NotFoundError for an unknown run and
    ConflictError for files that cannot lie in one folder, both before any transfer; ConflictError for a
    different file in the way unless ``overwrite``. Nothing is ever written outside the folder.
    """
    started = time.monotonic()
    _check_layout(layout)
    target = checked_path(local_path)
    filters = {"project": project, "model": model, "since": since, "until": until}
    portions = _chosen(store, run_ids, filters, migration, observe)
    entries = check_together(portions)
    files = [entry for entry in entries if entry.kind == FILE]
    with os_errors(str(target)):
        make_folders(target.absolute())
    with LocalTree(target) as tree:
        done = write_portions(store, tree, portions, replace=overwrite, total=len(files), observe=observe)
    return RestoreReport(
        local_path=str(target.absolute()),
        files=len(files),
        size_bytes=sum(entry.size for entry in files),
        written_files=done.files,
        written_bytes=done.size,
        present=done.present,
        seconds=time.monotonic() - started,
    )


def _check_layout(layout: str) -> None:
    if layout not in LAYOUTS:
        raise InvalidInputError(f"The layout {layout!r} is unknown; choose one of {', '.join(LAYOUTS)}.")


def _chosen(
    store: Store,
    run_ids: Sequence[str] | None,
    filters: Mapping[str, Any],
    migration: str | None,
    observe: Observe,
) -> list[Portion]:
    given = {key: value for key, value in filters.items() if value is not None}
    if sum((run_ids is not None, bool(given), migration is not None)) > 1:
        raise InvalidInputError("Give run_ids, filters such as project, or a migration: one of the three.")
    if migration is not None:
        return portions_of_migration(store, read_state(store, migration))
    if run_ids is not None:
        if isinstance(run_ids, str):
            raise InvalidInputError(f"run_ids is a string; give a list: [{run_ids!r}].")
        ids = list(dict.fromkeys(run_ids))
        return _of_runs(store, list(map_ordered(partial(get_run, store), ids, store.max_workers)))
    if given:
        return _of_runs(store, list_runs(store, **given, observe=observe))
    return _everything(store)


def _everything(store: Store) -> list[Portion]:
    """All migrations, and the runs that are of none; what cannot be read is an error here."""
    portions: list[Portion] = []
    migrated: set[str] = set()
    for name in list_migrations(store):
        state = read_state(store, name)
        portions += portions_of_migration(store, state)
        migrated.update(run.run_id for run in state.runs)
    others = [each for each in newest_manifests(store) if each.run_id not in migrated]
    read = map_ordered(lambda each: read_manifest(store, each.run_id, each.number), others, store.max_workers)
    return [*portions, *_of_runs(store, [run for run in read if FIELD not in run.extra])]


def _of_runs(store: Store, runs: Sequence[RunManifest]) -> list[Portion]:
    return list(map_ordered(partial(portion_of_run, store), runs, store.max_workers))
