"""Tasks that give back what nothing needs any more."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from mltrack_tasks.artifacts import Progress, markdown, plain, table
from mltrack_tasks.blocks import MLTrackStore
from mltrack_tasks.chart import human_bytes
from mltrack_tasks.collecting import collect, retaining, undoing
from mltrack_tasks.collecting.collect import GRACE, GarbageReport
from mltrack_tasks.collecting.retaining import RetentionReport
from mltrack_tasks.collecting.retention import RetentionPolicy
from mltrack_tasks.collecting.undoing import UndoneCollection
from mltrack_tasks.resolve import open_store
from mltrack_tasks.runlinks import footer
from mltrack_tasks.tasking import mltrack_task, recorded


@mltrack_task
def collect_garbage(
    *,
    grace: timedelta = GRACE,
    dry_run: bool = True,
    plan: str | None = None,
    full: bool = False,
    store: MLTrackStore | str | None = None,
) -> GarbageReport:
    """Find the blobs that no record needs and no pin holds -> what they are; ``dry_run=False`` deletes them.

    Nothing younger than ``grace`` goes, by the store's clock (a day at least). ``plan=report.plan`` applies
    the plan of an earlier call, at most 30 days old: what it lists, as far as nothing needs it by now. A pin
    that no record justifies goes first, and its blob with a collection that begins a grace period later.
    Safe beside writers, readers and other collections; the same call again goes on where one was stopped.
    Records that an earlier collection read within 30 days are not read again, unless ``full``.

    Raises FormatError, IntegrityError or ArchivedError, and deletes nothing, while a record cannot be
    understood. In a flow it is also shown (artifact ``mltrack-garbage``).
    """
    with recorded(), Progress("mltrack-garbage-progress") as observe:
        opened = open_store(store)
        found = collect.collect_garbage(
            opened, grace=grace, dry_run=dry_run, plan=plan, full=full, observe=observe
        )
    markdown("mltrack-garbage", _told(found) + footer(), f"Garbage in {plain(opened.location)}")
    return found


@mltrack_task
def undo_collection(plan: str, *, store: MLTrackStore | str | None = None) -> UndoneCollection:
    """Bring back the blobs that a plan lists and a collection deleted -> how many.

    Only a bucket with versioning has them, until a lifecycle rule removes them; elsewhere nothing comes back,
    and the report says so. What came back is as old as it was: store it again, or something that refers to
    it, before the next collection. Raises NotFoundError for an unknown plan.
    """
    with recorded(), Progress("mltrack-undoing-progress") as observe:
        return undoing.undo_collection(open_store(store), plan, observe=observe)


@mltrack_task
def apply_retention(
    policies: Sequence[RetentionPolicy], *, dry_run: bool = True, store: MLTrackStore | str | None = None
) -> RetentionReport:
    """Decide which runs the policies keep -> each with the reason; ``dry_run=False`` removes the others.

    The first policy that is about a run decides; a run without a policy is kept. Always kept: runs from which
    a version came that was ever promoted, runs that are not over, and runs tagged ``mltrack.keep``. In a flow
    it is also shown (artifact ``mltrack-retention``).
    """
    with recorded(), Progress("mltrack-retention-progress") as observe:
        found = retaining.apply_retention(open_store(store), policies, dry_run=dry_run, observe=observe)
    rows = [
        {"run": plain(each.run_id), "keep": each.keep, "why": plain(each.reason)}
        for each in sorted(found.decisions, key=lambda each: each.keep)
    ]
    table("mltrack-retention", rows, plain(str(found)))
    return found


def _told(found: GarbageReport) -> str:
    lines = [plain(str(found)), "", "| blobs that nothing needs | size |", "|---|--:|"]
    lines += [f"| {plain(name)} | {human_bytes(size)} |" for name, size in found.by_format.items()]
    lines += [f"| {plain(name)} old | {human_bytes(size)} |" for name, size in found.by_age.items()]
    lines += ["", f"Records: {found.records:,}. Grace period: {found.grace_days:g} days."]
    lines += [f"Needed by now, or at hand elsewhere: {found.spared:,} blobs." if found.spared else ""]
    if found.dry_run and (found.blobs or found.pins):
        lines += ["", f"Nothing was deleted. To delete this, apply the plan `{found.plan}`."]
    return "\n".join(lines)
