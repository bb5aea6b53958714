"""The walk: references, blobs and pins, all in the order of digests, merged in one pass."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from typing import Any

from mltrack_tasks import layout
from mltrack_tasks.digest import is_digest
from mltrack_tasks.stores.base import Stat
from mltrack_tasks.trust.findings import DANGLING_PIN, FOREIGN, MISSING_PIN, Finding
from mltrack_tasks.trust.references import Claim, PinOf

SIDES = ("metadata.json", "multipart.json")
"""What lies beside a blob and describes it."""

_CLAIMS, _OBJECT, _PIN = range(3)

Report = Callable[[Finding], None]


@dataclass
class Place:
    """All that is known of one digest."""

    digest: str
    claims: tuple[Claim, ...] = ()
    blobs: dict[str, Stat] = field(default_factory=dict)
    """By format."""
    sides: list[Stat] = field(default_factory=list)
    pinned: bool = False


def places(
    claims: Iterable[tuple[str, tuple[Claim, ...]]],
    objects: Iterable[tuple[str, Stat]],
    pinned: Iterable[str],
) -> Iterator[Place]:
    """Merge what is claimed, what is there and what is pinned, each ordered by digest."""
    streams: list[Iterable[tuple[str, int, Any]]] = [
        ((digest, _CLAIMS, found) for digest, found in claims),
        ((digest, _OBJECT, stat) for digest, stat in objects),
        ((digest, _PIN, None) for digest in pinned),
    ]
    for digest, group in groupby(heapq.merge(*streams, key=itemgetter(0, 1)), key=itemgetter(0)):
        place = Place(digest)
        for _, kind, found in group:
            if kind == _CLAIMS:
                place.claims = found
            elif kind == _PIN:
                place.pinned = True
            elif blob := layout.parse_blob_key(found.key):
                place.blobs[blob[1]] = found
            else:
                place.sides.append(found)
        yield place


def objects_by_digest(stats: Iterable[Stat], report: Report) -> Iterator[tuple[str, Stat]]:
    """Sort what is listed below ``data/`` under its digest; what is no part of a blob is reported."""
    for stat in stats:
        digest = _digest_in(stat.key, layout.blob_folder)
        last = stat.key.rpartition("/")[2]
        if digest and (layout.parse_blob_key(stat.key) or last in SIDES):
            yield digest, stat
        else:
            report(foreign(stat))


def pinned_digests(
    stats: Iterable[Stat], justified: Iterable[PinOf], old: Callable[[datetime], bool], report: Report
) -> Iterator[str]:
    """Name each digest that has a pin, once, and report pins that are missing or that nothing justifies.

    One that is not ``old`` may be that of a writer at work.
    """
    there = _pins_there(stats, report)
    expected = ((pin.digest, pin.segment, 0, pin) for pin in justified)
    merged: Iterator[tuple[str, str, int, Any]] = heapq.merge(there, expected, key=itemgetter(0, 1, 2))
    for digest, of_digest in groupby(merged, key=itemgetter(0)):
        found = False
        for segment, both in groupby(of_digest, key=itemgetter(1)):
            pin, stat = None, None
            for *_, item in both:
                pin, stat = (item, stat) if isinstance(item, PinOf) else (pin, item)
            key = f"{layout.pin_folder(digest)}{segment}"
            if stat is None and pin is not None and pin.required:
                report(Finding(MISSING_PIN, key, "a record needs the blob, and does not pin it"))
            elif stat is not None:
                found = True
                if pin is None and old(stat.modified):
                    report(Finding(DANGLING_PIN, key, "no record of its name needs the blob"))
        if found:
            yield digest


def foreign(stat: Stat) -> Finding:
    """The finding of an object that this library did not write."""
    return Finding(FOREIGN, stat.key, "was not written by this library", stat.size)


def past_folder(folder: str) -> str:
    """What to list after, to begin behind all keys of a folder: ``0`` is the character after ``/``."""
    return f"{folder.rstrip('/')}0"


def _pins_there(stats: Iterable[Stat], report: Report) -> Iterator[tuple[str, str, int, Stat]]:
    for stat in stats:
        digest = _digest_in(stat.key, layout.pin_folder)
        segment = stat.key.rpartition("/")[2]
        if digest and segment and stat.size == 0:
            yield digest, segment, 1, stat
        else:
            report(foreign(stat))


def _digest_in(key: str, folder_of: Callable[[str], str]) -> str | None:
    """The digest in whose folder a key lies directly."""
    folder = key.rpartition("/")[0]
    digest = folder.rpartition("/")[2]
    return digest if is_digest(digest) and folder_of(digest) == f"{folder}/" else None
