"""A run while it goes on: what is logged is stored where it is logged, and the manifest at the end."""

from __future__ import annotations

import asyncio
import copy
import pickle
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mltrack_tasks import canonical, captured, content, provenance
from mltrack_tasks.captured import CapturedRun, status_of
from mltrack_tasks.errors import (
    IntegrityError,
    InvalidInputError,
    MLTrackError,
    NotFoundError,
    TransientError,
)
from mltrack_tasks.runs import get_run, store_run
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.guard import GuardedStore
from mltrack_tasks.stores.memory import MemoryStore
from mltrack_tasks.stores.observed import CountingStore, FaultyStore
from tests.floor0 import strategies
from tests.floor3 import invariants
from tests.floor3.conftest import Place
from tests.together import together

FRAME = pd.DataFrame({"x": [1, 2]})


def log_everything(run: CapturedRun) -> None:
    """Call each method once."""
    run.log_param("depth", 3)
    run.log_params({"layers": [1, 2], "loss": {"name": "mse"}})
    run.log_metric("accuracy", 0.9)
    run.log_metrics({"steps": 7, "loss": float("inf")})
    run.set_tag("team", "a")
    run.set_tags({"reason": None})
    run.log_input("train", FRAME)
    run.log_output("weights", np.arange(3))
    run.log_data("report", {"rows": 2})
    run.log_data("log", b"text")


def test_everything_that_was_logged_is_in_the_manifest(place: Place) -> None:
    before = datetime.now(UTC)
    run = CapturedRun(place.store, "r", project="p", model="m", run_type="analysis", tags={"given": 1})
    log_everything(run)
    assert run.manifest is None
    manifest = run.end()

    assert run.manifest == manifest == get_run(place.store, "r")
    assert (manifest.run_id, manifest.revision, manifest.status) == ("r", 1, "finished")
    assert (manifest.project, manifest.model, manifest.run_type) == ("p", "m", "analysis")
    assert manifest.storage_modes == ("by_project",)
    assert manifest.params == {"depth": 3, "layers": [1, 2], "loss": {"name": "mse"}}
    assert manifest.metrics == {"accuracy": 0.9, "loss": float("inf"), "steps": 7}
    assert manifest.tags == {"given": 1, "team": "a", "reason": None}
    assert manifest.values == {"report": {"rows": 2}}
    assert manifest.started_at == run.started_at
    assert before <= run.started_at < manifest.ended_at <= datetime.now(UTC)  # type: ignore[operator]
    assert content.retrieve_data(place.store, manifest.inputs["train"]).equals(FRAME)
    assert content.retrieve_data(place.store, manifest.outputs["weights"]).tolist() == [0, 1, 2]
    assert content.retrieve_data(place.store, manifest.data["log"]) == b"text"
    invariants.check_finished(place.store)


def test_without_a_project_there_is_no_view(store: Store) -> None:
    assert CapturedRun(store, "r").end().storage_modes == ("flat",)
    chosen = CapturedRun(store, "s", project="p", storage_mode=["by_type", "by_date"]).end()
    assert chosen.storage_modes == ("by_type", "by_date")


def test_nothing_is_written_for_a_run_that_logged_nothing_yet(store: Store) -> None:
    CapturedRun(store, "r", tags={"a": 1}).log_metric("x", 1)
    assert invariants.keys(store) == []


def test_the_last_one_of_a_name_counts(store: Store) -> None:
    run = CapturedRun(store, "r", tags={"t": 1})
    for number in (1, 2):
        run.log_param("p", number)
        run.log_metric("m", number)
        run.set_tag("t", number)
        run.log_data("d", {"n": number})
        run.log_input("i", b"%d" % number)
    manifest = run.end()
    assert (manifest.params, manifest.metrics, manifest.tags) == ({"p": 2}, {"m": 2}, {"t": 2})
    assert manifest.values == {"d": {"n": 2}}
    assert content.retrieve_data(store, manifest.inputs["i"]) == b"2"


