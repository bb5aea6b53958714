"""Audits beside writers: whatever they do between two requests of an audit, it tells of nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from mltrack_tasks.content import forget_data, store_data
from mltrack_tasks.registry import promote_model, register_model
from mltrack_tasks.runs import store_run
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.guard import GuardedStore
from mltrack_tasks.stores.memory import MemoryStore
from mltrack_tasks.stores.observed import CountingStore, SteppedStore
from mltrack_tasks.trust import audit
from mltrack_tasks.trust.verify import verify_store
from tests.floor3.migrationtrees import quiet
from tests.floor3.test_roots import fill

T = TypeVar("T")


class Meanwhile(SteppedStore):
    """Lets ``happen`` happen right before the ``at``-th request, from 1."""

    def __init__(self, inner: Store, at: int, happen: Callable[[], object]) -> None:
        super().__init__(inner)
        self.at, self.happen, self.count = at, happen, 0

    def step(self, verb: str, key: str, size: int, call: Callable[[], T]) -> T:
        self.count += 1
        if self.count == self.at:
            self.happen()
        return call()


def new_run(store: Store, folder: Path) -> None:
    store_run(store, "new", {"x": b"of a new run"}, project="p")


def revision(store: Store, folder: Path) -> None:
    store_run(store, "r1", {"x": b"third"}, project="moved", model="m", if_exists="revise")


def names(store: Store, folder: Path) -> None:
    store_data(store, b"named meanwhile", "other")
    forget_data(store, "kept")


def models(store: Store, folder: Path) -> None:
    (folder / "model" / "weights").write_bytes(b"other weights")
    made = register_model(store, None, "churn", folder / "model", observe=quiet)
    promote_model(store, "churn", made.version, observe=quiet)


@pytest.mark.parametrize("happen", [new_run, revision, names, models])
def test_whatever_is_written_meanwhile(
    happen: Callable[[Store, Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "_BATCH", 1)
    bare = MemoryStore(max_workers=1)
    store = GuardedStore(bare)
    fill(store, tmp_path)
    whole = {stat.key: store.get(stat.key) if stat.size else b"" for stat in store.list("")}
    counted = CountingStore(store)
    verify_store(counted, level="read", keep=False, observe=quiet)
    for at in range(1, counted.calls.total() + 1, 3):
        here = MemoryStore(max_workers=1)
        for key, body in whole.items():
            here.create(key, body)
        own = GuardedStore(here)
        meanwhile = Meanwhile(own, at, lambda own=own: happen(own, tmp_path))  # type: ignore[misc]
        report = verify_store(meanwhile, level="read", keep=False, observe=quiet)
        # Where a revision moved a run, the entry that it leaves behind is told, for rebuild_views.
        found = {(each.kind, each.key) for each in report.findings}
        assert found <= {("dangling_view", "runs/by_project/p/r1")} if happen is revision else not found, at
