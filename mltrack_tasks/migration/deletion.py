"""Delete local files that are stored: each proven in the store just now, and once more on the disk."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import NamedTuple

from mltrack_tasks import events
from mltrack_tasks.blobs import fault_of
from mltrack_tasks.errors import InvalidInputError, MLTrackError, TransientError
from mltrack_tasks.events import Event, Observe, log_event
from mltrack_tasks.filetree import FILE, FOLDER, Entry, folders_above, in_order
from mltrack_tasks.localtree import LocalTree
from mltrack_tasks.manifests import read_manifest
from mltrack_tasks.migrated import of_run
from mltrack_tasks.migration.groups import DIRECTORY, MLFLOW, members
from mltrack_tasks.migration.hashing import Failed
from mltrack_tasks.migration.origin import Origin
from mltrack_tasks.migration.scan import Scan
from mltrack_tasks.migration.verification import fault_of_pack
from mltrack_tasks.migrations import MigratedRun
from mltrack_tasks.mlflowdata.filestore import META
from mltrack_tasks.parallel import map_ordered
from mltrack_tasks.receipts import Pack, Place
from mltrack_tasks.stores.base import Store

MIN_AGE = timedelta(hours=1)
"""What changed within this time may still be worked on."""
UNFINISHED = ("running", "scheduled")
MAX_BATCHES, FILES_PER_BATCH = 15, 1_000


class RunFiles(NamedTuple):
    """Files that may go, of one run, or of none."""

    run: MigratedRun | None
    entries: tuple[Entry, ...]


class DeleteBatch:
    """A slice of what may go: what one task run deletes. Not a dataclass, as ``Batch`` is none."""

    __slots__ = ("places", "runs")

    def __init__(self, runs: Sequence[RunFiles], places: Mapping[str, Place]) -> None:
        self.runs = tuple(runs)
        digests = {entry.digest for run in self.runs for entry in run.entries}
        self.places = {digest: places[digest] for digest in digests if digest in places}

    def __repr__(self) -> str:
        return f"<batch of {sum(len(run.entries) for run in self.runs):,} entries to delete>"


class Deleted(NamedTuple):
    """What became of a slice."""

    files: int
    size_bytes: int
    kept: tuple[Failed, ...]
    """What stayed although it might have gone, and why."""


def check_age(min_age: object) -> None:
    """Refuse what is no age: InvalidInputError."""
    if not isinstance(min_age, timedelta) or min_age < timedelta(0):
        raise InvalidInputError(f"min_age is {min_age!r}; give a timedelta that is not negative.")


def deletable(
    scan: Scan, entries: Sequence[Entry], runs: Iterable[MigratedRun], *, min_age: timedelta, now: datetime
) -> list[RunFiles]:
    """Choose what may go: runs none of whose files is younger than ``min_age``, as far as files go.

    Of MLflow, only what belongs to runs: experiments, the model registry and databases are needed by the
    runs that stay. Of plain folders also files that belong to no run.
    """
    oldest = int((now - min_age).timestamp() * 1e9)
    stored = {run.run_id: run for run in runs}
    chosen: list[RunFiles] = []
    owned: set[str] = set()
    for group, files in zip(scan.groups, members(entries, scan.groups), strict=True):
        owned.update(entry.path for entry in files)
        young = any(entry.kind == FILE and entry.mtime_ns > oldest for entry in files)
        run = stored.get(group.run_id)
        if not young and (run is not None or scan.source == DIRECTORY):
            chosen.append(RunFiles(run, tuple(files)))
    if scan.source == DIRECTORY:
        loose = (e for e in entries if e.path not in owned)
        chosen.append(RunFiles(None, tuple(e for e in loose if e.kind != FILE or e.mtime_ns <= oldest)))
    return [run for run in chosen if run.entries]


def delete_batches(runs: Sequence[RunFiles], places: Mapping[str, Place]) -> list[DeleteBatch]:
    """Cut what may go into batches of whole runs."""
    total = sum(len(run.entries) for run in runs)
    most = max(FILES_PER_BATCH, -(-total // MAX_BATCHES))
    batches: list[DeleteBatch] = []
    current: list[RunFiles] = []
    held = 0
    for run in runs:
        if current and held + len(run.entries) > most:
            batches.append(DeleteBatch(current, places))
            current, held = [], 0
        current.append(run)
        held += len(run.entries)
    return [*batches, DeleteBatch(current, places)] if current else batches


def delete_local_batch(
    store: Store, batch: DeleteBatch, *, origin: Origin, observe: Observe = log_event
) -> Deleted:
    """Delete files here that the store is shown to have just now -> what went, and what stayed and why.

    Each blob by the checksum that the store keeps, or else its bytes; each pack and each manifest by reading
    it. A run that is still running stays. A file goes only if it still has the digest that is stored, hashed
    once more after it was moved aside; otherwise it gets its name back.
    """
    proven, faults = _proven(store, batch)
    # All of them before the first deletion: what fails here is tried again, and then finds everything.
    manifests = [_of_manifest(store, run.run) for run in batch.runs]
    kept: list[Failed] = []
    files = size = done = 0
    with LocalTree(origin.local_path) as tree:
        for run, inside in zip(batch.runs, manifests, strict=True):
            for entry in sorted(run.entries, key=_is_meta):
                if entry.kind == FOLDER:
                    continue
                reason = _why_not(entry, run, inside, proven, faults) or tree.delete(entry)
                if reason and not _is_gone(tree, entry.path):
                    kept.append(Failed(entry.path, reason))
                elif entry.kind == FILE:
                    files, size = files + 1, size + entry.size
            done += len(run.entries)
            observe(Event(events.PROGRESS, "deleting", {"done": done, "total": None, "unit": "files"}))
            for folder in reversed(in_order(e for e in run.entries if e.kind == FOLDER)):
                tree.remove_empty_folder(folder.path)
    return Deleted(files, size, tuple(kept))


def _is_gone(tree: LocalTree, path: str) -> bool:
    """Whether nothing is at a path, in folders that are folders: deleted by a try that failed later."""
    if tree.stat(path) is not None:
        return False
    above = (tree.stat(folder) for folder in folders_above(path))
    nearest = next((entry for entry in above if entry is not None), None)
    return nearest is None or nearest.kind == FOLDER


def _is_meta(entry: Entry) -> bool:
    """What makes a folder a run of MLflow goes last: a killed deletion leaves a run to go on with."""
    return entry.path.endswith(f"/{META}")


class _Inside(NamedTuple):
    """What a run's manifest has itself, and why its files may not go."""

    digests: frozenset[str]
    refused: str = ""


