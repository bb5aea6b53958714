"""Digests of the files of a folder: out of the cache where a file is unchanged, else by reading it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import BinaryIO, NamedTuple

from mltrack_tasks import events
from mltrack_tasks.digest import sha256_hex
from mltrack_tasks.errors import MLTrackError
from mltrack_tasks.events import Event, Observe
from mltrack_tasks.filetree import FILE, Entry, with_digest
from mltrack_tasks.localtree.reading import hash_open
from mltrack_tasks.migration.hashcache import HashCache
from mltrack_tasks.migration.origin import SourceTree
from mltrack_tasks.parallel import map_ordered
from mltrack_tasks.plan import INLINE_LIMIT
from mltrack_tasks.receipts import DEFER_ABOVE
from mltrack_tasks.sources import FileSource, changed
from mltrack_tasks.stores.files import os_errors

IN_THREADS_ABOVE = 64 * 1024
"""[bytes] Below, a file is read before a thread has taken it up."""
KEPT = 64 * 1024 * 1024
"""[bytes] of small files that are kept in memory until the manifests are written."""
_CHUNK = 1024
_WORKERS = 4


class Failed(NamedTuple):
    """A file that could not be read, or is another by now."""

    path: str
    reason: str


class Hashed(NamedTuple):
    """Entries with their digests, what could not be read, and bytes that will be asked for again."""

    entries: list[Entry]
    failed: list[Failed]
    bodies: dict[str, bytes]
    """Digest -> bytes of small files that were read: most of them stand in manifests of runs soon."""


def hash_entries(
    tree: SourceTree, cache: HashCache, entries: Sequence[Entry], *, everything: bool, observe: Observe
) -> Hashed:
    """Give files their digests, in the order of the entries.

    Large files whose digest is not known keep none, unless ``everything`` is asked for. A file that cannot
    be read, or changes meanwhile, is left out of the entries and named.
    """
    found = Hashed([], [], {})
    total, done, room = sum(entry.size for entry in entries), 0, KEPT
    for start in range(0, len(entries), _CHUNK):
        began = time.time_ns()
        chunk = cache.fill(entries[start : start + _CHUNK])
        read = _read_missing(tree, chunk, everything)
        cache.keep([answer.entry for answer in read.values() if isinstance(answer, _Read)], began)
        for entry in chunk:
            answer = read.get(entry.path)
            done += entry.size
            if answer is None:
                found.entries.append(entry)
                continue
            if isinstance(answer, MLTrackError):
                found.failed.append(Failed(entry.path, str(answer)))
                continue
            found.entries.append(answer.entry)
            if answer.body is not None and entry.size <= room:
                room -= entry.size
                found.bodies[answer.entry.digest] = answer.body
        observe(Event(events.PROGRESS, "hashing files", {"done": done, "total": total, "unit": "bytes"}))
    return found


def open_large(tree: SourceTree, entry: Entry) -> tuple[FileSource, BinaryIO]:
    """Open a file of any size and hash it in bounded memory -> source, open file.

    SourceChangedError if it is another than was found.
    """
    file = tree.open(entry)
    try:
        with os_errors(entry.path):
            source = FileSource(file, entry.path)
        if entry.digest and source.digest != entry.digest:
            raise changed(entry.path)
    except BaseException:
        file.close()
        raise
    return source, file


def checked(entry: Entry, body: bytes | MLTrackError) -> bytes:
    """Admit what was read of a file whose digest is known; SourceChangedError if it is of another one."""
    if isinstance(body, MLTrackError):
        raise body
    if entry.digest and sha256_hex(body) != entry.digest:
        raise changed(entry.path)
    return body


class _Read(NamedTuple):
    """An entry with its digest, and the bytes if they are few."""

    entry: Entry
    body: bytes | None = None


def _read_missing(
    tree: SourceTree, chunk: Sequence[Entry], everything: bool
) -> dict[str, _Read | MLTrackError]:
    missing = [e for e in chunk if e.kind == FILE and not e.digest and (everything or e.size <= DEFER_ABOVE)]
    small = [entry for entry in missing if entry.size <= IN_THREADS_ABOVE]
    large = [entry for entry in missing if entry.size > IN_THREADS_ABOVE]
    answers = map_ordered(partial(_hashed, tree), large, _WORKERS) if large else iter(())
    found = {
        entry.path: _digested(entry, body) for entry, body in zip(small, tree.read_all(small), strict=True)
    }
    found.update({entry.path: answer for entry, answer in zip(large, answers, strict=True)})
    return found


def _hashed(tree: SourceTree, entry: Entry) -> _Read | MLTrackError:
    try:
        if entry.size > DEFER_ABOVE:
            with tree.open(entry) as file, os_errors(entry.path):
                found = hash_open(file.fileno())  # the whole alone: its parts are for who sends them
            if found is None:
                raise changed(entry.path)
            return _Read(with_digest(entry, found[1]))
        return _digested(entry, tree.read(entry))
    except MLTrackError as error:
        return error


def _digested(entry: Entry, body: bytes | MLTrackError) -> _Read | MLTrackError:
    if isinstance(body, MLTrackError):
        return body
    kept = body if entry.size <= INLINE_LIMIT else None
    return _Read(with_digest(entry, sha256_hex(body)), kept)
