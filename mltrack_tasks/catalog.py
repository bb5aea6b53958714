"""The catalogue of all runs: the newest snapshot, and what the run log says came after it.

Order is what makes a reading complete. A compaction removes log entries only after its snapshot is
committed; so whoever lists the log first and reads the newest snapshot afterwards misses nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from mltrack_tasks import events
from mltrack_tasks.errors import ArchivedError, FormatError, IntegrityError, NotFoundError
from mltrack_tasks.events import Event, Observe, log_event
from mltrack_tasks.manifests import latest_revision, read_manifest
from mltrack_tasks.parallel import map_ordered
from mltrack_tasks.records import RunManifest
from mltrack_tasks.runlog import Log, Revision, newest_manifests, read_log, read_revisions
from mltrack_tasks.snapshots import Snapshot, latest_snapshot, read_parts
from mltrack_tasks.stores.base import Store
from mltrack_tasks.tables import runrows

UNREADABLE = (ArchivedError, FormatError, IntegrityError, NotFoundError)
"""What makes a catalogue useless for now; every manifest is read instead."""
MANY = 1_000
"""New runs from which on a reading says that a compaction is due."""
_LOOKS = 3
"""Times that a snapshot is looked for which a compaction removes while it is read."""


@dataclass(frozen=True)
class News:
    """What the log adds to a catalogue: rows, and what about it could not be read."""

    rows: Any
    damaged: tuple[Revision, ...] = ()
    missing: tuple[Revision, ...] = ()


def current_manifests(store: Store, *, observe: Observe = log_event) -> list[RunManifest]:
    """Read the current revision of every run, by project and run id.

    Runs whose current manifest is damaged are left out with a warning in the log.
    """
    return manifests_in(store, current_rows(store, observe=observe))


def manifests_in(store: Store, rows: Any) -> list[RunManifest]:
    """Read the manifests that rows were made of, in their order; of a bad row, the run's own manifest."""
    try:
        return runrows.manifests_of(rows)
    except (IntegrityError, FormatError) as error:
        events.logger.warning("manifests are read one by one: %s", error)
    found = (_manifest_in(store, rows[number : number + 1]) for number in range(len(rows)))
    return [manifest for manifest in found if manifest is not None]


def current_rows(store: Store, *, observe: Observe = log_event) -> Any:
    """Read the rows of the current revision of every run, as ``tables.runrows`` describes them.

    From a compacted catalogue: one LIST of the log, three or four requests for the catalogue, and one for
    each revision that is newer. Without a catalogue, or with a damaged one: one request for each run.
    """
    log = read_log(store)
    try:
        base, tables = read_catalog(store)
    except UNREADABLE as error:
        observe(Event(events.CATALOG_UNREADABLE, store.location, {"reason": str(error)}))
        base, tables = Snapshot(), []
    rows = runrows.without(runrows.newest(tables), {each.run_id for each in log.removed})
    new = _newer(store, rows, log) if base.number else newest_manifests(store)
    if len(new) >= MANY:
        details: dict[str, Any] = {"runs": len(new), "advice": "compact_catalog: each costs a request"}
        observe(Event(events.CATALOG_BEHIND, store.location, details))
    news = read_news(store, new, observe)
    found = runrows.revisions(news.rows)
    hidden = {each.run_id for each in news.damaged if found.get(each.run_id, 0) < each.number}
    return runrows.without(runrows.newest([rows, news.rows]), hidden)


def read_catalog(store: Store) -> tuple[Snapshot, list[Any]]:
    """Read the newest snapshot and its parts. Looks again if a compaction removes it meanwhile."""
    for look in range(_LOOKS):
        try:
            snapshot = latest_snapshot(store)
            return snapshot, read_parts(store, snapshot.parts)
        except NotFoundError:
            if look == _LOOKS - 1:
                raise
    raise AssertionError("unreachable")


def read_news(store: Store, revisions: Sequence[Revision], observe: Observe) -> News:
    """Read the manifests of revisions -> the newest row of each run among them, and what is unreadable."""
    tables, damaged, missing = [], [], []
    for found in read_revisions(store, revisions, observe):
        tables.append(runrows.rows_of(found.manifests))
        damaged += found.damaged
        missing += found.missing
    return News(runrows.newest(tables), tuple(damaged), tuple(missing))


def beyond(rows: Any, entries: Sequence[Revision]) -> list[Revision]:
    """The entries that rows do not cover: of another run, or a higher revision."""
    known = runrows.revisions(rows)
    return [entry for entry in entries if entry.number > known.get(entry.run_id, 0)]


def _newer(store: Store, rows: Any, log: Log) -> list[Revision]:
    """The revisions that rows do not cover; of runs that were removed, what was stored again."""
    removed = {each.run_id: each for each in log.removed}
    again = map_ordered(partial(latest_revision, store), removed, store.max_workers)
    found = [
        replace(each, number=number) for each, number in zip(removed.values(), again, strict=True) if number
    ]
    return [*(each for each in beyond(rows, log.entries) if each.run_id not in removed), *found]


def _manifest_in(store: Store, row: Any) -> RunManifest | None:
    try:
        return runrows.manifests_of(row)[0]
    except (IntegrityError, FormatError):
        ((run_id, revision),) = runrows.revisions(row).items()
    try:
        return read_manifest(store, run_id, max(revision, latest_revision(store, run_id)))
    except UNREADABLE as error:
        events.logger.warning("left out: %s", error)
        return None
