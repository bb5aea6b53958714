"""Blobs: written once under the digest of their bytes, proven on each read, replaced if damaged."""

from __future__ import annotations

import hashlib
import random
import re
import time
from collections.abc import Iterator
from enum import Enum
from functools import partial
from threading import Lock
from weakref import WeakKeyDictionary

from mltrack_tasks import events, layout
from mltrack_tasks.archives import archived_error, told
from mltrack_tasks.digest import SINGLE_PUT_LIMIT, MiB, composite_checksum, part_size_for, sha256_hex
from mltrack_tasks.errors import IntegrityError, NotFoundError, TransientError
from mltrack_tasks.events import Event, Observe
from mltrack_tasks.parallel import map_ordered
from mltrack_tasks.recordstore import create_if_absent
from mltrack_tasks.sources import Source, changed
from mltrack_tasks.stores.base import Stat, Store, Upload

ASK_FIRST_ABOVE = 256 * 1024
"""[bytes] Larger blobs are asked for before they are sent: a HEAD costs less than their body."""
READ_SIZE = 8 * MiB
"""[bytes] of one range of a large blob."""
WRITE_TRIES = 6
"""Rounds of PUT and HEAD while competing writers and deleters cross. Five pauses take 3 s at most."""

_TURNS: WeakKeyDictionary[Store, Lock] = WeakKeyDictionary()
_TURNS_LOCK = Lock()
_MD5 = re.compile(r'"?([0-9a-f]{32}(?:-[1-9][0-9]*)?)"?')


class Presence(Enum):
    """What a look at an object says about its bytes."""

    PRESENT = "present"
    DAMAGED = "damaged"
    UNKNOWN = "unknown"


def judge(stat: Stat, source: Source) -> Presence:
    """Compare what the store says of an object with the bytes that should be there.

    The store's own SHA-256 of the whole decides. A composite over our parts, or where there is no SHA-256 an
    MD5 ETag, can only confirm: another tool's parts, or encryption with KMS, make another one.
    """
    if stat.size != source.size:
        return Presence.DAMAGED
    if stat.sha256 is not None:
        return _equal(stat.sha256, source.digest)
    if stat.composite is not None:
        # One over other parts, though as many, is another: a difference is a reason to read, not a proof.
        as_many = _parts(stat.composite) == _parts_of(source.size)
        return Presence.PRESENT if as_many and stat.composite == source.composite() else Presence.UNKNOWN
    plain = plain_md5(stat.etag)
    if not plain:
        return Presence.UNKNOWN
    expected = source.multipart_etag() if "-" in plain else source.md5()
    # Another kind of ETag (KMS) can look like an MD5.
    return Presence.PRESENT if plain == expected else Presence.UNKNOWN


def write_blob(
    store: Store,
    source: Source,
    format: str,
    *,
    observe: Observe,
    accept_archived: bool = False,
    ask: bool | None = None,
) -> bool:
    """Make sure that the blob is there, durably and with the right bytes: True if it was written now.

    ``ask`` says whether to look for it before it is sent; None: if it is large. A damaged one (wrong size,
    wrong checksum) is replaced and reported. One in an archive storage class is an ArchivedError unless
    accepted. Raises TransientError if writers and deleters keep crossing.
    """
    key = layout.blob_key(source.digest, format)
    ask_first = source.size > ASK_FIRST_ABOVE if ask is None else ask
    for attempt in range(WRITE_TRIES):
        sending = attempt > 0 or not ask_first
        if sending and send_blob(store, key, source):
            observe(Event(events.BLOB_CREATED, key, {"bytes": source.size}))
            return True
        stat = store.head(key, checksum=True)
        if stat is None:
            if sending:  # refused, and yet gone: deleted, or a competing write still in flight (409)
                _pause(attempt)
        elif _is_intact(store, stat, source):
            _require_readable(store, stat, accept_archived)
            observe(Event(events.BLOB_PRESENT, key, {"bytes": source.size}))
            return False
        elif send_blob(store, key, source, replacing=stat.etag):
            store.evict(key)
            observe(Event(events.BLOB_HEALED, key, {"bytes": source.size, "found_bytes": stat.size}))
            return True
        else:
            _pause(attempt)  # another writer is replacing it too
    raise TransientError(f"{key} appears and disappears while it is written to {store.location}. Try again.")


