"""Which runs have to be written, now that their files are stored."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from mltrack_tasks.filetree import FILE, Entries, Entry
from mltrack_tasks.migrated import signature
from mltrack_tasks.migration.groups import MLFLOW, RunGroup, members, touched_by
from mltrack_tasks.migration.hashing import Failed
from mltrack_tasks.migration.mlflowruns import surrounds
from mltrack_tasks.migration.planning import Plan
from mltrack_tasks.migration.runmanifests import RunBatch, RunWork
from mltrack_tasks.migration.state import places_in
from mltrack_tasks.migration.uploading import Uploaded
from mltrack_tasks.migrations import MigratedRun
from mltrack_tasks.plan import inlined
from mltrack_tasks.receipts import Place

MAX_BATCHES, RUNS_PER_BATCH = 30, 100
_DEEPEST = 3
"""What tells of an experiment lies at most so far below it: ``datasets/<id>/meta.yaml``."""


class RunPlan:
    """The tree as it is stored, and the runs that are to be written. Not a dataclass, as ``Plan`` is none."""

    def __init__(
        self,
        plan: Plan,
        entries: Sequence[Entry],
        failed: Sequence[Failed],
        kept: Sequence[MigratedRun],
        batches: Sequence[RunBatch],
        places: Mapping[str, Place],
        receipts: Sequence[str],
        staying: frozenset[str],
    ) -> None:
        self.scan, self.previous, self.unchanged = plan.scan, plan.previous, plan.unchanged
        self.pending = plan.pending
        self.entries, self.failed = Entries(entries), tuple(failed)
        self.kept, self.batches = tuple(kept), tuple(batches)
        self.places, self.receipts = places, tuple(receipts)
        self.staying = staying
        """Folders of runs that are not written: something in them could not be read, or was deleted here."""

    def __repr__(self) -> str:
        runs = sum(len(batch.runs) for batch in self.batches)
        return f"<runs of {self.scan.root}: {runs:,} to write, {len(self.kept):,} as they are>"


def plan_manifests(plan: Plan, uploaded: Sequence[Uploaded]) -> RunPlan:
    """Compare the runs with those of the last manifest -> those to write, and those that stay.

    A run one of whose files could not be read is not revised: what is stored of it is whole. A run that is
    no longer in the folder, or whose files were deleted here after they were stored, stays as well.
    """
    if plan.unchanged and plan.previous is not None:
        return RunPlan(plan, plan.entries, (), plan.previous.runs, (), plan.places, (), frozenset())
    batches = list(uploaded)
    entries, failed = _with_digests(plan, batches)
    places = {**plan.places, **places_in(item.receipt for item in batches)}
    known = {run.run_id: run for run in plan.previous.runs} if plan.previous else {}
    groups = plan.scan.groups
    staying = touched_by({failure.path for failure in failed} | plan.removed, groups)
    kept: list[MigratedRun] = []
    work: list[RunWork] = []
    around = _around({group.experiment for group in groups if _is_of_files(group)}, entries)
    for group, files in zip(groups, members(entries, groups), strict=True):
        stored = known.pop(group.run_id, None)
        sign = signature([*around.get(group.experiment, ()), *files], group.facts_json)
        stays = not staying.isdisjoint(group.folders) or not _is_whole(files, places)
        if stored is not None and (stays or stored.signature == sign):
            kept.append(stored)
        elif not stays:
            lying = {e.digest: places[e.digest] for e in files if e.digest in places}
            work.append(RunWork(group, tuple(files), sign, lying, stored.revision if stored else 0))
    kept += known.values()
    receipts = [item.receipt.batch for item in batches]
    return RunPlan(plan, entries, failed, kept, _in_batches(plan, work, around), places, receipts, staying)


def _is_whole(files: Sequence[Entry], places: Mapping[str, Place]) -> bool:
    """Whether the bytes of all files of a run are stored, or will stand in its manifest.

    They are not if an equal file of another run was to be sent for both, and could not be.
    """
    inside = inlined(files)
    return all(e.kind != FILE or e.digest in inside or e.digest in places for e in files)


def _with_digests(plan: Plan, uploaded: Sequence[Uploaded]) -> tuple[list[Entry], list[Failed]]:
    """Give large files the digests that sending them found -> (entries, what failed so far).

    A file that failed is not among the entries, unless an earlier state of it is stored.
    """
    failed = list(plan.failed)
    lost: set[str] = set()
    digests: dict[str, str] = {}
    for batch in uploaded:
        failed += batch.failed
        lost.update(failure.path for failure in batch.failed)
        digests.update(batch.receipt.digests)
    entries = [e if e.digest else e._replace(digest=digests.get(e.path, "")) for e in plan.entries]
    return [e for e in entries if e.kind != FILE or (e.digest and e.path not in lost)], failed


def _in_batches(plan: Plan, work: Sequence[RunWork], around: Mapping[str, Sequence[Entry]]) -> list[RunBatch]:
    number = plan.previous.number if plan.previous else 0
    size = max(RUNS_PER_BATCH, -(-len(work) // MAX_BATCHES))
    slices = [work[start : start + size] for start in range(0, len(work), size)]
    needed = ({run.group.experiment for run in runs} & around.keys() for runs in slices)
    return [
        RunBatch(runs, {folder: around[folder] for folder in each}, plan.bodies, number)
        for runs, each in zip(slices, needed, strict=True)
    ]


def _is_of_files(group: RunGroup) -> bool:
    """Whether files around the run tell of its experiment, rather than a database."""
    return group.kind == MLFLOW and group.facts is None


def _around(experiments: Collection[str], entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    """Find what tells of experiments."""
    found: dict[str, list[Entry]] = {folder: [] for folder in experiments}
    if not experiments:
        return found
    for entry in entries:
        if entry.kind != FILE:
            continue
        folder = entry.path
        for _ in range(_DEEPEST):
            folder = folder.rpartition("/")[0]
            if folder in found and surrounds(entry.path, folder):
                found[folder].append(entry)
                break
    return found
