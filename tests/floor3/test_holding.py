"""Blobs are held until a record lists them: through deletions, changing sources and writes that die."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from mltrack_tasks import events
from mltrack_tasks.content import list_data, retrieve_data, store_data, store_file
from mltrack_tasks.errors import (
    InvalidInputError,
    MLTrackError,
    NotFoundError,
    SourceChangedError,
    TransientError,
)
from mltrack_tasks.events import Event
from mltrack_tasks.records import Record
from mltrack_tasks.runs import get_run, store_run
from mltrack_tasks.stores.base import Stat, Store, WrapperStore
from mltrack_tasks.stores.guard import GuardedStore
from mltrack_tasks.stores.memory import MemoryStore
from tests.floor3 import invariants
from tests.floor3.limits import LARGE

BATCH = "gc/deleting/batch-1.json"
BODY = b"wanted by both"


class Collector:
    """Has an open batch when the writer comes, and takes its steps while the writer waits."""

    def __init__(self, store: Store, digest: str, steps: list[Callable[[], object]]) -> None:
        self.store, self.steps = store, iter(steps)
        store.create(BATCH, batch([digest]))

    def __call__(self, seconds: float) -> None:
        next(self.steps, self.close)()

    def close(self) -> None:
        self.store.delete([BATCH])


def batch(digests: list[str]) -> bytes:
    return Record({"digests": digests}, {"at": "2024-01-01T00:00:00Z"}).to_bytes()


@pytest.fixture(params=[BODY, LARGE], ids=["small", "in parts"])
def source(request: pytest.FixtureRequest, tmp_path: Path, small_parts: None) -> Path:
    path = tmp_path / "source"
    path.write_bytes(request.param)
    return path


def test_a_source_that_changed_while_its_blob_was_taken(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare, body = MemoryStore(), source.read_bytes()
    ref = store_file(bare, source, "old")
    steps = [lambda: bare.delete([ref.storage_path]), lambda: source.write_bytes(body[::-1])]
    monkeypatch.setattr("time.sleep", Collector(bare, ref.hash, steps))
    with pytest.raises(SourceChangedError, match="'new' changed"):
        store_file(bare, source, "new")
    assert list_data(bare, "new") == []
    monkeypatch.undo()
    again = store_file(bare, source, "new")
    assert retrieve_data(bare, again) == body[::-1]


def test_a_source_that_stayed_is_sent_again(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = MemoryStore()
    first = store_file(bare, source, "new")
    [pin] = [key for key in invariants.keys(bare) if key.endswith("~name~new")]
    # The worst collector: it takes records and pins of an earlier call too.
    taken = [first.storage_path, pin, *_keys(bare, "names/")]
    monkeypatch.setattr("time.sleep", Collector(bare, first.hash, [lambda: bare.delete(taken)]))
    seen: list[Event] = []
    ref = store_file(bare, source, "new", observe=seen.append)
    assert [event.name for event in seen if "blob" in event.name] == [
        events.BLOB_PRESENT,
        events.BLOB_CREATED,
    ]
    assert bare.head(pin) is not None
    [item] = list_data(bare, "new")
    assert item.ref == ref
    assert retrieve_data(bare, item.ref) == source.read_bytes()
    invariants.check_finished(bare)


def test_the_second_writing_of_a_run_is_reported_too(monkeypatch: pytest.MonkeyPatch) -> None:
    bare = MemoryStore()
    ref = store_data(bare, BODY, "old")

    def spoil() -> None:
        bare.delete([ref.storage_path])
        bare.create(ref.storage_path, BODY[::-1])

    monkeypatch.setattr("time.sleep", Collector(bare, ref.hash, [spoil]))
    seen: list[Event] = []
    run = store_run(bare, "r", {"a": BODY, "b": [1]}, storage_mode="flat", observe=seen.append)
    assert Counter(event.name for event in seen) == {
        events.BLOB_PRESENT: 1,
        events.BLOB_CREATED: 1,
        events.BLOB_HEALED: 1,
        events.RUN_STORED: 1,
    }
    assert retrieve_data(bare, run.data["a"]) == BODY
    invariants.check_finished(bare)


def test_what_was_written_is_reported_when_another_thing_fails() -> None:
    bare = MemoryStore(max_workers=1)
    ref = store_data(bare, BODY, "old")
    bare.delete([ref.storage_path])
    bare.create(ref.storage_path, BODY[::-1])
    things = {"healed": BODY, "created": b"new", "refused": np.array([object()])}
    seen: list[Event] = []
    with pytest.raises(InvalidInputError, match="refused"):
        store_run(bare, "r", things, storage_mode="flat", observe=seen.append)
    assert [event.name for event in seen] == [events.BLOB_HEALED, events.BLOB_CREATED]
    assert seen[0].subject == ref.storage_path


def test_foreign_objects_among_the_batches_are_passed_over(place_without_folders: Store) -> None:
    store = place_without_folders
    for name in (".keep", ".DS_Store", "._batch.json", ".batch.json", "README", "x.json.bak", "old/x.json"):
        store.create(f"gc/deleting/{name}", b"not a record")
    ref = store_data(store, BODY, "n")
    assert get_run(store, store_run(store, "r", {"d": ref}, storage_mode="flat").run_id).data == {"d": ref}


@pytest.fixture(params=["memory_place", "directory_place", "s3_place"])
def place_without_folders(request: pytest.FixtureRequest) -> Store:
    store: Store = request.getfixturevalue(request.param).store
    return store


@pytest.mark.parametrize(
    "body",
    [
        *(b"\xff", b"[]", b"{}", b'{"format":2,"content":{"digests":[]},"provenance":{}}'),
        *(batch(["x"]), b'{"format":1,"content":{"digests":[1]},"provenance":{}}'),
    ],
)
def test_a_batch_that_cannot_be_read_stops_the_writer_by_its_name(body: bytes) -> None:
    bare = MemoryStore()
    bare.create(BATCH, body)
    for write in (
        lambda: store_data(bare, BODY, "n"),
        lambda: store_run(bare, "r", {"d": BODY}, storage_mode="flat"),
    ):
        with pytest.raises(MLTrackError, match="gc/deleting/batch-1"):
            write()
    assert _keys(bare, "names/", "manifests/", "runs/log/") == []


class Dies(WrapperStore):
    """A competing write of each key was in flight, and died: the first tries are refused for nothing."""

    def __init__(self, inner: Store, refusals: int) -> None:
        super().__init__(inner)
        self.refusals, self.tries = refusals, Counter[str]()

    def create(self, key: str, body: bytes | memoryview) -> bool:
        self.tries[key] += 1
        return self.tries[key] > self.refusals and self.inner.create(key, body)


@pytest.mark.parametrize("refusals", [1, 3])
def test_a_competing_write_that_dies_is_made_up_for(refusals: int, no_pauses: list[float]) -> None:
    bare = MemoryStore()
    store = Dies(bare, refusals)
    ref = store_data(store, {"a": 1}, "n")  # metadata.json, blob, pin, record
    store_run(store, "r", {"d": ref, "raw": b"x"}, storage_mode="by_type")  # log entry, view
    assert set(store.tries) == set(invariants.keys(bare))
    kinds = {key.split("/")[-1] if key.startswith("data/") else key.rsplit("/", 2)[0] for key in store.tries}
    assert kinds >= {"metadata.json", "data.json", "runs/log", "runs/by_type"}
    invariants.check_finished(bare)


def test_a_write_that_never_lands_is_a_transient_error(no_pauses: list[float]) -> None:
    class Swallows(WrapperStore):
        """Refuses every create of keys that begin with ``prefix``."""

        prefix = ""

        def create(self, key: str, body: bytes | memoryview) -> bool:
            return not key.startswith(self.prefix) and self.inner.create(key, body)

    for prefix in ("runs/by_data/", "runs/log/", "manifests/"):
        store = Swallows(GuardedStore(MemoryStore()))
        store.prefix = prefix
        no_pauses.clear()
        with pytest.raises(TransientError, match=f"{prefix}.* appears and disappears"):
            store_run(store, "r", {"d": 1}, storage_mode="flat")
        assert _keys(store.inner, "manifests/") == []
        assert sum(no_pauses) < 4  # nothing is waited for after the last try


def _keys(store: Store, *prefixes: str) -> list[str]:
    return [key for key in invariants.keys(store) if key.startswith(prefixes)]


class Sweeps(WrapperStore):
    """Before the first pin, a collection that began after the blob was found ends: it left no trace."""

    def __init__(self, inner: Store, taken: list[str]) -> None:
        super().__init__(inner)
        self.taken = taken

    def create(self, key: str, body: bytes | memoryview) -> bool:
        if key.startswith("runs/by_data/"):
            self.inner.delete(self.taken)
            self.taken = []
        return self.inner.create(key, body)


def test_a_collection_between_finding_a_blob_and_pinning_it() -> None:
    bare = MemoryStore()
    ref = store_data(bare, {"a": 1}, "old")
    folder = ref.storage_path.rsplit("/", 1)[0]
    taken = [ref.storage_path, f"{folder}/metadata.json"]
    again = store_run(Sweeps(bare, taken), "r", {"d": {"a": 1}}, storage_mode="flat")
    assert retrieve_data(bare, again.data["d"]) == {"a": 1}
    invariants.check_always(bare)
    with pytest.raises(NotFoundError):
        store_run(Sweeps(bare, [*taken]), "other", {"d": ref}, storage_mode="flat")
    assert _keys(bare, "manifests/") == ["manifests/r.json"]


class SweepsDescribed(WrapperStore):
    """A collection takes the blob and its description after the writer has seen the description."""

    def create(self, key: str, body: bytes | memoryview) -> bool:
        if key.endswith("/data.json"):
            folder = key.rsplit("/", 1)[0]
            self.inner.delete([f"{folder}/metadata.json", key])
        return self.inner.create(key, body)


def test_a_collection_between_description_and_blob() -> None:
    bare = MemoryStore()
    store_data(bare, {"a": 1}, "n")
    store_data(SweepsDescribed(bare), {"a": 1}, "n")
    invariants.check_finished(bare)


def test_a_pin_that_was_taken_after_it_was_found() -> None:
    class Unpins(WrapperStore):
        def list(self, prefix: str, *, after: str = "") -> Iterator[Stat]:
            self.inner.delete(_keys(self.inner, "runs/by_data/"))
            return self.inner.list(prefix, after=after)

    bare = MemoryStore()
    store_data(bare, BODY, "n")
    store_data(Unpins(bare), BODY, "n")
    invariants.check_finished(bare)
