"""Runs: a manifest that lists the data of one run by ref, found again by id and through views."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime
from functools import partial
from typing import Any

from mltrack_tasks import events, layout
from mltrack_tasks.catalog import current_rows, manifests_in
from mltrack_tasks.content import writer_of
from mltrack_tasks.deletions import hold
from mltrack_tasks.errors import FormatError, IntegrityError, InvalidInputError, NotFoundError
from mltrack_tasks.events import Observe, log_event
from mltrack_tasks.manifests import latest_revision, read_manifest, write_manifest
from mltrack_tasks.parallel import map_ordered
from mltrack_tasks.records import RunManifest
from mltrack_tasks.refs import DataRef, blob_named
from mltrack_tasks.run_inputs import (
    check_contents,
    check_size,
    checked_id,
    checked_metrics,
    checked_modes,
    checked_things,
    checked_values,
    inlined,
)
from mltrack_tasks.runfilter import run_filter
from mltrack_tasks.stores.base import Store
from mltrack_tasks.tables import runrows

IF_EXISTS = ("raise", "revise")


def store_run(
    store: Store,
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
    observe: Observe = log_event,
) -> RunManifest:
    """Store what one run used and made -> its manifest.

    Values of ``data``, ``inputs`` and ``outputs`` are refs (or their text) or anything that ``store_data``
    takes. The same call again finishes what a crash left and returns the manifest that is there
    (``created=False``).

    Raises ConflictError if the run id holds another run (``if_exists="revise"`` stores a new revision
    instead), NotFoundError for a ref whose blob is not in this store, InvalidInputError for bad names, values
    or a storage mode whose field is missing: then nothing was written, or, if a frame
    or an array turned out not to be exact, at most blobs that nothing refers to.
    """
    layout.check_choice(if_exists, IF_EXISTS, "if_exists")
    draft = RunManifest(
        run_id=checked_id(run_id),
        run_type=layout.check_choice(run_type, layout.RUN_TYPES, "The run type"),
        status=layout.check_choice(status, layout.STATUSES, "The status"),
        storage_modes=checked_modes(storage_mode, project, model),
        project=project,
        model=model,
        params=checked_values(params, "params"),
        metrics=checked_metrics(metrics),
        tags=checked_values(tags, "tags"),
        started_at=started_at,
        ended_at=ended_at,
    )
    named = {"data": data, "inputs": inputs, "outputs": outputs}
    things = {group: checked_things(values, group) for group, values in named.items()}
    check_size(draft)
    check_contents(things)
    places = [(group, name) for group, values in things.items() for name in values]
    writers = [writer_of(store, things[group][name], name) for group, name in places]
    held = hold(store, writers, partial(_pin_key, draft.run_id), observe=observe)
    refs: dict[str, dict[str, DataRef]] = {group: {} for group in things}
    for (group, name), ref in zip(places, held, strict=True):
        refs[group][name] = ref
    full = replace(
        draft, data=refs["data"], inputs=refs["inputs"], outputs=refs["outputs"], values=inlined(things)
    )
    return write_manifest(store, full, revise=if_exists == "revise", observe=observe)


def get_run(store: Store, run_id: str) -> RunManifest:
    """Read the current revision of a run's manifest. Raises NotFoundError if there is no such run."""
    latest = latest_revision(store, run_id)
    if latest == 0:
        raise NotFoundError(f"There is no run {run_id!r} in {store.location}.", details={"run_id": run_id})
    return read_manifest(store, run_id, latest)


def list_runs(
    store: Store,
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
    observe: Observe = log_event,
) -> list[RunManifest]:
    """List the runs that match everything given -> their current manifests, newest first.

    Complete whatever storage modes the runs chose. ``since`` and ``until`` look at a run's start, or at when
    it was stored if it has none: a date (or its text) counts as whole UTC days, both included; a datetime as
    ``since <= start < until``. ``tags`` and ``params`` must be equal; ``metrics`` is a number or a
    comparison, as in ``{"accuracy": "> 0.9"}``. ``limit`` keeps the newest.

    On a compacted catalogue (flow ``compact_catalog``) the number of requests does not depend on the number
    of runs. Runs whose manifest is damaged are left out with a warning in the log. Raises InvalidInputError
    for a condition that means nothing.
    """
    wanted = run_filter(
        project=project,
        run_type=run_type,
        model=model,
        status=status,
        since=since,
        until=until,
        tags=tags,
        params=params,
        metrics=metrics,
    )
    if limit is not None and (type(limit) is not int or limit < 0):
        raise InvalidInputError(f"limit is {limit!r}; give a whole number of runs, or None for all.")
    rows = runrows.newest_first(runrows.select(current_rows(store, observe=observe), wanted))
    return manifests_in(store, rows if limit is None else rows[:limit])


def find_runs_by_data(store: Store, ref: DataRef | str, *, observe: Observe = log_event) -> list[str]:
    """Find the runs that use a blob -> sorted ids of those whose current manifest lists it.

    In ``data``, ``inputs`` or ``outputs``. A ref, or its text, finds that format only; a bare digest any. The
    blob itself need not be there any more; one that no run lists gives an empty list. A run whose manifest is
    damaged is left out with a warning in the log, so that one forged record does not hide the rest.

    One LIST, and three requests for each run that holds the blob (more for one with revisions). Raises
    InvalidInputError for text that is not a ref.
    """
    digest, format = blob_named(ref)
    hints = _pinning_runs(store, digest)
    manifests = map_ordered(partial(_current, store), hints, store.max_workers)
    return [run.run_id for run in manifests if run and _lists(run, digest, format)]


def _pin_key(run_id: str, digest: str) -> str:
    return layout.run_pin_key(digest, run_id)


def _pinning_runs(store: Store, digest: str) -> list[str]:
    """Name the runs that have a pin on a blob; data names and foreign keys are passed over."""
    runs = []
    for stat in store.list(layout.pin_folder(digest)):
        try:
            run_id = layout.run_of_pin(stat.key)
        except IntegrityError:
            continue
        if run_id is not None and stat.key == layout.run_pin_key(digest, run_id):
            runs.append(run_id)
    return sorted(runs)


def _lists(run: RunManifest, digest: str, format: str | None) -> bool:
    return any(ref.hash == digest and format in (None, ref.format) for ref in run.all_refs)


def _current(store: Store, run_id: str) -> RunManifest | None:
    """Read a run, or None if a writer died before it, or, with a warning, if it cannot be read."""
    try:
        return get_run(store, run_id)
    except NotFoundError:
        return None
    except (IntegrityError, FormatError) as error:
        events.logger.warning("left out: %s", error)
        return None