def test_a_numpy_scalar_is_a_metric(store: Store) -> None:
    run = CapturedRun(store, "r")
    run.log_metric("loss", np.float64(0.5))  # type: ignore[arg-type]
    assert run.end().metrics == {"loss": 0.5}


# data is stored where it is logged


@pytest.mark.parametrize("method", ["log_input", "log_output", "log_data"])
def test_data_is_stored_and_pinned_at_once(store: Store, method: str) -> None:
    run = CapturedRun(store, "r")
    ref = getattr(run, method)("frame", FRAME)
    assert ref.name == "frame"
    assert store.head(ref.storage_path) is not None
    assert store.head(f"runs/by_data/{ref.hash[:2]}/{ref.hash}/r") is not None
    assert not [key for key in invariants.keys(store) if key.startswith("manifests/")]
    invariants.check_always(store)


def test_what_changes_later_is_kept_as_it_was(store: Store) -> None:
    frame, small, params, tags = FRAME.copy(), {"rows": [1]}, {"layers": [1]}, {"list": [1]}
    run = CapturedRun(store, "r", tags=tags)
    run.log_input("train", frame)
    run.log_data("small", small)
    run.log_params(params)
    frame.loc[0, "x"] = 99
    for value in (small["rows"], params["layers"], tags["list"]):
        value.append(2)
    manifest = run.end()
    assert content.retrieve_data(store, manifest.inputs["train"]).equals(FRAME)
    assert content.retrieve_data(store, manifest.data["small"]) == {"rows": [1]}
    assert (manifest.values, manifest.params) == ({"small": {"rows": [1]}}, {"layers": [1]})
    assert manifest.tags == {"list": [1]}


def test_a_manifest_at_the_end_sends_no_data_again() -> None:
    counting = CountingStore(MemoryStore(max_workers=1))
    run = CapturedRun(counting, "r")
    run.log_input("train", FRAME)
    before = len(counting.log)
    run.end()
    created = [key for verb, key in counting.log[before:] if verb == "create"]
    assert [key.split("/")[0] for key in created] == ["runs", "runs", "manifests"]  # the pin, the log


def test_refs_are_recorded_as_they_are(store: Store) -> None:
    ref = content.store_data(store, FRAME, metadata={"source": "x"})
    run = CapturedRun(store, "r")
    logged = run.log_input("train", ref)
    assert (logged, logged.name) == (ref, "train")
    run.log_input("same", str(ref))
    manifest = run.end()
    assert manifest.inputs["train"] == ref
    assert {name: each.hash for name, each in manifest.inputs.items()} == {
        "train": ref.hash,
        "same": ref.hash,
    }
    invariants.check_finished(store)


def test_a_ref_that_is_not_here_is_refused_at_once(store: Store) -> None:
    foreign = content.store_data(GuardedStore(MemoryStore()), FRAME)
    run = CapturedRun(store, "r")
    for ref in (foreign, str(foreign)):
        with pytest.raises(NotFoundError):
            run.log_input("train", ref)
    assert run.end().inputs == {}


# what cannot be recorded is refused where it is logged

