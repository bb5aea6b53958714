"""Listings in the order of digests: of all of them, or only below certain ones."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, groupby
from typing import NamedTuple

from mltrack_tasks import layout
from mltrack_tasks.collecting.keys import digest_of
from mltrack_tasks.collecting.ranges import by_digest
from mltrack_tasks.parallel import run_all
from mltrack_tasks.stores.base import Stat, Store
from mltrack_tasks.trust.walk import SIDES

PAGE = 1_000
"""Keys of one answer to a LIST."""


class Place(NamedTuple):
    """What lies under one digest."""

    digest: str
    blobs: list[Stat]
    sides: list[Stat]
    pins: list[Stat]

    @property
    def objects(self) -> list[Stat]:
        """What is deleted together, descriptions first: whoever finds the blob gone finds those gone too."""
        return [*self.sides, *self.blobs]

    @property
    def size_bytes(self) -> int:
        """Bytes of all of it [bytes]."""
        return sum(stat.size for stat in self.objects)


def all_places(store: Store) -> Iterator[Place]:
    """List all blobs and all pins -> what lies under each digest, in order, in one pass over both."""
    return _grouped(by_digest(store, layout.BLOBS), by_digest(store, layout.PINS))


def places_of(store: Store, digests: Sequence[str], *, pins: bool) -> dict[str, Place]:
    """Look what lies under some digests now, given in order: their objects, or with ``pins`` their pins."""
    base = layout.PINS if pins else layout.BLOBS
    size = max(PAGE, -(-len(digests) // store.max_workers))
    parts = (digests[start : start + size] for start in range(0, len(digests), size))
    found = chain.from_iterable(
        run_all([partial(_listed, store, base, part) for part in parts], store.max_workers)
    )
    places = _grouped((), found) if pins else _grouped(found, ())
    return {place.digest: place for place in places}


def _listed(store: Store, base: str, digests: Sequence[str]) -> list[tuple[str, Stat]]:
    return list(under(store, base, digests))


def under(store: Store, base: str, digests: Iterable[str]) -> Iterator[tuple[str, Stat]]:
    """List below ``base`` what belongs to some digests, given in order -> each with its digest.

    Reads on through what lies between two of them while that is within one page, and begins again otherwise:
    never many more requests than there are digests, or pages.
    """
    wanted = deque(digests)
    while wanted:
        passed = 0
        for stat in store.list(base, after=f"{base}{wanted[0][:2]}/{wanted[0]}"):
            digest = digest_of(stat.key)
            while wanted and digest is not None and wanted[0] < digest:
                wanted.popleft()
            if not wanted:
                return
            if digest == wanted[0]:
                passed = 0
                yield digest, stat
            elif (passed := passed + 1) >= PAGE:
                break
        else:
            return


def _grouped(objects: Iterable[tuple[str, Stat]], pins: Iterable[tuple[str, Stat]]) -> Iterator[Place]:
    merged = heapq.merge(objects, pins, key=lambda found: found[0])
    for digest, group in groupby(merged, key=lambda found: found[0]):
        place = Place(digest, [], [], [])
        for _, stat in group:
            if stat.key.startswith(layout.PINS):
                place.pins.append(stat)
            elif layout.parse_blob_key(stat.key) is not None:
                place.blobs.append(stat)
            elif stat.key.rpartition("/")[2] in SIDES:
                place.sides.append(stat)
        yield place
