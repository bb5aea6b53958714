"""What a migration has to do, as a value: which files stand in a manifest, which are sent, in which batches.

Everything here follows from the tree and the last finished manifest alone, so that a call that is made again
after a crash plans the same batches and finds their receipts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import TypeVar

from mltrack_tasks.digest import MiB
from mltrack_tasks.filetree import FILE, Entries, Entry
from mltrack_tasks.receipts import DEFER_ABOVE, batch_id

T = TypeVar("T")

INLINE_LIMIT = 4 * 1024
"""[bytes] Files of a run up to this size stand in its manifest ..."""
INLINE_TOTAL = MiB
"""[bytes] ... as long as they take no more than this together."""
PACK_LIMIT = 32 * 1024
"""[bytes] Files up to this size are sent many at a time: one request costs as much as some 30 KiB of body."""
PACK_SIZE = 8 * MiB
"""[bytes] of one pack, at most: some are in memory at once."""
BATCH_FILES, BATCH_BYTES = 500, 1024 * MiB
"""What a batch holds, while there are not too many of them."""
MAX_BATCHES = 25
"""Cuts by number of files, and as many by bytes; each batch is a task run, and they stay below 150."""


Found = dict[str, tuple[str, int]]
"""Digest -> (format, size [bytes]) of blobs that are there."""


class Listing:
    """What a LIST said of the blobs up to one digest; of the others nothing is known."""

    __slots__ = ("found", "to")

    def __init__(self, found: Found | None = None, to: str = "") -> None:
        self.found, self.to = found or {}, to

    def find(self, digest: str) -> tuple[str, int] | None:
        """Format and size [bytes] of a blob that was listed."""
        return self.found.get(digest)

    def covers(self, digest: str) -> bool:
        """Whether a blob that was not found is not there."""
        return bool(digest) and digest <= self.to

    def of(self, entries: Iterable[Entry]) -> Listing:
        """The part of it that is about some files."""
        digests = (entry.digest for entry in entries)
        return Listing({digest: self.found[digest] for digest in digests if digest in self.found}, self.to)


class Batch:
    """A slice of the work: what one task run sends. No dataclass, as ``Entries`` is no list."""

    __slots__ = ("files", "listing", "pack", "size_bytes")

    def __init__(self, files: Iterable[Entry], pack: bool, listing: Listing | None = None) -> None:
        self.files, self.pack = Entries(files), pack
        self.size_bytes = sum(entry.size for entry in self.files)
        self.listing = Listing() if listing is None else listing
        """What the store was seen to have of it when it was planned."""

    @property
    def id(self) -> str:
        """What names the batch and its receipt."""
        return batch_id(self.files, self.pack)

    def packed(self) -> list[Entry]:
        """The files that go into packs."""
        return [entry for entry in self.files if self._fits(entry)]

    def single(self) -> list[Entry]:
        """The files that become blobs of their own."""
        return [entry for entry in self.files if not self._fits(entry)]

    def _fits(self, entry: Entry) -> bool:
        return self.pack and entry.size <= PACK_LIMIT

    def __repr__(self) -> str:
        return f"<batch of {len(self.files):,} files, {self.size_bytes:,} bytes>"


def inlined(entries: Iterable[Entry]) -> dict[str, Entry]:
    """Choose the files of a run that stand in its manifest -> each distinct content once, by digest."""
    chosen: dict[str, Entry] = {}
    room = INLINE_TOTAL
    for entry in entries:
        if entry.kind != FILE or not entry.digest or entry.size > INLINE_LIMIT or entry.digest in chosen:
            continue
        if entry.size <= room:
            chosen[entry.digest] = entry
            room -= entry.size
    return chosen


def to_send(entries: Iterable[Entry], inline: Collection[str], known: Collection[str]) -> Iterator[Entry]:
    """Choose the files that have to be sent: each content once, but for what is ``known`` to be there.

    ``inline`` are paths. Of large files equal ones are found only when they are sent, whether their digests
    are known or not.
    """
    seen: set[str] = set()
    for entry in entries:
        if entry.kind != FILE or entry.path in inline or entry.digest in known or entry.digest in seen:
            continue
        if entry.size <= DEFER_ABOVE:
            seen.add(entry.digest)
        yield entry


def batches_of(files: Sequence[Entry], pack: bool, *, share: int = 1) -> list[Batch]:
    """Cut files into batches, in their order: of BATCH_FILES or BATCH_BYTES, or more if need be.

    ``share``: how many such lists there are, which together make no more batches than one.
    """
    cuts = MAX_BATCHES // share
    most = max(BATCH_FILES, -(-len(files) // cuts))
    largest = max(BATCH_BYTES, -(-sum(entry.size for entry in files) // cuts))
    return [Batch(part, pack) for part in cut(files, most, largest)]


def singles_of(batches: Iterable[Batch]) -> list[str]:
    """Digests of the files that become blobs of their own, as far as they are known."""
    return [entry.digest for batch in batches for entry in batch.single() if entry.digest]


def packs_of(files: Iterable[Entry]) -> Iterator[list[Entry]]:
    """Cut small files into packs of at most PACK_SIZE."""
    return cut(files, None, PACK_SIZE)


def cut_by(rows: Iterable[tuple[int, T]], most: int) -> Iterator[list[T]]:
    """Cut (weight, item) rows, in their order, into lists of items that weigh at most so much together."""
    current: list[T] = []
    held = 0
    for weight, item in rows:
        if current and held + weight > most:
            yield current
            current, held = [], 0
        current.append(item)
        held += weight
    if current:
        yield current


def cut(entries: Iterable[Entry], most: int | None, largest: int) -> Iterator[list[Entry]]:
    """Cut entries, in their order, into lists of at most so many, and of at most ``largest`` [bytes].

    One that is larger than that is a list of its own.
    """
    current: list[Entry] = []
    size = 0
    for entry in entries:
        if current and (len(current) == most or size + entry.size > largest):
            yield current
            current, size = [], 0
        current.append(entry)
        size += entry.size
    if current:
        yield current
