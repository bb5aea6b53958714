"""Files that change while they are stored, and large ones in bounded memory."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest

from mltrack_tasks import sources
from mltrack_tasks.content import retrieve_data, retrieve_file, store_data, store_file
from mltrack_tasks.errors import IntegrityError, SourceChangedError
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.guard import GuardedStore
from mltrack_tasks.stores.memory import MemoryStore
from mltrack_tasks.stores.observed import CountingStore, SteppedStore
from tests.floor3 import invariants
from tests.floor3.limits import LARGE, SMALL

T = TypeVar("T")
pytestmark = pytest.mark.usefixtures("small_parts")


class Acts(SteppedStore):
    """Does something before the n-th call of a verb."""

    def __init__(self, inner: Store, verb: str, number: int, act: Callable[[], object]) -> None:
        super().__init__(inner)
        self.verb, self.number, self.act, self.seen = verb, number, act, 0

    def step(self, verb: str, key: str, size: int, call: Callable[[], T]) -> T:
        if verb == self.verb and "data/" in key:
            self.seen += 1
            if self.seen == self.number:
                self.act()
        return call()


def change_last(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"!")


CHANGES: dict[str, Callable[[Path], object]] = {
    "last byte": change_last,
    "longer": lambda path: path.write_bytes(LARGE + b"!"),
    "shorter": lambda path: path.write_bytes(LARGE[:-1]),
    "emptied": lambda path: path.write_bytes(b""),
}


@pytest.mark.parametrize("how", CHANGES)
@pytest.mark.parametrize("moment", [("head", 1), ("upload", 1)])
def test_a_large_file_that_changes_while_it_is_sent(
    how: str, moment: tuple[str, int], tmp_path: Path
) -> None:
    path = tmp_path / "f"
    path.write_bytes(LARGE)
    bare = MemoryStore(max_workers=1)
    store = GuardedStore(Acts(bare, *moment, lambda: CHANGES[how](path)))
    with pytest.raises(SourceChangedError, match="nothing was stored"):
        store_file(store, path)
    assert invariants.blobs(bare) == []
    invariants.check_always(bare)
    ref = store_file(GuardedStore(bare), path)  # as it is now
    assert retrieve_data(bare, ref) == path.read_bytes()
    invariants.check_finished(bare)


@pytest.mark.parametrize("size", [3_000, len(LARGE)], ids=["small", "large"])
@pytest.mark.parametrize("how", [name for name in CHANGES if name != "last byte"])
def test_a_file_that_changes_while_it_is_read(
    how: str, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f"
    path.write_bytes(LARGE[:size])
    identity, asked = sources._identity, []

    def change_once(file: object) -> tuple[int, int, int]:
        asked.append(1)
        if len(asked) == 2:  # opened and read; about to be compared
            CHANGES[how](path)
        return identity(file)  # type: ignore[arg-type]

    monkeypatch.setattr(sources, "_identity", change_once)
    bare = MemoryStore()
    with pytest.raises(SourceChangedError, match=str(path)):
        store_file(bare, path)
    assert list(bare.list("")) == []


def test_a_change_that_keeps_size_and_times_is_found_by_the_digest(tmp_path: Path) -> None:
    """The bytes are hashed again as they are sent, so that no trick with the clock stores a false name."""
    import os

    path = tmp_path / "f"
    path.write_bytes(LARGE)
    before = path.stat()

    def change() -> None:
        change_last(path)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    bare = MemoryStore(max_workers=1)
    with pytest.raises(SourceChangedError):
        store_file(Acts(bare, "part", 1, change), path)
    assert invariants.blobs(bare) == []


def test_a_large_file_that_is_replaced_while_it_is_sent(tmp_path: Path) -> None:
    """The open file is whole, but no longer what the path names."""
    path = tmp_path / "f"
    path.write_bytes(LARGE)
    (tmp_path / "new").write_bytes(b"new")
    bare = MemoryStore(max_workers=1)
    with pytest.raises(SourceChangedError):
        store_file(Acts(bare, "part", 1, lambda: (tmp_path / "new").replace(path)), path)
    assert invariants.blobs(bare) == []
    assert retrieve_data(bare, store_file(bare, path)) == b"new"


class Meter(SteppedStore):
    """Keeps account of how many bytes are on their way at once."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.now = self.most = self.parts = 0
        self.lock = threading.Lock()

    def step(self, verb: str, key: str, size: int, call: Callable[[], T]) -> T:
        with self.lock:
            self.now += size
            self.most = max(self.most, self.now)
            self.parts += verb == "part"
        try:
            return call()
        finally:
            with self.lock:
                self.now -= size