BAD_LOGS: dict[str, Callable[[CapturedRun], Any]] = {
    "a param that JSON cannot keep": lambda run: run.log_param("p", {1, 2}),
    "a param of numpy": lambda run: run.log_param("p", np.float64(1)),
    "a param without a name": lambda run: run.log_param(None, 1),  # type: ignore[arg-type]
    "params that are none": lambda run: run.log_params("ab"),  # type: ignore[arg-type]
    "params of which one is bad": lambda run: run.log_params({"good": 1, "bad": (1, 2)}),
    "a metric that is no number": lambda run: run.log_metric("m", "0.9"),  # type: ignore[arg-type]
    "a metric that is a bool": lambda run: run.log_metric("m", True),
    "metrics of which one is bad": lambda run: run.log_metrics({"good": 1, "bad": None}),  # type: ignore[dict-item]
    "a tag that JSON cannot keep": lambda run: run.set_tag("t", object()),
    "tags that are none": lambda run: run.set_tags(["a"]),  # type: ignore[arg-type]
    "data that has no form": lambda run: run.log_data("d", object()),
    "data that JSON cannot keep": lambda run: run.log_data("d", {"a": (1, 2)}),
    "a frame that would not come back": lambda run: run.log_data("d", pd.DataFrame({"a": [object()]})),
    "an input without a name": lambda run: run.log_input("", FRAME),
    "an output under a bad name": lambda run: run.log_output("a\nb", FRAME),
    "an output with a long name": lambda run: run.log_output("a" * 300, FRAME),
    "data under no name": lambda run: run.log_data(3, FRAME),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("what", BAD_LOGS)
def test_a_bad_value_is_refused_and_the_run_goes_on(store: Store, what: str) -> None:
    run = CapturedRun(store, "r")
    run.log_metric("m", 1)
    with pytest.raises(InvalidInputError):
        BAD_LOGS[what](run)
    manifest = run.end()
    assert (manifest.status, manifest.metrics, manifest.params) == ("finished", {"m": 1}, {})
    assert manifest.all_refs == []
    invariants.check_finished(store)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"run_id": ""}, "run id"),
        ({"run_id": 7}, "run id"),
        ({"run_id": None}, "run_id"),
        ({"run_type": "other"}, "run type"),
        ({"storage_mode": "by_project"}, "project"),
        ({"storage_mode": "by_model", "project": "p"}, "model"),
        ({"storage_mode": "elsewhere"}, "storage mode"),
        ({"project": ".."}, "project"),
        ({"model": "a\0b"}, "model"),
        ({"tags": {"a": {1}}}, "tags"),
        ({"tags": "ab"}, "tags"),
    ],
)
def test_a_bad_beginning_is_refused_before_anything_is_done(store: Store, wrong: Any, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        CapturedRun(store, **{"run_id": "r", **wrong})


def test_what_is_too_much_for_a_manifest_is_refused_where_it_is_logged(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(captured, "MANIFEST_ROOM", 1000)
    run = CapturedRun(store, "r")
    run.log_param("p", "x" * 900)
    with pytest.raises(InvalidInputError, match=r"take 1,\d+ bytes; a manifest may hold 1,000.*into data"):
        run.log_metrics({f"m{number}": number for number in range(20)})
    run.log_param("p", "short")  # what is replaced counts no more
    run.log_metrics({f"m{number}": number for number in range(20)})
    run.log_data("a", {"text": "x" * 300})
    with pytest.raises(InvalidInputError, match="refs and small values"):
        run.log_data("b", {"text": "y" * 300})
    manifest = run.end()
    assert (list(manifest.params), len(manifest.metrics), list(manifest.data)) == (["p"], 20, ["a"])


@given(
    st.dictionaries(strategies.texts, strategies.values, max_size=3),
    st.dictionaries(strategies.texts, st.floats() | st.integers(), max_size=3),
    st.lists(strategies.values, max_size=3),
)
def test_what_was_counted_is_no_less_than_what_stands_in_the_manifest(
    params: Any, metrics: Any, data: list[Any]
) -> None:
    """Else a run could be refused at its end, when all its work is done."""
    store = MemoryStore()
    empty = CapturedRun(store, "r").end()
    run = CapturedRun(store, "s")
    run.log_params(params)
    run.log_metrics(metrics)
    for number, value in enumerate(data):
        run.log_data(str(number), value)
    more = len(canonical.dumps(run.end().to_content())) - len(canonical.dumps(empty.to_content()))
    spared = len(".123456") * 2  # a time in a full second is shorter
    assert more <= run._value_room._taken + run._thing_room._taken + spared


# how it ends


class Cancelled(BaseException):
    """As a scheduler's signal that is no Exception."""


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (None, "finished"),
        (SystemExit(), "finished"),
        (SystemExit(0), "finished"),
        (SystemExit(1), "killed"),
        (SystemExit("gave up"), "killed"),
        (KeyboardInterrupt(), "killed"),
        (asyncio.CancelledError(), "killed"),
        (GeneratorExit(), "killed"),
        (Cancelled(), "killed"),
        (ValueError("x"), "failed"),
        (MLTrackError("x"), "failed"),
        (ExceptionGroup("several", [ValueError()]), "failed"),
        (BaseExceptionGroup("several", [KeyboardInterrupt()]), "killed"),
    ],
    ids=repr,
)
def test_statuses(store: Store, error: BaseException | None, status: str) -> None:
    assert status_of(error) == status
    run = CapturedRun(store, "r")
    run.conclude(error)
    assert get_run(store, "r").status == status