def require_blob(store: Store, digest: str, format: str, size: int) -> None:
    """Check by one HEAD that a blob is there and readable, with the size and checksum that it should have.

    Raises NotFoundError, ArchivedError, or IntegrityError if the store's own account contradicts the ref.
    """
    key = layout.blob_key(digest, format)
    stat = store.head(key, checksum=True)
    if stat is None:
        raise NotFoundError(
            f"{key} is not in {store.location}; store the data there first.", details={"key": key}
        )
    _require_readable(store, stat, accept_archived=False)
    if stat.sha256 not in (None, digest):
        raise damaged(store, key)
    if stat.size != size:
        raise IntegrityError(
            f"{key} in {store.location} has {stat.size:,} bytes, its ref says {size:,}. Store the data again."
        )


def fault_of(store: Store, digest: str, format: str, size: int) -> str:
    """Look whether a blob is there with the right bytes -> what is wrong with it, or nothing.

    The store's own SHA-256 of the whole decides; where it keeps none, the bytes are read and hashed.
    """
    key = layout.blob_key(digest, format)
    store.evict(key)
    stat = store.head(key, checksum=True)
    if stat is None:
        return "is missing"
    if stat.size != size:
        return f"has {stat.size:,} bytes, not {size:,}"
    if stat.sha256 is None and not stat.archived:
        return "" if hash_object(store, stat) == digest else "is damaged"
    if stat.sha256 is None:
        return f"cannot be checked in {stat.storage_class}"
    return "" if stat.sha256 == digest else "is damaged"


def read_blob(store: Store, digest: str, format: str, size: int | None = None) -> bytes:
    """Read a whole blob into memory and prove it: IntegrityError if it does not hash to its name."""
    key = layout.blob_key(digest, format)
    body = _read_whole(store, key, size)
    if store.verify_reads and sha256_hex(body) != digest:
        if not store.evict(key):
            raise damaged(store, key)
        body = _read_whole(store, key, size)
        if sha256_hex(body) != digest:
            store.evict(key)
            raise damaged(store, key)
    return body


def stream_blob(
    store: Store, digest: str, format: str, size: int | None = None, *, workers: int | None = None
) -> Iterator[bytes | memoryview]:
    """Yield a blob's bytes in order, a few ranges ahead; the end raises IntegrityError if they were wrong.

    Memory: ``workers`` (the store's, unless said) ranges of READ_SIZE, and as much again while they arrive.
    Without ``size`` [bytes], the store is asked for it first. What was yielded is proven only when the
    iterator ends. Wrong bytes may be a cache's: the caller evicts.
    """
    key = layout.blob_key(digest, format)
    if size is None:
        stat = store.head(key)
        if stat is None:
            raise NotFoundError(f"{key} is not in {store.location}.", details={"key": key})
        size = stat.size
    hasher = hashlib.sha256()
    for chunk in _ranges(store, key, size, workers):
        if store.verify_reads:
            hasher.update(chunk)
        yield chunk
    if store.verify_reads and hasher.hexdigest() != digest:
        raise damaged(store, key)


def hash_object(store: Store, stat: Stat) -> str:
    """Read all bytes of an object -> their digest."""
    hasher = hashlib.sha256()
    for chunk in _ranges(store, stat.key, stat.size):
        hasher.update(chunk)
    return hasher.hexdigest()


def plain_md5(etag: str | None) -> str | None:
    """Read an ETag that is, or looks like, MD5 (of parts, with their count) -> its text without quotes."""
    found = _MD5.fullmatch(etag or "")
    return found[1] if found else None