def test_a_file_of_any_size_goes_up_in_bounded_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most ``max_workers`` parts are read and not yet stored, however many there are."""
    path = tmp_path / "f"
    body = LARGE * 40
    path.write_bytes(body)
    alive: list[int] = [0, 0]
    lock = threading.Lock()
    parts = sources.FileSource.parts

    class Part(bytes):
        """Counts how many parts are alive."""

        def __new__(cls, body: bytes) -> Part:
            with lock:
                alive[0] += 1
                alive[1] = max(alive)
            return super().__new__(cls, body)

        def __del__(self) -> None:
            with lock:
                alive[0] -= 1

    monkeypatch.setattr(sources.FileSource, "parts", lambda source: map(Part, parts(source)))
    meter = Meter(MemoryStore(max_workers=3))
    ref = store_file(meter, path)
    assert meter.parts == -(-len(body) // SMALL["PART_SIZE"]) > 100
    assert meter.most <= 3 * SMALL["PART_SIZE"]
    assert alive[1] <= 3 + 2  # the one just read, and the one whose digest was just taken
    monkeypatch.undo()
    out = retrieve_file(meter, ref, tmp_path / "out")
    assert out.read_bytes() == body


def test_large_values_go_up_in_parts(store: Store) -> None:
    array = np.arange(3_000)
    counting = CountingStore(store)
    ref = store_data(counting, array)
    assert counting.calls["part"] == -(-ref.size_bytes // SMALL["PART_SIZE"])
    np.testing.assert_array_equal(retrieve_data(counting, ref), array)
    assert store_data(counting, array).created is False
    invariants.check_finished(store)


def test_a_large_blob_is_read_in_ranges_and_proven_at_its_end(store: Store, tmp_path: Path) -> None:
    ref = store_data(store, LARGE)
    counting = CountingStore(store)
    retrieve_file(counting, ref, tmp_path / "f")
    retrieve_data(counting, ref)
    assert counting.calls["get_range"] == 2 * -(-len(LARGE) // SMALL["READ_SIZE"])
    assert counting.calls["get"] == 0


def test_a_blob_that_is_damaged_in_its_last_range_leaves_no_file(store: Store, tmp_path: Path) -> None:
    ref = store_data(store, LARGE)
    store.delete([ref.storage_path])
    store.create(ref.storage_path, LARGE[:-1] + b"!")
    with pytest.raises(IntegrityError):
        retrieve_file(store, ref, tmp_path / "f")
    assert list(tmp_path.iterdir()) == []


def test_the_record_of_parts_says_how_to_check_them(tmp_path: Path) -> None:
    from mltrack_tasks.digest import composite_checksum
    from mltrack_tasks.recordstore import read_record

    store = MemoryStore()
    ref = store_data(store, LARGE)
    content = read_record(store, f"{ref.storage_path.rsplit('/', 1)[0]}/multipart.json").content
    size = content["part_size"]
    parts = [LARGE[start : start + size] for start in range(0, len(LARGE), size)]
    assert content["composite"] == composite_checksum(hashlib.sha256(part).digest() for part in parts)
    assert size == SMALL["PART_SIZE"]
