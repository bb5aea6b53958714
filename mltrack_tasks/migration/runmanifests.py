"""Runs of a migrated folder -> run manifests: what MLflow says, the files, and the contents of small ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

from mltrack_tasks import events, layout, provenance
from mltrack_tasks.content import writer_of
from mltrack_tasks.deletions import hold
from mltrack_tasks.errors import ConflictError, SourceChangedError
from mltrack_tasks.events import Event, Observe, log_event
from mltrack_tasks.filetree import FILE, Entry
from mltrack_tasks.manifests import StoredRevision, latest_revision, read_manifest, write_revision
from mltrack_tasks.migrated import FIELD, MAX_ROWS, MigratedFiles, of_run
from mltrack_tasks.migration.groups import DIRECTORY, MLFLOW, RunGroup
from mltrack_tasks.migration.hashing import Failed, checked
from mltrack_tasks.migration.mlflowruns import Experiments, Read, described, facts_of, speaking
from mltrack_tasks.migration.origin import Origin, SourceTree
from mltrack_tasks.migration.state import OvertakenError, latest_number
from mltrack_tasks.migrations import MigratedRun
from mltrack_tasks.parallel import map_ordered
from mltrack_tasks.plan import inlined
from mltrack_tasks.receipts import Place
from mltrack_tasks.records import RunManifest
from mltrack_tasks.stores.base import Store
from mltrack_tasks.treeparts import write_tree

HISTORY = "metric_history"
"""Name of the data that holds a long history of metrics."""


class RunWork(NamedTuple):
    """One run that has to be written."""

    group: RunGroup
    entries: tuple[Entry, ...]
    signature: str
    places: Mapping[str, Place]
    """Digest -> where the files lie that were sent."""
    revision: int
    """What the last manifest of the migration lists; 0 if the run is new to it."""


class Written:
    """What became of a batch of runs. Neither tuple nor dataclass, as ``Uploaded`` is none."""

    __slots__ = ("failed", "runs")

    def __init__(self, runs: Sequence[MigratedRun], failed: Sequence[Failed]) -> None:
        self.runs, self.failed = tuple(runs), tuple(failed)

    def __repr__(self) -> str:
        return f"<{len(self.runs):,} runs written, {len(self.failed):,} failed>"


class RunBatch:
    """A slice of the runs: what one task run writes. Not a dataclass: Prefect would walk through it."""

    __slots__ = ("around", "bodies", "number", "runs")

    def __init__(
        self,
        runs: Sequence[RunWork],
        around: Mapping[str, Sequence[Entry]],
        bodies: Mapping[str, bytes] = MappingProxyType({}),
        number: int = 0,
    ) -> None:
        self.runs, self.number = tuple(runs), number
        """``number``: of the migration's last manifest when this was planned."""
        mine = (entry.digest for run in self.runs for entry in run.entries)
        self.bodies = {digest: bodies[digest] for digest in mine if digest in bodies}
        """Digest -> bytes of files that were read when they were hashed."""
        self.around = dict(around)
        """Folder of an experiment -> the files that tell of it."""

    def __repr__(self) -> str:
        return f"<batch of {len(self.runs):,} runs>"


def write_manifests(
    store: Store, batch: RunBatch, *, origin: Origin, observe: Observe = log_event
) -> Written:
    """Write the manifests of runs whose files are stored -> those in the store now, and what failed.

    A run that is there as it should be stays; one that has changed becomes a revision. What MLflow says is
    read from the very files that are kept. What failed names a run one of whose files changed meanwhile, and
    one whose id a run of another kind or migration has.
    """
    done: list[MigratedRun] = []
    failed: list[Failed] = []
    with origin.open() as tree:
        read = partial(_read, tree, batch.bodies)
        maker = _Maker(store, read, Experiments(batch.around, read), origin.migration, batch.number)
        prepared = map(maker.prepare, batch.runs)  # here: threads would only take turns at that
        answers = map_ordered(maker.write, prepared, store.max_workers)
        for number, answer in enumerate(answers, start=1):
            if isinstance(answer, Failed):
                failed.append(answer)
            else:
                done.append(answer)
            details = {"done": number, "total": len(batch.runs), "unit": "runs"}
            observe(Event(events.PROGRESS, "writing manifests", details))
    return Written(done, failed)


class _Prepared(NamedTuple):
    """A run whose files were read."""

    work: RunWork
    manifest: RunManifest