def damaged(store: Store, key: str) -> IntegrityError:
    """The error for a blob whose bytes are not those of its name."""
    return IntegrityError(
        f"{key} in {store.location} is damaged: its bytes do not hash to its name. Store the same data again "
        "to replace it, or restore it from a replica or an older object version.",
        details={"key": key},
    )


def _parts(composite: str) -> int:
    return int(composite.rpartition("-")[2])


def _parts_of(size: int) -> int:
    return -(-size // part_size_for(size)) if size > SINGLE_PUT_LIMIT else 0


def _equal(found: str, expected: str) -> Presence:
    return Presence.PRESENT if found == expected else Presence.DAMAGED


def _is_intact(store: Store, stat: Stat, source: Source) -> bool:
    verdict = judge(stat, source)
    if verdict is Presence.UNKNOWN and not stat.archived:
        store.evict(stat.key)  # what the store holds is in question, not what a cache does
        verdict = _equal(hash_object(store, stat), source.digest)
    return verdict is not Presence.DAMAGED


def _require_readable(store: Store, stat: Stat, accept_archived: bool) -> None:
    if stat.archived and not accept_archived:
        raise archived_error(store, stat)


def send_blob(store: Store, key: str, source: Source, *, replacing: str | None = None) -> bool:
    """Write a blob where none is, or over the damaged object of the ETag ``replacing``: True if written."""
    if source.size > SINGLE_PUT_LIMIT:
        with _turn_of(store), store.upload(key, source.size, replacing=replacing) as upload:
            return _send_parts(store, upload, source)
    if replacing is not None:
        return store.replace(key, source.body(), replacing)
    return store.create(key, source.body())


def _turn_of(store: Store) -> Lock:
    """What is sent in parts goes one by one, with all workers at its parts: else memory is their square."""
    with _TURNS_LOCK:
        return _TURNS.setdefault(store, Lock())


def _send_parts(store: Store, upload: Upload, source: Source) -> bool:
    """Send all parts, each if it is the one that was hashed, and note their composite checksum."""
    parts = enumerate(source.expected_parts(), start=1)
    digests = list(map_ordered(partial(_send_part, upload, source), parts, store.max_workers))
    source.require_unchanged()
    content = {"part_size": part_size_for(source.size), "composite": composite_checksum(digests)}
    key = layout.blob_parts_key(source.digest)
    was_there = not create_if_absent(store, key, content)
    created = upload.complete()
    if was_there and created:
        create_if_absent(store, key, content)  # a collector may have taken both in between
    return created


def _send_part(upload: Upload, source: Source, numbered: tuple[int, tuple[bytes, bytes | None]]) -> bytes:
    number, (body, expected) = numbered
    digest = hashlib.sha256(body).digest()
    if expected not in (None, digest):
        raise changed(f"The source of {source.digest}")
    upload.part(number, body, digest)
    return digest


def _read_whole(store: Store, key: str, size: int | None) -> bytes:
    stat = store.head(key) if size is None or size > READ_SIZE else None
    if stat is None or stat.size <= READ_SIZE:
        with told(store, key):
            return store.get(key)
    return b"".join(_ranges(store, key, stat.size))


def _ranges(store: Store, key: str, size: int, workers: int | None = None) -> Iterator[bytes | memoryview]:
    with told(store, key):
        if size <= READ_SIZE:
            yield store.get(key)
            return
        starts = range(0, size, READ_SIZE)
        at_once = store.max_workers if workers is None else workers
        yield from map_ordered(lambda start: store.get_range(key, start, READ_SIZE), starts, at_once)


def _pause(attempt: int) -> None:
    """Wait for others to finish; not after the last round, when nothing more is tried."""
    if attempt + 1 < WRITE_TRIES:
        time.sleep(0.1 * 2**attempt * random.uniform(0.5, 1.0))
