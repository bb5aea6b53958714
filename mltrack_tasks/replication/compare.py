"""Comparing two stores by their listings alone."""

from __future__ import annotations

import heapq
import json
import tempfile
from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

from mltrack_tasks import layout
from mltrack_tasks.blobs import plain_md5
from mltrack_tasks.replication.order import VIEWS
from mltrack_tasks.stores.base import Stat, Store
from mltrack_tasks.trust.knownkeys import is_known
from mltrack_tasks.trust.walk import SIDES, digest_of_pin
from mltrack_tasks.views import run_of_entry


class Pair(NamedTuple):
    """One key, as the source has it and as the replica has it."""

    key: str
    there: Stat | None
    """In the source."""
    here: Stat | None
    """In the replica."""

    @property
    def differs(self) -> bool:
        """Whether both have it, and listings say that they are not the same."""
        if self.there is None or self.here is None:
            return False
        if self.there.size != self.here.size:
            return True
        one, other = plain_md5(self.there.etag), plain_md5(self.here.etag)
        return None not in (one, other) and "-" not in f"{one}{other}" and one != other


class BlobJob(NamedTuple):
    """What is to be copied of one digest: records beside the blob, and the blob in its formats."""

    digest: str
    sides: tuple[str, ...]
    """Keys of records."""
    blobs: tuple[tuple[str, int], ...]
    """(format, bytes) of each."""

    @property
    def size(self) -> int:
        """Bytes of the blobs."""
        return sum(size for _, size in self.blobs)


def pairs(source: Store, replica: Store, folder: str) -> Iterator[Pair]:
    """List a folder of both -> their keys in order, without foreign objects."""
    there = ((stat.key, 0, stat) for stat in source.list(folder))
    here = ((stat.key, 1, stat) for stat in replica.list(folder))
    for key, both in groupby(heapq.merge(there, here, key=itemgetter(0, 1)), key=itemgetter(0)):
        found: list[Stat | None] = [None, None]
        for _, side, stat in both:
            found[side] = stat
        pair = Pair(key, found[0], found[1])
        if _is_ours(pair):
            yield pair


def blob_jobs(listed: Iterable[Pair]) -> Iterator[tuple[BlobJob, tuple[Pair, ...]]]:
    """Group what is below ``data/`` by digest -> what is missing of it in the replica, and all there is."""
    for digest, group in groupby(listed, key=lambda pair: _digest_of(pair.key)):
        if digest is None:
            continue
        found = tuple(group)
        missing = [pair for pair in found if pair.there and (pair.here is None or pair.differs)]
        blobs = [
            (place[1], pair.there.size)
            for pair in missing
            if pair.there and (place := layout.parse_blob_key(pair.key))
        ]
        sides = [pair.key for pair in missing if pair.key.endswith(SIDES)]
        yield BlobJob(digest, tuple(sides), tuple(blobs)), found


def _is_ours(pair: Pair) -> bool:
    stat = pair.there or pair.here
    if stat is None or pair.key.startswith(layout.BLOBS):
        return stat is not None  # blobs are looked at by digest
    if pair.key.startswith(layout.PINS):
        return digest_of_pin(stat) is not None
    if pair.key.startswith(VIEWS):
        return run_of_entry(pair.key.split("/")[1], stat) is not None
    return is_known(pair.key)


def _digest_of(key: str) -> str | None:
    """The digest of a blob or of a record beside one; None for anything else."""
    if place := layout.parse_blob_key(key):
        return place[0]
    folder, _, last = key.rpartition("/")
    digest = folder.rpartition("/")[2]
    if last not in SIDES:
        return None
    known = (f"{layout.BLOBS}{digest[:2]}/{digest}", 64)
    return digest if (folder, len(digest)) == known else None


class Spool:
    """Keys that wait on disk until their turn comes: a first replication has as many as the store."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115  (closed by close)
        self.count = 0

    def add(self, item: object) -> None:
        """Append a value of JSON."""
        self._file.write(json.dumps(item) + "\n")
        self.count += 1

    def __iter__(self) -> Iterator[list[object]]:
        self._file.seek(0)
        yield from map(json.loads, self._file)

    def close(self) -> None:
        """Give the space on disk back."""
        self._file.close()
