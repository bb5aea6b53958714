"""In which order, and how many at a time, a run goes into the store."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from mltrack_tasks.runs import store_run
from mltrack_tasks.stores.guard import GuardedStore
from mltrack_tasks.stores.memory import MemoryStore
from mltrack_tasks.stores.observed import CountingStore, SteppedStore

T = TypeVar("T")


def test_write_order_is_the_transaction() -> None:
    """Blobs, pins, the look for deletions, log entry, record, views."""
    store = CountingStore(GuardedStore(MemoryStore()))
    store_run(
        store, "r", {f"d{n}": [n] for n in range(5)}, project="p", storage_mode=["by_project", "by_type"]
    )
    kinds = {
        "data/": 0,
        "runs/by_data/": 1,
        "gc/deleting/": 2,
        "runs/log/": 3,
        "manifests/": 4,
        "runs/by_project/": 5,
        "runs/by_type/": 5,
    }
    order = [next(rank for prefix, rank in kinds.items() if key.startswith(prefix)) for _, key in store.log]
    assert order == sorted(order)
    assert set(order) == set(range(6))


def test_a_run_of_many_things_is_sent_in_parallel_and_bounded() -> None:
    class Watches(SteppedStore):
        now = most = 0
        lock = threading.Lock()

        def step(self, verb: str, key: str, size: int, call: Callable[[], T]) -> T:
            with self.lock:
                self.now += 1
                self.most = max(self.most, self.now)
            try:
                if key.startswith("data/"):
                    barrier.wait(30)
                return call()
            finally:
                with self.lock:
                    self.now -= 1

    barrier = threading.Barrier(4)  # passes only four at a time: fewer in flight would hang
    store = Watches(MemoryStore(max_workers=4))
    store_run(store, "r", {f"d{n}": bytes([n]) for n in range(16)}, storage_mode="flat")
    assert store.most == 4
