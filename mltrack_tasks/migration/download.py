"""A store, or some runs of it, back into a folder."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import partial
from pathlib import Path
from typing import Any

from mltrack_tasks.errors import InvalidInputError
from mltrack_tasks.events import Observe, log_event
from mltrack_tasks.filetree import FILE, FOLDER, Entries
from mltrack_tasks.localtree import LocalTree
from mltrack_tasks.manifests import read_manifest
from mltrack_tasks.migration import storecopy
from mltrack_tasks.migration.repoint import repoint_tree
from mltrack_tasks.migration.restoring import Portion, Restored, write_portions
from mltrack_tasks.migration.selecting import (
    check_together,
    in_batches,
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
NOTHING_TO_REPOINT = (
    "repoint_artifacts is for MLflow's folders: with layout='store' none is written. Use layout='files'."
)


class RestorePlan:
    """What is to be written, in batches. Not a dataclass: Prefect would walk through all of it."""

    def __init__(
        self, batches: Sequence[Sequence[Portion]], entries: Entries, records: Sequence[str] = ()
    ) -> None:
        self.records = tuple(records)
        """Keys of the records that make a directory a store, when all batches are written."""
        self.batches = tuple(RestoreBatch(portions) for portions in batches)
        self.folders = Entries(entry for entry in entries if entry.kind == FOLDER)
        files = [e for batch in self.batches for p in batch.portions for e in p.entries if e.kind == FILE]
        self.files, self.size_bytes = len(files), sum(entry.size for entry in files)

    def paths(self) -> list[str]:
        """Name the files."""
        portions = (portion for batch in self.batches for portion in batch.portions)
        return [entry.path for portion in portions for entry in portion.entries if entry.kind == FILE]

    def __repr__(self) -> str:
        return f"<plan to restore {self.files:,} files, {self.size_bytes:,} bytes>"


class RestoreBatch:
    """A slice of what is to be written: one task run."""

    __slots__ = ("portions",)

    def __init__(self, portions: Iterable[Portion]) -> None:
        self.portions = tuple(portions)

    @property
    def files(self) -> int:
        """How many files it has."""
        return sum(entry.kind == FILE for portion in self.portions for entry in portion.entries)

    def __repr__(self) -> str:
        return f"<batch of {self.files:,} files to restore>"


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

    def rows(self) -> list[dict[str, Any]]:
        """The figures as rows of a table."""
        return [
            {"": "files", "number": self.files, "bytes": self.size_bytes},
            {"": "written", "number": self.written_files, "bytes": self.written_bytes},
            {"": "there already", "number": self.present, "bytes": None},
        ]


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
    repoint_artifacts: bool = False,
    observe: Observe = log_event,
) -> RestoreReport:
    """Write what a store holds into a folder -> what was written.

    Everything, or one ``migration``, or the runs of ``run_ids`` or that match the filters of ``list_runs``.
    Migrated files come back under their relative paths, with their bytes, permissions and times, and nothing
    is added to them; other runs become ``<run id>/<name>.<format>`` with ``manifest.json``.

    Each file appears whole or not at all, hashed while it is written; one that is there with the same bytes
    is not fetched, so the same call again continues. ``layout="store"`` makes the folder a store instead,
    which ``MLTrackStore(path=...)`` opens: with all blobs and records, or those of the chosen runs.

    With ``repoint_artifacts`` the addresses in which MLflow keeps where artifacts lie, and which led into the
    tree where it was, lead into this folder: in the files of MLflow's stores, and in its databases. These are
    then other files than the stored ones, so a later restore into this folder needs ``overwrite``.

    Raises NotFoundError for an unknown run and
    ConflictError for files that cannot lie in one folder, both before any transfer; ConflictError for a
    different file in the way unless ``overwrite``. Nothing is ever written outside the folder.
    """
    started = time.monotonic()
    checked_path(local_path)
    if repoint_artifacts and layout == "store":
        raise InvalidInputError(NOTHING_TO_REPOINT)
    plan = plan_restore(
        store,
        run_ids=run_ids,
        project=project,
        model=model,
        since=since,
        until=until,
        migration=migration,
        layout=layout,
        observe=observe,
    )
    done = [
        restore_batch(store, batch, local_path, overwrite=overwrite, observe=observe)
        for batch in plan.batches
    ]
    finish_restore(store, plan, local_path, repoint_artifacts=repoint_artifacts, observe=observe)
    return report_restore(plan, done, local_path, seconds=time.monotonic() - started)


def plan_restore(
    store: Store,
    *,
    run_ids: Sequence[str] | None = None,
    project: str | None = None,
    model: str | None = None,
    since: date | datetime | str | None = None,
    until: date | datetime | str | None = None,
    migration: str | None = None,
    layout: str = "files",
    observe: Observe = log_event,
) -> RestorePlan:
    """Choose what to restore, as ``download_from_s3`` says -> the plan. Fetches no file and writes none."""
    filters = {"project": project, "model": model, "since": since, "until": until}
    if layout not in LAYOUTS:
        raise InvalidInputError(f"The layout {layout!r} is unknown; choose one of {', '.join(LAYOUTS)}.")
    if layout == "store":
        if migration is not None:
            raise InvalidInputError(
                "A migration is restored as files; as a store, choose runs or everything."
            )
        runs = _runs(store, run_ids, filters, observe)
        portions, records = storecopy.everything(store) if runs is None else storecopy.of_runs(store, runs)
        return RestorePlan(in_batches(portions), Entries(), records)
    portions = _chosen(store, run_ids, filters, migration, observe)
    return RestorePlan(in_batches(portions), Entries(check_together(portions)))


def restore_batch(
    store: Store,
    batch: RestoreBatch,
    local_path: str | Path,
    *,
    overwrite: bool = False,
    observe: Observe = log_event,
) -> Restored:
    """Write a batch's files, folders and links below a folder -> what was written and what was there.

    The permissions of folders are set by ``finish_restore``, when all batches are written.
    """
    target = checked_path(local_path)
    with os_errors(str(target)):
        make_folders(target.absolute())
    with LocalTree(target) as tree:
        return write_portions(
            store, tree, batch.portions, replace=overwrite, total=batch.files, observe=observe
        )


def finish_restore(
    store: Store,
    plan: RestorePlan,
    local_path: str | Path,
    *,
    repoint_artifacts: bool = False,
    observe: Observe = log_event,
) -> None:
    """When all batches are written, set the permissions of folders, and copy the records of a store.

    Folders the deepest first; records after the blobs that they name. ``repoint_artifacts`` is what
    ``download_from_s3`` says; done twice, it changes nothing more.
    """
    if plan.records:
        if repoint_artifacts:
            raise InvalidInputError(NOTHING_TO_REPOINT)
        storecopy.copy_records(store, plan.records, local_path, observe)
    if repoint_artifacts and plan.files:
        with LocalTree(checked_path(local_path)) as tree:
            repoint_tree(tree, plan.paths())
    if not plan.folders:
        return
    with LocalTree(checked_path(local_path)) as tree:
        for folder in reversed(plan.folders):
            tree.set_mode(folder.path, folder.mode)


def report_restore(
    plan: RestorePlan, done: Iterable[Restored], local_path: str | Path, *, seconds: float = 0.0
) -> RestoreReport:
    """Put together what a plan says and what became of it."""
    batches = list(done)
    return RestoreReport(
        local_path=str(checked_path(local_path).absolute()),
        files=plan.files,
        size_bytes=plan.size_bytes,
        written_files=sum(batch.files for batch in batches),
        written_bytes=sum(batch.size for batch in batches),
        present=sum(batch.present for batch in batches),
        seconds=seconds,
    )


def _chosen(
    store: Store,
    run_ids: Sequence[str] | None,
    filters: Mapping[str, Any],
    migration: str | None,
    observe: Observe,
) -> list[Portion]:
    if migration is None:
        runs = _runs(store, run_ids, filters, observe)
        return _everything(store) if runs is None else _of_runs(store, runs)
    if run_ids is not None or any(value is not None for value in filters.values()):
        raise InvalidInputError("Give a migration, or choose runs: one of the two.")
    return portions_of_migration(store, read_state(store, migration))


def _runs(
    store: Store, run_ids: Sequence[str] | None, filters: Mapping[str, Any], observe: Observe
) -> list[RunManifest] | None:
    """The runs that were chosen, or None if none were: then everything is meant."""
    given = {key: value for key, value in filters.items() if value is not None}
    if run_ids is None:
        return list_runs(store, **given, observe=observe) if given else None
    if given:
        raise InvalidInputError("Give run_ids, or filters such as project: one of the two.")
    if isinstance(run_ids, str):
        raise InvalidInputError(f"run_ids is a string; give a list: [{run_ids!r}].")
    ids = list(dict.fromkeys(run_ids))
    return list(map_ordered(partial(get_run, store), ids, store.max_workers))


def _everything(store: Store) -> list[Portion]:
    """All migrations, and the runs that none of them lists; what cannot be read is an error here."""
    portions: list[Portion] = []
    migrated: set[str] = set()
    for name in list_migrations(store):
        state = read_state(store, name)
        portions += portions_of_migration(store, state)
        migrated.update(run.run_id for run in state.runs)
    others = [each for each in newest_manifests(store) if each.run_id not in migrated]
    read = map_ordered(lambda each: read_manifest(store, each.run_id, each.number), others, store.max_workers)
    return [*portions, *_of_runs(store, list(read))]


def _of_runs(store: Store, runs: Sequence[RunManifest]) -> list[Portion]:
    return list(map_ordered(partial(portion_of_run, store), runs, store.max_workers))