def _of_manifest(store: Store, run: MigratedRun | None) -> _Inside:
    if run is None:
        return _Inside(frozenset())
    try:
        manifest = read_manifest(store, run.run_id, run.revision)
        migrated = of_run(manifest, what=f"The manifest of {run.run_id!r} in {store.location}")
    except TransientError:
        raise
    except MLTrackError as error:
        return _Inside(frozenset(), str(error))
    if migrated is None:
        return _Inside(frozenset(), f"the manifest of {run.run_id!r} is not that of a migration")
    refused = f"its run is {manifest.status}" if manifest.status in UNFINISHED else ""
    if migrated.kind == MLFLOW and not migrated.mlflow:
        refused = "what MLflow says of its run cannot be read, so it may be running"
    return _Inside(frozenset(migrated.contents), refused)


def _why_not(
    entry: Entry, run: RunFiles, inside: _Inside, proven: set[str], faults: Mapping[str, str]
) -> str | None:
    if inside.refused:
        return inside.refused
    if entry.kind != FILE or entry.digest in inside.digests or entry.digest in proven:
        return None
    return f"is not proven to be stored: {faults.get(entry.digest, 'nothing there has its bytes')}"


def _proven(store: Store, batch: DeleteBatch) -> tuple[set[str], dict[str, str]]:
    """Look at every blob and pack -> (digests of files that are there, what is wrong with the others)."""
    packs: dict[str, dict[str, tuple[int, int]]] = {}
    blobs: dict[str, Place] = {}
    for digest, place in batch.places.items():
        if place.offset is None:
            blobs[digest] = place
        else:
            packs.setdefault(place.digest, {})[digest] = (place.offset, place.size)
    found: dict[str, str] = {}
    answers = map_ordered(partial(_fault_of_place, store), blobs.values(), store.max_workers)
    found.update(zip(blobs, answers, strict=True))
    for pack_digest, members_ in packs.items():
        fault = fault_of_pack(store, Pack(pack_digest, max(map(sum, members_.values())), members_))
        found.update(dict.fromkeys(members_, fault))
    faults = {digest: fault for digest, fault in found.items() if fault}
    return set(found) - set(faults), faults


def _fault_of_place(store: Store, place: Place) -> str:
    return fault_of(store, place.digest, place.format, place.size)
