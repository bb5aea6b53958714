"""The tasks and flows that clean a store: what they hand out, show and emit, and that they only look."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prefect.exceptions import ParameterTypeError

from flows.apply_retention import apply_retention as retention_flow
from flows.collect_garbage import collect_garbage as collect_flow
from flows.remove_runs import remove_runs as removal_flow
from mltrack_tasks import (
    GarbageReport,
    InvalidInputError,
    collect_garbage,
    events,
    list_runs,
    store_data,
    store_run,
)
from mltrack_tasks.digest import sha256_hex
from mltrack_tasks.tasking import _EMITTED
from tests.floor4.test_trust_tasks import shown

LONG_AGO = 1_500_000_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A store in a directory with one blob that is needed, and an old one that is not."""
    place = tmp_path / "store"
    store_data.fn(b"needed", "kept", store=str(place))
    digest = sha256_hex(b"orphan")
    orphan = place / "data" / digest[:2] / digest / "data.bin"
    orphan.parent.mkdir(parents=True)
    orphan.write_bytes(b"orphan")
    os.utime(orphan, (LONG_AGO, LONG_AGO))
    return place


def blobs(folder: Path) -> list[bytes]:
    return sorted(path.read_bytes() for path in folder.glob("data/*/*/data.*"))


def test_the_flow_only_looks_until_it_is_given_the_plan(folder: Path) -> None:
    found = collect_flow(store=str(folder))
    assert isinstance(found, GarbageReport)
    assert (found.dry_run, found.blobs, found.size_bytes) == (True, 1, 6)
    assert blobs(folder) == [b"needed", b"orphan"]
    assert found.plan in shown("mltrack-garbage")["data"]
    done = collect_flow(plan=found.plan, store=str(folder))
    assert (done.dry_run, done.deleted_blobs, done.plan) == (False, 1, found.plan)
    assert blobs(folder) == [b"needed"]
    assert "deleted 1 blobs" in shown("mltrack-garbage")["data"].replace("\\", "")


def test_the_task_outside_a_flow(folder: Path) -> None:
    assert collect_garbage.fn(store=str(folder)).blobs == 1
    assert collect_garbage.fn(dry_run=False, store=str(folder)).deleted_blobs == 1
    with pytest.raises(InvalidInputError, match="a day or more"):
        collect_garbage.fn(grace=timedelta(hours=1), store=str(folder))
    assert events.GARBAGE_COLLECTED in _EMITTED


def test_the_flow_that_applies_retention_takes_a_bounded_form(tmp_path: Path) -> None:
    place = str(tmp_path / "store")
    for number in range(3):
        store_run.fn(
            f"r{number}", {}, project="p", started_at=datetime(2024, 1, 1 + number, tzinfo=UTC), store=place
        )
    form = {"policies": [{"projects": ["p"], "keep_last": 1}], "store": place}
    found = retention_flow(**form)
    assert (found.dry_run, sorted(found.doomed)) == (True, ["r0", "r1"])
    assert len(list_runs.fn(store=place)) == 3
    assert {row["run"]: row["keep"] for row in json.loads(shown("mltrack-retention")["data"])} == {
        "r0": False,
        "r1": False,
        "r2": True,
    }
    assert sorted(retention_flow(**form, dry_run=False).removed) == ["r0", "r1"]
    assert [run.run_id for run in list_runs.fn(store=place)] == ["r2"]


def test_the_flow_that_removes_runs_only_names_them_until_it_is_given_the_plan(tmp_path: Path) -> None:
    place = str(tmp_path / "store")
    for number in range(3):
        store_run.fn(f"r{number}", {}, project="p" if number else "q", store=place)
    found = removal_flow(project="p", store=place)
    assert (found.dry_run, found.matched) == (True, ("r1", "r2"))
    assert len(list_runs.fn(store=place)) == 3
    assert found.plan in shown("mltrack-removal")["description"]
    assert removal_flow(plan=found.plan, store=place).removed == ("r1", "r2")
    assert [run.run_id for run in list_runs.fn(store=place)] == ["r0"]
    with pytest.raises(ParameterTypeError):
        removal_flow(run_type="nightly", store=place)
    for bad in ({"plan": "x"}, {"project": ""}):
        with pytest.raises(InvalidInputError):
            removal_flow(**bad, store=place)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "policy",
    [
        {},
        {"keep_last": -1},
        {"keep_days": "inf"},
        {"keep_last": 10**7},
        {"keep_last": 1, "run_types": ["nightly"]},
        {"keep_last": 1, "keep_lats": 2},
        {"keep_last": 1, "projects": "p"},
    ],
)
def test_a_policy_that_cannot_be_meant_never_runs(policy: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ParameterTypeError):
        retention_flow(policies=[policy], store=str(tmp_path / "store"))
    with pytest.raises(ParameterTypeError):
        retention_flow(policies=[], store=str(tmp_path / "store"))
    assert not (tmp_path / "store").exists()
