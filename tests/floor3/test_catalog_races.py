"""Writers, compactions, readers and crashes in any order: a reading is never behind, and nothing is lost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from itertools import count
from typing import Any, Literal, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mltrack_tasks import compaction, runs
from mltrack_tasks.catalog import current_manifests, current_rows
from mltrack_tasks.compaction import compact_catalog
from mltrack_tasks.errors import NotFoundError, TransientError
from mltrack_tasks.layout import log_key
from mltrack_tasks.records import Record, RunManifest
from mltrack_tasks.runs import get_run, list_runs
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.guard import GuardedStore
from mltrack_tasks.stores.memory import MemoryStore
from mltrack_tasks.stores.observed import CountingStore, FaultyStore, SteppedStore
from mltrack_tasks.tables import runrows
from tests.floor3 import invariants
from tests.floor3.interleaving import KilledError, play
from tests.settings import STRIDE

T = TypeVar("T")

RUNS = ("a", "b")


def writer(run_id: str, value: int) -> Callable[[Store], Any]:
    return lambda store: runs.store_run(
        store, run_id, metrics={"m": value}, storage_mode="flat", if_exists="revise"
    )


def compactor(rebuild: bool) -> Callable[[Store], Any]:
    return lambda store: compact_catalog(store, rebuild=rebuild)


def reader(base: Store) -> Callable[[Store], Any]:
    """Read, and say which revisions were there before and after."""

    def read(store: Store) -> tuple[dict[str, int], list[RunManifest], dict[str, int]]:
        before = revisions(base)
        found = current_manifests(store)
        return before, found, revisions(base)

    return read


def revisions(store: Store) -> dict[str, int]:
    """The current revision of each run, by asking for it."""
    found = {}
    for run_id in RUNS:
        try:
            found[run_id] = get_run(store, run_id).revision
        except NotFoundError:
            continue
    return found


@st.composite
def scenes(draw: st.DrawFn) -> tuple[list[tuple[str, Any]], list[int], dict[str, int]]:
    """What is stored before, then who does what at the same time, in which order, and who dies when."""
    kinds = st.sampled_from(["write a", "write b", "compact", "rebuild", "read"])
    cast = draw(st.lists(kinds, min_size=2, max_size=5))
    named = [(f"{number} {kind}", kind) for number, kind in enumerate(cast)]
    stretches = draw(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 12)), max_size=12))
    order = [actor for actor, length in stretches for _ in range(length)]
    mortal = [name for name, kind in named if kind != "read"]
    killed = draw(st.dictionaries(st.sampled_from(mortal), st.integers(1, 20), max_size=2)) if mortal else {}
    return named, order, killed


before = st.lists(st.sampled_from(["write a", "write b", "compact"]), max_size=4)


def acts(base: Store, kind: str, value: int) -> Callable[[Store], Any]:
    if kind.startswith("write"):
        return writer(kind.removeprefix("write "), value)
    return reader(base) if kind == "read" else compactor(kind == "rebuild")


@pytest.fixture(autouse=True)
def _nothing_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setattr("mltrack_tasks.codeversion.code_version", lambda: None)


@given(before, scenes())
def test_any_order(
    earlier: list[str], scene: tuple[list[tuple[str, Any]], list[int], dict[str, int]]
) -> None:
    base = GuardedStore(MemoryStore(max_workers=1))
    for value, kind in enumerate(earlier):
        acts(base, kind, -value)(base)
    cast, order, killed = scene
    actors = {name: acts(base, kind, value) for value, (name, kind) in enumerate(cast)}
    names = [name for name, _ in cast]
    results = play(base, actors, [names[each % len(names)] for each in order], killed=killed)
    for name, kind in cast:
        result = results[name]
        if kind == "read":
            check_reading(*result)
        elif isinstance(result, Exception):
            assert isinstance(result, KilledError), result
    check_readings_agree(base)
    compact_catalog(base)
    check_readings_agree(base)


class Interrupted(SteppedStore):
    """Runs something else, whole, before its calls of the given numbers."""

    def __init__(self, inner: Store, interruptions: Mapping[int, Callable[[], Any]]) -> None:
        super().__init__(inner)
        self.max_workers, self.count = 1, 0
        self._interruptions = interruptions

    def step(self, verb: str, key: str, size: int, call: Callable[[], T]) -> T:
        self.count += 1
        if self.count in self._interruptions:
            self._interruptions[self.count]()
        return call()


STATES = {
    "empty": [],
    "behind": ["write a", "write b", "compact", "write a", "write b"],
}
MEANWHILE = (["compact"], ["write a", "compact"], ["write b", "rebuild", "write a"])


def apply(base: Store, kinds: list[str]) -> None:
    for kind in kinds:
        acts(base, kind, len(list(base.list("manifests/"))))(base)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("kind", ["read", "compact", "rebuild", "write a"])
def test_interrupted_at_every_call(state: str, kind: str) -> None:
    """At each call of one, and again two calls later, others do all their work."""
    for number in count(1, STRIDE):
        for meanwhile in MEANWHILE:
            base = GuardedStore(MemoryStore(max_workers=1))
            apply(base, STATES[state])
            others = partial(apply, base, meanwhile)
            interrupted = Interrupted(base, {number: others, number + 2: others})
            result = acts(base, kind, -1)(interrupted)
            if kind == "read":
                check_reading(*result)
            check_readings_agree(base)
        if interrupted.count < number:
            return


@pytest.mark.parametrize("second", ["compact", "rebuild"])
def test_a_compaction_that_loses_takes_nothing_with_it(second: str) -> None:
    """One lists the log, a run is stored, another lists it too; whoever commits first, the run is found."""
    for first_steps in (1, 3, 5, 7):
        for second_steps in range(1, 12, 2):
            base = GuardedStore(MemoryStore(max_workers=1))
            apply(base, STATES["behind"])
            plan = ["1"] * first_steps + ["2"] * 40 + ["3"] * second_steps + ["1"] * 40 + ["3"] * 40
            kinds = {"1": "compact", "2": "write a", "3": second}
            play(base, {name: acts(base, kind, 7) for name, kind in kinds.items()}, plan)
            check_readings_agree(base)


def test_a_number_that_was_taken_and_removed(store: Store) -> None:
    """A compaction that slept for days gets a free number which is not the newest: it sweeps nothing."""
    apply(store, ["write a", "compact", "write a"])
    newer = Record.from_bytes(store.get("catalog/snapshots/00000001.json"), what="it")

    def others() -> None:
        body = Record({**newer.content, "number": 3}, newer.provenance).to_bytes()
        store.create("catalog/snapshots/00000003.json", body)

    counting = CountingStore(store)
    compact_catalog(counting)
    commit = 1 + [key for _, key in counting.log].index("catalog/snapshots/00000002.json")
    store.delete(["catalog/snapshots/00000002.json"])
    store.create(log_key(datetime.now(UTC), "a", 2), b"")
    compact_catalog(Interrupted(store, {commit: others}))
    assert store.head("catalog/snapshots/00000002.json") is not None
    check_readings_agree(store)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("kind", ["compact", "rebuild", "write a"])
@pytest.mark.parametrize("how", ["crash", "after"])
def test_killed_at_every_call(state: str, kind: str, how: Literal["crash", "after"]) -> None:
    """Whatever died, or lost an answer, readings agree with the manifests, and the next compaction too."""
    for number in count(1, STRIDE):
        base = GuardedStore(MemoryStore(max_workers=1))
        apply(base, STATES[state])
        faulty = FaultyStore(base, number, how)
        faulty.max_workers = 1
        with suppress(TransientError):
            acts(base, kind, -1)(faulty)
        check_readings_agree(base)
        apply(base, ["compact", "write b"])
        check_readings_agree(base)
        if faulty.count < number:
            return


def check_reading(before: dict[str, int], found: list[RunManifest], after: dict[str, int]) -> None:
    read = {manifest.run_id: manifest.revision for manifest in found}
    assert len(read) == len(found)
    for run_id in RUNS:
        assert before.get(run_id, 0) <= read.get(run_id, 0) <= after.get(run_id, 0)


def check_readings_agree(store: Store) -> None:
    """The catalogue, with the log, says what the manifests say."""
    invariants.every_manifest_is_found(store)
    expected = [get_run(store, run_id) for run_id in sorted(revisions(store))]
    found = sorted(current_manifests(store), key=lambda manifest: manifest.run_id)
    assert found == expected
    assert [each.provenance for each in found] == [each.provenance for each in expected]
    assert [each.revision for each in found] == [each.revision for each in expected]
    assert sorted(list_runs(store), key=lambda run: run.run_id) == expected
    assert current_rows(store) == runrows.newest([runrows.rows_of(expected)])


def test_a_compaction_with_old_snapshots_in_the_way(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any grace, superseded snapshots and parts vanish at once: readings still agree."""
    monkeypatch.setattr(compaction, "GRACE", -compaction.GRACE)
    for value in range(20):
        writer("ab"[value % 2], value)(store)
        compact_catalog(store)
        check_readings_agree(store)
    assert len(list(store.list("catalog/snapshots/"))) == 1
