"""Revisions of a run: a retry finds its own, and nothing newer is hidden by one."""

from __future__ import annotations

from typing import Any

import pytest

from mltrack_tasks import provenance
from mltrack_tasks.errors import ConflictError, TransientError
from mltrack_tasks.records import RunManifest
from mltrack_tasks.runs import get_run, store_run
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.guard import GuardedStore
from mltrack_tasks.stores.memory import MemoryStore
from mltrack_tasks.stores.observed import CountingStore, FaultyStore
from tests.floor3 import invariants


def store_state(store: Store, state: str, task: str | None = None, **more: Any) -> RunManifest:
    """Store the run r in a state that also is its project, as a task run or as none."""
    call = {"project": state, "storage_mode": "by_project", "if_exists": "revise", **more}
    facts = {} if task is None else {"task_run_id": task}
    with provenance.within(**facts):
        return store_run(store, "r", {"state": state}, **call)


def crash_before_the_views(store: Store, state: str, task: str | None = None) -> None:
    """Store a state and die where the first view is written: the manifest is there by then."""
    counting = CountingStore(MemoryStore())
    for key in invariants.keys(store):
        counting.inner.create(key, store.get(key))
    store_state(counting, state, task)
    [step] = [at for at, (_, key) in enumerate(counting.log, 1) if key.startswith("runs/by_project/")]
    with pytest.raises(TransientError, match=f"Injected: step {step},"):
        store_state(FaultyStore(store, step, "crash"), state, task)


@pytest.fixture
def interrupted() -> Store:
    """A run whose task A wrote revision 2 and died, before B wrote revision 3."""
    store = MemoryStore(max_workers=1)
    assert store_state(store, "one", "first").revision == 1
    crash_before_the_views(store, "two", "A")
    assert get_run(store, "r").revision == 2
    assert store_state(store, "three", "B").revision == 3
    return store


def views(store: Store) -> list[str]:
    return [key for key in invariants.keys(store) if key.startswith("runs/by_project/")]


@pytest.mark.parametrize("if_exists", ["revise", "raise"])
def test_a_retry_returns_the_revision_that_it_wrote(interrupted: Store, if_exists: str) -> None:
    before = views(interrupted)
    again = store_state(interrupted, "two", "A", if_exists=if_exists)
    assert (again.revision, again.created, again.values) == (2, False, {"state": "two"})
    assert get_run(interrupted, "r").values == {"state": "three"}
    assert views(interrupted) == before == ["runs/by_project/one/r", "runs/by_project/three/r"]


@pytest.mark.parametrize("task", [None, "C"])
def test_an_older_state_stored_on_purpose_becomes_the_current_one(
    interrupted: Store, task: str | None
) -> None:
    again = store_state(interrupted, "two", task)
    assert (again.revision, again.created) == (4, True)
    assert get_run(interrupted, "r") == again
    assert "runs/by_project/two/r" in views(interrupted)
    invariants.check_finished(interrupted)


def test_a_retry_that_nothing_overtook_finishes_the_views() -> None:
    store = MemoryStore(max_workers=1)
    store_state(store, "one")
    crash_before_the_views(store, "two", "A")
    assert views(store) == ["runs/by_project/one/r"]
    again = store_state(store, "two", "A")
    assert (again.revision, again.created) == (2, False)
    invariants.check_finished(store)


@pytest.mark.parametrize("task", [None, "B", "C"])
def test_the_current_state_is_there_whoever_asks(interrupted: Store, task: str | None) -> None:
    before = views(interrupted)
    for if_exists in ("raise", "revise"):
        again = store_state(interrupted, "three", task, if_exists=if_exists)
        assert (again.revision, again.created) == (3, False)
    assert views(interrupted) == before


@pytest.mark.parametrize("task", [None, "C"])
def test_a_state_that_was_overtaken_is_a_conflict_for_others(interrupted: Store, task: str | None) -> None:
    before = invariants.keys(interrupted)
    with pytest.raises(ConflictError, match="'r'"):
        store_state(interrupted, "two", task, if_exists="raise")
    assert invariants.without_days(invariants.keys(interrupted)) == invariants.without_days(before)


@pytest.mark.parametrize("task", [None, "first", "C"])
def test_the_first_state_again_is_the_first_revision_and_adds_no_view(
    interrupted: Store, task: str | None
) -> None:
    interrupted.delete(["runs/by_project/one/r"])
    again = store_state(interrupted, "one", task, if_exists="raise")
    assert (again.revision, again.created) == (1, False)
    assert views(interrupted) == ["runs/by_project/three/r"]
    assert get_run(interrupted, "r").revision == 3


def test_task_runs_that_interleave_keep_their_own_revisions() -> None:
    store = GuardedStore(MemoryStore())
    for number in range(1, 7):
        assert store_state(store, f"s{number}", f"task {number}").revision == number
    for number in range(1, 7):
        again = store_state(store, f"s{number}", f"task {number}")
        assert (again.revision, again.created) == (number, False)
    assert get_run(store, "r").values == {"state": "s6"}
    invariants.check_finished(store)
