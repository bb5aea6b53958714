"""Copying blobs: each proven on its way, so that no damaged one arrives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial

from mltrack_tasks import events, layout
from mltrack_tasks.blobs import write_blob
from mltrack_tasks.digest import SINGLE_PUT_LIMIT
from mltrack_tasks.errors import (
    ArchivedError,
    FormatError,
    IntegrityError,
    InvalidInputError,
    MLTrackError,
    NotFoundError,
)
from mltrack_tasks.events import Event, Observe
from mltrack_tasks.parallel import map_ordered
from mltrack_tasks.replication.compare import BlobJob
from mltrack_tasks.replication.records import copy_record
from mltrack_tasks.replication.report import Tally
from mltrack_tasks.storedblob import StoredBlob
from mltrack_tasks.stores.base import Store

OF_ONE_OBJECT = (ArchivedError, FormatError, IntegrityError, InvalidInputError)
"""What is wrong with one object and holds up no other. All else is about a store, and ends the call."""
SMALL = 8 * 1024 * 1024
"""[bytes] up to which ``max_workers`` blobs are in memory at once; of larger ones there are two."""


@dataclass
class _Done:
    """What became of one job, told from the thread that asked for it."""

    job: BlobJob
    created: list[int] = field(default_factory=list)
    """[bytes] of each blob that was written."""
    seen: list[Event] = field(default_factory=list)
    failed: tuple[str, MLTrackError] | None = None
    gone: bool = False


def copy_blobs(
    source: Store, target: Store, jobs: Callable[[], Iterable[BlobJob]], tally: Tally, observe: Observe
) -> set[str]:
    """Copy blobs, each after the records beside it -> the digests that are not in the target now.

    ``jobs()`` lists them anew each time. One that was deleted meanwhile is no failure: whether a record that
    was listed before needs it, the caller finds out.
    """
    failed: set[str] = set()
    for done in _all(partial(_copy, source, target), jobs, target.max_workers):
        tally.copied_blobs += len(done.created)
        tally.copied_bytes += sum(done.created)
        for event in done.seen:
            if event.name == events.BLOB_HEALED:
                observe(event)
        if done.failed:
            tally.fail(*done.failed)
        if done.failed or done.gone:
            failed.add(done.job.digest)
        details = {"done": tally.copied_bytes, "total": tally.missing_bytes, "unit": "bytes"}
        observe(Event(events.PROGRESS, "replicating blobs", details))
    return failed


def _all(
    call: Callable[[BlobJob], _Done], jobs: Callable[[], Iterable[BlobJob]], workers: int
) -> Iterator[_Done]:
    """Small ones many at a time, larger ones few: what is in memory is bounded by bytes, not by number."""
    yield from map_ordered(call, (job for job in jobs() if job.size <= SMALL), workers)
    larger = (job for job in jobs() if SMALL < job.size <= SINGLE_PUT_LIMIT)
    yield from map_ordered(call, larger, min(workers, 2))
    # What goes in parts has all workers to itself.
    yield from map(call, (job for job in jobs() if job.size > SINGLE_PUT_LIMIT))


def _copy(source: Store, target: Store, job: BlobJob) -> _Done:
    done, key = _Done(job), ""
    try:
        for key in job.sides:
            copy_record(source, target, key)
        for format, size in job.blobs:
            key = layout.blob_key(job.digest, format)
            blob = StoredBlob(source, job.digest, format, size)
            if write_blob(target, blob, format, observe=done.seen.append):
                done.created.append(size)
    except NotFoundError:
        done.gone = True
    except OF_ONE_OBJECT as error:
        done.failed = (key, error)
    return done
