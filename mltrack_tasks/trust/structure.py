"""Structure: what listings and records alone say. Each function decides; the audit asks and writes."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

from mltrack_tasks import layout, modelkeys
from mltrack_tasks.chart import human_bytes
from mltrack_tasks.errors import ArchivedError, FormatError, IntegrityError, MLTrackError, NotFoundError
from mltrack_tasks.models import ModelVersion
from mltrack_tasks.recordstore import read_record
from mltrack_tasks.stores.base import Stat, Store
from mltrack_tasks.trust.checks import Target
from mltrack_tasks.trust.findings import (
    DANGLING_VIEW,
    INCOMPLETE_MODEL,
    MISSING,
    MISSING_VIEW,
    ORPHANED,
    UNDESCRIBED,
    UNKNOWN_FORMAT,
    UNREADABLE,
    WRONG_SIZE,
    Finding,
)
from mltrack_tasks.trust.knownkeys import is_known
from mltrack_tasks.trust.references import Claim, FileOf, References
from mltrack_tasks.trust.walk import Place, Report, foreign
from mltrack_tasks.views import run_of_entry

Old = Callable[[datetime], bool]


class Doubt(NamedTuple):
    """A finding that others may have overtaken while we looked: it is told only if it still stands."""

    finding: Finding
    stands: Callable[[Store], bool]


def judge_place(place: Place, references: References, old: Old) -> Iterator[Finding | Doubt | Target]:
    """Compare what records say of a digest with what is there -> findings, and what there is to check."""
    yield from place.found
    claimed = {claim.format for claim in place.claims if claim.format is not None}
    for format in sorted(claimed):
        claims = [claim for claim in place.claims if claim.format == format]
        stat = place.blobs.get(format)
        if stat is None:
            yield from _missing(place.digest, format, claims, references)
        else:
            yield from _wrong_sizes(place.digest, stat, claims, references)
    is_held = place.pinned or any(claim.format is None for claim in place.claims)
    for format, stat in place.blobs.items():
        if format not in claimed and not is_held and old(stat.modified):
            yield Finding(ORPHANED, stat.key, "no record needs it, and no pin holds it", stat.size)
        if format in layout.DESCRIBED_FORMATS and not _is_described(place) and old(stat.modified):
            yield Finding(UNDESCRIBED, stat.key, "has no metadata.json; heal_store makes it", stat.size)
        yield Target(stat.key, place.digest, stat.size, stat.modified, stat.etag)
    if not place.blobs and not place.claims and not place.pinned:
        for side in place.sides:
            if old(side.modified):
                yield Finding(ORPHANED, side.key, "describes a blob that is not there", side.size)


def _is_described(place: Place) -> bool:
    return layout.blob_metadata_key(place.digest) in {side.key for side in place.sides}


def judge_files(
    stats: Iterable[Stat],
    files: Iterable[FileOf],
    is_complete: Callable[[str], bool],
    old: Old,
    report: Report,
) -> Iterator[tuple[str, list[Doubt | Target | Stat]]]:
    """Compare the folders of models with their versions' records, by key -> doubts, and what to check.

    A folder whose mark is not there is not finished, and owes nothing. What is neither a file of a version
    nor the library's own is reported; other objects are handed on.
    """
    there = ((stat.key, 1, stat) for stat in stats)
    expected = ((file.key, 0, file) for file in files)
    merged: Iterator[tuple[str, int, Any]] = heapq.merge(there, expected, key=itemgetter(0, 1))
    for key, both in groupby(merged, key=itemgetter(0)):
        file, stat = None, None
        for *_, item in both:
            file, stat = (item, stat) if isinstance(item, FileOf) else (file, item)
        if file is None and stat is not None:
            if modelkeys.is_file_of_version(key):
                yield key, [_extra(stat, old)]
                continue
            if not is_known(key):
                report(foreign(stat))
            yield key, [stat]
        elif file is not None:
            yield key, list(_judge_file(file, stat, is_complete))


def judge_views(
    stats: Iterable[Stat], expected: Iterable[str], mode: str, report: Report
) -> Iterator[tuple[str, str, str]]:
    """Compare the entries of one view with those that manifests justify -> (kind of finding, key, run id)."""
    there = ((stat.key, stat) for stat in stats)
    wanted = ((key, None) for key in expected)
    merged: Iterator[tuple[str, Any]] = heapq.merge(there, wanted, key=itemgetter(0))
    for key, both in groupby(merged, key=itemgetter(0)):
        items = [item for _, item in both]
        stat = next((item for item in items if item is not None), None)
        if stat is None:
            yield MISSING_VIEW, key, layout.decode_segment(key.rpartition("/")[2])
        elif None not in items:
            run_id = run_of_entry(mode, stat)
            if run_id is None:
                report(foreign(stat))
            else:
                yield DANGLING_VIEW, key, run_id


def fault_of_record(store: Store, key: str) -> Finding | None:
    """Read a record that needs no blob -> what is wrong with it."""
    try:
        read_record(store, key)
    except NotFoundError:
        return None
    except (ArchivedError, FormatError, IntegrityError) as error:
        return unreadable(key, error)
    return None


def unreadable(key: str, error: MLTrackError) -> Finding:
    """The finding of a record that cannot be read."""
    return Finding(UNKNOWN_FORMAT if isinstance(error, FormatError) else UNREADABLE, key, str(error))


def _missing(
    digest: str, format: str, claims: list[Claim], references: References
) -> Iterator[Finding | Doubt]:
    needed = [claim for claim in claims if not claim.planned]
    if not needed:
        return
    holders, count = references.holders(digest, format)
    key = layout.blob_key(digest, format)
    size = max((claim.size for claim in needed if claim.size is not None), default=None)
    named = tuple(f"{holder.kind} {holder.name}" for holder in holders)
    finding = Finding(
        MISSING, key, "is not there, and records need it", size, tuple(dict.fromkeys(named)), count
    )
    keys = [holder.key for holder in holders]

    def stands(store: Store) -> bool:
        return store.head(key) is None and any(store.head(record) is not None for record in keys)

    yield Doubt(finding, stands)


def _wrong_sizes(
    digest: str, stat: Stat, claims: list[Claim], references: References
) -> Iterator[Finding | Doubt]:
    for claim in claims:
        if claim.size in (None, stat.size):
            continue
        holders, count = references.holders(digest, claim.format, claim.size)
        said = f"has {human_bytes(stat.size)} ({stat.size:,} bytes), and records say {claim.size:,} bytes"
        named = tuple(dict.fromkeys(f"{holder.kind} {holder.name}" for holder in holders))
        finding = Finding(WRONG_SIZE, stat.key, said, stat.size, named, count)

        def stands(store: Store, listed: int = stat.size) -> bool:
            now = store.head(stat.key)
            return now is not None and now.size == listed

        yield Doubt(finding, stands)


def _extra(stat: Stat, old: Old) -> Doubt:
    """A file in a version's folder that the version, as it was read, does not have."""
    *folder, path = stat.key.split("/", 4)
    record = f"{'/'.join(folder)}.json"

    def stands(store: Store) -> bool:
        try:
            version = ModelVersion.from_record(read_record(store, record), what=record)
        except NotFoundError:
            return old(stat.modified)  # else whoever registers or promotes it is at work
        except MLTrackError:
            return False  # which is a finding of its own
        return path not in {file.shown_path for file in version.files}

    return Doubt(foreign(stat), stands)


def _judge_file(
    file: FileOf, stat: Stat | None, is_complete: Callable[[str], bool]
) -> Iterator[Doubt | Target]:
    if stat is not None and stat.size == file.size:
        yield Target(file.key, file.digest, stat.size, stat.modified, stat.etag)
    elif is_complete(file.mark):
        said = "is missing" if stat is None else f"has {stat.size:,} bytes, not {file.size:,}"
        finding = Finding(INCOMPLETE_MODEL, file.key, said, file.size, (file.holder,), 1)

        def stands(store: Store) -> bool:
            now = store.head(file.key)
            return now is None or now.size != file.size

        yield Doubt(finding, stands)
