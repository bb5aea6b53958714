"""The writer's side of garbage collection: each side flags, then looks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mltrack_tasks import deletions
from mltrack_tasks.content import retrieve_data, store_data
from mltrack_tasks.errors import IntegrityError, NotFoundError, TransientError
from mltrack_tasks.records import Record
from mltrack_tasks.runs import store_run
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.guard import GuardedStore
from mltrack_tasks.stores.memory import MemoryStore
from mltrack_tasks.stores.observed import CountingStore
from tests.floor3 import invariants

BATCH = "gc/deleting/batch-1.json"
BODY = b"wanted by both"


class Collector:
    """A collector that opened its batch before the writer came, and does its work while the writer waits."""

    def __init__(self, store: Store, digests: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.store, self.pauses = store, 0
        self.work: Iterator[None] = iter(())
        store.create(BATCH, Record({"digests": digests}, {"at": "2024-01-01T00:00:00Z"}).to_bytes())
        self._sleep = time.sleep
        monkeypatch.setattr("time.sleep", self._while_the_writer_waits)

    def _while_the_writer_waits(self, seconds: float) -> None:
        if seconds != deletions._POLL:  # subprocess polls a child, such as git, in pauses of its own
            self._sleep(seconds)
            return
        self.pauses += 1
        next(self.work, None)

    def delete_then_close(self, keys: list[str]) -> Iterator[None]:
        yield
        self.store.delete(keys)
        yield
        self.store.delete([BATCH])


STORES: dict[str, Callable[[Store], Any]] = {
    "store_data": lambda store: store_data(store, BODY, "n"),
    "store_run": lambda store: store_run(store, "r", {"d": BODY, "json": {"a": 1}}, storage_mode="flat"),
}


@pytest.mark.parametrize("kind", STORES)
def test_a_writer_outlasts_the_batch_and_sends_again_what_it_took(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = MemoryStore()
    ref = store_data(bare, BODY, "old")
    collector = Collector(bare, [ref.hash], monkeypatch)
    collector.work = collector.delete_then_close([ref.storage_path])
    STORES[kind](GuardedStore(bare))
    assert collector.pauses == 3
    assert retrieve_data(bare, ref) == BODY
    invariants.check_finished(bare)


def test_both_formats_of_a_digest_are_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    bare = MemoryStore()
    plain, json = store_data(bare, b"{}"), store_data(bare, {})
    collector = Collector(bare, [plain.hash], monkeypatch)
    folder = plain.storage_path.rsplit("/", 1)[0]
    collector.work = collector.delete_then_close(
        [plain.storage_path, json.storage_path, f"{folder}/metadata.json"]
    )
    run = store_run(GuardedStore(bare), "r", {"plain": b"{}", "json": {}}, storage_mode="flat")
    assert retrieve_data(bare, run.data["plain"]) == b"{}"
    assert retrieve_data(bare, run.data["json"]) == {}
    invariants.check_finished(bare)


def test_a_ref_whose_blob_was_collected_is_not_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    bare = MemoryStore()
    ref = store_data(bare, BODY)
    collector = Collector(bare, [ref.hash], monkeypatch)
    collector.work = collector.delete_then_close([ref.storage_path])
    with pytest.raises(NotFoundError, match=ref.hash):
        store_run(GuardedStore(bare), "r", {"d": ref}, storage_mode="flat")
    assert not [key for key in invariants.keys(bare) if key.startswith(("manifests/", "runs/log/"))]


def test_a_batch_that_spares_the_blob_costs_only_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    bare = MemoryStore()
    ref = store_data(bare, BODY)
    collector = Collector(bare, [ref.hash], monkeypatch)
    collector.work = collector.delete_then_close([])
    store = CountingStore(bare)
    store_data(store, BODY, "n")
    assert [verb for verb, key in store.log if key == ref.storage_path] == ["create", "head"] * 2
    assert store.calls["list"] == 4


def test_a_batch_about_other_blobs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    bare = MemoryStore()
    collector = Collector(bare, ["ab" * 32], monkeypatch)
    store = CountingStore(bare)
    store_data(store, BODY, "n")
    assert collector.pauses == 0
    assert store.calls["list"] == 1


def test_without_a_batch_the_look_costs_one_listing() -> None:
    for call in STORES.values():
        store = CountingStore(MemoryStore())
        call(store)
        assert store.calls["list"] == 1
        pins = [at for at, (_, key) in enumerate(store.log) if key.startswith("runs/by_data/")]
        [look] = [at for at, (verb, _) in enumerate(store.log) if verb == "list"]
        records = [at for at, (_, key) in enumerate(store.log) if key.startswith(("names/", "manifests/"))]
        assert max(pins) < look < min(records)


def test_a_batch_that_stays_open_is_a_transient_error(monkeypatch: pytest.MonkeyPatch) -> None:
    bare = MemoryStore()
    ref = store_data(bare, BODY, "old")
    Collector(bare, [ref.hash], monkeypatch)
    now = iter(range(0, 1_000, 30))
    monkeypatch.setattr(deletions.time, "monotonic", lambda: float(next(now)))
    with pytest.raises(TransientError, match="collect_garbage"):
        store_data(bare, BODY, "new")
    assert not [key for key in invariants.keys(bare) if key.startswith("names/new/")]


def test_a_batch_that_closes_while_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    from mltrack_tasks.stores.base import WrapperStore

    class Closes(WrapperStore):
        def get_range(self, key: str, start: int, length: int) -> bytes | memoryview:
            if key == BATCH:
                self.inner.delete([key])
            return self.inner.get_range(key, start, length)

    bare = MemoryStore()
    ref = store_data(bare, BODY)
    Collector(bare, [ref.hash], monkeypatch)
    assert store_data(Closes(bare), BODY, "n") == ref


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b'{"format":1,"content":{"digests":"all"},"provenance":{}}',
        b'{"format":1,"content":{"digests":["../x"]},"provenance":{}}',
        b'{"format":1,"content":{},"provenance":{}}',
    ],
)
def test_a_forged_batch_stops_the_writer_by_name(body: bytes) -> None:
    """What a collector is about to delete cannot be known, so nothing that it may take is referred to."""
    bare = MemoryStore()
    bare.create(BATCH, body)
    with pytest.raises(IntegrityError, match="gc/deleting/batch-1"):
        store_data(bare, BODY, "n")
    assert not [key for key in invariants.keys(bare) if key.startswith("names/")]
