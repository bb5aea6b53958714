"""Which blobs a store has: by one LIST where that is less work than many HEADs, decided while it lists."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable
from functools import partial
from itertools import count, islice

from mltrack_tasks import layout
from mltrack_tasks.parallel import map_ordered
from mltrack_tasks.plan import Found, Listing
from mltrack_tasks.stores.base import Stat, Store

PAGE = 1_000
"""Keys that S3 lists at once."""
LIST_WEIGHT = 4
"""HEADs that one page of a LIST counts for: 100 pages of 1,000 keys took as long as 360 HEADs, 8 at a time
(MinIO; docs/adr/0010-migration.md)."""
FORMATS = ("bin", "parquet", "npy")
"""What a file can be, the most frequent first."""


_ALL = "g"
"""Above every digest."""


def find_existing(store: Store, digests: Collection[str]) -> Found:
    """Find which of these files a store holds as blobs -> their format and size [bytes].

    Lists ``data/`` as long as the pages still to come cost less than asking for each file: each page tells
    how densely the digests lie. A digest in two formats is found in the first of FORMATS. That a blob is here
    says nothing about its bytes: ``verify_batch`` does.
    """
    listing = list_existing(store, digests)
    rest = sorted(digest for digest in set(digests) if not listing.covers(digest))
    answers = map_ordered(partial(_by_head, store), rest, store.max_workers)
    asked = {digest: at for digest, at in zip(rest, answers, strict=True) if at is not None}
    return {**listing.found, **asked}


def list_existing(store: Store, digests: Collection[str]) -> Listing:
    """List as far as it pays -> which of these blobs it named."""
    wanted = sorted(set(digests))
    if len(wanted) <= LIST_WEIGHT:
        return Listing()
    lookup, found = frozenset(wanted), Found()
    keys = store.list(layout.BLOBS)
    for seen in count(1):
        page = list(islice(keys, PAGE))
        last = _take(page, lookup, found)
        if len(page) < PAGE:
            break
        left = len(wanted) - bisect_right(wanted, last)
        if left < LIST_WEIGHT * _pages_left(seen, last):
            return Listing(found, _before(last))
    return Listing(found, _ALL)


def _take(page: Iterable[Stat], lookup: Collection[str], found: Found) -> str:
    """Add what a page names -> its last digest."""
    digest = ""
    for stat in page:
        place = layout.parse_blob_key(stat.key)
        if place is None:
            continue
        digest, format = place
        if digest in lookup and format in FORMATS:
            known = found.get(digest)
            if known is None or FORMATS.index(format) < FORMATS.index(known[0]):
                found[digest] = (format, stat.size)
    return digest


def _pages_left(seen: int, digest: str) -> float:
    """Estimate how many pages come after this digest: digests lie evenly."""
    share = (int(digest[:8], 16) + 1) / 2**32 if digest else 1.0
    return seen / share - seen


def _before(digest: str) -> str:
    """The page may have ended between two keys of one digest: that one is asked for."""
    return f"{int(digest, 16) - 1:064x}" if digest.strip("0") else ""


def _by_head(store: Store, digest: str) -> tuple[str, int] | None:
    for format in FORMATS:
        stat = store.head(layout.blob_key(digest, format))
        if stat is not None:
            return format, stat.size
    return None
