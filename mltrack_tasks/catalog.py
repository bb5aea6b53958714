"""The catalogue of all runs: the newest snapshot, and what the run log says came after it.

Order is what makes a reading complete. A compaction removes log entries only after its snapshot is
committed; so whoever lists the log first and reads the newest snapshot afterwards misses nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mltrack_tasks import events
from mltrack_tasks.errors import FormatError, IntegrityError, NotFoundError
from mltrack_tasks.events import Event, Observe, log_event
from mltrack_tasks.records import RunManifest
from mltrack_tasks.runlog import Revision, log_entries, newest_manifests, read_revisions
from mltrack_tasks.snapshots import Snapshot, latest_snapshot, read_parts
from mltrack_tasks.stores.base import Store
from mltrack_tasks.tables import runrows

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
    return runrows.manifests_of(current_rows(store, observe=observe))


def current_rows(store: Store, *, observe: Observe = log_event) -> Any:
    """Read the rows of the current revision of every run, as ``tables.runrows`` describes them.

    From a compacted catalogue: one LIST of the log, three or four requests for the catalogue, and one for
    each revision that is newer. Without a catalogue, or with a damaged one: one request for each run.
    """
    entries = log_entries(store)
    try:
        base, tables = read_catalog(store)
    except (IntegrityError, FormatError, NotFoundError) as error:
        told = {"reason": str(error), "advice": "compact_catalog(rebuild=True) makes it anew"}
        observe(Event(events.CATALOG_UNREADABLE, store.location, told))
        base, tables = Snapshot(), []
    rows = runrows.newest(tables)
    new = beyond(rows, entries) if base.number else newest_manifests(store)
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
