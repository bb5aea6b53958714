"""Views and the reverse index: what they lead to is true, and a rebuild makes them whole again."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from mltrack_tasks.content import store_data
from mltrack_tasks.errors import InvalidInputError, TransientError
from mltrack_tasks.events import PROGRESS, VIEWS_REBUILT, Event
from mltrack_tasks.records import Record
from mltrack_tasks.refs import DataRef
from mltrack_tasks.runs import find_runs_by_data, get_run, store_run
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.guard import GuardedStore
from mltrack_tasks.stores.memory import MemoryStore
from mltrack_tasks.stores.observed import CountingStore, FaultyStore, SteppedStore
from mltrack_tasks.views import ViewReport, rebuild_views
from tests.floor3 import invariants
from tests.floor3.conftest import Place
from tests.settings import examples

T = TypeVar("T")
MODES = ("by_project", "by_date", "by_type", "by_model")
FOREIGN = (
    *(
        "runs/by_project/readme.txt",
        "runs/by_project/p/x/y",
        "runs/by_project/a b/r",
        "runs/by_project/%2e/r",
    ),
    *("runs/by_date/2024-13-01/r", "runs/by_date/today/r", "runs/by_type/secret/r", "runs/by_user/u/r"),
)


def current_only(store: Store) -> Store:
    """Copy a store without older revisions: what a rebuild goes by."""
    copy = invariants.snapshot(store)
    keys = [key for key in invariants.keys(copy) if key.startswith("manifests/")]
    runs = {key.removesuffix(".json").partition("~")[0]: key for key in sorted(keys, key=_revision)}
    copy.delete(set(keys) - set(runs.values()))
    return copy


def _revision(key: str) -> int:
    return int(key.removesuffix(".json").partition("~")[2] or 1)


def views(store: Store) -> set[str]:
    return {key for key in invariants.keys(store) if key.startswith(tuple(f"runs/{mode}/" for mode in MODES))}


def check_rebuilt(store: Store) -> None:
    """Views and pins follow from the current manifests, and nothing is left to do."""
    copy = current_only(store)
    invariants.views_equal_records(copy)
    copy.delete([key for key in invariants.keys(copy) if key.startswith("names/")])
    invariants.every_ref_is_pinned(copy)
    again = rebuild_views(store)
    assert (again.created, again.deleted, again.pins_created) == (0, 0, 0)
    assert again.kept == len(views(store))


# finding runs


def test_runs_are_found_by_what_they_use_and_make(place: Place) -> None:
    ref = store_data(place.store, b"blob", "train")
    groups: list[dict[str, Any]] = [{"data": {"a": ref}}, {"inputs": {"b": ref}}, {"outputs": {"c": ref}}]
    for run_id, group in zip(("z", "a/b", "m~n"), groups, strict=True):
        store_run(place.store, run_id, **group, storage_mode="flat")
    store_run(place.store, "all", {"a": ref}, inputs={"b": ref}, storage_mode="flat")
    store_run(place.store, "other", {"a": b"other"}, storage_mode="flat")
    for named in (ref, str(ref), ref.hash, f"sha256:{ref.hash}"):
        assert find_runs_by_data(place.store, named) == ["a/b", "all", "m~n", "z"]
    place.raw.delete(ref.storage_path)
    assert find_runs_by_data(place.store, ref) == ["a/b", "all", "m~n", "z"]


def test_a_format_finds_that_format(store: Store) -> None:
    store_run(store, "json", {"x": {}}, storage_mode="flat")
    store_run(store, "bytes", {"x": b"{}"}, storage_mode="flat")
    digest = get_run(store, "json").data["x"].hash
    assert find_runs_by_data(store, digest) == ["bytes", "json"]
    assert find_runs_by_data(store, f"sha256:{digest}.json") == ["json"]
    assert find_runs_by_data(store, get_run(store, "bytes").data["x"]) == ["bytes"]
    assert find_runs_by_data(store, f"sha256:{digest}.npy") == []


def test_what_nothing_uses(place: Place) -> None:
    assert find_runs_by_data(place.store, "ab" * 32) == []
    ref = store_data(place.store, b"only named", "~name~x")
    assert find_runs_by_data(place.store, ref) == []


@pytest.mark.parametrize(
    "ref", ["", "x", "ab" * 31, f"sha256:{'ab' * 32}.exe", f"{'ab' * 32}/..", None, 5, b""]
)
def test_what_is_no_ref(store: Store, ref: Any) -> None:
    with pytest.raises(InvalidInputError):
        find_runs_by_data(store, ref)


@pytest.mark.parametrize(("digest", "format"), [("../..", "bin"), ("AB" * 32, "bin"), ("ab" * 32, "exe")])
def test_a_ref_made_by_hand(store: Store, digest: str, format: str) -> None:
    with pytest.raises(InvalidInputError):
        find_runs_by_data(store, DataRef(digest, format, 1, "x"))


def test_the_current_revision_decides(store: Store) -> None:
    old, new = (store_data(store, body) for body in (b"old", b"new"))
    store_run(store, "r", {"x": old}, storage_mode="flat")
    store_run(store, "r", {"x": new}, storage_mode="flat", if_exists="revise")
    assert find_runs_by_data(store, old) == []
    assert find_runs_by_data(store, new) == ["r"]


def test_hints_that_are_not_true(memory_place: Place, caplog: pytest.LogCaptureFixture) -> None:
    """Pins of no run, of a run that lists something else, foreign keys, and one damaged manifest."""
    store, raw = memory_place.store, memory_place.raw
    ref = store_data(store, b"blob")
    for run_id in ("good", "damaged", "newer"):
        store_run(store, run_id, {"x": ref}, storage_mode="flat")
    store_run(store, "liar", {"x": b"other"}, storage_mode="flat")
    folder = f"runs/by_data/{ref.hash[:2]}/{ref.hash}/"
    for name in ("nobody", "liar", "a b", "%2E%2E", "~x", "deeper/good", "x~name~y", "~name~"):
        raw.put(folder + name, b"")
    raw.put("manifests/damaged.json", b"{")
    raw.put("manifests/newer.json", b'{"format":2}')
    with caplog.at_level("WARNING", "mltrack_tasks"):
        assert find_runs_by_data(store, ref) == ["good"]
    assert "manifests/damaged.json" in caplog.text
    assert "manifests/newer.json" in caplog.text
    assert len(caplog.records) == 2


def test_requests_follow_the_runs_that_hold_the_blob() -> None:
    bare = MemoryStore()
    ref = store_data(bare, b"blob")
    for number in range(12):
        store_run(bare, f"r{number}", {"x": ref if number < 5 else number}, storage_mode="by_type")
    counting = CountingStore(bare)
    assert len(find_runs_by_data(counting, ref)) == 5
    assert counting.calls == {"list": 1, "head": 10, "get_range": 5}


# rebuilding


def store_everywhere(store: Store, run_id: str, state: str = "one", **more: Any) -> None:
    started = datetime(2024, 1, 1 + len(state), tzinfo=UTC)
    call = {"project": state, "model": state, "started_at": started, "if_exists": "revise", **more}
    store_run(store, run_id, {"state": state}, storage_mode=MODES, **call)


def test_a_rebuild_makes_what_is_missing_and_removes_what_is_wrong(place: Place) -> None:
    store, raw = place.store, place.raw
    for run_id in ("r", "s/t", "moved"):
        store_everywhere(store, run_id)
    store_everywhere(store, "moved", "another", run_type="analysis")
    before = views(store)
    raw.delete("runs/by_project/one/r")
    raw.delete("runs/by_date/2024-01-04/s%2Ft")
    pin = next(key for key in raw.list() if key.startswith("runs/by_data/") and key.endswith("/r"))
    raw.delete(pin)
    raw.put("runs/by_project/one/nobody", b"")
    raw.put("runs/by_model/other/r", b"")
    raw.put("runs/by_project/one/notes.txt", b"somebody's notes")
    seen: list[Event] = []
    report = rebuild_views(store, observe=seen.append)
    assert report == ViewReport(runs=3, created=2, deleted=6, kept=10, foreign=1, pins_created=1)
    assert [event.name for event in seen if event.name != PROGRESS] == [VIEWS_REBUILT]
    assert seen[-1].details["deleted"] == 6
    old = {"by_project/one", "by_model/one", "by_date/2024-01-04", "by_type/experiment"}
    assert views(store) == before - {f"runs/{place}/moved" for place in old} | {
        "runs/by_project/one/notes.txt"
    }
    assert raw.get("runs/by_project/one/notes.txt") == b"somebody's notes"
    raw.delete("runs/by_project/one/notes.txt")
    check_rebuilt(store)


def test_an_empty_place_stays_empty(place: Place) -> None:
    assert rebuild_views(place.store) == ViewReport(runs=0)
    assert place.raw.list() == []


def test_foreign_keys_are_left_alone(memory_place: Place) -> None:
    store_everywhere(memory_place.store, "r")
    for key in FOREIGN:
        memory_place.raw.put(key, b"")
    before = memory_place.raw.list()
    report = rebuild_views(memory_place.store)
    assert report == ViewReport(runs=1, kept=4, foreign=len(FOREIGN) - 1)  # by_user is no view at all
    assert memory_place.raw.list() == before


@pytest.mark.parametrize("body", [b"{", b'{"format":2}', b""], ids=["damaged", "newer", "empty"])
def test_views_of_a_run_that_cannot_be_read_stay(
    memory_place: Place, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    for run_id in ("good", "bad"):
        store_everywhere(memory_place.store, run_id)
    before = views(memory_place.store)
    memory_place.raw.put("manifests/bad.json", body)
    with caplog.at_level(logging.WARNING, "mltrack_tasks"):
        report = rebuild_views(memory_place.store)
    assert report == ViewReport(runs=1, kept=4, unjudged=4)
    assert views(memory_place.store) == before
    assert "manifests/bad.json" in caplog.text


def test_a_manifest_that_says_less_than_its_modes_need(memory_place: Place) -> None:
    """A record of another writer: by_project without a project, by_date without a time."""
    run = get_run_of(memory_place.store)
    for run_id, change, at in (
        ("p", {"project": None}, "2024-01-01T00:00:00Z"),
        ("d", {"started_at": None}, 5),
    ):
        record = Record({**run, "run_id": run_id, **change}, {"at": at})
        memory_place.raw.put(f"manifests/{run_id}.json", record.to_bytes())
        memory_place.raw.put(f"runs/by_type/analysis/{run_id}", b"")
    assert rebuild_views(memory_place.store) == ViewReport(runs=1, kept=4, unjudged=2)


def get_run_of(store: Store) -> dict[str, Any]:
    store_everywhere(store, "r")
    return get_run(store, "r").to_content()


def test_a_rebuild_that_is_interrupted_is_finished_by_the_next() -> None:
    for how in ("before", "after", "crash"):
        step = 0
        while True:
            step += 1
            bare = damaged_store()
            faulty = FaultyStore(bare, step, how)  # type: ignore[arg-type]
            try:
                rebuild_views(faulty)
            except TransientError:
                assert not lost(bare), (how, step)
                rebuild_views(bare)
                check_rebuilt(bare)
            else:
                break
        assert step > 20


def damaged_store() -> MemoryStore:
    bare = MemoryStore(max_workers=1)
    for run_id in ("r", "s"):
        store_everywhere(bare, run_id)
    store_everywhere(bare, "s", "another")
    bare.delete(["runs/by_project/one/r"])
    bare.create("runs/by_type/analysis/r", b"")
    return bare


def lost(store: Store) -> set[str]:
    """What current manifests justify and no view has, beside what was missing from the start."""
    copy = current_only(store)
    copy.delete(views(copy))
    rebuild_views(copy)
    return views(copy) - views(store) - {"runs/by_project/one/r"}


class Interrupting(SteppedStore):
    """Lets something else happen before one step."""

    def __init__(self, inner: Store, at: int, what: Callable[[], None]) -> None:
        super().__init__(inner)
        self.at, self.what, self.count = at, what, 0

    def step(self, verb: str, key: str, size: int, call: Callable[[], T]) -> T:
        self.count += 1
        if self.count == self.at:
            self.what()
        return call()


@pytest.mark.parametrize("state", ["one", "third"])
@pytest.mark.parametrize("run_id", ["s", "new"])
def test_a_revision_between_any_two_steps_loses_nothing(state: str, run_id: str) -> None:
    """Also one that goes back to a state whose old entries the rebuild is about to delete."""
    step = 0
    while True:
        step += 1
        bare = damaged_store()
        store = Interrupting(bare, step, lambda bare=bare: store_everywhere(bare, run_id, state))  # type: ignore[misc]
        rebuild_views(store)
        if store.count < step:
            break
        assert not lost(bare), step
        rebuild_views(bare)
        check_rebuilt(bare)
    assert step > 20


def test_a_writer_that_found_its_entry_before_it_was_deleted() -> None:
    """The narrowest place: the entry is judged wrong, its run goes back to it, and then it is deleted."""
    bare = damaged_store()
    happened = []

    class Late(SteppedStore):
        def step(self, verb: str, key: str, size: int, call: Callable[[], T]) -> T:
            if verb == "delete":
                assert "runs/by_project/one/s" in key
                store_everywhere(bare, "s", "one")
                happened.append(key)
            return call()

    report = rebuild_views(Late(bare))
    assert report == ViewReport(runs=2, created=1, deleted=1, kept=10)
    assert len(happened) == 1
    assert {f"runs/{mode}/one/s" for mode in ("by_project", "by_model")} <= views(bare)
    assert not lost(bare)


def test_an_entry_that_turned_out_right_is_never_deleted() -> None:
    """A run stored while the views are listed: nobody may miss it, not for a moment."""
    bare = MemoryStore(max_workers=1)
    deleted = []

    class Watched(SteppedStore):
        def step(self, verb: str, key: str, size: int, call: Callable[[], T]) -> T:
            if (verb, key) == ("list", "runs/by_project/"):
                store_everywhere(bare, "new")
                bare.create("runs/by_project/other/new", b"")
            if verb == "delete":
                deleted.append(key)
            return call()

    report = rebuild_views(Watched(bare))
    assert report == ViewReport(runs=0, deleted=1, kept=4)
    assert deleted == ["runs/by_project/other/new"]


def test_lost_pins_of_all_kinds_come_back(store: Store) -> None:
    ref = store_data(store, b"named", "n")
    store_run(store, "r", {"d": b"d"}, inputs={"i": ref}, outputs={"o": b"o"}, storage_mode="flat")
    pins = [key for key in invariants.keys(store) if key.startswith("runs/by_data/") and key.endswith("/r")]
    store.delete(pins)
    assert rebuild_views(store) == ViewReport(runs=1, pins_created=3)
    assert find_runs_by_data(store, ref) == ["r"]
    check_rebuilt(store)


def test_beside_writers_in_other_threads(place: Place) -> None:
    store = place.store
    done = threading.Event()
    states = ("one", "two2", "three")

    def write(number: int) -> None:
        for turn in range(6):
            store_everywhere(store, f"r{number % 2}", states[(turn + number) % 3])

    def rebuild() -> None:
        while not done.is_set():
            rebuild_views(store)

    store_everywhere(store, "r0")
    rebuilding = threading.Thread(target=rebuild)
    writers = [threading.Thread(target=write, args=(number,)) for number in range(3)]
    for thread in (rebuilding, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    rebuilding.join()
    for run_id in ("r0", "r1"):
        project = get_run(store, run_id).project
        assert f"runs/by_project/{project}/{run_id}" in views(store)
    rebuild_views(store)
    check_rebuilt(store)


run_ids = st.sampled_from(["r", "s/t", "ü"])
states = st.sampled_from(["one", "a b", "three"])


class ViewMachine(RuleBasedStateMachine):
    """Runs stored, revised and moved; entries and pins lost and forged; a rebuild now and then."""

    @initialize()
    def open(self) -> None:
        self.bare = MemoryStore(max_workers=2)
        self.store = GuardedStore(self.bare)
        self.foreign: set[str] = set()

    @rule(
        run_id=run_ids,
        state=states,
        modes=st.lists(st.sampled_from([*MODES, "flat"]), min_size=1, unique=True),
        run_type=st.sampled_from(["experiment", "analysis"]),
        dated=st.booleans(),
    )
    def write(self, run_id: str, state: str, modes: list[str], run_type: str, dated: bool) -> None:
        started = datetime(2024, 1, 1 + len(state), tzinfo=UTC) if dated else None
        named = {"project": state, "model": state, "started_at": started, "if_exists": "revise"}
        store_run(self.store, run_id, {"state": state}, storage_mode=modes, run_type=run_type, **named)

    @rule(data=st.data(), folder=st.sampled_from(["runs/by_data/", *(f"runs/{mode}/" for mode in MODES)]))
    def lose(self, data: st.DataObject, folder: str) -> None:
        keys = [key for key in invariants.keys(self.bare) if key.startswith(folder)]
        keys = [key for key in keys if key not in self.foreign]
        if keys:
            self.bare.delete([data.draw(st.sampled_from(keys))])

    @rule(mode=st.sampled_from(MODES), run=st.sampled_from(["r", "s%2Ft", "nobody"]), state=states)
    def forge(self, mode: str, run: str, state: str) -> None:
        values = {"by_date": "2024-05-05", "by_type": "production"}
        self.bare.create(f"runs/{mode}/{values.get(mode, state.replace(' ', '%20'))}/{run}", b"")

    @rule(key=st.sampled_from([key for key in FOREIGN if "by_user" not in key]))
    def leave_something(self, key: str) -> None:
        self.bare.create(key, b"")
        self.foreign.add(key)

    @rule()
    def rebuild(self) -> None:
        before = views(self.bare)
        report = rebuild_views(self.store)
        after = views(self.bare)
        assert report.foreign == len(self.foreign)
        assert after >= self.foreign
        assert (len(after - before), len(before - after)) == (report.created, report.deleted)
        assert report.kept == len((before & after) - self.foreign)
        plain = invariants.snapshot(self.bare)
        plain.delete(self.foreign)
        check_rebuilt(plain)

    @invariant()
    def runs_are_found_by_what_they_hold(self) -> None:
        if not hasattr(self, "store"):
            return
        for run_id in ("r", "s/t", "ü"):
            try:
                ref = get_run(self.store, run_id).data["state"]
            except LookupError:
                continue
            pin = (
                f"runs/by_data/{ref.hash[:2]}/{ref.hash}/{run_id.replace('/', '%2F').replace('ü', '%C3%BC')}"
            )
            assert (run_id in find_runs_by_data(self.store, ref)) is (self.bare.head(pin) is not None)


TestViews = ViewMachine.TestCase
TestViews.settings = settings(max_examples=examples(25), stateful_step_count=20, deadline=None)
