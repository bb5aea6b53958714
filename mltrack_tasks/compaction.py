"""Compaction: what the run log holds goes into a new snapshot of the catalogue, then leaves the log.

Safe beside writers, readers and other compactions: an entry of the log goes only when a committed snapshot
covers it, and a snapshot is committed only on top of the one that it was made from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from mltrack_tasks import events, layout
from mltrack_tasks.catalog import News, beyond, read_catalog, read_news
from mltrack_tasks.errors import AccessError, IntegrityError, NotFoundError, TransientError
from mltrack_tasks.events import Event, Observe, log_event
from mltrack_tasks.recordstore import ensure
from mltrack_tasks.runlog import Revision, log_entries, newest_manifests
from mltrack_tasks.snapshots import (
    Part,
    Snapshot,
    commit,
    old_parts,
    snapshot_key,
    snapshot_numbers,
    write_part,
)
from mltrack_tasks.stores.base import Store
from mltrack_tasks.tables import runrows

PART_LIMIT = 64 * 1024 * 1024
"""[bytes] up to which parts are merged: each is one request, in memory, and some 300,000 runs."""
GRACE = timedelta(days=1)
"""How long old snapshots and parts stay, for readers that are at them and compactions that lost."""
ABANDONED = timedelta(days=30)
"""After this an entry of the log without a manifest is taken for that of a writer that died."""
_TRIES = 8


@dataclass(frozen=True)
class CompactionReport:
    """What one compaction found and did. ``snapshot`` is the newest one now, whoever made it.

    ``damaged`` and ``missing`` name runs whose newest manifest could not be read, or is not there (its writer
    is at work, or died); their entries stay in the log. ``log_removed`` counts entries that were taken up.
    """

    snapshot: int
    runs: int
    added: int
    parts: int
    size_bytes: int
    log_removed: int = 0
    log_kept: str | None = None
    damaged: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    def __str__(self) -> str:
        return (
            f"snapshot {self.snapshot}: {self.runs:,} runs ({self.added:,} new) in {self.parts} parts, "
            f"{self.size_bytes:,} bytes; {self.log_removed:,} log entries taken up"
        )


@dataclass(frozen=True)
class _Work:
    """The state that one try begins from."""

    base: Snapshot
    tables: tuple[Any, ...]
    entries: tuple[Revision, ...]
    whole: bool
    """Whether every manifest is read, and not only what the log names."""


def compact_catalog(store: Store, *, rebuild: bool = False, observe: Observe = log_event) -> CompactionReport:
    """Bring the catalogue up to date -> what was done. Nothing new: nothing is written.

    The first time, with ``rebuild``, and where the catalogue is damaged, all manifests are read; otherwise
    what the run log names. Needs s3:DeleteObject to remove what is superseded: without it the report says so
    (``log_kept``) and reading costs more requests. Raises FormatError if a newer version of this library made
    the catalogue, TransientError if other compactions kept winning.
    """
    for _ in range(_TRIES):
        report = _try(store, rebuild, observe)
        if report is not None:
            observe(Event(events.CATALOG_COMPACTED, store.location, {"snapshot": report.snapshot}))
            return report
    raise TransientError(f"Other compactions of {store.location} were faster {_TRIES} times. Try again.")


def merged_count(rows: Sequence[int], sizes: Sequence[int], added: int) -> int:
    """How many of the last parts to merge with ``added`` new rows, given each part's rows and bytes.

    A part is merged while it has less than twice the rows of what comes after it: so parts shrink
    geometrically, their number grows with the logarithm of the rows, and a row is rewritten as often.
    """
    count, total, weight = 0, added, 0
    for part_rows, size in zip(reversed(rows), reversed(sizes), strict=True):
        weight += size
        if part_rows >= 2 * total or weight > PART_LIMIT:
            break
        total += part_rows
        count += 1
    return count


def _try(store: Store, rebuild: bool, observe: Observe) -> CompactionReport | None:
    """Compact once; None if another compaction committed first."""
    work = _begin(store, rebuild, observe)
    known = runrows.newest(work.tables)
    wanted = newest_manifests(store) if work.whole else beyond(known, work.entries)
    news = read_news(store, wanted, observe)
    if not len(news.rows) and not work.whole:
        covered = _covered(known, work.entries)
        return _clean(store, _report(work.base, known, news), covered)
    parts, rows = _new_parts(store, work, news)
    if work.whole:
        for revision in news.damaged:  # no log entry may name it any more, and it may be mended
            ensure(store, layout.log_key(datetime.now(UTC), revision.run_id, revision.number))
    if not commit(store, work.base.number + 1, parts):
        return None
    report = _report(Snapshot(work.base.number + 1, tuple(parts)), rows, news)
    return _sweep(store, report, _covered(rows, work.entries), () if work.whole else news.missing)


def _begin(store: Store, rebuild: bool, observe: Observe) -> _Work:
    entries = tuple(log_entries(store))
    if rebuild:
        return _Work(Snapshot(max(snapshot_numbers(store), default=0)), (), entries, whole=True)
    try:
        base, tables = read_catalog(store)
    except (IntegrityError, NotFoundError) as error:
        observe(Event(events.CATALOG_UNREADABLE, store.location, {"reason": str(error)}))
        return _Work(Snapshot(max(snapshot_numbers(store), default=0)), (), entries, whole=True)
    return _Work(base, tuple(tables), entries, whole=base.number == 0)


def _new_parts(store: Store, work: _Work, news: News) -> tuple[list[Part], Any]:
    """Write the part of the new rows, merged with the last ones -> all parts of the snapshot, all rows."""
    old = list(work.base.parts)
    count = merged_count([part.rows for part in old], [part.size_bytes for part in old], len(news.rows))
    kept = len(old) - count
    table = runrows.newest([*work.tables[kept:], news.rows])
    parts = [*old[:kept], *([write_part(store, table)] if len(table) else [])]
    return parts, runrows.newest([*work.tables[:kept], table])


def _sweep(
    store: Store, report: CompactionReport, covered: list[str], missing: Sequence[Revision]
) -> CompactionReport:
    """Remove what the new snapshot supersedes, by the store's own clock."""
    numbers = snapshot_numbers(store)
    own = numbers.get(report.snapshot)
    if own is None or max(numbers) > report.snapshot:
        return report  # a newer one is at work, and removes what ours covers too
    abandoned = [each.key for each in missing if own.modified - each.modified > ABANDONED]
    old = [
        number
        for number, stat in numbers.items()
        if number < report.snapshot and own.modified - stat.modified > GRACE
    ]
    kept = [number for number in numbers if number not in old]
    parts = list(old_parts(store, own.modified - GRACE, kept))
    return _clean(store, report, covered, [*abandoned, *map(snapshot_key, old), *parts])


def _clean(
    store: Store, report: CompactionReport, covered: list[str], others: Sequence[str] = ()
) -> CompactionReport:
    keys = [*covered, *others]
    try:
        if keys:
            store.delete(keys)
    except AccessError as error:
        return replace(report, log_kept=str(error))
    return replace(report, log_removed=len(covered))


def _covered(rows: Any, entries: Sequence[Revision]) -> list[str]:
    known = runrows.revisions(rows)
    return [entry.key for entry in entries if entry.number <= known.get(entry.run_id, 0)]


def _report(snapshot: Snapshot, rows: Any, news: News) -> CompactionReport:
    return CompactionReport(
        snapshot=snapshot.number,
        runs=len(rows),
        added=len(news.rows),
        parts=len(snapshot.parts),
        size_bytes=sum(part.size_bytes for part in snapshot.parts),
        damaged=tuple(revision.run_id for revision in news.damaged),
        missing=tuple(revision.run_id for revision in news.missing),
    )
