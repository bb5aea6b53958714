"""Files into a store, as blobs of their own or many in a pack; only what hashes to its name is stored."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO, NamedTuple

from mltrack_tasks import layout
from mltrack_tasks.blobs import write_blob
from mltrack_tasks.digest import SINGLE_PUT_LIMIT
from mltrack_tasks.errors import MLTrackError, SourceChangedError
from mltrack_tasks.events import Event
from mltrack_tasks.filetree import Entry
from mltrack_tasks.migration.hashing import Failed, checked, open_large
from mltrack_tasks.migration.origin import SourceTree
from mltrack_tasks.parallel import map_ordered
from mltrack_tasks.plan import Listing, packs_of
from mltrack_tasks.receipts import DEFER_ABOVE, Pack
from mltrack_tasks.recordstore import ensure
from mltrack_tasks.sources import BytesSource, FileSource, Source, changed
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.files import os_errors
from mltrack_tasks.values import write_opened

MIDDLE = 4 * 1024 * 1024
"""[bytes] Of files above this only two are read at a time: memory does not grow with ``max_workers``."""
_PACKS_AT_ONCE = 4
_AHEAD = 2
"""Large files: the next one is hashed while one is sent."""


class Sent(NamedTuple):
    """A file that the store has now, as a blob of its own."""

    entry: Entry
    format: str
    created: bool


@dataclass(frozen=True)
class Way:
    """Where files come from, where they go, and for which migration."""

    store: Store
    tree: SourceTree
    migration: str


def send_singles(way: Way, files: Sequence[Entry], listing: Listing) -> Iterator[Sent | Failed]:
    """Make sure of blobs of their own, many at a time -> what became of each file, the small ones first."""
    send = partial(_send_small, way, listing)
    yield from map_ordered(send, [e for e in files if e.size <= MIDDLE], way.store.max_workers)
    yield from map_ordered(send, [e for e in files if MIDDLE < e.size <= SINGLE_PUT_LIMIT], 2)
    large = [entry for entry in files if entry.size > SINGLE_PUT_LIMIT]
    for entry, opened in zip(large, map_ordered(partial(_opened, way.tree), large, _AHEAD), strict=True):
        yield _send_large(way, entry, opened)


def send_packs(way: Way, files: Sequence[Entry]) -> Iterator[tuple[Pack, bool] | Failed]:
    """Send small files many at a time -> each pack and whether it was created, and what could not be read.

    Packs are filled in the caller's thread while others are sent.
    """
    failed: list[Failed] = []
    filled = (_filled(way.tree, chosen, failed) for chosen in packs_of(files))
    some = (pack for pack in filled if pack[1])
    yield from map_ordered(partial(_send_pack, way), some, _PACKS_AT_ONCE)
    yield from failed


def _filled(
    tree: SourceTree, files: Sequence[Entry], failed: list[Failed]
) -> tuple[bytearray, dict[str, tuple[int, int]]]:
    """Read files into one buffer -> it, and where each file lies in it."""
    members: dict[str, tuple[int, int]] = {}
    body = bytearray()
    for entry, content in zip(files, tree.read_all(files), strict=True):
        try:
            content = checked(entry, content)
        except MLTrackError as error:
            failed.append(Failed(entry.path, str(error)))
        else:
            members[entry.digest] = (len(body), len(content))
            body += content
    return body, members


def _send_pack(way: Way, filled: tuple[bytearray, dict[str, tuple[int, int]]]) -> tuple[Pack, bool]:
    body, members = filled
    source = BytesSource(memoryview(body))
    created = write_blob(way.store, source, "bin", observe=_ignore, ask=True)
    _pin(way, source.digest)
    return Pack(source.digest, source.size, members), created


def _send_small(way: Way, listing: Listing, entry: Entry) -> Sent | Failed:
    """One file that fits into memory. What a listing named is looked at: its bytes may be others."""
    try:
        body = way.tree.read(entry)
        source = BytesSource(body)
        if entry.digest and source.digest != entry.digest:
            raise changed(entry.path)
    except MLTrackError as error:
        return Failed(entry.path, str(error))
    ask = listing.find(entry.digest) is not None or not listing.covers(entry.digest)
    return _send(way, entry, source, io.BytesIO(body), ask=ask)


def _send_large(way: Way, entry: Entry, opened: tuple[FileSource, BinaryIO] | Failed) -> Sent | Failed:
    if isinstance(opened, Failed):
        return opened
    source, file = opened
    with file:
        try:
            return _send(way, entry, source, file, ask=True)
        except SourceChangedError as error:
            return Failed(entry.path, str(error))


def _send(way: Way, entry: Entry, source: Source, reader: BinaryIO, *, ask: bool | None) -> Sent:
    with os_errors(entry.path):
        ref = write_opened(way.store, source, reader, entry.path, _ignore, ask=ask)
    if entry.size > DEFER_ABOVE:
        _pin(way, ref.hash)  # the record of the batch could not name it yet
    return Sent(entry._replace(digest=ref.hash), ref.format, ref.created)


def _opened(tree: SourceTree, entry: Entry) -> tuple[FileSource, BinaryIO] | Failed:
    try:
        return open_large(tree, entry)
    except MLTrackError as error:
        return Failed(entry.path, str(error))


def _pin(way: Way, digest: str) -> None:
    ensure(way.store, layout.migration_pin_key(digest, way.migration))


def _ignore(event: Event) -> None:
    """Blobs are counted by who sends them; a batch is told of as a whole."""
