"""Removed runs are gone for every reader, with and without a catalogue, and can be stored again."""

from __future__ import annotations

from contextlib import suppress

import pytest

from mltrack_tasks.collecting.removing import remove_run
from mltrack_tasks.compaction import compact_catalog
from mltrack_tasks.errors import ConflictError, MLTrackError, NotFoundError
from mltrack_tasks.runs import find_runs_by_data, get_run, list_runs, store_run
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.guard import GuardedStore
from mltrack_tasks.stores.memory import MemoryStore
from mltrack_tasks.stores.observed import FaultyStore
from tests.floor3 import invariants
from tests.floor3.migrationtrees import quiet
from tests.floor3.test_collecting import World


def runs(store: Store) -> dict[str, int]:
    return {run.run_id: run.revision for run in list_runs(store, observe=quiet)}


def fill(store: Store) -> None:
    store_run(store, "a", {"d": b"only a", "s": b"shared"}, project="p", observe=quiet)
    store_run(store, "a", {"d": b"a again"}, project="q", if_exists="revise", observe=quiet)
    store_run(store, "b", {"s": b"shared"}, project="p", observe=quiet)


@pytest.mark.parametrize("compacted", ["never", "before", "after", "both"])
def test_a_removed_run_is_gone_for_every_reader(store: Store, compacted: str) -> None:
    fill(store)
    if compacted in ("before", "both"):
        compact_catalog(store, observe=quiet)
    removed = remove_run(store, "a", reason="wrong data", observe=quiet)
    assert (removed.revisions, removed.views) == ((1, 2), 2)
    if compacted in ("after", "both"):
        assert compact_catalog(store, observe=quiet).runs == 1
        assert not [key for key in invariants.keys(store) if key.endswith("~00000000")]
    assert runs(store) == {"b": 1}
    shared = get_run(store, "b").data["s"]
    assert find_runs_by_data(store, shared) == ["b"]
    for call in (get_run, remove_run):
        with pytest.raises(NotFoundError):
            call(store, "a")
    # Stored again under the same id, with fewer revisions than a catalogue may remember.
    store_run(store, "a", {"d": b"new"}, project="p", observe=quiet)
    assert runs(store) == {"a": 1, "b": 1}
    [again] = [run for run in list_runs(store) if run.run_id == "a"]
    assert again.project == "p"
    compact_catalog(store, observe=quiet)
    assert runs(store) == {"a": 1, "b": 1}
    remove_run(store, "a", observe=quiet)
    assert runs(store) == {"b": 1}


def test_a_run_that_changed_since_it_was_looked_at_stays(store: Store) -> None:
    fill(store)
    with pytest.raises(ConflictError, match="decide again"):
        remove_run(store, "a", revision=1)
    assert remove_run(store, "a", revision=2).revisions == (1, 2)


@pytest.mark.parametrize("how", ["before", "after", "crash"])
def test_a_removal_that_fails_anywhere_is_finished_by_the_same_call(how: str) -> None:
    step, done = 0, False
    while not done:
        bare = MemoryStore()
        fill(GuardedStore(bare))
        compact_catalog(bare, observe=quiet)
        step += 1
        try:
            remove_run(GuardedStore(FaultyStore(bare, step, how)), "a", observe=quiet)  # type: ignore[arg-type]
            done = True
        except MLTrackError:
            compact_catalog(bare, observe=quiet)
        with suppress(NotFoundError):
            remove_run(bare, "a", observe=quiet)
        assert runs(bare) == {"b": 1}, step
        compact_catalog(bare, observe=quiet)
        assert runs(bare) == {"b": 1}, step
    assert step > 10


def test_what_only_a_removed_run_held_goes_with_collections() -> None:
    world = World()
    fill(world.store)
    remove_run(world.store, "a", observe=quiet)
    for _ in range(2):
        world.later(8)
        world.collect()
    assert world.blobs() == {get_run(world.store, "b").data["s"].hash}
