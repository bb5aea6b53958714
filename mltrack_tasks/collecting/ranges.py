"""Listings of a large store in ranges of digests, several at once, and in order all the same.

A LIST answers 1,000 keys, and the next one begins where it ended: two million keys are two thousand answers
to wait for, one after the other. Digests are even, so ranges of about equal size are known beforehand.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import pairwise

from mltrack_tasks.collecting.keys import digest_of
from mltrack_tasks.parallel import map_ordered
from mltrack_tasks.stores.base import Stat, Store

ALONE = 20_000
"""Keys that are listed one page after the other before ranges are worth their requests."""
RANGE = 3_000
"""Keys of a range, as far as digests are even: the last of its pages is read in part."""
MOST = 4 * RANGE
"""Keys of a range that are held in memory; of one that has more (forged digests), the rest comes serially."""
_DIGITS = 8
_END = 16**_DIGITS

Found = tuple[str, Stat]


def by_digest(store: Store, base: str) -> Iterator[Found]:
    """List what lies under digests below ``base`` -> each object with its digest, in the order of digests."""
    count, last = 0, ""
    for stat in store.list(base):
        digest = digest_of(stat.key)
        if digest is None:
            continue
        if count >= ALONE and digest != last and store.max_workers > 1:
            break
        count, last = count + 1, digest
        yield digest, stat
    else:
        return
    width = max(1, RANGE * int(digest[:_DIGITS], 16) // count)
    starts = [f"{start:0{_DIGITS}x}" for start in range(int(digest[:_DIGITS], 16) + width, _END, width)]
    ranges = pairwise([digest, *starts, "g"])
    for found, left in map_ordered(partial(_listed, store, base), ranges, store.max_workers):
        yield from found
        if left is not None:
            yield from _within(store, base, *left)


def _listed(store: Store, base: str, ends: tuple[str, str]) -> tuple[list[Found], tuple[str, str] | None]:
    """List one range -> what is in it, and the range that is left if that was too much."""
    found: list[Found] = []
    for digest, stat in _within(store, base, *ends):
        if len(found) >= MOST and digest != found[-1][0]:
            return found, (digest, ends[1])
        found.append((digest, stat))
    return found, None


def _within(store: Store, base: str, start: str, end: str) -> Iterator[Found]:
    """List what lies under the digests from ``start`` on and before ``end``."""
    for stat in store.list(base, after=f"{base}{start[:2]}/{start}"):
        digest = digest_of(stat.key)
        if digest is not None and digest >= end:
            return
        if digest is not None:
            yield digest, stat
