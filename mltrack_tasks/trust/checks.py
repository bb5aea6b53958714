"""Checks: what one request, or one reading, says of the bytes of one object."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple, TypeAlias

from mltrack_tasks.blobs import READ_SIZE, hash_object
from mltrack_tasks.copies import noted_composite
from mltrack_tasks.digest import SINGLE_PUT_LIMIT, part_size_for
from mltrack_tasks.errors import ArchivedError, NotFoundError
from mltrack_tasks.stores.base import Stat, Store
from mltrack_tasks.trust.findings import ARCHIVED, CORRUPT, MISSING, UNATTESTED, WRONG_CHECKSUM


class Target(NamedTuple):
    """An object whose bytes should hash to ``digest``."""

    key: str
    digest: str
    size: int
    modified: datetime
    etag: str | None = None


class Outcome(NamedTuple):
    """What a check says: nothing wrong, if ``kind`` is empty."""

    target: Target
    kind: str = ""
    detail: str = ""
    checked: bool = True
    attested: bool = True
    """Whether the store's own checksum could be compared, or the bytes were."""


Check: TypeAlias = Callable[[Store, Target], Outcome]


def attest(store: Store, target: Target) -> Outcome:
    """Compare the checksum that the store keeps of an object with its name: one HEAD.

    A composite over parts can only be compared with the one that was noted when the blob was sent, so a
    forged note could hide a difference; one over other parts, or no checksum at all, says nothing.
    """
    stat = store.head(target.key, checksum=True)
    if stat is None:
        return _gone(target)
    wrong = f"the store's own checksum of its {stat.size:,} bytes is that of others: it was written over"
    if stat.sha256 is not None:
        verdict = stat.sha256 == target.digest
        return _archived(stat, target) if verdict else Outcome(target, WRONG_CHECKSUM, wrong)
    if stat.composite is not None and _has_our_parts(stat):
        noted = noted_composite(store, target.digest, stat.size)
        if noted is not None and noted != stat.composite:
            return Outcome(target, WRONG_CHECKSUM, f"{wrong}. Reading it makes certain")
        if noted is not None:
            return _archived(stat, target)
    return _unattested(stat, target)


class Reading:
    """Reads and hashes objects; large ones one at a time, so that memory is bounded."""

    def __init__(self) -> None:
        self._large = threading.Lock()

    def __call__(self, store: Store, target: Target) -> Outcome:
        """Read all bytes of an object and compare their digest with its name; twice, if they are wrong."""
        try:
            if self._hash(store, _listed(target)) == target.digest:
                return Outcome(target)
            stat = store.head(target.key)  # it may have been replaced while it was read
            if stat is not None and self._hash(store, stat) == target.digest:
                return Outcome(target)
        except NotFoundError:
            return _gone(target)
        except ArchivedError:
            return Outcome(target, ARCHIVED, "is archived, and cannot be read", False, False)
        if stat is None:
            return _gone(target)
        return Outcome(target, CORRUPT, f"its {stat.size:,} bytes do not hash to its name")

    def _hash(self, store: Store, stat: Stat) -> str:
        if stat.size <= READ_SIZE:
            return hash_object(store, stat)
        with self._large:
            return hash_object(store, stat)


def _listed(target: Target) -> Stat:
    return Stat(target.key, target.size, target.etag, target.modified)


def _unattested(stat: Stat, target: Target) -> Outcome:
    """Nothing can be said. Of a small blob that is odd: what this library sends in one piece is attested."""
    said = "the store keeps no checksum of it that could be compared; only reading can tell"
    if stat.size <= SINGLE_PUT_LIMIT:
        said += ". This library sends such a blob with its checksum, so another tool, or server, wrote it"
    kind = ARCHIVED if stat.archived else UNATTESTED
    return Outcome(target, kind, said, attested=False)


def _gone(target: Target) -> Outcome:
    return Outcome(target, MISSING, "was listed, and is gone")


def _archived(stat: Stat, target: Target) -> Outcome:
    """What is archived can be attested all the same; that it cannot be read is worth a notice."""
    return (
        Outcome(target, ARCHIVED, f"is archived in {stat.storage_class}")
        if stat.archived
        else Outcome(target)
    )


def _has_our_parts(stat: Stat) -> bool:
    """Whether a composite is over as many parts as we send."""
    parts = -(-stat.size // part_size_for(stat.size))
    return stat.composite is not None and stat.composite.rpartition("-")[2] == str(parts)
