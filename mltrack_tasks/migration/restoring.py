"""Files out of a store into a folder: fetched only if they are not there, and proven when written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

from mltrack_tasks import events, layout
from mltrack_tasks.blobs import READ_SIZE, read_blob, stream_blob
from mltrack_tasks.errors import IntegrityError, NotFoundError
from mltrack_tasks.events import Event, Observe
from mltrack_tasks.filetree import FOLDER, LINK, Entry
from mltrack_tasks.localtree import LocalTree
from mltrack_tasks.manifests import read_manifest
from mltrack_tasks.migrated import of_run
from mltrack_tasks.migrations import MigratedRun
from mltrack_tasks.parallel import map_ordered
from mltrack_tasks.receipts import Place
from mltrack_tasks.stores.base import Store

DENSE = 4
"""A pack is fetched as a whole if a file in this many bytes of it is wanted; else in ranges."""
LARGEST_PACK = 1024 * 1024 * 1024
"""[bytes] Far above any pack that is written: what a hostile bucket can make us ask for at once."""


class Portion:
    """Entries to write, and where their bytes are. Not a dataclass: Prefect would walk through it."""

    __slots__ = ("bodies", "entries", "places", "runs")

    def __init__(
        self,
        entries: Iterable[Entry],
        places: Mapping[str, Place] = MappingProxyType({}),
        *,
        bodies: Mapping[str, bytes] = MappingProxyType({}),
        runs: Sequence[MigratedRun] = (),
    ) -> None:
        self.entries = tuple(entries)
        self.places = dict(places)
        """Digest -> where the bytes lie; ``bodies``, or the manifest of one of ``runs``, has the others."""
        self.bodies, self.runs = dict(bodies), tuple(runs)


@dataclass(frozen=True)
class Restored:
    """What writing some files came to."""

    files: int = 0
    size: int = 0
    """[bytes]"""
    present: int = 0
    """Files that were there already."""


_Job = Callable[[], Restored]


def write_portions(
    store: Store, tree: LocalTree, portions: Iterable[Portion], *, replace: bool, total: int, observe: Observe
) -> Restored:
    """Write files, folders and links -> how many files were written and found.

    Raises ConflictError if another file is in the way of one, unless ``replace``; what was written until then
    stays, and the same call again goes on.
    """
    writer = _Writer(store, tree, replace)
    done = Restored()
    for answer in map_ordered(lambda job: job(), writer.jobs(portions), store.max_workers):
        done = _sum(done, answer)
        _tell(done, total, observe)
    for job in writer.large_jobs():
        done = _sum(done, job())
        _tell(done, total, observe)
    return done


class _Writer:
    """Makes the jobs that write files; called in several threads."""

    def __init__(self, store: Store, tree: LocalTree, replace: bool) -> None:
        self._store, self._tree, self._replace = store, tree, replace
        self._large: list[tuple[Entry, Place]] = []

    def jobs(self, portions: Iterable[Portion]) -> Iterator[_Job]:
        """One job for the small files of a run, a pack, or a blob. Folders and links are made at once."""
        for portion in portions:
            packs: dict[str, list[tuple[Entry, Place]]] = {}
            small: list[Entry] = []
            for entry in portion.entries:
                place = portion.places.get(entry.digest)
                if entry.kind == FOLDER:
                    self._tree.make_folder(entry.path)
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
                yield partial(self._write_small, small, portion)
            for wanted in packs.values():
                yield partial(self._write_packed, wanted)

    def large_jobs(self) -> Iterator[_Job]:
        """Large blobs, which are fetched in several ranges at once each."""
        for entry, place in self._large:
            yield partial(self._write, entry, stream_blob(self._store, place.digest, place.format))

    def _write_small(self, entries: Sequence[Entry], portion: Portion) -> Restored:
        known, runs = dict(portion.bodies), iter(portion.runs)

        def body(entry: Entry) -> Iterator[bytes]:
            while entry.digest not in known:
                run = next(runs, None)
                if run is None:
                    raise NotFoundError(
                        f"The bytes of {entry.path!r} are nowhere in {self._store.location}: no receipt and "
                        f"no manifest has {entry.digest}."
                    )
                known.update(contents_of(self._store, run))
            yield known[entry.digest]

        return _total(self._write(entry, body(entry)) for entry in entries)

    def _write_packed(self, wanted: Sequence[tuple[Entry, Place]]) -> Restored:
        pack = _PackReader(self._store, wanted)
        return _total(self._write(entry, pack.body(place)) for entry, place in wanted)

    def _write_blob(self, entry: Entry, place: Place) -> Restored:
        return self._write(entry, self._blob(place))

    def _blob(self, place: Place) -> Iterator[bytes]:
        yield read_blob(self._store, place.digest, place.format, place.size)

    def _write(self, entry: Entry, chunks: Iterable[bytes | memoryview]) -> Restored:
        """Write a file; the chunks are only fetched if it is not there."""
        written = self._tree.write(entry, chunks, replace=self._replace)
        return Restored(int(written), entry.size if written else 0, int(not written))


class _PackReader:
    """Bytes out of one pack: fetched once, as a whole or in ranges, when the first is asked for."""

    def __init__(self, store: Store, wanted: Sequence[tuple[Entry, Place]]) -> None:
        self._store = store
        self._end = max(place.offset + place.size for _, place in wanted if place.offset is not None)
        if self._end > LARGEST_PACK:
            raise IntegrityError(
                f"A pack in {store.location} is said to have at least {self._end:,} bytes; none that this "
                "library writes has. Whatever says so was damaged, or written by something else."
            )
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


def contents_of(store: Store, run: MigratedRun) -> Mapping[str, bytes]:
    """Fetch the small files that stand in the manifest of a run: digest -> bytes."""
    what = f"The manifest of {run.run_id!r} in {store.location}"
    migrated = of_run(read_manifest(store, run.run_id, run.revision), what=what)
    if migrated is None:
        raise IntegrityError(f"{what} is not one that a migration wrote.")
    return migrated.contents


def _total(answers: Iterable[Restored]) -> Restored:
    done = Restored()
    for answer in answers:
        done = _sum(done, answer)
    return done


def _sum(one: Restored, other: Restored) -> Restored:
    return Restored(one.files + other.files, one.size + other.size, one.present + other.present)


def _tell(done: Restored, total: int, observe: Observe) -> None:
    details = {"done": done.files + done.present, "total": total, "unit": "files"}
    observe(Event(events.PROGRESS, "restoring", details))
