"""Files out of a store into a folder: fetched only if they are not there, and proven when written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import NamedTuple

from mltrack_tasks import events, layout
from mltrack_tasks.blobs import READ_SIZE, read_blob, stream_blob
from mltrack_tasks.errors import IntegrityError, InvalidInputError, NotFoundError
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


def write_portions(
    store: Store, tree: LocalTree, portions: Iterable[Portion], *, replace: bool, total: int, observe: Observe
) -> Restored:
    """Write files, folders and links -> how many files were written and found.

    Raises ConflictError if another file is in the way of one, unless ``replace``; what was written until then
    stays, and the same call again goes on.
    """
    writer = _Writer(store, tree, replace)
    done = Restored()
    for job, fetched in map_ordered(_fetched, writer.jobs(portions), store.max_workers):
        done = _sum(done, writer.write_all(job.entries, fetched))
        _tell(_sum(done, writer.present), total, observe)
    for entry, place in writer.large:
        done = _sum(done, writer.write(entry, stream_blob(store, place.digest, place.format)))
        _tell(_sum(done, writer.present), total, observe)
    return _sum(done, writer.present)


_Bodies = Callable[[Entry], bytes | memoryview]


class _Job(NamedTuple):
    """Files whose bytes come with one request, or a few: fetched in a thread, written by the caller.

    To write a small file is work for the processor. Many threads would take turns at it, and lose by that.
    """

    entries: Sequence[Entry]
    fetch: Callable[[], _Bodies]


class _Absent(Exception):  # noqa: N818 -- nothing is wrong
    """A file that is not there yet."""


class _Writer:
    """Finds what is missing in a folder, and writes it."""

    def __init__(self, store: Store, tree: LocalTree, replace: bool) -> None:
        self._store, self._tree, self._replace = store, tree, replace
        self.large: list[tuple[Entry, Place]] = []
        """What is fetched in several ranges at once each."""
        self.present = Restored()

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
                elif self._is_present(entry):
                    self.present = _sum(self.present, Restored(present=1))
                elif place is None:
                    small.append(entry)
                elif place.offset is not None:
                    packs.setdefault(place.digest, []).append((entry, place))
                elif place.size > READ_SIZE:
                    self.large.append((entry, place))
                else:
                    yield _Job([entry], partial(_blob, self._store, place))
            if small:
                yield _Job(small, partial(_small, self._store, small, portion))
            for wanted in packs.values():
                yield _Job([entry for entry, _ in wanted], partial(_packed, self._store, wanted))

    def write_all(self, entries: Iterable[Entry], bodies: _Bodies) -> Restored:
        """Write files whose bytes were fetched."""
        done = Restored()
        for entry in entries:
            done = _sum(done, self.write(entry, (bodies(entry),)))
        return done

    def write(self, entry: Entry, chunks: Iterable[bytes | memoryview]) -> Restored:
        """Write a file, unless it has come there meanwhile."""
        written = self._tree.write(entry, chunks, replace=self._replace)
        return Restored(int(written), entry.size if written else 0, int(not written))

    def _is_present(self, entry: Entry) -> bool:
        """Whether the very file is there; its permissions and time are set right then."""
        try:
            if self._tree.stat(entry.path) is None:
                return False
        except InvalidInputError:
            return False  # a pipe or the like: writing says what is wrong
        try:
            return not self._tree.write(entry, _nothing(), replace=self._replace)
        except _Absent:
            return False


def _nothing() -> Iterator[bytes]:
    """Give no bytes: whoever asks for some does not have the file."""
    yield from _asked()


def _asked() -> Iterator[bytes]:
    raise _Absent


def _fetched(job: _Job) -> tuple[_Job, _Bodies]:
    return job, job.fetch()


def _blob(store: Store, place: Place) -> _Bodies:
    body = read_blob(store, place.digest, place.format, place.size)
    return lambda entry: body


def _small(store: Store, entries: Sequence[Entry], portion: Portion) -> _Bodies:
    """Find small files in the manifests of runs, the likeliest first."""
    known, runs = dict(portion.bodies), iter(portion.runs)
    for entry in entries:
        while entry.digest not in known:
            run = next(runs, None)
            if run is None:
                raise NotFoundError(
                    f"The bytes of {entry.path!r} are nowhere in {store.location}: no receipt and no "
                    f"manifest has {entry.digest}."
                )
            known.update(contents_of(store, run))
    return lambda entry: known[entry.digest]


def _packed(store: Store, wanted: Sequence[tuple[Entry, Place]]) -> _Bodies:
    """Fetch files out of one pack: the whole of it, or in ranges where little of it is wanted."""
    end = max(place.offset + place.size for _, place in wanted if place.offset is not None)
    if end > LARGEST_PACK:
        raise IntegrityError(
            f"A pack in {store.location} is said to have at least {end:,} bytes; none that this library "
            "writes has. Whatever says so was damaged, or written by something else."
        )
    key = layout.blob_key(wanted[0][1].digest, wanted[0][1].format)
    if DENSE * sum(place.size for _, place in wanted) >= end:
        whole = memoryview(store.get_range(key, 0, end))
        found = {e.digest: whole[(p.offset or 0) : (p.offset or 0) + p.size] for e, p in wanted}
    else:
        some = [(entry.digest, place) for entry, place in wanted if place.size]
        found = {digest: memoryview(store.get_range(key, p.offset or 0, p.size)) for digest, p in some}
    return lambda entry: found.get(entry.digest, b"")


def contents_of(store: Store, run: MigratedRun) -> Mapping[str, bytes]:
    """Fetch the small files that stand in the manifest of a run: digest -> bytes."""
    what = f"The manifest of {run.run_id!r} in {store.location}"
    migrated = of_run(read_manifest(store, run.run_id, run.revision), what=what)
    if migrated is None:
        raise IntegrityError(f"{what} is not one that a migration wrote.")
    return migrated.contents


def _sum(one: Restored, other: Restored) -> Restored:
    return Restored(one.files + other.files, one.size + other.size, one.present + other.present)


def _tell(done: Restored, total: int, observe: Observe) -> None:
    details = {"done": done.files + done.present, "total": total, "unit": "files"}
    observe(Event(events.PROGRESS, "restoring", details))
