"""Runs: a manifest by id, views to browse, and nothing written for a call that cannot succeed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mltrack_tasks import events
from mltrack_tasks.content import list_data, retrieve_data, store_data
from mltrack_tasks.errors import ConflictError, InvalidInputError, NotFoundError
from mltrack_tasks.events import Event
from mltrack_tasks.runs import get_run, store_run
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.guard import GuardedStore
from mltrack_tasks.stores.memory import MemoryStore
from tests.floor3 import invariants
from tests.floor3.conftest import Place

TRAIN = pd.DataFrame({"x": [1, 2], "y": [0.5, None]})


def test_the_run_of_the_guide(place: Place) -> None:
    run = store_run(
        place.store,
        "exp_20240115_001",
        {
            "train_data": TRAIN,
            "model_params": {"n_estimators": 100, "max_depth": 10},
            "metrics": {"accuracy": 0.89, "f1": 0.87},
        },
        run_type="experiment",
        storage_mode="by_project",
        project="customer_churn",
        tags={"author": "data-science-team", "version": "1.0"},
    )
    assert (run.created, run.revision, run.status) == (True, 1, "finished")
    assert get_run(place.store, "exp_20240115_001") == run
    pd.testing.assert_frame_equal(retrieve_data(place.store, run.data_refs["train_data"]), TRAIN)
    assert retrieve_data(place.store, run.data_refs["metrics"]) == {"accuracy": 0.89, "f1": 0.87}
    assert run.values["model_params"] == {"n_estimators": 100, "max_depth": 10}
    assert "manifests/exp_20240115_001.json" in place.raw.list()
    assert "runs/by_project/customer_churn/exp_20240115_001" in place.raw.list()
    assert list_data(place.store) == []  # data of a run is named by the run
    invariants.check_finished(place.store)


def test_the_same_call_again_is_the_same_run(place: Place) -> None:
    calls = [
        store_run(place.store, "r", {"a": 1}, storage_mode="by_type", metrics={"m": 1.0}) for _ in range(2)
    ]
    assert [run.created for run in calls] == [True, False]
    assert calls[0] == calls[1]
    assert calls[0].provenance == calls[1].provenance
    invariants.check_finished(place.store)


@pytest.mark.parametrize(
    "change",
    [
        {"data": {"a": 2}},
        {"data": {"a": 1.0}},
        {"data": {"a": True}},
        {"metrics": {"m": 1}},
        {"tags": {"t": "x"}},
        {"status": "failed"},
        {"run_type": "analysis"},
        {"storage_mode": ["by_type", "by_date"]},
        {"project": "p"},
        {"started_at": datetime(2024, 1, 1, tzinfo=UTC)},
    ],
    ids=lambda change: repr(change)[:30],
)
def test_another_run_of_the_same_id_is_a_conflict(store: Store, change: dict[str, Any]) -> None:
    base: dict[str, Any] = {"data": {"a": 1}, "storage_mode": "by_type", "metrics": {"m": 1.0}}
    first = store_run(store, "r", **base)
    with pytest.raises(ConflictError, match="'r'") as raised:
        store_run(store, "r", **{**base, **change})
    assert raised.value.existing == first.to_content()
    assert get_run(store, "r") == first
    invariants.check_finished(store)
    revised = store_run(store, "r", **{**base, **change}, if_exists="revise")
    assert (revised.revision, revised.created) == (2, True)
    assert get_run(store, "r") == revised
    again = store_run(store, "r", **{**base, **change}, if_exists="revise")
    assert (again.revision, again.created) == (2, False)
    back = store_run(store, "r", **base, if_exists="revise")
    assert back.revision == 3
    invariants.check_finished(store)


def test_many_revisions(store: Store) -> None:
    for number in range(1, 12):
        run = store_run(store, "r", {"n": number}, storage_mode="flat", if_exists="revise")
        assert (run.revision, get_run(store, "r").values["n"]) == (number, number)
    invariants.check_finished(store)


def test_every_view(place: Place) -> None:
    run = store_run(
        place.store,
        "r/1",
        storage_mode=("by_project", "by_date", "by_type", "by_model", "by_date", "flat"),
        project="../p",
        model="m 1",
        run_type="production",
        started_at=datetime(2024, 1, 15, 23, 30, tzinfo=timezone(timedelta(hours=-5))),
    )
    assert run.storage_modes == ("by_project", "by_date", "by_type", "by_model", "flat")
    views = [key for key in place.raw.list() if key.startswith("runs/") and "/log/" not in key]
    assert sorted(views) == [
        "runs/by_date/2024-01-16/r%2F1",
        "runs/by_model/m%201/r%2F1",
        "runs/by_project/..%2Fp/r%2F1",
        "runs/by_type/production/r%2F1",
    ]
    assert [place.raw.get(key) for key in views] == [b""] * 4


def test_flat_adds_no_view_and_the_log_knows_the_run(store: Store) -> None:
    run = store_run(store, "r", storage_mode="flat")
    assert run.storage_modes == ("flat",)
    day = run.stored_at.date().isoformat()
    assert [stat.key for stat in store.list("runs/")] == [f"runs/log/{day}/r~00000001"]


def test_refs_are_taken_as_they_are(place: Place) -> None:
    ref = store_data(place.store, TRAIN, "train", metadata={"k": 1})
    run = store_run(place.store, "r", {"train": ref}, outputs={"model": b"bytes"}, storage_mode="flat")
    assert run.data["train"] == ref
    assert run.data["train"].metadata == {"k": 1}
    assert {found.hash for found in run.all_refs} == {ref.hash, run.outputs["model"].hash}
    elsewhere = store_data(MemoryStore(), b"elsewhere")
    with pytest.raises(NotFoundError, match=elsewhere.hash):
        store_run(place.store, "other", {"x": elsewhere}, storage_mode="flat")
    with pytest.raises(NotFoundError):
        get_run(place.store, "other")
    invariants.check_finished(place.store)


def test_small_json_is_inlined_and_large_is_not(store: Store) -> None:
    run = store_run(
        store,
        "r",
        {"small": {"a": float("nan")}, "large": "x" * 9_000, "bytes": b"{}", "array": np.arange(2)},
        outputs={"not data": 1},
        storage_mode="flat",
    )
    assert list(run.values) == ["small"]
    assert repr(get_run(store, "r").values) == "{'small': {'a': nan}}"
    assert retrieve_data(store, run.data["large"]) == "x" * 9_000


def test_equal_bytes_in_two_formats_in_one_run(store: Store) -> None:
    run = store_run(store, "r", {"json": {}, "bytes": b"{}"}, storage_mode="flat")
    assert run.data["json"].hash == run.data["bytes"].hash
    assert retrieve_data(store, run.data["json"]) == {}
    assert retrieve_data(store, run.data["bytes"]) == b"{}"
    invariants.check_finished(store)


def test_numbers_of_numpy_are_metrics(store: Store) -> None:
    metrics = {"a": np.float64(0.5), "b": np.int32(3), "c": float("inf"), "d": 2}
    run = store_run(store, "r", metrics=metrics, storage_mode="flat")
    assert get_run(store, "r").metrics == {"a": 0.5, "b": 3, "c": float("inf"), "d": 2}
    assert [type(value) for value in run.metrics.values()] == [float, int, float, int]


def test_any_mapping_will_do(store: Store) -> None:
    run = store_run(store, "r", MappingProxyType({"a": 1}), tags=MappingProxyType({}), storage_mode="flat")
    assert run.values == {"a": 1}


REFUSED: dict[str, dict[str, Any]] = {
    "no id": {"run_id": None},
    "id of another type": {"run_id": 5},
    "empty id": {"run_id": ""},
    "dots": {"run_id": ".."},
    "newline": {"run_id": "a\nb"},
    "long": {"run_id": "x" * 300},
    "run type": {"run_type": "test"},
    "status": {"status": "done"},
    "mode": {"storage_mode": "by_user"},
    "no mode": {"storage_mode": []},
    "mode without project": {"storage_mode": "by_project"},
    "mode without model": {"storage_mode": ["flat", "by_model"]},
    "project": {"project": ".."},
    "project of another type": {"project": 5},
    "if_exists": {"if_exists": "replace"},
    "data no mapping": {"data": "train"},
    "data no mapping 2": {"data": [1]},
    "name of data": {"data": {"..": 1}},
    "name no string": {"data": {1: 1}},
    "object": {"data": {"ok": 1, "x": object()}},
    "tuple inside": {"data": {"ok": 1, "x": {"a": (1, 2)}}},
    "key inside": {"outputs": {"x": {1: "a"}}},
    "params": {"params": {"a": {1}}},
    "metric": {"metrics": {"a": "high"}},
    "metric 2": {"metrics": {"a": True}},
    "metric 3": {"metrics": {"a": None}},
    "tags": {"tags": "x"},
    "tag": {"tags": {"a": b"x"}},
    "naive time": {"started_at": datetime(2024, 1, 1)},
    "no time": {"ended_at": "2024-01-01"},
    "surrogate": {"tags": {"a": "\ud800"}},
}


@pytest.mark.parametrize("kind", REFUSED)
def test_bad_input_writes_nothing(kind: str) -> None:
    bare = MemoryStore()
    arguments: dict[str, Any] = {"run_id": "r", "storage_mode": "flat", **REFUSED[kind]}
    with pytest.raises(InvalidInputError):
        store_run(GuardedStore(bare), **arguments)
    assert list(bare.list("")) == []


def test_data_that_turns_out_not_to_be_exact_is_referred_to_by_nothing() -> None:
    bare = MemoryStore()
    for bad in (np.array([object()]), pd.DataFrame({"a": [1, object()]})):
        with pytest.raises(InvalidInputError, match="bad"):
            store_run(GuardedStore(bare), "r", {"ok": 1, "bad": bad}, storage_mode="flat")
    assert {key.split("/")[0] for key in invariants.keys(bare)} <= {"format.json", "data"}


def test_a_run_that_is_not_there(place: Place) -> None:
    with pytest.raises(NotFoundError, match="'no such run'"):
        get_run(place.store, "no such run")
    with pytest.raises(InvalidInputError):
        get_run(place.store, "..")


def test_a_later_revision_is_never_taken_for_a_run(store: Store) -> None:
    store_run(store, "r", {"n": 1}, storage_mode="flat")
    store_run(store, "r", {"n": 2}, storage_mode="flat", if_exists="revise")
    store_run(store, "r~00000002", {"n": 3}, storage_mode="flat")
    assert get_run(store, "r").values == {"n": 2}
    assert get_run(store, "r~00000002").values == {"n": 3}
    invariants.check_finished(store)


def test_events_come_from_the_callers_thread(store: Store) -> None:
    import threading

    seen: list[tuple[str, int]] = []

    def observe(event: Event) -> None:
        seen.append((event.name, threading.get_ident()))

    data = {f"d{number}": {"n": number} for number in range(12)}
    store_run(store, "r", data, storage_mode="flat", observe=observe)
    assert [name for name, _ in seen] == [events.BLOB_CREATED] * 12 + [events.RUN_STORED]
    assert {thread for _, thread in seen} == {threading.get_ident()}
