"""Tasks for the configuration of a store's bucket."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mltrack_tasks.artifacts import markdown, plain, table
from mltrack_tasks.blocks import MLTrackStore
from mltrack_tasks.bucket import provision, reverting
from mltrack_tasks.bucket.report import BucketReport, pretty
from mltrack_tasks.bucket.settings import BucketSettings
from mltrack_tasks.resolve import open_store
from mltrack_tasks.tasking import mltrack_task, recorded, report, run_logger


@mltrack_task
def provision_bucket(
    settings: BucketSettings | Mapping[str, Any] | None = None,
    *,
    dry_run: bool = True,
    plan: str | None = None,
    store: MLTrackStore | str | None = None,
) -> BucketReport:
    """Compare the bucket of a store with ``settings`` -> a report; ``dry_run=False`` makes the changes.

    What the settings leave out stays as it was last applied, and what never was is set as recommended; rules
    of others stay as they are. ``plan=report.plan`` makes the changes of that report, or none. Applied
    twice, the second call changes nothing. Each change can be undone (``undo_bucket_change``).

    Raises InvalidInputError, with the reason and what is safe, for settings that would break the store;
    ConflictError for what rules of others leave no room for, and if somebody changes the bucket meanwhile.
    In a flow the changes are also shown (artifacts ``mltrack-bucket`` and ``mltrack-bucket-documents``).
    """
    with recorded():
        found = provision.provision_bucket(
            open_store(store), settings, dry_run=dry_run, plan=plan, observe=report
        )
    _show(found)
    return found


@mltrack_task
def undo_bucket_change(
    change: int, *, dry_run: bool = True, store: MLTrackStore | str | None = None
) -> BucketReport:
    """Put back what a document of the bucket said before a change -> a report; ``dry_run=False`` writes it.

    If nobody changed it since, it says again what it said, byte for byte; rules that others changed stay as
    they are now. Raises NotFoundError for an unknown change, ConflictError if ours was changed again since.
    """
    with recorded():
        found = reverting.undo_bucket_change(open_store(store), change, dry_run=dry_run, observe=report)
    _show(found)
    return found


def _show(found: BucketReport) -> None:
    for hazard in found.hazards:
        run_logger().warning("%s", hazard)
    users = ("why", "before", "after")  # what may hold names that others chose
    rows = [
        {key: plain(value) if key in users else value for key, value in row.items()} for row in found.rows()
    ]
    table("mltrack-bucket", rows, plain(str(found)))
    markdown("mltrack-bucket-documents", told(found), f"Configuration of {plain(found.bucket)}")


def told(found: BucketReport) -> str:
    """A report as markdown: what changes, in full, and what else is worth knowing."""
    lines = [f"**{plain(str(found))}**"]
    lines += [f"- danger: {plain(each)}" for each in found.hazards]
    lines += [f"- {plain(each)}" for each in found.notes]
    for row in found.documents:
        if row.state == "change":
            lines += ["", f"### {plain(row.document)}", "", plain(row.why), "", "before", *_block(row.before)]
            lines += ["", "after", *_block(row.after)]
    if found.retention:
        policies = ", ".join(each.model_dump_json(exclude_defaults=True) for each in found.retention)
        lines += ["", f"Temporary runs: apply_retention with {plain(policies)}, then collect_garbage."]
    if found.changes:
        numbers = ", ".join(map(str, found.changes))
        lines += ["", f"Changes {numbers}: each can be undone with undo_bucket_change."]
    elif found.dry_run and found.to_change:
        lines += ["", f"Nothing was changed. To change this and nothing else, apply the plan `{found.plan}`."]
    return "\n".join(lines)


def _block(document: Any) -> list[str]:
    """A block of code that nothing inside can end: every line of it is indented."""
    return ["", *(f"    {line}" for line in pretty(document).splitlines())]
