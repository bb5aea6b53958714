"""Remedies: where the right bytes of a damaged object may still be. What is found is proven before use."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO, NamedTuple, TypeAlias, cast

from mltrack_tasks.blobs import READ_SIZE
from mltrack_tasks.digest import SINGLE_PUT_LIMIT
from mltrack_tasks.errors import IntegrityError, MLTrackError, NotFoundError
from mltrack_tasks.events import Observe
from mltrack_tasks.filetree import FILE, Entry
from mltrack_tasks.localtree import LocalTree
from mltrack_tasks.parallel import map_ordered
from mltrack_tasks.sources import BytesSource, FileSource, Source
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.files import os_errors

Chunks: TypeAlias = Iterator[bytes | memoryview]
_PIECE = 1024 * 1024


@dataclass(frozen=True)
class Wanted:
    """A blob whose bytes are looked for."""

    key: str
    digest: str
    format: str
    sizes: frozenset[int] = frozenset()
    """[bytes], as records claim; empty if none does."""
    members: tuple[str, ...] = ()
    """Of a pack: the digests of the files in it, one after the other."""


class Candidate(NamedTuple):
    """Bytes that may be the right ones."""

    source: str
    """Where they are, for people."""
    read: Callable[[], Chunks]


Remedy: TypeAlias = Callable[[Wanted], Iterator[Candidate]]


def from_cache(store: Store) -> Remedy:
    """The store's own read cache, if it has one: in the pieces in which blobs are read."""

    def remedy(wanted: Wanted) -> Iterator[Candidate]:
        if store.uncached() is not store:
            for size in sorted(wanted.sizes):  # of what was cached, not of what is there by now
                yield Candidate("the read cache", partial(_read_ranges, store, wanted.key, size))

    return remedy


def from_replica(replica: Store) -> Remedy:
    """Another store: the blob under its own name there."""

    def remedy(wanted: Wanted) -> Iterator[Candidate]:
        yield Candidate(replica.location, partial(_read_object, replica.uncached(), wanted.key))

    return remedy


def from_older_versions(store: Store) -> Remedy:
    """Earlier versions of the very object, newest first, where the bucket keeps them."""

    def remedy(wanted: Wanted) -> Iterator[Candidate]:
        for older in store.older(wanted.key):
            yield Candidate(f"the version of {older.modified:%Y-%m-%d %H:%M:%S}", older.read)

    return remedy


def from_tree(tree: LocalTree, wanted: Sequence[Wanted], observe: Observe, workers: int) -> Remedy:
    """Files of a folder, by digest; of a pack, the files that were packed."""
    places = _index(tree, wanted, observe, workers)

    def remedy(blob: Wanted) -> Iterator[Candidate]:
        paths = [places[digest] for digest in blob.members or (blob.digest,) if digest in places]
        if paths and len(paths) == max(len(blob.members), 1):
            name = paths[0] if not blob.members else f"{len(paths)} files"
            yield Candidate(f"{tree.root}: {name}", partial(_read_files, tree, paths))

    return remedy


@contextmanager
def fetched(candidate: Candidate, wanted: Wanted) -> Iterator[Source]:
    """Fetch bytes, in bounded memory -> a source of them; IntegrityError unless they are the wanted ones."""
    hasher = hashlib.sha256()
    with tempfile.SpooledTemporaryFile(max_size=SINGLE_PUT_LIMIT) as spooled:
        file = cast(BinaryIO, spooled)
        for chunk in candidate.read():
            hasher.update(chunk)
            with os_errors("The temporary folder (TMPDIR)"):
                file.write(chunk)
        if hasher.hexdigest() != wanted.digest:
            raise IntegrityError(f"{candidate.source} holds other bytes.")
        if file.tell() > SINGLE_PUT_LIMIT:
            file.flush()
            yield FileSource(file, candidate.source)
        else:
            file.seek(0)
            yield BytesSource(file.read())


def tried(remedies: Iterable[Remedy], wanted: Wanted, failures: list[str]) -> Iterator[Candidate]:
    """All candidates; a remedy that cannot be asked is told in ``failures`` and does not hide the next."""
    for remedy in remedies:
        try:
            yield from remedy(wanted)
        except MLTrackError as error:
            failures.append(str(error))


def _read_object(store: Store, key: str) -> Chunks:
    stat = store.head(key)
    if stat is None:
        raise NotFoundError(f"{key} is not in {store.location}.")
    yield from _read_ranges(store, key, stat.size)


def _read_ranges(store: Store, key: str, size: int) -> Chunks:
    if size <= READ_SIZE:
        yield store.get(key)
        return
    for start in range(0, size, READ_SIZE):
        yield store.get_range(key, start, READ_SIZE)


def _read_files(tree: LocalTree, paths: Iterable[str]) -> Chunks:
    for path in paths:
        with tree.open(path) as file, os_errors(path):
            while chunk := file.read(_PIECE):
                yield chunk


def _index(tree: LocalTree, wanted: Sequence[Wanted], observe: Observe, workers: int) -> Mapping[str, str]:
    """Hash the files that may be wanted, by their sizes -> digest to path."""
    digests = {digest for blob in wanted for digest in (blob.digest, *blob.members)}
    sizes = {size for blob in wanted for size in blob.sizes}
    all_sizes = any(blob.members or not blob.sizes for blob in wanted)
    entries = [
        entry
        for entry in tree.scan(observe=observe).entries
        if entry.kind == FILE and (all_sizes or entry.size in sizes)
    ]
    hashed = map_ordered(partial(_hash, tree), entries, workers)
    found = zip(hashed, (entry.path for entry in entries), strict=True)
    return {digest: path for digest, path in found if digest in digests}


def _hash(tree: LocalTree, entry: Entry) -> str:
    """Digest of a file; empty if it cannot be read, or has gone."""
    try:
        hasher = hashlib.sha256()
        for chunk in _read_files(tree, [entry.path]):
            hasher.update(chunk)
        return hasher.hexdigest()
    except MLTrackError:
        return ""
