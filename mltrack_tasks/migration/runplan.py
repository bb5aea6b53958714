"""Which runs have to be written, now that their files are stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mltrack_tasks.filetree import FILE, Entries, Entry
from mltrack_tasks.migration.changes import around_runs, signed_runs
from mltrack_tasks.migration.groups import touched_by
from mltrack_tasks.migration.hashing import Failed
from mltrack_tasks.migration.planning import Plan
from mltrack_tasks.migration.runmanifests import RunBatch, RunWork
from mltrack_tasks.migration.state import places_in
from mltrack_tasks.migration.uploading import Uploaded
from mltrack_tasks.migrations import MigratedRun
from mltrack_tasks.plan import inlined
from mltrack_tasks.receipts import Place

MAX_BATCHES, RUNS_PER_BATCH = 30, 100


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
        self.pending, self.lost = plan.pending, plan.lost
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
    no longer in the folder, or whose files were deleted here after they were stored, stays as well. One whose
    files the store had lost, and which were sent again, is written anew: they may lie elsewhere now.
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
    around = around_runs(groups, entries)
    for group, files, sign in signed_runs(groups, entries, around):
        stored = known.pop(group.run_id, None)
        stays = not staying.isdisjoint(group.folders) or not _is_whole(files, places)
        same = stored is not None and stored.signature == sign and plan.lost.isdisjoint(_digests(files))
        if stored is not None and (stays or same):
            kept.append(stored)
        elif not stays:
            lying = {e.digest: places[e.digest] for e in files if e.digest in places}
            work.append(RunWork(group, tuple(files), sign, lying, stored.revision if stored else 0))
    kept += known.values()
    receipts = [item.receipt.batch for item in batches]
    return RunPlan(plan, entries, failed, kept, _in_batches(plan, work, around), places, receipts, staying)


def _digests(files: Sequence[Entry]) -> set[str]:
    return {entry.digest for entry in files}


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
