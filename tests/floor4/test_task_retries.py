"""What every task is set to, and which errors Prefect tries again."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable
from typing import Any

import cloudpickle
import pytest
from prefect import Task, flow
from prefect.cache_policies import NO_CACHE

import mltrack_tasks
from mltrack_tasks import (
    AccessError,
    ConflictError,
    InvalidInputError,
    MLTrackError,
    MLTrackStore,
    NotFoundError,
    TransientError,
    retrieve_data,
    store_data,
    store_file,
    store_run,
    tasks,
)
from mltrack_tasks.stores import retry
from mltrack_tasks.tasks import data, runs
from tests.servers.faultproxy import Answer, Fault, FaultProxy

ALL = {
    name: thing for name in mltrack_tasks.__all__ if isinstance(thing := getattr(mltrack_tasks, name), Task)
}
BLOB = r"/data/../\w+/data\.json"
AT_ONCE = {"retry_delay_seconds": 0}
REQUEST_TRIES = 3
"""Tries of the store itself, below those of Prefect."""


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store's own pauses between tries are not what is tested here."""
    monkeypatch.setattr(retry, "FIRST_PAUSE", 0.001)


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How often a task body ran: each run opens its store once."""
    opened = data.open_store
    seen: list[Any] = []

    def counting(store: Any) -> Any:
        seen.append(store)
        return opened(store)

    for module in (data, runs):
        monkeypatch.setattr(module, "open_store", counting)
    return lambda: len(seen)


def test_there_are_tasks() -> None:
    assert {"store_data", "store_file", "retrieve_data", "store_run", "check_access"} <= set(ALL)


@pytest.mark.parametrize("name", ALL)
def test_every_task_has_the_same_settings(name: str) -> None:
    each = ALL[name]
    assert each.name == "mltrack-" + name.replace("_", "-")
    assert each.cache_policy == NO_CACHE
    assert each.persist_result is False
    assert each.retries == 2
    assert each.retry_condition_fn is not None
    assert each.retry_jitter_factor
    assert not each.isasync
    assert each.fn.__doc__
    assert each.description


@pytest.mark.parametrize(
    ("failing", "runs"), [(REQUEST_TRIES, 2), (2 * REQUEST_TRIES, 3)], ids=["once", "twice"]
)
def test_a_task_outlives_passing_trouble(
    proxied_block: MLTrackStore, proxy: FaultProxy, attempts: Callable[[], int], failing: int, runs: int
) -> None:
    proxy.script(Fault("status503", method="PUT", match=BLOB, times=failing))
    ref = store_data.with_options(**AT_ONCE)({"a": 1}, store=proxied_block)
    assert attempts() == runs
    assert proxy.count("PUT", BLOB) == failing + 1
    assert retrieve_data.fn(ref, store=proxied_block) == {"a": 1}


def test_lasting_trouble_ends_after_three_runs(
    proxied_block: MLTrackStore, proxy: FaultProxy, attempts: Callable[[], int]
) -> None:
    proxy.script(Fault("status500", method="PUT", match=BLOB, times=None))
    with pytest.raises(TransientError, match="InternalError"):
        store_data.with_options(**AT_ONCE)({"a": 1}, store=proxied_block)
    assert attempts() == 3
    assert proxy.count("PUT", BLOB) == 3 * REQUEST_TRIES


def test_a_task_called_in_an_async_flow_is_tried_again_too(
    proxied_block: MLTrackStore, proxy: FaultProxy, attempts: Callable[[], int]
) -> None:
    proxy.script(Fault("status503", method="PUT", match=BLOB, times=REQUEST_TRIES))

    @flow
    async def pipeline() -> Any:
        return store_data.with_options(**AT_ONCE)({"a": 1}, store=proxied_block)

    assert asyncio.run(pipeline()).created
    assert attempts() == 2


def test_a_refusal_is_final(
    proxied_block: MLTrackStore, proxy: FaultProxy, attempts: Callable[[], int]
) -> None:
    denied = Answer(403, "AccessDenied", "not allowed")
    proxy.script(Fault("answer", method="PUT", match=BLOB, times=None, answer=denied))
    with pytest.raises(AccessError, match="s3:PutObject"):
        store_data.with_options(**AT_ONCE)({"a": 1}, store=proxied_block)
    assert (attempts(), proxy.count("PUT", BLOB)) == (1, 1)


def test_bad_input_conflicts_and_misses_are_final(
    block: MLTrackStore, attempts: Callable[[], int], tmp_path: Any
) -> None:
    store_run.fn("r", {"a": 1}, storage_mode="flat", store=block)
    before = attempts()
    failing: list[tuple[type[MLTrackError], Callable[[], Any]]] = [
        (InvalidInputError, lambda: store_data.with_options(**AT_ONCE)(object(), store=block)),
        (InvalidInputError, lambda: store_data.with_options(**AT_ONCE)(1, metadata="x", store=block)),
        (InvalidInputError, lambda: store_file.with_options(**AT_ONCE)(tmp_path / "none", store=block)),
        (
            ConflictError,
            lambda: store_run.with_options(**AT_ONCE)("r", {"a": 2}, storage_mode="flat", store=block),
        ),
        (NotFoundError, lambda: retrieve_data.with_options(**AT_ONCE)("0" * 64, store=block)),
    ]
    for kind, call in failing:
        with pytest.raises(kind):
            call()
    assert attempts() - before == len(failing)


@pytest.mark.parametrize("dump", [pickle, cloudpickle])
def test_errors_and_records_cross_processes(block: MLTrackStore, dump: Any) -> None:
    manifest = store_run.fn("r", {"a": 1}, storage_mode="flat", store=block)
    with pytest.raises(ConflictError) as conflict:
        store_run.fn("r", {"a": 2}, storage_mode="flat", store=block)
    store_data.fn([1], "n", metadata={"k": 1}, store=block)
    for value in (manifest, *manifest.data_refs.values(), *tasks.list_data.fn(store=block)):
        copied = pickle.loads(dump.dumps(value))
        assert copied == value
        assert vars(copied) == vars(value)
    for kind in (getattr(mltrack_tasks, name) for name in mltrack_tasks.__all__ if name.endswith("Error")):
        error = pickle.loads(dump.dumps(kind("what", details={"key": "k"})))
        assert (type(error), str(error), error.details) == (kind, "what", {"key": "k"})
    error = pickle.loads(dump.dumps(conflict.value))
    assert (error.existing, error.offered) == (conflict.value.existing, conflict.value.offered)
