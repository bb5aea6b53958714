"""The task and the flow that collect garbage: what they hand out, show and emit, and that they only look."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pytest

from flows.collect_garbage import collect_garbage as collect_flow
from mltrack_tasks import GarbageReport, InvalidInputError, collect_garbage, events, store_data
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
