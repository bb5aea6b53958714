"""Manifests: written once per revision, with their log entry before and their views after."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from mltrack_tasks import events, layout, provenance
from mltrack_tasks.errors import ConflictError, IntegrityError
from mltrack_tasks.events import Event, Observe
from mltrack_tasks.fields import parse_time
from mltrack_tasks.parallel import run_all
from mltrack_tasks.records import Record, RunManifest
from mltrack_tasks.recordstore import create_record, ensure, read_record, same_content
from mltrack_tasks.stores.base import Store

LONG_SLEEP = 86_400.0
"""[s] between log entry and manifest (a laptop was shut) after which the entry is made sure of again."""


class StoredRevision(NamedTuple):
    """What is stored of a run now: one revision, and whether this call wrote it."""

    record: Record
    revision: int
    created: bool


def write_manifest(store: Store, manifest: RunManifest, *, revise: bool, observe: Observe) -> RunManifest:
    """Write a manifest as ``write_revision`` does -> what is stored, as a reader gets it."""
    stored = write_revision(store, manifest, revise=revise, origin=provenance.of_run(), observe=observe)
    what = _name(store, manifest.run_id, stored.revision)
    read = RunManifest.from_record(stored.record, revision=stored.revision, what=what)
    return replace(read, created=stored.created)


def write_revision(
    store: Store, manifest: RunManifest, *, revise: bool, origin: Mapping[str, Any], observe: Observe
) -> StoredRevision:
    """Write a manifest as the first revision, or with ``revise`` as the next -> what is stored.

    The same manifest again is success (``created=False``): as the current revision, as an older one that this
    very task run wrote before it was interrupted, or without ``revise`` as the first, whoever wrote it.
    Otherwise, without ``revise``, ConflictError. ``origin`` is the provenance of this moment.
    """
    run_id, content, revision = manifest.run_id, manifest.to_content(), 1
    if revise:
        own = _own_revision(store, run_id, content, origin)
        revision = own or latest_revision(store, run_id) + 1
    while True:
        try:
            stored = _write_revision(store, run_id, revision, content, origin)
        except ConflictError:
            own = _own_revision(store, run_id, content, origin)
            if own is None and not revise:
                raise
            revision = own or revision + 1  # another writer took the number: ours comes after it
            continue
        if stored.created or latest_revision(store, run_id) == stored.revision:
            _write_views(store, replace(manifest, provenance=stored.record.provenance))
        observe(Event(events.RUN_STORED, run_id, {"revision": revision, "created": stored.created}))
        return stored


def read_manifest(store: Store, run_id: str, revision: int) -> RunManifest:
    """Read one revision. IntegrityError if the record there is of another run."""
    key, what = layout.manifest_key(run_id, revision), _name(store, run_id, revision)
    manifest = RunManifest.from_record(read_record(store, key), revision=revision, what=what)
    if manifest.run_id != run_id:
        raise IntegrityError(
            f"{what} is the manifest of {manifest.run_id!r}; it was not written there by us."
        )
    return manifest


def latest_revision(store: Store, run_id: str) -> int:
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


def _write_revision(
    store: Store, run_id: str, revision: int, content: Mapping[str, Any], origin: Mapping[str, Any]
) -> StoredRevision:
    """Log entry, then record: the order is the transaction."""
    entry, began = layout.log_key(parse_time(origin["at"], "the time"), run_id, revision), time.time()
    ensure(store, entry)
    key = layout.manifest_key(run_id, revision)
    record, created = create_record(store, key, content, what=f"The run {run_id!r}", origin=origin)
    if time.time() - began > LONG_SLEEP:
        ensure(store, entry)  # a compaction may have taken it for that of a writer that died
    return StoredRevision(record, revision, created)


def _own_revision(
    store: Store, run_id: str, content: Mapping[str, Any], origin: Mapping[str, Any]
) -> int | None:
    """The revision that already holds this content and counts as ours, or None.

    The current one does, whoever wrote it. An older one only if this task run wrote it: somebody who stores
    an earlier state on purpose wants it to be the current one again.
    """
    latest, task = latest_revision(store, run_id), origin.get("task_run_id")
    oldest = 1 if task is not None else max(latest, 1)
    for revision in range(latest, oldest - 1, -1):
        record = read_record(store, layout.manifest_key(run_id, revision))
        ours = task is not None and record.provenance.get("task_run_id") == task
        if (revision == latest or ours) and same_content(record.content, content):
            return revision
    return None


def _write_views(store: Store, manifest: RunManifest) -> None:
    keys = [
        layout.view_key(mode, view_value(manifest, mode), manifest.run_id)
        for mode in manifest.storage_modes
        if mode != "flat"
    ]
    run_all([partial(ensure, store, key) for key in keys], store.max_workers)


def _name(store: Store, run_id: str, revision: int) -> str:
    """Name a revision's record in messages."""
    return f"{layout.manifest_key(run_id, revision)} in {store.location}"
