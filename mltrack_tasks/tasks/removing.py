"""Tasks that remove runs, data, versions of models and migrations; many at once only in a second call."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from typing import Any

from mltrack_tasks.artifacts import Progress, plain, table
from mltrack_tasks.blocks import MLTrackStore
from mltrack_tasks.collecting import migrations, removals, removing, versions
from mltrack_tasks.collecting.migrations import RemovedMigration
from mltrack_tasks.collecting.removalplans import RemovalReport
from mltrack_tasks.collecting.removing import RemovedRun
from mltrack_tasks.collecting.versions import RemovedVersion
from mltrack_tasks.resolve import open_store
from mltrack_tasks.tasking import mltrack_task, recorded, report


@mltrack_task
def remove_run(
    run_id: str,
    *,
    reason: str | None = None,
    revision: int | None = None,
    store: MLTrackStore | str | None = None,
) -> RemovedRun:
    """Remove a run, all its revisions and views -> what was removed.

    A record of the removal stays, with ``reason``; blobs that nothing else needs go later, with
    ``collect_garbage``. With ``revision``, only if that is its newest one. Raises NotFoundError if there is
    no such run, ConflictError if it has another newest revision, or the store is a replica.
    """
    with recorded():
        return removing.remove_run(
            open_store(store), run_id, reason=reason, revision=revision, observe=report
        )


@mltrack_task
def remove_runs(
    *,
    project: str | None = None,
    run_type: str | None = None,
    model: str | None = None,
    status: str | None = None,
    since: date | datetime | str | None = None,
    until: date | datetime | str | None = None,
    tags: Mapping[str, Any] | None = None,
    params: Mapping[str, Any] | None = None,
    metrics: Mapping[str, float | str] | None = None,
    reason: str | None = None,
    plan: str | None = None,
    dry_run: bool = True,
    store: MLTrackStore | str | None = None,
) -> RemovalReport:
    """Name the runs that match everything given -> a plan; ``dry_run=False`` removes them.

    Conditions are those of ``list_runs``; one at least. Kept: runs from which a version came that was ever
    promoted, runs that are not over, and runs tagged ``mltrack.keep``. ``plan=report.plan`` applies the plan
    of an earlier call, at most 30 days old: the runs that it lists, but for those that were revised since. In
    a flow it is also shown (artifact ``mltrack-removal``). Raises InvalidInputError without a condition, or
    with one beside a plan.
    """
    with recorded(), Progress("mltrack-removal-progress") as observe:
        opened = open_store(store)
        found = removals.remove_runs(
            opened,
            project=project,
            run_type=run_type,
            model=model,
            status=status,
            since=since,
            until=until,
            tags=tags,
            params=params,
            metrics=metrics,
            reason=reason,
            plan=plan,
            dry_run=dry_run,
            observe=observe,
        )
    _show(found, opened.location)
    return found


@mltrack_task
def remove_data(
    starting_with: str | None = None,
    *,
    plan: str | None = None,
    dry_run: bool = True,
    store: MLTrackStore | str | None = None,
) -> RemovalReport:
    """Name the data whose names begin so -> a plan; ``dry_run=False`` forgets them, as ``forget_data``.

    ``plan=report.plan`` applies the plan of an earlier call, at most 30 days old: the records that it lists.
    Runs are not touched. In a flow it is also shown (artifact ``mltrack-removal``). Raises InvalidInputError
    for an empty beginning.
    """
    with recorded(), Progress("mltrack-removal-progress") as observe:
        opened = open_store(store)
        found = removals.remove_data(opened, starting_with, plan=plan, dry_run=dry_run, observe=observe)
    _show(found, opened.location)
    return found


@mltrack_task
def remove_version(
    model_name: str,
    version: str,
    *,
    reason: str | None = None,
    though_promoted: bool = False,
    dry_run: bool = True,
    store: MLTrackStore | str | None = None,
) -> RemovedVersion:
    """Say what removing a version of a model would take away; ``dry_run=False`` removes it.

    Its record and real files go, its blobs with ``collect_garbage``; the same bytes can be registered again.
    Raises ConflictError while an alias stands for it, and if one did, unless ``though_promoted``.
    """
    with recorded():
        return versions.remove_version(
            open_store(store),
            model_name,
            version,
            reason=reason,
            though_promoted=though_promoted,
            dry_run=dry_run,
            observe=report,
        )


@mltrack_task
def remove_migration(
    migration: str,
    *,
    with_runs: bool = False,
    though_deleted_locally: bool = False,
    number: int | None = None,
    reason: str | None = None,
    dry_run: bool = True,
    store: MLTrackStore | str | None = None,
) -> RemovedMigration:
    """Say what removing a migration would take away; ``dry_run=False`` removes it.

    The folder cannot be restored from the store any more. The runs that it made stay, unless ``with_runs``.
    Raises ConflictError if a migration deleted files of the folder, of which this may be the only copy,
    unless ``though_deleted_locally``; and if ``number`` is not that of the newest state.
    """
    with recorded(), Progress("mltrack-removal-progress") as observe:
        return migrations.remove_migration(
            open_store(store),
            migration,
            with_runs=with_runs,
            though_deleted_locally=though_deleted_locally,
            number=number,
            reason=reason,
            dry_run=dry_run,
            observe=observe,
        )


def _show(found: RemovalReport, location: str) -> None:
    kept, gone = dict(found.kept), set(found.removed)
    rows = [{"name": plain(name), "became": "kept", "why": plain(why)} for name, why in kept.items()]
    rows += [
        {"name": plain(name), "became": "removed" if name in gone else "matched", "why": ""}
        for name in found.matched
        if name not in kept
    ]
    table("mltrack-removal", rows, f"{plain(location)}: {plain(str(found))}")
