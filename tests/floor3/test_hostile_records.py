"""Any record of a store may be forged or damaged: operations answer, or raise an error of this library."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mltrack_tasks.collecting.collect import collect_garbage
from mltrack_tasks.compaction import compact_catalog
from mltrack_tasks.content import list_data, retrieve_data, store_data
from mltrack_tasks.digest import sha256_hex
from mltrack_tasks.errors import MLTrackError
from mltrack_tasks.lineage import to_markdown, to_mermaid, trace_lineage
from mltrack_tasks.migration import download_from_s3
from mltrack_tasks.query import query_runs
from mltrack_tasks.registry import (
    download_model,
    list_models,
    model_history,
    policy_of,
    promote_model,
    resolve_model,
    rollback_model,
    set_policy,
)
from mltrack_tasks.registry.gates import MetricGate
from mltrack_tasks.runs import find_runs_by_data, get_run, list_runs, store_run
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.guard import GuardedStore
from mltrack_tasks.stores.memory import MemoryStore
from mltrack_tasks.testing import RawObjects
from mltrack_tasks.trust.heal import heal_store
from mltrack_tasks.trust.verify import verify_store
from mltrack_tasks.usage import data_usage_stats
from mltrack_tasks.usage_stats import usage_chart
from mltrack_tasks.views import rebuild_views
from tests.floor0.mutations import HUGE, encoded, forged
from tests.floor3.migrationtrees import fill, migrate, quiet, small_registry, stored

Objects = dict[str, bytes]
DATA = b"rows of a table"
REF = f"sha256:{sha256_hex(DATA)}.bin"


@pytest.fixture(scope="session")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Objects:
    """The objects of a store in which everything was done that leaves a record."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLTRACK_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        bare = MemoryStore()
        use(GuardedStore(bare), tmp_path_factory.mktemp("used"))
        return stored(bare)


def use(store: Store, folder: Path) -> None:
    """Do everything that leaves a record."""
    ref = store_data(store, DATA, "rows", metadata={"source": "lab", "n": [1, 0.5]})
    store_data(store, {"a": [1, 2]}, "config")
    store_run(
        store,
        "first",
        {"x": b"x", "n": [1, {"a": 2.5}]},
        storage_mode=("by_project", "by_date", "by_type", "by_model"),
        project="p",
        model="churn",
        inputs={"rows": ref},
        outputs={"o": b"o"},
        params={"depth": 3, "rate": 0.1, "layers": [64, 32], "name": "x"},
        metrics={"auc": 0.9},
        tags={"team": "a"},
    )
    compact_catalog(store, observe=quiet)
    store_run(store, "first", {"x": b"y"}, project="p", metrics={"auc": 0.5}, if_exists="revise")
    store_run(store, "second", {"x": b"z"}, project="p", inputs={"rows": ref}, status="failed")
    migrate(store, sources(folder) / "mlruns", name="models")
    migrate(store, folder / "plain")
    set_policy(store, "churn", "production", [MetricGate(metric="auc", at_least=0.1)])
    promote_model(store, "churn", "latest", "champion")
    verify_store(store, observe=quiet)
    collect_garbage(store, observe=quiet)


def sources(folder: Path) -> Path:
    """What was migrated, on this machine."""
    fill(folder / "plain", {"run/x": b"#!/bin/sh\n", "run/p": b"p" * 5_000, "loose": b"b" * 40_000})
    small_registry(folder / "mlruns")
    return folder


def reading(store: Store, folder: Path) -> Iterator[Callable[[], Any]]:
    """What people ask a store."""
    q: dict[str, Any] = {"observe": quiet}
    yield lambda: [get_run(store, "first"), get_run(store, "second")]
    yield lambda: [repr(run) for run in list_runs(store, **q)]
    yield lambda: list_runs(store, metrics={"auc": "> 0.1"}, params={"depth": 3}, since="2020-01-01", **q)
    yield lambda: find_runs_by_data(store, REF, **q)
    yield lambda: [repr(item) for item in list_data(store)]
    yield lambda: [retrieve_data(store, item.ref) for item in list_data(store, "rows")]
    yield lambda: [str(data_usage_stats(store, **q)), usage_chart(data_usage_stats(store, **q))]
    yield lambda: repr(query_runs(store, "SELECT run_id, metrics, params, refs, data FROM runs", **q).frame)
    yield lambda: shown(trace_lineage(store, run_id="first", **q))
    yield lambda: shown(trace_lineage(store, ref=REF, **q))
    yield lambda: [repr(model) for model in list_models(store)]
    yield lambda: [repr(resolve_model(store, "churn", name)) for name in ("latest", "champion", "staging")]
    yield lambda: [repr(event) for event in model_history(store, "churn", "champion")]
    yield lambda: policy_of(store, "churn", "production")
    yield lambda: download_model(store, "churn", "champion", folder / "in" / "model")
    yield lambda: download_from_s3(store, folder / "in" / "all", **q)
    yield lambda: download_from_s3(store, folder / "in" / "some", run_ids=["first"], **q)
    yield lambda: download_from_s3(store, folder / "in" / "copy", layout="store", **q)
    yield lambda: str(verify_store(store, **q))
    yield lambda: str(heal_store(store, dry_run=True, **q))
    yield lambda: str(collect_garbage(store, **q))


