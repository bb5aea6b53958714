"""Which blobs a store has: by one LIST where that is less work than many HEADs, decided while it lists."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial
from itertools import count, islice

from mltrack_tasks import layout
from mltrack_tasks.parallel import map_ordered
from mltrack_tasks.plan import Found, Listing
from mltrack_tasks.stores.base import Stat, Store

PAGE = 1_000
"""Keys that S3 lists at once."""
LIST_WEIGHT = 4
"""HEADs that one page of a LIST counts for: on MinIO, a page took as long as 4 HEADs, 8 at a time."""
FORMATS = ("bin", "parquet", "npy")
"""What a file can be, the most frequent first."""


_ALL = "g"
"""Above every digest."""
_Sizes = dict[tuple[str, str], int]
"""Digest and format -> size [bytes] of blobs that are there."""


def find_existing(store: Store, digests: Collection[str]) -> Found:
    """Find which of these files a store holds as blobs -> their format and size [bytes].

    Lists ``data/`` as long as the pages still to come cost less than asking for each file: each page tells
    how densely the digests lie. A digest in two formats is found in the first of FORMATS. That a blob is here
    says nothing about its bytes.
    """
    listed, to = _listed(store, sorted(set(digests)))
    rest = [(digest, format) for digest in set(digests) if digest > to for format in FORMATS]
    return _first_formats(listed | _asked(store, rest))


def find_missing(store: Store, wanted: Mapping[tuple[str, str], int]) -> set[tuple[str, str]]:
    """Find which blobs, by digest and format, are not there with their size [bytes], in the same way."""
    listed, to = _listed(store, sorted({digest for digest, _ in wanted}))
    there = listed | _asked(store, [blob for blob in wanted if blob[0] > to])
    return {blob for blob, size in wanted.items() if there.get(blob) != size}


def list_existing(store: Store, digests: Collection[str]) -> Listing:
    """List as far as it pays -> which of these blobs it named."""
    listed, to = _listed(store, sorted(set(digests)))
    return Listing(_first_formats(listed), to)


def _listed(store: Store, wanted: Sequence[str]) -> tuple[_Sizes, str]:
    """List as far as it pays -> what was named of these, and the digest up to which that is all."""
    lookup, found = frozenset(wanted), _Sizes()
    if len(wanted) <= LIST_WEIGHT:
        return found, ""
    keys = store.list(layout.BLOBS)
    for seen in count(1):
        page = list(islice(keys, PAGE))
        last = _take(page, lookup, found)
        if len(page) < PAGE:
            break
        left = len(wanted) - bisect_right(wanted, last)
        if left < LIST_WEIGHT * _pages_left(seen, last):
            to = _before(last)
            return {blob: size for blob, size in found.items() if blob[0] <= to}, to
    return found, _ALL


def _take(page: Iterable[Stat], lookup: Collection[str], found: _Sizes) -> str:
    """Add what a page names -> its last digest."""
    digest = ""
    for stat in page:
        place = layout.parse_blob_key(stat.key)
        if place is not None:
            digest = place[0]
            if digest in lookup:
                found[place] = stat.size
    return digest


def _first_formats(there: _Sizes) -> Found:
    found: Found = {}
    for format in reversed(FORMATS):
        found |= {blob[0]: (format, size) for blob, size in there.items() if blob[1] == format}
    return found


def _pages_left(seen: int, digest: str) -> float:
    """Estimate how many pages come after this digest: digests lie evenly."""
    share = (int(digest[:8], 16) + 1) / 2**32 if digest else 1.0
    return seen / share - seen


def _before(digest: str) -> str:
    """The page may have ended between two keys of one digest: that one is asked for."""
    return f"{int(digest, 16) - 1:064x}" if digest.strip("0") else ""


def _asked(store: Store, blobs: Sequence[tuple[str, str]]) -> _Sizes:
    stats = map_ordered(partial(_head, store), blobs, store.max_workers)
    return {blob: stat.size for blob, stat in zip(blobs, stats, strict=True) if stat is not None}


def _head(store: Store, blob: tuple[str, str]) -> Stat | None:
    return store.head(layout.blob_key(*blob))
