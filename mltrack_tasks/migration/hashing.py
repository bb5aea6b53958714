"""Digests of the files of a folder: out of the cache where a file is unchanged, else by reading it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import BinaryIO, NamedTuple

from mltrack_tasks import events
from mltrack_tasks.digest import sha256_hex
from mltrack_tasks.errors import MLTrackError
from mltrack_tasks.events import Event, Observe
from mltrack_tasks.filetree import FILE, Entry
from mltrack_tasks.migration.hashcache import HashCache
from mltrack_tasks.migration.origin import SourceTree
from mltrack_tasks.parallel import map_ordered
from mltrack_tasks.receipts import DEFER_ABOVE
from mltrack_tasks.sources import FileSource, changed
from mltrack_tasks.stores.files import os_errors

IN_THREADS_ABOVE = 64 * 1024
"""[bytes] Below, a file is read before a thread has taken it up."""
_CHUNK = 1024
_WORKERS = 4


class Failed(NamedTuple):
    """A file that could not be read, or is another by now."""

    path: str
    reason: str


def hash_entries(
    tree: SourceTree, cache: HashCache, entries: Sequence[Entry], *, everything: bool, observe: Observe
) -> tuple[list[Entry], list[Failed]]:
    """Give files their digests -> (entries in order, what could not be read).

    Large files whose digest is not known keep none, unless ``everything`` is asked for. A file that cannot
    be read, or changes meanwhile, is left out of the entries and named.
    """
    hashed: list[Entry] = []
    failures: list[Failed] = []
    total = sum(entry.size for entry in entries)
    done = 0
    for start in range(0, len(entries), _CHUNK):
        chunk = cache.fill(entries[start : start + _CHUNK])
        read = _read_missing(tree, chunk, everything)
        cache.keep([entry for entry in read.values() if isinstance(entry, Entry)])
        for entry in chunk:
            answer = read.get(entry.path, entry)
            if isinstance(answer, Entry):
                hashed.append(answer)
            else:
                failures.append(Failed(entry.path, str(answer)))
            done += entry.size
        observe(Event(events.PROGRESS, "hashing files", {"done": done, "total": total, "unit": "bytes"}))
    return hashed, failures


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


def _read_missing(
    tree: SourceTree, chunk: Sequence[Entry], everything: bool
) -> dict[str, Entry | MLTrackError]:
    missing = [e for e in chunk if e.kind == FILE and not e.digest and (everything or e.size <= DEFER_ABOVE)]
    small = [entry for entry in missing if entry.size <= IN_THREADS_ABOVE]
    large = [entry for entry in missing if entry.size > IN_THREADS_ABOVE]
    answers = map_ordered(partial(_hashed, tree), large, _WORKERS) if large else iter(())
    found = {entry.path: _hashed(tree, entry) for entry in small}
    found.update({entry.path: answer for entry, answer in zip(large, answers, strict=True)})
    return found


def _hashed(tree: SourceTree, entry: Entry) -> Entry | MLTrackError:
    try:
        if entry.size > DEFER_ABOVE:
            source, file = open_large(tree, entry)
            file.close()
            return entry._replace(digest=source.digest)
        return entry._replace(digest=sha256_hex(tree.read(entry)))
    except MLTrackError as error:
        return error
