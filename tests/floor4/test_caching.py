"""BY_DIGEST: one key for the same data and code; the store as a place of results, which are kept once."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from prefect import flow, task

from mltrack_tasks import BY_DIGEST, MLTrackStore, content, layout, store_data
from mltrack_tasks.caching import ByDigest
from mltrack_tasks.errors import InvalidInputError
from mltrack_tasks.refs import DataRef
from mltrack_tasks.stores import Store, open_memory

FRAME = pd.DataFrame({"a": [1, 2], "b": ["x", "y"]})


def ref(**changes: Any) -> DataRef:
    return replace(content.store_data(open_memory(), FRAME, "frame"), **changes)


@dataclass(frozen=True)
class Asked:
    """What a user's task may take."""

    data: DataRef
    rate: float = 0.1


def key(policy: ByDigest = BY_DIGEST, /, **inputs: Any) -> str | None:
    """Key of a task without code: what differs comes of the inputs."""
    return policy.compute_key(None, inputs, {})  # type: ignore[arg-type]


SAME = {
    "a ref under another name": (ref(), ref(name="other")),
    "a ref that was new": (ref(created=True), ref(created=False)),
    "a ref of another place": (ref(), ref(storage_path="elsewhere/data.parquet", metadata={"by": "Ada"})),
    "refs in a list": ([ref(), 1], [ref(name="other"), 1]),
    "refs in a mapping": ({"x": ref(), "y": 1}, {"y": 1, "x": ref(name="other")}),
    "refs in a dataclass": (Asked(ref()), Asked(ref(name="other"))),
    "equal frames": (FRAME, FRAME.copy()),
    "equal arrays": (np.arange(3), np.arange(3)),
    "stores": (MLTrackStore(path="/a"), MLTrackStore(bucket="b")),
    "what Prefect hashes": (Path("a"), Path("a")),
}
DIFFERENT = {
    "other data": (ref(), ref(hash="0" * 64)),
    "another format": (ref(), ref(format="bin")),
    "a frame and its ref": (FRAME, ref()),
    "a ref and its text": (ref(), str(ref())),
    "the order of columns": (FRAME, FRAME[["b", "a"]]),
    "types of columns": (FRAME, FRAME.astype({"a": "int32"})),
    "types of numbers": (1, 1.0),
    "numbers and truth": (1, True),
    "a text and a number": ("1", 1),
    "a list and a tuple": ([1], (1,)),
    "the depth of lists": ([[1], 2], [1, [2]]),
    "another rate": (Asked(ref()), Asked(ref(), 0.2)),
    "what Prefect hashes": (Path("a"), Path("b")),
    "numbers that are no JSON": (Decimal("1"), Decimal("2")),
}


@pytest.mark.parametrize("pair", SAME.values(), ids=SAME)
def test_the_same_data_has_one_key(pair: tuple[Any, Any]) -> None:
    first, second = (key(value=value) for value in pair)
    assert first == second is not None


@pytest.mark.parametrize("pair", DIFFERENT.values(), ids=DIFFERENT)
def test_other_data_has_another_key(pair: tuple[Any, Any]) -> None:
    assert key(value=pair[0]) != key(value=pair[1])


def test_names_of_parameters_count_unless_they_are_left_out() -> None:
    assert key(a=1, b=2) != key(a=2, b=1)
    without = BY_DIGEST - "where"
    assert key(without, a=1, where="here") == key(without, a=1, where="there") == key(a=1)
    assert (without - "a").exclude == ("where", "a")
    with pytest.raises(InvalidInputError, match="name of a parameter"):
        BY_DIGEST - 1  # type: ignore[operator]


def test_a_key_is_the_same_everywhere_and_stays_so() -> None:
    data = DataRef("0" * 64, "parquet", 1, "data/00/data.parquet")
    assert key(data=data, rate=0.5, names=["a", None]) == (
        "770eca7018aa7b4b2930bfb1410a974987a67be9d7c867acdad2586816186f70"
    )


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> MLTrackStore:
    """A store that is saved, as Prefect wants it of a place for results."""
    store = MLTrackStore(path=str(tmp_path_factory.mktemp("results")))
    store.save("results", overwrite=True)
    return store


def blobs(store: Store) -> set[str]:
    return {each.key for each in store.list("data/") if layout.parse_blob_key(each.key)}


def test_two_flows_share_what_the_first_computed(results: MLTrackStore, tmp_path: Path) -> None:
    """Another flow, another bucket, another name of the data, another user's block."""
    ran: list[str] = []

    @task(cache_policy=BY_DIGEST, result_storage=results, persist_result=True)
    def total(data: DataRef, store: MLTrackStore) -> int:
        ran.append(data.name or "")
        return int(content.retrieve_data(store.open(), data)["a"].sum())

    def mine(name: str, frame: pd.DataFrame) -> int:
        own = MLTrackStore(path=str(tmp_path / name))
        return int(total(store_data(frame, name, store=own), own))

    first, second = flow(mine, name="first"), flow(mine, name="second")
    assert first("ada", FRAME) == 3
    assert second("bob", FRAME.copy()) == 3
    assert ran == ["ada"]
    assert second("eve", FRAME.assign(a=[5, 6])) == 11
    assert ran == ["ada", "eve"]


def test_equal_results_of_runs_are_kept_once(results: MLTrackStore) -> None:
    @flow(result_storage=results, persist_result=True)
    def give(number: int) -> list[int]:
        return [number] * 1_000

    before, named = blobs(results.open()), len(content.list_data(results.open()))
    states = [give(number, return_state=True) for number in (1, 1, 2)]

    assert [state.result()[0] for state in states] == [1, 1, 2]
    assert len(blobs(results.open()) - before) == 2
    assert len(content.list_data(results.open())) - named == 3


def test_async_flows_keep_results_there_too(results: MLTrackStore) -> None:
    @flow(result_storage=results, persist_result=True)
    async def give() -> dict[str, int]:
        return {"a": 1}

    async def both() -> Any:
        state = await give(return_state=True)
        return await state.aresult() if hasattr(state, "aresult") else await state.result()

    before = blobs(results.open())
    assert asyncio.run(both()) == {"a": 1}
    assert len(blobs(results.open()) - before) == 1