def test_a_run_of_the_same_id_is_a_new_revision(store: Store) -> None:
    for number, error in enumerate([ValueError(), None], 1):
        run = CapturedRun(store, "r")
        run.log_param("try", number)
        run.conclude(error)
    manifest = get_run(store, "r")
    assert (manifest.revision, manifest.status, manifest.params) == (2, "finished", {"try": 2})
    invariants.check_finished(store)


def test_after_its_end_nothing_can_be_logged(store: Store) -> None:
    run = CapturedRun(store, "r")
    manifest = run.end()
    for log in (lambda: run.log_param("p", 1), lambda: run.log_input("i", FRAME), run.end):
        with pytest.raises(InvalidInputError, match="'r' has ended"):
            log()
    assert get_run(store, "r") == manifest
    assert not invariants.blobs(store)


def test_a_run_that_was_ended_by_hand_stays_as_it_is(store: Store) -> None:
    for error in (None, ValueError("later")):
        run = CapturedRun(store, "r")
        manifest = run.end("killed")
        run.conclude(error)
        assert get_run(store, "r") == manifest
        assert not getattr(error, "__notes__", [])


def test_it_stays_in_its_process(store: Store) -> None:
    run = CapturedRun(store, "r")
    for leave in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(InvalidInputError, match="cannot leave its process"):
            leave(run)


@pytest.fixture
def broken() -> Store:
    """A store that fails from its first request on."""
    return FaultyStore(MemoryStore(), 1, "crash")


def test_when_storing_fails_that_is_raised(broken: Store) -> None:
    for error in (None, SystemExit(0)):
        with pytest.raises(TransientError):
            CapturedRun(broken, "r").conclude(error)


def test_but_the_error_of_the_program_comes_first(broken: Store, caplog: Any) -> None:
    for error in (ValueError("mine"), KeyboardInterrupt()):
        run = CapturedRun(broken, "r")
        run.conclude(error)
        assert run.manifest is None
        [note] = error.__notes__
        assert note.startswith(f"The run 'r' could not be stored as {status_of(error)}: ")
        assert note in caplog.text


def test_a_crash_at_any_step_leaves_nothing_inconsistent() -> None:
    counting = CountingStore(MemoryStore(max_workers=1))
    finish_two_tries(counting)
    for step in range(1, len(counting.log) + 1):
        store = MemoryStore(max_workers=1)
        with pytest.raises(TransientError):
            finish_two_tries(FaultyStore(store, step, "crash"))
        invariants.check_always(store)
        assert finish_two_tries(store).status == "finished"
        invariants.check_always(store)


def finish_two_tries(store: Store) -> Any:
    first = CapturedRun(store, "r", project="p")
    first.log_input("train", FRAME)
    first.end("failed")
    second = CapturedRun(store, "r", project="p")
    second.log_input("train", FRAME)
    second.log_data("report", {"rows": 2})
    return second.end()


# data that a collector took, or that was damaged, while the run went on


def take(store: Store, key: str) -> None:
    store.delete([key])


