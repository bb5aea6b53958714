"""A tree of files as a value: its entries, and their lists in parts that a small change leaves alone."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from mltrack_tasks import canonical
from mltrack_tasks.digest import is_digest
from mltrack_tasks.errors import IntegrityError, InvalidInputError
from mltrack_tasks.paths import path_bytes, read_spelled, sort_key, spell

FILE, FOLDER, LINK = "f", "d", "l"
PERMISSIONS = 0o777
"""What is kept of a mode. Set-user-id and its like are not: a restore would hand them to someone else."""
PART_MEAN, PART_MAX = 1024, 8 * 1024
"""Entries of one part: on average, and at most."""

_MAX_TIME = 2**63 - 1
_MAX_TARGET = 4096
"""[bytes] of a link's target, as POSIX systems have it (PATH_MAX of Linux)."""


class Entry(NamedTuple):
    """One thing in a tree of files. Paths and targets are as ``os.fsdecode`` gives them."""

    path: str
    """Relative to the root, with ``/`` between segments."""
    kind: str
    """``f`` a file, ``d`` a folder, ``l`` a symbolic link."""
    mode: int = 0
    """Permission bits (``st_mode & 0o777``) of a file or folder."""
    size: int = 0
    """[bytes] of a file."""
    mtime_ns: int = 0
    """[ns] of a file."""
    target: str = ""
    """Of a link."""
    digest: str = ""
    """Of a file whose bytes were read; else empty."""
    inode: int = 0
    """With ``ctime_ns`` what tells that a file is still the one that was read. In no record."""
    ctime_ns: int = 0


class Entries(Sequence[Entry]):
    """Entries in the order of their paths' bytes.

    Not a list: Prefect walks through lists that are handed to a task, item by item.
    """

    __slots__ = ("_items",)

    def __init__(self, items: Iterable[Entry] = ()) -> None:
        self._items = tuple(items)

    def __getitem__(self, index: Any) -> Any:
        return self._items[index]

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._items)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Entries) and self._items == other._items

    def __hash__(self) -> int:
        return hash(self._items)

    def __repr__(self) -> str:
        return f"<{len(self._items):,} entries>"


def with_digest(entry: Entry, digest: str) -> Entry:
    """Give an entry another digest, several times faster than ``_replace`` does."""
    return Entry(*entry[:6], digest, *entry[7:])


def in_order(entries: Iterable[Entry]) -> list[Entry]:
    """Sort by the bytes of the paths."""
    return sorted(entries, key=lambda entry: sort_key(entry.path))


def folders_above(path: str) -> Iterator[str]:
    """Name the folders above a path, the nearest first."""
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def to_row(entry: Entry) -> list[Any]:
    """Map an entry onto plain JSON."""
    if entry.kind == FILE:
        return [spell(entry.path), FILE, entry.mode, entry.size, entry.mtime_ns, entry.digest]
    if entry.kind == FOLDER:
        return [spell(entry.path), FOLDER, entry.mode]
    return [spell(entry.path), LINK, spell(entry.target)]


def from_row(row: Any, what: str) -> Entry:
    """Parse an entry; IntegrityError if it is not one that ``to_row`` wrote."""
    if not isinstance(row, list) or len(row) < 2:
        raise IntegrityError(f"{what} is no entry of a tree: {row!r:.80}.")
    path = _checked_path(row[0], what)
    if row[1] == FILE and len(row) == 6:
        _, _, mode, size, mtime, digest = row
        if _is_mode(mode) and _is_time(size) and size >= 0 and _is_time(mtime) and is_digest(digest):
            return Entry(path, FILE, mode, size, mtime, digest=digest)
    elif row[1] == FOLDER and len(row) == 3 and _is_mode(row[2]):
        return Entry(path, FOLDER, row[2])
    elif row[1] == LINK and len(row) == 3:
        target = read_spelled(row[2], what)
        if 0 < len(sort_key(target)) <= _MAX_TARGET and "\0" not in target:
            return Entry(path, LINK, target=target)
    raise IntegrityError(f"{what} is no entry of a tree: {row!r:.120}.")


def encode_part(entries: Iterable[Entry]) -> bytes:
    """Encode entries -> canonical JSON bytes, equal for equal entries."""
    return canonical.dumps([to_row(entry) for entry in entries])


def decode_part(body: bytes, *, what: str) -> list[Entry]:
    """Parse what ``encode_part`` wrote; IntegrityError for anything else."""
    rows = canonical.loads(body, what=what)
    if not isinstance(rows, list):
        raise IntegrityError(f"{what} is no list of entries.")
    return [from_row(row, what) for row in rows]


def parts_of(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    """Cut ordered entries into parts, where a path says so: a change moves no border but its own.

    So the part that holds a changed entry is another, and all the others stay the blobs that they are.
    """
    part: list[Entry] = []
    for entry in entries:
        part.append(entry)
        if len(part) >= PART_MAX or zlib.crc32(sort_key(entry.path)) % PART_MEAN == 0:
            yield part
            part = []
    if part:
        yield part


def check_tree(entries: Sequence[Entry], what: str) -> None:
    """Check that entries are one tree: each path once, in order, and nothing below a file or a link."""
    keys = [sort_key(entry.path) for entry in entries]
    if any(one >= other for one, other in pairwise(keys)):
        raise IntegrityError(f"{what} lists a path twice, or out of order.")
    leaves = {key for key, entry in zip(keys, entries, strict=True) if entry.kind != FOLDER}
    for key in keys:
        above = key.rpartition(b"/")[0]
        while above:
            if above in leaves:
                raise IntegrityError(f"{what} lists {key!r:.120} below something that is no folder.")
            above = above.rpartition(b"/")[0]


def _checked_path(raw: Any, what: str) -> str:
    path = read_spelled(raw, what)
    try:
        path_bytes(path)
    except InvalidInputError as error:
        raise IntegrityError(f"{what}: {error}") from error
    return path


def _is_mode(value: Any) -> bool:
    return type(value) is int and 0 <= value <= PERMISSIONS


def _is_time(value: Any) -> bool:
    return type(value) is int and -_MAX_TIME <= value <= _MAX_TIME
