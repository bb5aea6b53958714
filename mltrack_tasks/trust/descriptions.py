"""Descriptions of blobs (``metadata.json``), made anew where they are missing or damaged."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from typing import BinaryIO, cast

from mltrack_tasks import layout
from mltrack_tasks.blobs import stream_blob
from mltrack_tasks.digest import SINGLE_PUT_LIMIT
from mltrack_tasks.errors import FormatError, IntegrityError, MLTrackError, NotFoundError
from mltrack_tasks.fields import Fields
from mltrack_tasks.formats import plain_format
from mltrack_tasks.provenance import current
from mltrack_tasks.records import MAX_RECORD_SIZE, Record
from mltrack_tasks.recordstore import read_record
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.files import os_errors
from mltrack_tasks.trust.healing import Healed
from mltrack_tasks.trust.remedies import Candidate
from mltrack_tasks.values import description_of

_KINDS = {"parquet": "dataframe", "npy": "ndarray", "json": "json"}


def heal_description(store: Store, blob: str, *, replicas: Sequence[Store], dry_run: bool) -> Healed | bool:
    """Make sure that a blob has its description -> how it was healed; else whether it has one.

    It follows from the bytes: those are read, and proven. Where this version cannot describe them, replicas
    and earlier versions are asked for theirs. True also if there is no blob, or none of a kind that is
    described. A file that only looks like Parquet or npy has none, and gets none.
    """
    place = layout.parse_blob_key(blob)
    stat = store.head(blob)
    if place is None or place[1] not in layout.DESCRIBED_FORMATS or stat is None or stat.archived:
        return True
    digest, format = place
    key = layout.blob_metadata_key(digest)
    try:
        if _fits(read_record(store, key), format, stat.size):
            return True
    except FormatError:
        return True  # a newer version described it
    except (IntegrityError, NotFoundError):
        pass
    for candidate in _candidates(store, key, digest, format, stat.size, replicas):
        try:
            body = b"".join(candidate.read())
            if _fits(Record.from_bytes(body, what=key), format, stat.size):
                if not dry_run and not _write(store, key, body):
                    return True  # somebody else was faster
                return Healed(key, candidate.source, len(body))
        except MLTrackError:
            continue
    return False


def _candidates(
    store: Store, key: str, digest: str, format: str, size: int, replicas: Sequence[Store]
) -> Iterator[Candidate]:
    yield Candidate("the blob itself", partial(_derived, store, digest, format, size))
    for replica in replicas:
        yield Candidate(replica.location, partial(_read, replica.uncached(), key))
    for older in store.older(key):
        yield Candidate(f"the version of {older.modified:%Y-%m-%d %H:%M:%S}", older.read)


def _derived(store: Store, digest: str, format: str, size: int) -> Iterator[bytes]:
    """What the first writer of a blob would write beside it."""
    with tempfile.SpooledTemporaryFile(max_size=SINGLE_PUT_LIMIT) as spooled:
        file = cast(BinaryIO, spooled)
        for chunk in stream_blob(store, digest, format, size):
            with os_errors("The temporary folder (TMPDIR)"):
                file.write(chunk)
        yield Record(description_of(file, format, size), current()).to_bytes()


def _read(store: Store, key: str) -> Iterator[bytes | memoryview]:
    yield store.get_range(key, 0, MAX_RECORD_SIZE + 1)


def _fits(record: Record, format: str, size: int) -> bool:
    """Whether a description can be that of a blob: of its kind (a file's may be another), and its size."""
    fields = Fields(record.content, "The description")
    return fields.text("kind") in (_KINDS[plain_format(format)], "file") and fields.size("size_bytes") == size


def _write(store: Store, key: str, body: bytes) -> bool:
    """Put a description in its place, unless somebody changes it meanwhile."""
    stat = store.head(key)
    if stat is None or stat.etag is None:
        return store.create(key, body)
    return store.replace(key, body, stat.etag)
