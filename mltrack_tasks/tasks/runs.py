"""Tasks for runs: stored, found and traced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any

from mltrack_tasks import runs, views
from mltrack_tasks.artifacts import Progress
from mltrack_tasks.assets import made, used
from mltrack_tasks.blocks import MLTrackStore
from mltrack_tasks.capturing import captured_run_id
from mltrack_tasks.errors import InvalidInputError
from mltrack_tasks.layout import manifest_key
from mltrack_tasks.records import RunManifest
from mltrack_tasks.refs import DataRef
from mltrack_tasks.resolve import open_store
from mltrack_tasks.tasking import flow_run_id, mltrack_task, recorded, report
from mltrack_tasks.views import ViewReport


@mltrack_task
def store_run(
    run_id: str | None = None,
    data: Mapping[str, Any] | None = None,
    *,
    run_type: str = "experiment",
    storage_mode: str | Sequence[str] = "by_project",
    project: str | None = None,
    model: str | None = None,
    inputs: Mapping[str, Any] | None = None,
    outputs: Mapping[str, Any] | None = None,
    params: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
    tags: Mapping[str, Any] | None = None,
    started_at: datetime | None = None,
    ended_at: datetime | None = None,
    status: str = "finished",
    if_exists: str = "raise",
    store: MLTrackStore | str | None = None,
) -> RunManifest:
    """Store what one run used and made -> its manifest; ``run_id=None`` takes the flow run's id.

    Values of ``data``, ``inputs`` and ``outputs`` are refs or anything that ``store_data`` takes. The same
    call again returns what is there. Raises ConflictError if the id holds another run, unless
    ``if_exists="revise"``.
    """
    opened = open_store(store)
    with recorded():
        manifest = runs.store_run(
            opened,
            _free_flow_run_id() if run_id is None else run_id,
            data,
            run_type=run_type,
            storage_mode=storage_mode,
            project=project,
            model=model,
            inputs=inputs,
            outputs=outputs,
            params=params,
            metrics=metrics,
            tags=tags,
            started_at=started_at,
            ended_at=ended_at,
            status=status,
            if_exists=if_exists,
            observe=report,
        )
    for ref in manifest.inputs.values():
        used(opened, ref.storage_path, name=ref.name)
    return made(opened, manifest_key(manifest.run_id, manifest.revision), manifest, name=manifest.run_id)


@mltrack_task
def get_run(run_id: str, *, store: MLTrackStore | str | None = None) -> RunManifest:
    """Read the current revision of a run's manifest. Raises NotFoundError if there is no such run."""
    return runs.get_run(open_store(store), run_id)


@mltrack_task
def list_runs(
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
    limit: int | None = None,
    store: MLTrackStore | str | None = None,
) -> list[RunManifest]:
    """List the runs that match everything given -> their current manifests, newest first.

    Complete whatever storage modes the runs chose. Dates are whole UTC days of a run's start, both included;
    ``metrics`` takes numbers or comparisons, as in ``{"accuracy": "> 0.9"}``. Raises InvalidInputError for a
    condition that means nothing.
    """
    with Progress("mltrack-runs-progress") as observe:
        return runs.list_runs(
            open_store(store),
            project=project,
            run_type=run_type,
            model=model,
            status=status,
            since=since,
            until=until,
            tags=tags,
            params=params,
            metrics=metrics,
            limit=limit,
            observe=observe,
        )


@mltrack_task
def find_runs_by_data(ref: DataRef | str, *, store: MLTrackStore | str | None = None) -> list[str]:
    """Find the runs whose data, inputs or outputs hold a blob -> their ids, sorted, or an empty list."""
    return runs.find_runs_by_data(open_store(store), ref, observe=report)


@mltrack_task
def rebuild_views(*, store: MLTrackStore | str | None = None) -> ViewReport:
    """Make the entries under ``runs/by_*`` what the current manifests say -> what was created and deleted.

    Safe while runs are stored. Foreign objects are left alone.
    """
    with recorded(), Progress("mltrack-views-progress") as observe:
        return views.rebuild_views(open_store(store), observe=observe)


def _free_flow_run_id() -> str | None:
    """The flow run's id, unless a run is being captured under it, which would replace this one at its end."""
    found = flow_run_id()
    if found is not None and captured_run_id() == found:
        raise InvalidInputError(
            "This flow run is being captured as a run of its own. Give store_run a run_id, or log to the "
            "captured run (current_capture())."
        )
    return found