def writing(store: Store, folder: Path) -> Iterator[Callable[[], Any]]:
    """What people do in a store."""
    q: dict[str, Any] = {"observe": quiet}
    yield lambda: store_data(store, DATA, "rows", metadata={"source": "lab", "n": [1, 0.5]})
    yield lambda: store_run(store, "first", {"x": b"y"}, project="q", if_exists="revise", **q)
    yield lambda: rebuild_views(store, **q)
    yield lambda: compact_catalog(store, **q)
    yield lambda: compact_catalog(store, rebuild=True, **q)
    yield lambda: promote_model(store, "churn", "latest", "production")
    yield lambda: rollback_model(store, "churn", "champion")
    yield lambda: migrate(store, folder / "plain")
    yield lambda: migrate(store, folder / "mlruns", name="models")
    yield lambda: collect_garbage(store, dry_run=False, **q)
    yield lambda: heal_store(store, local_path=folder / "plain", **q)


def shown(lineage: Any) -> tuple[str, ...]:
    return repr(lineage), to_markdown(lineage), to_mermaid(lineage)


def attempt(objects: Objects, folder: Path) -> list[str]:
    """Ask and do everything -> the errors, which are of this library; nothing appears where it should not."""
    refused = []
    (sources(folder) / "in").mkdir()
    for acts in (reading, writing):
        bare = MemoryStore()
        raw = RawObjects(bare.objects)
        for key, body in objects.items():
            raw.put(key, body)
        for act in acts(GuardedStore(bare), folder):
            try:
                act()
            except MLTrackError as error:
                refused.append(str(error))
    assert {path.name for path in folder.iterdir()} == {"in", "plain", "mlruns"}
    assert {path.name for path in (folder / "in").iterdir()} <= {"model", "all", "some", "copy"}
    return refused


def is_record(key: str, body: bytes) -> bool:
    return not key.startswith("data/") and body.startswith(b"{")


def kind_of(key: str) -> str:
    """The folder of a record, without ids and versions."""
    return "/".join(part for part in key.split("/")[:-1] if not any(map(str.isdigit, part)))


@pytest.fixture(autouse=True)
def away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_pauses: list[float]) -> None:
    monkeypatch.setenv("MLTRACK_CACHE_DIR", str(tmp_path / "cache"))


def test_of_an_intact_store_everything_is_told(intact: Objects, tmp_path: Path) -> None:
    assert len({kind_of(key) for key, body in intact.items() if is_record(key, body)}) >= 18
    (tmp_path / "told").mkdir()
    refused = attempt(intact, tmp_path / "told")
    expected = ("not promoted", "no version before")  # as the policy has it, and the history
    assert [error for error in refused if not any(said in error for said in expected)] == []


def raised(value: Any) -> Any:
    """A JSON value whose whole numbers lie beyond what tables, databases and floats hold."""
    if isinstance(value, dict):
        return {key: raised(item) for key, item in value.items()}
    if isinstance(value, list):
        return [raised(item) for item in value]
    return HUGE if type(value) is int else value


@pytest.mark.parametrize("key", ["manifests/first.json", "manifests/first~00000002.json"])
def test_numbers_beyond_all_measure(intact: Objects, tmp_path: Path, key: str) -> None:
    record = json.loads(intact[key])
    huge = encoded({**record, "content": raised(record["content"])})
    (tmp_path / "told").mkdir()
    attempt({**intact, key: huge}, tmp_path / "told")


@given(data=st.data())
def test_whatever_a_record_says(data: st.DataObject, intact: Objects) -> None:
    kinds: dict[str, list[str]] = {}
    for key in sorted(key for key, body in intact.items() if is_record(key, body)):
        kinds.setdefault(kind_of(key), []).append(key)
    key = data.draw(st.sampled_from(kinds[data.draw(st.sampled_from(sorted(kinds)))]))
    objects = {**intact, key: data.draw(forged(intact[key]))}
    with tempfile.TemporaryDirectory() as folder:
        attempt(objects, Path(folder))