def damage(store: Store, key: str) -> None:
    stat = store.head(key)
    assert stat is not None
    assert stat.etag is not None
    store.replace(key, b"cut", stat.etag)


@pytest.mark.parametrize(("harm", "kind"), [(take, NotFoundError), (damage, IntegrityError)])
@pytest.mark.parametrize(("status", "stored"), [("finished", "failed"), ("killed", "killed")])
def test_a_run_survives_the_loss_of_its_data(
    store: Store, harm: Callable[[Store, str], None], kind: type[Exception], status: str, stored: str
) -> None:
    run = CapturedRun(store, "r")
    lost = run.log_input("train", FRAME)
    kept = run.log_output("weights", np.arange(3))
    run.log_metric("accuracy", 0.9)
    harm(store, lost.storage_path)
    with pytest.raises(NotFoundError, match=r"1 of what the run 'r' logged") as raised:
        run.end(status)
    assert raised.value.details == {"lost": ["inputs['train']"]}
    assert isinstance(raised.value.__cause__, kind)
    manifest = get_run(store, "r")
    assert manifest == run.manifest
    assert (manifest.status, manifest.metrics) == (stored, {"accuracy": 0.9})
    assert (manifest.inputs, manifest.outputs) == ({}, {"weights": kept})


def test_other_damage_is_not_taken_for_a_loss_of_data(store: Store) -> None:
    """Nothing of this run is lost, so it is not stored as if something were."""
    CapturedRun(store, "r").end()
    damage(store, "manifests/r.json")
    run = CapturedRun(store, "r")
    run.log_input("train", FRAME)
    with pytest.raises(IntegrityError, match=r"manifests/r\.json"):
        run.end()
    assert run.manifest is None


def test_small_values_are_written_again(store: Store) -> None:
    run = CapturedRun(store, "r")
    take(store, run.log_data("report", {"rows": 2}).storage_path)
    assert run.end().values == {"report": {"rows": 2}}
    invariants.check_finished(store)


# threads


def test_threads_may_log(store: Store) -> None:
    run = CapturedRun(store, "r")

    def log(number: int) -> None:
        for each in range(20):
            run.log_metric(f"m{number}.{each}", each)
        run.log_param("last", number)
        run.log_output(f"o{number}", {"n": number % 3})

    assert together(8, log) == [None] * 8
    manifest = run.end()
    assert len(manifest.metrics) == 160
    assert manifest.params["last"] in range(8)
    assert len(manifest.outputs) == 8
    assert len(invariants.blobs(store)) == 3
    invariants.check_finished(store)


def test_a_run_ends_once(store: Store) -> None:
    run = CapturedRun(store, "r")
    ended = together(8, lambda number: run.end())
    [manifest] = [each for each in ended if not isinstance(each, Exception)]
    assert {type(each) for each in ended if each is not manifest} == {InvalidInputError}
    assert get_run(store, "r") == manifest


def test_what_a_thread_stores_says_where_the_run_began(store: Store) -> None:
    with provenance.within(flow_run="f"):
        run = CapturedRun(store, "r")
    seen: list[Any] = []
    run._observe = lambda event: seen.append(provenance.current().get("flow_run"))
    thread = threading.Thread(target=run.log_input, args=("train", FRAME))
    thread.start()
    thread.join()
    assert run.end().provenance["flow_run"] == "f"
    assert set(seen) == {"f"}


def test_it_equals_what_store_run_stores(store: Store) -> None:
    run = CapturedRun(store, "captured", project="p")
    log_everything(run)
    captured = run.end()
    times = {"started_at": captured.started_at, "ended_at": captured.ended_at}
    stored = store_run(
        store,
        "stored",
        {"report": {"rows": 2}, "log": b"text"},
        project="p",
        inputs={"train": FRAME},
        outputs={"weights": np.arange(3)},
        params=captured.params,
        metrics=captured.metrics,
        tags=captured.tags,
        **times,
    )
    assert {**stored.to_content(), "run_id": "captured"} == captured.to_content()