class _Maker:
    """Makes the manifests of one folder's runs, and writes them in several threads."""

    def __init__(
        self, store: Store, read: Read, experiments: Experiments, migration: str, number: int
    ) -> None:
        self._store, self._read, self._experiments = store, read, experiments
        self._migration, self._number = migration, number
        self._origin = provenance.of_run()

    def prepare(self, work: RunWork) -> _Prepared | Failed:
        """Read what a run's manifest is made of."""
        try:
            return _Prepared(work, self._manifest(work))
        except SourceChangedError as error:
            return _failed(work, error)

    def write(self, prepared: _Prepared | Failed) -> MigratedRun | Failed:
        """Write one run's manifest, unless it is there."""
        if isinstance(prepared, Failed):
            return prepared
        work = prepared.work
        try:
            stored = self._stored(prepared.manifest, work.revision)
        except OvertakenError:
            raise
        except ConflictError as error:
            return _failed(work, error)
        return MigratedRun(work.group.run_id, stored.revision, work.signature, work.group.folders)

    def _stored(self, manifest: RunManifest, known: int) -> StoredRevision:
        run_id = manifest.run_id
        if known:
            self._require_ours(self._current(run_id), manifest, known)
        try:
            stored = self._put(manifest, revise=known > 0)
            if stored.created or latest_revision(self._store, run_id) == stored.revision:
                return stored
            # What calls that died have written since is not the current state of the folder.
            self._require_ours(self._current(run_id), manifest, known)
            return self._put(manifest, revise=True)
        except ConflictError:
            self._require_ours(self._current(run_id), manifest, known)
            return self._put(manifest, revise=True)

    def _put(self, manifest: RunManifest, *, revise: bool) -> StoredRevision:
        origin = provenance.at_this_moment(self._origin)
        return write_revision(self._store, manifest, revise=revise, origin=origin, observe=_ignore)

    def _current(self, run_id: str) -> RunManifest | None:
        latest = latest_revision(self._store, run_id)
        return read_manifest(self._store, run_id, latest) if latest else None

    def _require_ours(self, there: RunManifest | None, manifest: RunManifest, revision: int) -> None:
        """Refuse to revise what somebody else wrote, or another call of this migration that has finished."""
        if there is None:
            return
        if there.revision != revision and latest_number(self._store, self._migration) != self._number:
            raise OvertakenError(self._migration)
        known = of_run(there, what=f"The manifest of {there.run_id!r} in {self._store.location}")
        ours = of_run(manifest, what="The manifest")
        if known is None or ours is None or (known.kind, known.migration) != (ours.kind, ours.migration):
            raise ConflictError(
                f"The run id {there.run_id!r} is taken in {self._store.location} by a run that is not of the "
                f"migration {self._migration!r}. Rename the folder, give run_id=..., or, if it is the same "
                "folder on another machine or path, the name=... of its first migration.",
                existing=dict(there.to_content()),
            )

    def _manifest(self, work: RunWork) -> RunManifest:
        group, entries = work.group, work.entries
        inline = inlined(entries)
        wanted = {e.path for e in inline.values()}
        if group.kind == MLFLOW and group.facts is None:
            wanted.update(speaking((e.path for e in entries if e.kind == FILE), group))
        bodies = self._read([e for e in entries if e.path in wanted])
        fields, beyond, data = self._described(group, bodies)
        many = len(entries) > MAX_ROWS
        files = MigratedFiles(
            kind=group.kind,
            folders=group.folders,
            migration=self._migration if group.kind == DIRECTORY else None,
            files=() if many else entries,
            parts=write_tree(self._store, entries, (), self._migration) if many else (),
            contents={digest: bodies[entry.path] for digest, entry in inline.items()},
            places={digest: place for digest, place in work.places.items() if digest not in inline},
            mlflow=beyond,
        )
        return RunManifest(run_id=group.run_id, **fields, data=data, extra={FIELD: files.to_json()})

    def _described(
        self, group: RunGroup, bodies: Mapping[str, bytes]
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """Fields of the manifest, what MLflow says beyond them, and data that belongs to the run."""
        if group.kind != MLFLOW:
            return {"storage_modes": ("flat",)}, {}, {}
        facts = group.facts
        if facts is None:
            spoken = {path: bodies[path] for path in speaking(bodies, group)}
            facts = facts_of(group, spoken, self._experiments)
        if facts is None:
            return {"storage_modes": ("flat",)}, {}, {}
        fields, beyond, history = described(facts, trashed=group.trashed)
        if history is None:
            return fields, beyond, {}
        pin = partial(_pin, group.run_id)
        [ref] = hold(self._store, [writer_of(self._store, history, HISTORY)], pin, observe=_ignore)
        return fields, beyond, {HISTORY: ref}


def _failed(work: RunWork, error: Exception) -> Failed:
    return Failed((*work.group.folders, "")[0] or work.group.run_id, str(error))


def _read(tree: SourceTree, bodies: Mapping[str, bytes], entries: Sequence[Entry]) -> dict[str, bytes]:
    """Give the bytes of files by their paths; those that were read before only if all are unchanged."""
    known = {entry.path: bodies[entry.digest] for entry in entries if entry.digest in bodies}
    tree.require_unchanged([entry for entry in entries if entry.path in known])
    missing = [entry for entry in entries if entry.path not in known]
    read = zip(missing, tree.read_all(missing), strict=True)
    return {**known, **{entry.path: checked(entry, body) for entry, body in read}}


def _pin(run_id: str, digest: str) -> str:
    return layout.run_pin_key(digest, run_id)


def _ignore(event: Event) -> None:
    """Told as a whole, by batch."""
