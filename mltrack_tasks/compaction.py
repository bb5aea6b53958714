"""Compaction: what the run log holds goes into a new snapshot of the catalogue, then leaves the log.

Safe beside writers, readers and other compactions: an entry of the log goes only when a committed snapshot
covers it, and a snapshot is committed only on top of the one that it was made from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

from mltrack_tasks import events, layout
from mltrack_tasks.catalog import News, beyond, read_catalog, read_news
from mltrack_tasks.errors import AccessError, ArchivedError, IntegrityError, NotFoundError, TransientError
from mltrack_tasks.events import Event, Observe, log_event
from mltrack_tasks.recordstore import ensure
from mltrack_tasks.runlog import Revision, newest_manifests, read_log
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

PART_ROWS = 200_000
"""Rows of a part at most: each is one request, some 30 MB, and in memory as a whole."""
GRACE = timedelta(days=1)
"""How long snapshots and parts stay once superseded, for readers and compactions that are at them."""
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
    """The state that one try begins from, in the order in which it was read."""

    entries: list[Revision]
    removed: list[Revision]
    base: Snapshot
    tables: list[Any]
    anew: bool
    """Whether the new snapshot keeps nothing of the base."""
    manifests: list[Revision]


def compact_catalog(store: Store, *, rebuild: bool = False, observe: Observe = log_event) -> CompactionReport:
    """Bring the catalogue up to date -> what was done. Nothing new: nothing is written.

    Lists all manifests and reads those that the newest snapshot does not cover, also ones that the run log
    does not name (of a restored or copied store). With ``rebuild``, and where the catalogue is damaged, reads
    all. Needs s3:DeleteObject to remove what is superseded: without it the report says so (``log_kept``) and
    reading costs more requests. Raises FormatError if a newer version of this library made the catalogue,
    TransientError if other compactions kept winning.
    """
    for _ in range(_TRIES):
        report = _try(store, rebuild, observe)
        if report is not None:
            observe(Event(events.CATALOG_COMPACTED, store.location, {"snapshot": report.snapshot}))
            return report
    raise TransientError(f"Other compactions of {store.location} were faster {_TRIES} times. Try again.")


def merged_count(rows: Sequence[int], added: int) -> int:
    """How many of the last parts to merge with ``added`` new rows, given the rows of each part.

    A part is merged while it has less than twice the rows of what comes after it: so parts shrink
    geometrically, their number grows with the logarithm of the rows, and a row is rewritten as often.
    """
    count, total = 0, added
    for size in reversed(rows):
        if size >= 2 * total or size + total > PART_ROWS:
            break
        total += size
        count += 1
    return count


def _try(store: Store, rebuild: bool, observe: Observe) -> CompactionReport | None:
    """Compact once; None if another compaction committed first."""
    work = _begin(store, rebuild, observe)
    known = runrows.newest(work.tables)
    news = read_news(store, beyond(known, work.manifests), observe)
    _keep_in_log(store, work.entries, news.damaged)
    if not len(news.rows) and not work.anew:
        if max(snapshot_numbers(store), default=0) != work.base.number:
            return None
        return _clean(store, _report(work, work.base, known, news), _covered(known, work))
    parts, rows = _new_parts(store, work, news)
    snapshot = Snapshot(work.base.number + 1, tuple(parts))
    if not commit(store, snapshot.number, parts):
        return None
    return _sweep(store, work, _report(work, snapshot, rows, news), _covered(rows, work))


def _begin(store: Store, rebuild: bool, observe: Observe) -> _Work:
    log = read_log(store)
    try:
        base, tables = read_catalog(store)
    except (ArchivedError, IntegrityError, NotFoundError) as error:
        observe(Event(events.CATALOG_UNREADABLE, store.location, {"reason": str(error)}))
        base, tables = Snapshot(max(snapshot_numbers(store), default=0)), []
        rebuild = True
    if rebuild:
        base, tables = Snapshot(base.number), []
    gone = {each.run_id for each in log.removed}.intersection(*_runs_in(tables))
    if gone:  # their rows go, and the parts that held them
        base, tables = Snapshot(base.number), [runrows.without(runrows.newest(tables), gone)]
    anew = rebuild or base.number == 0 or bool(gone)
    return _Work(log.entries, log.removed, base, tables, anew, newest_manifests(store))


def _runs_in(tables: Sequence[Any]) -> list[set[str]]:
    return [set().union(*map(runrows.revisions, tables))]


def _keep_in_log(store: Store, entries: Sequence[Revision], damaged: Sequence[Revision]) -> None:
    """See that the log names what could not be read: readers then know, and find it when it is mended."""
    named = {(entry.run_id, entry.number) for entry in entries}
    for revision in damaged:
        if (revision.run_id, revision.number) not in named:
            ensure(store, layout.log_key(datetime.now(UTC), revision.run_id, revision.number))


def _new_parts(store: Store, work: _Work, news: News) -> tuple[list[Part], Any]:
    """Write the parts of the new rows, merged with the last ones -> all parts of the snapshot, all rows."""
    old = list(work.base.parts)
    kept = len(old) - merged_count([part.rows for part in old], len(news.rows))
    table = runrows.newest([*work.tables[kept:], news.rows])
    cuts = range(0, len(table), PART_ROWS)
    written = [write_part(store, table[start : start + PART_ROWS]) for start in cuts]
    return [*old[:kept], *written], runrows.newest([*work.tables[:kept], table])


def _sweep(store: Store, work: _Work, report: CompactionReport, covered: list[str]) -> CompactionReport:
    """Remove what the new snapshot supersedes, by the store's own clock."""
    numbers = snapshot_numbers(store)
    own = numbers.get(report.snapshot)
    if own is None or max(numbers) > report.snapshot:
        return report  # a newer one is at work, and removes what ours covers too
    abandoned = [each.key for each in _missing(work) if own.modified - each.modified > ABANDONED]
    old = [
        number
        for number, successor in pairwise(sorted(numbers))
        if own.modified - numbers[successor].modified > GRACE
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


def _covered(rows: Any, work: _Work) -> list[str]:
    known = runrows.revisions(rows)
    covered = [entry.key for entry in work.entries if entry.number <= known.get(entry.run_id, 0)]
    return [*covered, *(entry.key for entry in work.removed)]


def _missing(work: _Work) -> list[Revision]:
    """Entries of the log without a manifest: revisions have no gaps, so it would be among the newest."""
    newest = {each.run_id: each.number for each in work.manifests}
    return [entry for entry in work.entries if entry.number > newest.get(entry.run_id, 0)]


def _report(work: _Work, snapshot: Snapshot, rows: Any, news: News) -> CompactionReport:
    return CompactionReport(
        snapshot=snapshot.number,
        runs=len(rows),
        added=len(news.rows),
        parts=len(snapshot.parts),
        size_bytes=sum(part.size_bytes for part in snapshot.parts),
        damaged=tuple(revision.run_id for revision in news.damaged),
        missing=tuple(revision.run_id for revision in _missing(work)),
    )
