"""The run log and the manifests behind it: what is new, and reading many manifests at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

from mltrack_tasks import events, layout
from mltrack_tasks.errors import ArchivedError, FormatError, IntegrityError, NotFoundError
from mltrack_tasks.events import Event, Observe
from mltrack_tasks.manifests import read_manifest
from mltrack_tasks.parallel import map_ordered
from mltrack_tasks.records import RunManifest
from mltrack_tasks.removals import parse_removal_entry
from mltrack_tasks.stores.base import Store

BATCH = 5_000
"""Manifests in memory at once."""
_REPORT_EVERY = 100


@dataclass(frozen=True)
class Revision:
    """One revision of one run, as a key names it: an entry of the log, or a manifest itself."""

    run_id: str
    number: int
    key: str
    modified: datetime


@dataclass
class Log:
    """What the run log names."""

    entries: list[Revision] = field(default_factory=list)
    removed: list[Revision] = field(default_factory=list)
    """Runs that were removed since the last compaction, as revision 0; they may have been stored again."""


@dataclass
class Found:
    """What a list of revisions turned out to be, in the order of the list."""

    manifests: list[RunManifest] = field(default_factory=list)
    damaged: list[Revision] = field(default_factory=list)
    """Its manifest cannot be read: by this version, before it is restored from an archive, or at all."""
    missing: list[Revision] = field(default_factory=list)
    """It has no manifest: its writer is still at work, or died."""


def log_entries(store: Store) -> list[Revision]:
    """List the run log: the revisions that no compaction has taken up yet. Foreign keys are left out."""
    return read_log(store).entries


def read_log(store: Store) -> Log:
    """List the run log -> new revisions, and removals, by one LIST. Foreign keys are left out."""
    log = Log()
    for stat in store.list(layout.RUN_LOG):
        if place := layout.parse_log_key(stat.key):
            log.entries.append(Revision(*place, stat.key, stat.modified))
        elif run_id := parse_removal_entry(stat.key):
            log.removed.append(Revision(run_id, 0, stat.key, stat.modified))
    return log


def newest_manifests(store: Store) -> list[Revision]:
    """List ``manifests/`` -> the highest revision of each run, by run id."""
    newest: dict[str, Revision] = {}
    for revision in _manifest_revisions(store):
        known = newest.get(revision.run_id)
        if known is None or known.number < revision.number:
            newest[revision.run_id] = revision
    return [newest[run_id] for run_id in sorted(newest)]


def read_revisions(store: Store, revisions: Sequence[Revision], observe: Observe) -> Iterator[Found]:
    """Read manifests in parallel, BATCH at a time; one that cannot be read does not hide the others."""
    for start in range(0, len(revisions), BATCH):
        found = Found()
        batch = revisions[start : start + BATCH]
        answers = map_ordered(partial(_read, store), batch, store.max_workers)
        for number, (revision, answer) in enumerate(zip(batch, answers, strict=True), start=start + 1):
            _sort_in(found, revision, answer)
            if number % _REPORT_EVERY == 0 or number == len(revisions):
                details = {"done": number, "total": len(revisions), "unit": "runs"}
                observe(Event(events.PROGRESS, "reading manifests", details))
        yield found


def _sort_in(found: Found, revision: Revision, answer: RunManifest | Exception) -> None:
    if isinstance(answer, RunManifest):
        found.manifests.append(answer)
    elif isinstance(answer, NotFoundError):
        found.missing.append(revision)
    else:
        events.logger.warning("left out: %s", answer)
        found.damaged.append(revision)


def _read(store: Store, revision: Revision) -> RunManifest | Exception:
    try:
        return read_manifest(store, revision.run_id, revision.number)
    except (NotFoundError, ArchivedError, IntegrityError, FormatError) as error:
        return error


def _manifest_revisions(store: Store) -> Iterator[Revision]:
    for stat in store.list(layout.MANIFESTS):
        place = layout.parse_manifest_key(stat.key)
        if place is not None:
            yield Revision(*place, stat.key, stat.modified)
