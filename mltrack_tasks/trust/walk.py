"""The walk: references, blobs and pins, all in the order of digests, merged in one pass."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from posixpath import commonprefix
from typing import Any, NamedTuple

from mltrack_tasks import layout
from mltrack_tasks.digest import is_digest
from mltrack_tasks.stores.base import Stat
from mltrack_tasks.trust.findings import DANGLING_PIN, FOREIGN, MISSING_PIN, Finding
from mltrack_tasks.trust.references import Claim, PinOf

Report = Callable[[Finding], None]

SIDES = ("metadata.json", "multipart.json")
"""What lies beside a blob and describes it."""

END = "g"
"""Comes after every digest: what is listed behind the last of them belongs to it."""

MAX_FOREIGN = 1_000
"""Foreign objects that are named of those that are listed one after the other; the rest is counted."""

_FOREIGN = ""
"""Instead of a pin's segment, which is never empty."""
_CLAIMS, _OBJECT, _PIN = range(3)


@dataclass
class Place:
    """All that is known of one digest."""

    digest: str
    claims: tuple[Claim, ...] = ()
    blobs: dict[str, Stat] = field(default_factory=dict)
    """By format."""
    sides: list[Stat] = field(default_factory=list)
    pinned: bool = False
    found: list[Finding] = field(default_factory=list)
    """Of its pins, and of what is no part of a blob and is listed before it."""


class Pins(NamedTuple):
    """What the pins of one digest are."""

    any: bool
    found: list[Finding]


def places(
    claims: Iterable[tuple[str, tuple[Claim, ...]]],
    objects: Iterable[tuple[str, Stat | Finding]],
    pins: Iterable[tuple[str, Pins]],
) -> Iterator[Place]:
    """Merge what is claimed, what is there and what is pinned, each ordered by digest.

    Whoever goes on behind the digest of a place sees again nothing that the place held, and misses nothing.
    """
    streams: list[Iterable[tuple[str, int, Any]]] = [
        ((digest, _CLAIMS, found) for digest, found in claims),
        ((digest, _OBJECT, stat) for digest, stat in objects),
        ((digest, _PIN, found) for digest, found in pins),
    ]
    for digest, group in groupby(heapq.merge(*streams, key=itemgetter(0, 1)), key=itemgetter(0)):
        place = Place(digest)
        for _, kind, found in group:
            if kind == _CLAIMS:
                place.claims = found
            elif kind == _PIN:
                place.pinned = place.pinned or found.any
                place.found += found.found
            elif isinstance(found, Finding):
                place.found.append(found)
            elif blob := layout.parse_blob_key(found.key):
                place.blobs[blob[1]] = found
            else:
                place.sides.append(found)
        yield place


class _Strange:
    """Foreign objects that are listed one after the other: there may be millions, of which few are named.

    They are told with the digest that comes next, in one step of the journal, so they must be few.
    """

    def __init__(self) -> None:
        self._named: list[Finding] = []
        self._more, self._size = 0, 0
        self._first = self._last = ""

    def add(self, stat: Stat) -> None:
        """Take the next one, in the order of keys."""
        if len(self._named) < MAX_FOREIGN:
            self._named.append(foreign(stat))
            return
        self._first = self._first if self._more else stat.key
        self._last = stat.key
        self._more, self._size = self._more + 1, self._size + stat.size

    def told(self) -> list[Finding]:
        """Say what was taken, and begin anew."""
        found = self._named
        if self._more:
            folder = commonprefix([self._first, self._last]).rpartition("/")[0] + "/"
            said = f"has {self._more:,} more objects that were not written by this library"
            found.append(Finding(FOREIGN, folder, said, self._size))
        self._named, self._more, self._size = [], 0, 0
        return found


def objects_by_digest(stats: Iterable[Stat]) -> Iterator[tuple[str, Stat | Finding]]:
    """Sort what is listed below ``data/`` under its digest; foreign objects go to the next one, or to END."""
    return _under_digests(stats, _digest_of_object)


def _under_digests(
    stats: Iterable[Stat], digest_of: Callable[[Stat], str | None]
) -> Iterator[tuple[str, Stat | Finding]]:
    strange = _Strange()
    for stat in stats:
        digest = digest_of(stat)
        if digest is None:
            strange.add(stat)
            continue
        yield from ((digest, each) for each in strange.told())
        yield digest, stat
    yield from ((END, each) for each in strange.told())


def pins_by_digest(
    stats: Iterable[Stat], justified: Iterable[PinOf], old: Callable[[datetime], bool]
) -> Iterator[tuple[str, Pins]]:
    """Say of each digest whether it has a pin, and which pins are missing, or not justified by any record.

    One that is not ``old`` may be that of a writer at work. Foreign objects go to the next digest, or to END.
    """
    expected = ((pin.digest, pin.segment, 0, pin) for pin in justified)
    merged: Iterator[tuple[str, str, int, Any]] = heapq.merge(
        _pins_there(stats), expected, key=itemgetter(0, 1, 2)
    )
    for digest, of_digest in groupby(merged, key=itemgetter(0)):
        found: list[Finding] = []
        is_pinned = False
        for segment, both in groupby(of_digest, key=itemgetter(1)):
            items = [item for *_, item in both]
            if segment == _FOREIGN:
                found += items
                continue
            stat = next((item for item in items if isinstance(item, Stat)), None)
            pin = next((item for item in items if isinstance(item, PinOf)), None)
            is_pinned = is_pinned or stat is not None
            if finding := _judge_pin(f"{layout.pin_folder(digest)}{segment}", stat, pin, old):
                found.append(finding)
        yield digest, Pins(is_pinned, found)


def _judge_pin(
    key: str, stat: Stat | None, pin: PinOf | None, old: Callable[[datetime], bool]
) -> Finding | None:
    if stat is None and pin is not None and pin.required:
        return Finding(MISSING_PIN, key, "a record needs the blob, and does not pin it")
    if stat is not None and pin is None and old(stat.modified):
        return Finding(DANGLING_PIN, key, "no record of its name needs the blob")
    return None


def foreign(stat: Stat) -> Finding:
    """The finding of an object that this library did not write."""
    return Finding(FOREIGN, stat.key, "was not written by this library", stat.size)


def past_folder(folder: str) -> str:
    """What to list after, to begin behind all keys of a folder: ``0`` is the character after ``/``."""
    return f"{folder.rstrip('/')}0"


def _pins_there(stats: Iterable[Stat]) -> Iterator[tuple[str, str, int, Stat | Finding]]:
    for digest, found in _under_digests(stats, digest_of_pin):
        segment = _FOREIGN if isinstance(found, Finding) else found.key.rpartition("/")[2]
        yield digest, segment, 1, found


def _digest_of_object(stat: Stat) -> str | None:
    """The digest of a blob, or of what lies beside one, by its key."""
    is_part = layout.parse_blob_key(stat.key) or stat.key.rpartition("/")[2] in SIDES
    return _digest_in(stat.key, layout.blob_folder) if is_part else None


def digest_of_pin(stat: Stat) -> str | None:
    """The digest that a pin holds, or None for what is no pin."""
    is_pin = stat.size == 0 and not stat.key.endswith("/")
    return _digest_in(stat.key, layout.pin_folder) if is_pin else None


def _digest_in(key: str, folder_of: Callable[[str], str]) -> str | None:
    """The digest in whose folder a key lies directly."""
    folder = key.rpartition("/")[0]
    digest = folder.rpartition("/")[2]
    return digest if is_digest(digest) and folder_of(digest) == f"{folder}/" else None
