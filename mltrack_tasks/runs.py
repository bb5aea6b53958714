"""Runs: a manifest that lists the data of one run by ref, found again by id and through views."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from mltrack_tasks import events, layout
from mltrack_tasks.blobs import require_blob
from mltrack_tasks.deletions import settle
from mltrack_tasks.errors import ConflictError, IntegrityError, NotFoundError
from mltrack_tasks.events import Event, Observe, log_event
from mltrack_tasks.parallel import run_all
from mltrack_tasks.records import RunManifest
from mltrack_tasks.recordstore import create_record, read_record, same_content
from mltrack_tasks.refs import DataRef
from mltrack_tasks.run_inputs import (
    STATUSES,
    check_contents,
    checked_id,
    checked_metrics,
    checked_modes,
    checked_things,
    checked_values,
    inlined,
)
from mltrack_tasks.stores.base import Store
from mltrack_tasks.values import write_value

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

    Values of ``data``, ``inputs`` and ``outputs`` are refs or anything that ``store_data`` takes. The same
    call again finishes what a crash left and returns the manifest that is there (``created=False``).

    Raises ConflictError if the run id holds another run (``if_exists="revise"`` stores a new revision
    instead), NotFoundError for a ref whose blob is not in this store, InvalidInputError for bad names, values
    or a storage mode whose field is missing; then nothing was written.
    """
    layout.check_choice(if_exists, IF_EXISTS, "if_exists")
    draft = RunManifest(
        run_id=checked_id(run_id),
        run_type=layout.check_choice(run_type, layout.RUN_TYPES, "The run type"),
        status=layout.check_choice(status, STATUSES, "The status"),
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
    draft.to_content()  # times are checked here
    check_contents(things)
    refs = _write_all(store, draft.run_id, things, observe)
    full = replace(
        draft, data=refs["data"], inputs=refs["inputs"], outputs=refs["outputs"], values=inlined(things)
    )
    return _write_manifest(store, full, if_exists, observe)


def get_run(store: Store, run_id: str) -> RunManifest:
    """Read the current revision of a run's manifest. Raises NotFoundError if there is no such run."""
    latest = _latest_revision(store, run_id)
    if latest == 0:
        raise NotFoundError(f"There is no run {run_id!r} in {store.location}.", details={"run_id": run_id})
    return _read_manifest(store, run_id, latest)


def _write_all(
    store: Store, run_id: str, things: Mapping[str, Mapping[str, Any]], observe: Observe
) -> dict[str, dict[str, DataRef]]:
    """Blobs, then pins, then a look for open deletions -> refs by group and name."""
    quiet: list[Event] = []
    writers = {
        (group, name): partial(_write_thing, store, thing, name, quiet.append)
        for group, values in things.items()
        for name, thing in values.items()
    }
    refs = dict(zip(writers, run_all(writers.values(), store.max_workers), strict=True))
    for event in quiet:
        observe(event)
    rewrite = [(refs[where].hash, writers[where]) for where in writers]
    digests = dict.fromkeys(digest for digest, _ in rewrite)
    pins = [partial(store.create, layout.run_pin_key(digest, run_id), b"") for digest in digests]
    run_all(pins, store.max_workers)
    settle(store, rewrite)
    return {group: {name: refs[group, name] for name in values} for group, values in things.items()}


def _write_thing(store: Store, thing: Any, name: str, observe: Observe) -> DataRef:
    if isinstance(thing, DataRef):
        require_blob(store, thing.hash, thing.format, thing.size_bytes)
        return thing
    return write_value(store, thing, name, observe=observe)


def _write_manifest(store: Store, manifest: RunManifest, if_exists: str, observe: Observe) -> RunManifest:
    """Log entry, record, views: the order is the transaction."""
    content = manifest.to_content()
    revision = _free_revision(store, manifest.run_id, content) if if_exists == "revise" else 1
    while True:
        store.create(layout.log_key(datetime.now(UTC), manifest.run_id, revision), b"")
        key = layout.manifest_key(manifest.run_id, revision)
        try:
            record, created = create_record(store, key, content, what=f"The run {manifest.run_id!r}")
            break
        except ConflictError:
            if if_exists == "raise":
                raise
            revision += 1  # another writer took this number with other content: ours comes after it
    what = f"{key} in {store.location}"
    stored = replace(RunManifest.from_record(record, revision=revision, what=what), created=created)
    _write_views(store, stored)
    observe(Event(events.RUN_STORED, stored.run_id, {"revision": revision, "created": created}))
    return stored


def _free_revision(store: Store, run_id: str, content: Mapping[str, Any]) -> int:
    """The number to write at: that of the current revision if it is the same, else the next."""
    latest = _latest_revision(store, run_id)
    if latest == 0:
        return 1
    current = read_record(store, layout.manifest_key(run_id, latest))
    return latest if same_content(current.content, content) else latest + 1


def _write_views(store: Store, manifest: RunManifest) -> None:
    keys = [
        layout.view_key(mode, view_value(manifest, mode), manifest.run_id)
        for mode in manifest.storage_modes
        if mode != "flat"
    ]
    run_all([partial(store.create, key, b"") for key in keys], store.max_workers)


def view_value(manifest: RunManifest, mode: str) -> str:
    """What a run is listed under in the view of ``mode``; by date, the UTC day of its start.

    A run without a start counts from when it was stored, as its record says.
    """
    if mode == "by_date":
        return layout.utc_day(manifest.started_at or manifest.stored_at)
    value = {"by_project": manifest.project, "by_type": manifest.run_type, "by_model": manifest.model}[mode]
    if value is None:
        raise IntegrityError(f"The manifest of {manifest.run_id!r} has {mode} but nothing to list it under.")
    return value


def _latest_revision(store: Store, run_id: str) -> int:
    """Highest revision (0: none), by doubling and halving: numbers have no gaps."""

    def exists(number: int) -> bool:
        return store.head(layout.manifest_key(run_id, number)) is not None

    if not exists(1):
        return 0
    low, high = 1, 2
    while exists(high):
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if exists(middle) else (low, middle)
    return low


def _read_manifest(store: Store, run_id: str, revision: int) -> RunManifest:
    key = layout.manifest_key(run_id, revision)
    what = f"{key} in {store.location}"
    manifest = RunManifest.from_record(read_record(store, key), revision=revision, what=what)
    if manifest.run_id != run_id:
        raise IntegrityError(
            f"{what} is the manifest of {manifest.run_id!r}; it was not written there by us."
        )
    return manifest
