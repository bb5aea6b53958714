"""The catalogue of tasks: the plain functions of the library under Prefect, one each.

Every task takes ``store`` last: a block, a block's name, ``s3://bucket/prefix``, a directory, or None for
what the surroundings name (see ``resolve``). Only refs cross task borders, never the data behind them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from prefect.artifacts import create_table_artifact

from mltrack_tasks import access, content, runs
from mltrack_tasks.access import AccessReport
from mltrack_tasks.blocks import MLTrackStore
from mltrack_tasks.errors import MLTrackError
from mltrack_tasks.records import NamedData, RunManifest
from mltrack_tasks.refs import DataRef
from mltrack_tasks.resolve import find_store, open_store
from mltrack_tasks.tasking import flow_run_id, in_run, mltrack_task, recorded, report, run_logger


@mltrack_task
def store_data(
    data: Any,
    name: str = "data",
    *,
    metadata: Mapping[str, Any] | None = None,
    store: MLTrackStore | str | None = None,
) -> DataRef:
    """Store a DataFrame, ndarray, JSON value or bytes -> its ref.

    Equal data gets the same digest and is not sent again (``ref.created`` is False). Raises InvalidInputError
    for data that would not come back exactly as it is; the message names value, column and dtype.
    """
    with recorded():
        return content.store_data(open_store(store), data, name, metadata=metadata, observe=report)


@mltrack_task
def store_file(
    path: str | Path,
    name: str | None = None,
    *,
    metadata: Mapping[str, Any] | None = None,
    store: MLTrackStore | str | None = None,
) -> DataRef:
    """Store the bytes of a file on the machine that runs the task -> its ref; any size, in bounded memory.

    Raises SourceChangedError if the file changes while it is read; nothing is stored under a false digest.
    """
    with recorded():
        return content.store_file(open_store(store), path, name, metadata=metadata, observe=report)


@mltrack_task
def retrieve_data(ref: DataRef | str, *, store: MLTrackStore | str | None = None) -> Any:
    """Fetch what a ref, its string or a digest names -> DataFrame, ndarray, JSON value or bytes, verified.

    Raises NotFoundError, IntegrityError if the bytes are damaged, ArchivedError if they must be restored.
    """
    return content.retrieve_data(open_store(store), ref)


@mltrack_task
def retrieve_file(ref: DataRef | str, path: str | Path, *, store: MLTrackStore | str | None = None) -> Path:
    """Write a blob to ``path`` on the machine that runs the task -> the absolute path, verified and atomic.

    A file with these bytes is left alone; one with others is a ConflictError.
    """
    return content.retrieve_file(open_store(store), ref, path)


@mltrack_task
def list_data(name: str | None = None, *, store: MLTrackStore | str | None = None) -> list[NamedData]:
    """List what was stored outside runs, oldest first: everything, or what one name holds."""
    return content.list_data(open_store(store), name)


@mltrack_task
def forget_data(name: str, *, store: MLTrackStore | str | None = None) -> list[NamedData]:
    """Remove the records of a name -> what it held; blobs stay until garbage collection.

    Raises NotFoundError if the name is unknown.
    """
    return content.forget_data(open_store(store), name, observe=report)


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
    with recorded():
        return runs.store_run(
            open_store(store),
            flow_run_id() if run_id is None else run_id,
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


@mltrack_task
def get_run(run_id: str, *, store: MLTrackStore | str | None = None) -> RunManifest:
    """Read the current revision of a run's manifest. Raises NotFoundError if there is no such run."""
    return runs.get_run(open_store(store), run_id)


@mltrack_task
def check_access(*, write: bool = True, store: MLTrackStore | str | None = None) -> AccessReport:
    """Try what the store needs -> a report with the fix beside each failure, also as a table artifact.

    With ``write`` small objects under ``.probe/`` are written and removed again. A store that cannot be
    opened makes a report too; InvalidInputError or NotFoundError only if ``store`` names none.
    """
    found = _checked(find_store(store), write)
    for check in found.checks:
        if check.ok is False:
            run_logger().warning("%s: %s", check.name, check.detail)
    if in_run():
        create_table_artifact(  # in an async flow it would return a coroutine, but for _sync
            table=found.rows(),
            key="mltrack-access",
            description=f"Access to {found.location}",
            _sync=True,  # type: ignore[call-arg]
        )
    return found


def _checked(block: MLTrackStore, write: bool) -> AccessReport:
    try:
        opened = block.open()
    except MLTrackError as error:
        return access.report_unopened(block.location, error)
    return access.check_access(opened, write=write)
