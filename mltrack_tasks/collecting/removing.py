"""Removing runs: their manifests and views go; what only they held goes with later collections."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from mltrack_tasks import events, layout, provenance
from mltrack_tasks.collecting.ownership import require_own
from mltrack_tasks.errors import ConflictError, IntegrityError, InvalidInputError, NotFoundError
from mltrack_tasks.events import Event, Observe, log_event
from mltrack_tasks.fields import checked_text
from mltrack_tasks.manifests import read_manifest
from mltrack_tasks.records import Record
from mltrack_tasks.recordstore import ensure
from mltrack_tasks.removals import removal_entry_key, removal_key
from mltrack_tasks.stores.base import Stat, Store
from mltrack_tasks.views import entries_of

_ROUNDS = 5
"""How often revisions are looked for that writers added meanwhile."""
_TICK = timedelta(seconds=1)
"""To which servers round the times of objects, not all of them in each answer."""


@dataclass(frozen=True)
class RemovedRun:
    """What a removal took away."""

    run_id: str
    revisions: tuple[int, ...]
    views: int


def remove_run(
    store: Store,
    run_id: str,
    *,
    reason: str | None = None,
    revision: int | None = None,
    observe: Observe = log_event,
) -> RemovedRun:
    """Remove a run, all its revisions and views -> what was removed.

    A record of the removal stays, with ``reason``. Blobs that nothing else needs go later, with
    ``collect_garbage``: first their pins, a grace period later they. Versions of models that were registered
    from the run keep their files. With ``revision``, only if that is its newest one. A removal that was
    stopped is finished by the same call. Raises NotFoundError if there is no such run, ConflictError if it
    has another newest revision or this store is a replica, FormatError if a newer version of this library
    wrote it.
    """
    require_own(store)
    return take_run(store, run_id, reason=reason, revision=revision, observe=observe)


def take_run(
    store: Store,
    run_id: str,
    *,
    reason: str | None,
    revision: int | None,
    observe: Observe,
    seen: datetime | None = None,
) -> RemovedRun:
    """As ``remove_run``, for whoever knows that the store is no replica.

    ``seen`` is the store's time at which ``revision`` was found to be the newest one. Then what is younger
    stays, also if it has the same number, as a run that was removed and stored again; and where only lower
    revisions are left, a removal was stopped, and is finished.
    """
    reason = checked_text(reason, "reason")
    if revision is not None and (type(revision) is not int or revision < 1):
        raise InvalidInputError(f"revision is {revision!r}; give a whole number from 1 on, or None for any.")
    found = _revisions(store, run_id)
    entry = removal_entry_key(datetime.now(UTC), run_id)
    if not found:
        if store.head(removal_key(run_id)) is not None:
            ensure(store, entry)  # whoever removed it may have been stopped before it said so again
        raise NotFoundError(f"There is no run {run_id!r} in {store.location}.", details={"run_id": run_id})
    if revision is not None:
        _require_as_seen(run_id, found, revision, seen)
    views = _views_of(store, run_id, found)
    content = {"run_id": run_id, "revisions": sorted(found), "reason": reason}
    ensure(store, removal_key(run_id), Record(content, provenance.current()).to_bytes())
    ensure(store, entry)
    removed: set[int] = set()
    for _ in range(_ROUNDS):
        # From the newest down: whoever looks for the newest one finds an older one, or none, and no gap.
        for number in sorted(found, reverse=True):
            store.delete([layout.manifest_key(run_id, number)])
        removed.update(found)
        if not (found := _revisions(store, run_id)):
            break
        views |= _views_of(store, run_id, found)
    ensure(store, entry)  # a compaction may have taken up the manifests, and then the entry
    store.delete(sorted(views))
    observe(Event(events.RUN_REMOVED, run_id, {"revisions": len(removed), "reason": reason}))
    return RemovedRun(run_id, tuple(sorted(removed)), len(views))


def _require_as_seen(run_id: str, found: Mapping[int, Stat], revision: int, seen: datetime | None) -> None:
    newest = max(found)
    if seen is None and newest == revision:
        return
    if seen is not None and newest <= revision and found[newest].modified - seen <= _TICK:
        return
    said = f"The newest revision of {run_id!r} is {newest}, not {revision}"
    if newest == revision:
        said = f"{run_id!r} was removed and stored again since it was looked at"
    raise ConflictError(f"{said}. Look at it and decide again.")


def _revisions(store: Store, run_id: str) -> dict[int, Stat]:
    """The revisions of a run that are there, also beyond a gap."""
    first = store.head(layout.manifest_key(run_id))
    found = {} if first is None else {1: first}
    start = layout.manifest_key(run_id, 2).removesuffix("00000002.json")
    for stat in store.list(layout.MANIFESTS, after=start):
        if not stat.key.startswith(start):
            break
        if place := layout.parse_manifest_key(stat.key):
            found[place[1]] = stat
    return found


def _views_of(store: Store, run_id: str, revisions: Iterable[int]) -> set[str]:
    """Keys of the views of revisions. Of one that is damaged none: ``rebuild_views`` finds those."""
    views: set[str] = set()
    for number in revisions:
        try:
            views.update(entries_of(read_manifest(store, run_id, number)))
        except (IntegrityError, NotFoundError) as error:
            events.logger.warning("its views are left: %s", error)
    return views
