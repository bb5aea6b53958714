"""Fault at every step: whatever call fails, and however, the same call again finishes the work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pandas as pd
import pytest

from mltrack_tasks.content import forget_data, list_data, retrieve_data, store_data, store_file
from mltrack_tasks.errors import TransientError
from mltrack_tasks.runs import get_run, store_run
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.directory import DirectoryStore
from mltrack_tasks.stores.guard import GuardedStore
from mltrack_tasks.stores.memory import MemoryStore
from mltrack_tasks.stores.observed import FaultyStore
from mltrack_tasks.stores.retry import RetryingStore
from tests.floor3 import invariants
from tests.floor3.limits import LARGE

How = Literal["before", "after", "crash"]
FRAME = pd.DataFrame({"a": [1, 2, 3], "b": ["x", "y", None]})
pytestmark = pytest.mark.usefixtures("small_parts")


@dataclass(frozen=True)
class Work:
    """One call, what goes before it, and how its result is proven."""

    call: Callable[[Store, Path], object]
    prove: Callable[[Store], None]
    before: Callable[[Store, Path], object] = lambda store, path: None


def _store_frame(store: Store, path: Path) -> object:
    return store_data(store, FRAME, "frame", metadata={"k": [1, None]})


def _prove_frame(store: Store) -> None:
    [item] = list_data(store, "frame")
    pd.testing.assert_frame_equal(retrieve_data(store, item.ref), FRAME)


def _store_large(store: Store, path: Path) -> object:
    (path / "large").write_bytes(LARGE)
    return store_file(store, path / "large")


def _prove_large(store: Store) -> None:
    [item] = list_data(store)
    assert retrieve_data(store, item.ref) == LARGE


def _damage_large(store: Store, path: Path) -> None:
    """Leave a blob of the right size and wrong bytes, as a bad disk would."""
    ref = store_data(store, LARGE, "large")
    store.delete([ref.storage_path])
    store.create(ref.storage_path, LARGE[::-1])


def _store_small_file(store: Store, path: Path) -> object:
    (path / "small.bin").write_bytes(b"small")
    return store_file(store, path / "small.bin", "small", metadata={})


def _prove_small_file(store: Store) -> None:
    [item] = list_data(store)
    assert retrieve_data(store, item.ref) == b"small"


def _store_run(store: Store, path: Path) -> object:
    return store_run(
        store,
        "run 1",
        {"array": np.arange(4), "large": LARGE, "note": {"n": 1}},
        outputs={"twice": np.arange(4), "raw": b'{"n":1}'},
        storage_mode=["by_project", "by_date", "by_type", "by_model"],
        project="ü p",
        model="m",
        metrics={"f1": float("nan")},
        started_at=datetime(2024, 1, 15, 23, 59, tzinfo=UTC),
    )


def _prove_run(store: Store) -> None:
    run = get_run(store, "run 1")
    assert run.revision == 1
    assert retrieve_data(store, run.data["large"]) == LARGE
    assert retrieve_data(store, run.outputs["raw"]) == b'{"n":1}'
    assert retrieve_data(store, run.data["note"]) == {"n": 1}
    assert run.data["array"] == run.outputs["twice"]
    assert retrieve_data(store, run.data["array"]).tolist() == [0, 1, 2, 3]


def _revise(store: Store, path: Path) -> object:
    return store_run(store, "r", {"v": 2}, storage_mode="by_type", if_exists="revise")


def _prove_revised(store: Store) -> None:
    run = get_run(store, "r")
    assert (run.revision, retrieve_data(store, run.data["v"])) == (2, 2)


WORKS = {
    "store_data": Work(_store_frame, _prove_frame),
    "store_file": Work(_store_small_file, _prove_small_file),
    "store_file_in_parts": Work(_store_large, _prove_large),
    "heal_in_parts": Work(_store_large, _prove_large, before=_damage_large),
    "store_run": Work(_store_run, _prove_run),
    "revise_run": Work(
        _revise, _prove_revised, before=lambda s, p: store_run(s, "r", {"v": 1}, storage_mode="by_type")
    ),
}


@pytest.mark.parametrize("how", get_args(How))
@pytest.mark.parametrize("name", WORKS)
def test_fault_at_every_step(name: str, how: How, tmp_path: Path) -> None:
    every_step(WORKS[name], how, tmp_path, lambda number: MemoryStore(max_workers=1))


@pytest.mark.parametrize("how", get_args(How))
def test_fault_at_every_step_in_a_directory(
    how: How, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.fsync", lambda descriptor: None)  # no power is cut here

    def make(number: int) -> Store:
        return DirectoryStore(tmp_path / f"store {number}", max_workers=1)

    every_step(WORKS["heal_in_parts"], how, tmp_path, make)


def every_step(work: Work, how: How, path: Path, make: Callable[[int], Store]) -> None:
    clean = make(0)
    steps = _run(work, clean, path, fail_at=0, how=how)
    assert steps > 5
    invariants.check_finished(clean)
    expected = invariants.without_days(invariants.keys(clean))
    for k in range(1, steps + 1):
        store = make(k)
        with pytest.raises(TransientError, match=f"Injected: step {k},"):
            _run(work, store, path, fail_at=k, how=how)
        if work.before is Work.before:  # else damage is still about
            invariants.check_always(store)
        work.call(GuardedStore(store), path)
        invariants.check_finished(store)
        work.prove(store)
        assert invariants.without_days(invariants.keys(store)) == expected, f"step {k}"


def _run(work: Work, store: Store, path: Path, *, fail_at: int, how: How) -> int:
    """Do the work with one fault -> how many steps were taken."""
    work.before(GuardedStore(store), path)
    faulty = FaultyStore(store, fail_at, how)
    work.call(GuardedStore(faulty), path)
    return faulty.count


@pytest.mark.parametrize("how", ["before", "after"])
@pytest.mark.parametrize("name", WORKS)
def test_one_fault_is_outlasted_by_retrying(name: str, how: How, tmp_path: Path) -> None:
    work = WORKS[name]
    clean = MemoryStore(max_workers=1)
    steps = _run(work, clean, tmp_path, fail_at=0, how=how)
    expected = invariants.without_days(invariants.keys(clean))
    for k in range(1, steps + 1):
        store = MemoryStore(max_workers=1)
        work.before(GuardedStore(store), tmp_path)
        faulty = FaultyStore(store, k, how)
        work.call(GuardedStore(RetryingStore(faulty, sleep=lambda seconds: None)), tmp_path)
        assert faulty.count > k
        invariants.check_finished(store)
        work.prove(store)
        assert invariants.without_days(invariants.keys(store)) == expected, f"step {k}"


def test_a_lost_answer_to_forgetting_leaves_nothing(store: Store) -> None:
    store_data(store, 1, "n")
    faulty = RetryingStore(FaultyStore(store, 3, "after"), sleep=lambda seconds: None)
    assert [item.name for item in forget_data(faulty, "n")] == ["n"]
    assert list_data(store) == []
    assert store_data(store, 1, "n").created is False
