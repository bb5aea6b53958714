"""Files out of a store into a folder: fetched only if they are not there, and proven when written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from mltrack_tasks import events, layout
from mltrack_tasks.blobs import READ_SIZE, read_blob, stream_blob
from mltrack_tasks.errors import NotFoundError
from mltrack_tasks.events import Event, Observe
from mltrack_tasks.filetree import FOLDER, LINK, Entry
from mltrack_tasks.localtree import LocalTree
from mltrack_tasks.parallel import map_ordered
from mltrack_tasks.receipts import Place
from mltrack_tasks.stores.base import Store

DENSE = 4
"""A pack is fetched as a whole if a file in this many bytes of it is wanted; else in ranges."""

Contents = Callable[[], Mapping[str, bytes]]
"""Fetches the small files of a run: digest -> bytes."""


@dataclass(frozen=True)
class Portion:
    """Files to write, and where their bytes are to be found."""

    entries: Sequence[Entry]
    places: Mapping[str, Place] = field(default_factory=dict)
    contents: Contents = dict


@dataclass(frozen=True)
class Written:
    """What writing one group of files came to."""

    files: int = 0
    size: int = 0
    """[bytes]"""
    present: int = 0
    """Files that were there already."""


_Job = Callable[[], Written]


def write_portions(
    store: Store, tree: LocalTree, portions: Iterable[Portion], *, replace: bool, total: int, observe: Observe
) -> Written:
    """Write files, folders and links -> how many files were written and found.

    Folders get their permissions last, so that those without write permission can be filled. Raises
    ConflictError if another file is in the way of one, unless ``replace``; what was written until then stays,
    and the same call again goes on.
    """
    writer = _Writer(store, tree, replace)
    folders: list[Entry] = []
    done = Written()
    for answer in map_ordered(lambda job: job(), writer.jobs(portions, folders), store.max_workers):
        done = _sum(done, answer)
        _tell(done, total, observe)
    for job in writer.large_jobs():
        done = _sum(done, job())
        _tell(done, total, observe)
    for folder in reversed(folders):
        tree.set_mode(folder.path, folder.mode)
    return done


class _Writer:
    """Makes the jobs that write files; called in several threads."""

    def __init__(self, store: Store, tree: LocalTree, replace: bool) -> None:
        self._store, self._tree, self._replace = store, tree, replace
        self._large: list[tuple[Entry, Place]] = []

    def jobs(self, portions: Iterable[Portion], folders: list[Entry]) -> Iterator[_Job]:
        """One job for the small files of a run, a pack, or a blob. Folders and links are made at once."""
        for portion in portions:
            packs: dict[str, list[tuple[Entry, Place]]] = {}
            small: list[Entry] = []
            for entry in portion.entries:
                place = portion.places.get(entry.digest)
                if entry.kind == FOLDER:
                    self._tree.make_folder(entry.path)
                    folders.append(entry)
                elif entry.kind == LINK:
                    self._tree.make_link(entry.path, entry.target, replace=self._replace)
                elif place is None:
                    small.append(entry)
                elif place.offset is not None:
                    packs.setdefault(place.digest, []).append((entry, place))
                elif place.size > READ_SIZE:
                    self._large.append((entry, place))
                else:
                    yield partial(self._write_blob, entry, place)
            if small:
                yield partial(self._write_small, small, portion.contents)
            for wanted in packs.values():
                yield partial(self._write_packed, wanted)

    def large_jobs(self) -> Iterator[_Job]:
        """Large blobs, which are fetched in several ranges at once each."""
        for entry, place in self._large:
            yield partial(self._write, entry, stream_blob(self._store, place.digest, place.format))

    def _write_small(self, entries: Sequence[Entry], contents: Contents) -> Written:
        fetched: list[Mapping[str, bytes]] = []

        def body(entry: Entry) -> Iterator[bytes]:
            if not fetched:
                fetched.append(contents())
            if entry.digest not in fetched[0]:
                raise NotFoundError(
                    f"The bytes of {entry.path!r} are nowhere in {self._store.location}: no receipt and no "
                    f"manifest has {entry.digest}."
                )
            yield fetched[0][entry.digest]

        return _total(self._write(entry, body(entry)) for entry in entries)

    def _write_packed(self, wanted: Sequence[tuple[Entry, Place]]) -> Written:
        pack = _PackReader(self._store, wanted)
        return _total(self._write(entry, pack.body(place)) for entry, place in wanted)

    def _write_blob(self, entry: Entry, place: Place) -> Written:
        return self._write(entry, self._blob(place))

    def _blob(self, place: Place) -> Iterator[bytes]:
        yield read_blob(self._store, place.digest, place.format, place.size)

    def _write(self, entry: Entry, chunks: Iterable[bytes | memoryview]) -> Written:
        """Write a file; the chunks are only fetched if it is not there."""
        written = self._tree.write(entry, chunks, replace=self._replace)
        return Written(int(written), entry.size if written else 0, int(not written))


class _PackReader:
    """Bytes out of one pack: fetched once, as a whole or in ranges, when the first is asked for."""

    def __init__(self, store: Store, wanted: Sequence[tuple[Entry, Place]]) -> None:
        self._store = store
        self._end = max(place.offset + place.size for _, place in wanted if place.offset is not None)
        self._dense = DENSE * sum(place.size for _, place in wanted) >= self._end
        self._whole: memoryview | None = None

    def body(self, place: Place) -> Iterator[bytes | memoryview]:
        """Yield the bytes of one file. They are proven against its digest by whoever writes them."""
        key, start = layout.blob_key(place.digest, place.format), place.offset or 0
        if not self._dense:
            yield self._store.get_range(key, start, place.size) if place.size else b""
            return
        if self._whole is None:
            self._whole = memoryview(self._store.get_range(key, 0, self._end))
        yield self._whole[start : start + place.size]


def _total(answers: Iterable[Written]) -> Written:
    done = Written()
    for answer in answers:
        done = _sum(done, answer)
    return done


def _sum(one: Written, other: Written) -> Written:
    return Written(one.files + other.files, one.size + other.size, one.present + other.present)


def _tell(done: Written, total: int, observe: Observe) -> None:
    details = {"done": done.files + done.present, "total": total, "unit": "files"}
    observe(Event(events.PROGRESS, "restoring", details))
