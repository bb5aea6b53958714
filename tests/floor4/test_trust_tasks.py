"""The tasks and flows that verify and heal: what they hand out, show, emit, and how their runs end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect import flow
from prefect.settings import PREFECT_API_URL

from flows.heal_store import heal_store as heal_flow
from flows.verify_store import verify_store as verify_flow
from mltrack_tasks import (
    HealReport,
    IntegrityError,
    InvalidInputError,
    MLTrackStore,
    VerifyReport,
    heal_store,
    store_data,
    store_run,
    verify_store,
)
from mltrack_tasks.tasking import _EMITTED
from mltrack_tasks.testing import RawFolder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def damaged(folder: Path) -> RawFolder:
    """A store in a directory that lacks a blob which a run and a name need."""
    ref = store_data.fn(b"needed", "kept|<b>", store=str(folder))
    store_run.fn("r1", {"x": ref}, project="p", store=str(folder))
    (folder / ref.storage_path).unlink()
    return RawFolder(folder)


def shown(key: str) -> dict[str, Any]:
    """The newest artifact of a key."""
    asked = {"artifacts": {"key": {"any_": [key]}}, "sort": "CREATED_DESC", "limit": 1}
    answer = httpx.post(f"{PREFECT_API_URL.value()}/artifacts/filter", json=asked).raise_for_status().json()
    return dict(answer[0])


def test_a_flow_that_verifies_and_heals(block: MLTrackStore, tmp_path: Path) -> None:
    @flow
    def tend() -> tuple[VerifyReport, VerifyReport, HealReport]:
        ref = store_data(b"needed", "kept", store=block)
        first = verify_store(level="read", store=block)
        (tmp_path / "copy").mkdir()
        (tmp_path / "copy" / "any name").write_bytes(b"needed")
        block.open().delete([ref.storage_path])
        return first, verify_store(store=block), heal_store(local_path=tmp_path / "copy", store=block)

    whole, found, done = tend()
    assert whole.ok
    assert (found.ok, found.counts) == (False, {"missing": 1})
    assert [each.source for each in done.healed] == [f"{(tmp_path / 'copy').resolve()}: any name"]
    assert done.ok


def test_the_flow_fails_when_something_is_wrong(damaged: RawFolder, folder: Path) -> None:
    state = verify_flow(store=str(folder), return_state=True)
    assert state.is_failed()
    assert "1 things are wrong" in str(state.message)
    with pytest.raises(IntegrityError, match="missing data/") as raised:
        state.result()
    assert raised.value.details["counts"] == {"missing": 1}
    text = shown("mltrack-verification")["data"]
    assert "Something is wrong" in text
    assert raised.value.details["audit"] in text
    [row] = json.loads(shown("mltrack-findings")["data"])
    assert row["finding"] == "missing"
    assert row["needed by"] == "name kept|<b>, run r1"
    assert verify_flow.name == "mltrack-verify-store"


def test_the_flow_succeeds_when_all_is_well(folder: Path) -> None:
    store_data.fn(b"needed", "kept", store=str(folder))
    for level in ("structure", "attested", "read"):
        assert verify_flow(level=level, store=str(folder)).ok  # type: ignore[arg-type]
    assert verify_flow(level="attested", since="last", store=str(folder)).checked.objects == 0
    assert verify_flow(level="read", part="week/4", keep=False, store=str(folder)).audit == ""


def test_the_flow_that_heals_fails_when_something_is_lost(
    damaged: RawFolder, folder: Path, tmp_path: Path
) -> None:
    verify_store.fn(store=str(folder))
    with pytest.raises(IntegrityError, match=r"were found nowhere\. What they break: name kept\|<b>, run r1"):
        heal_flow(store=str(folder))
    [row] = json.loads(shown("mltrack-healing")["data"])
    assert row["became"] == "lost"
    replica = tmp_path / "replica"
    store_data.fn(b"needed", "elsewhere", store=str(replica))
    planned = heal_flow(replicas=[str(replica)], dry_run=True, store=str(folder))
    assert len(planned.healed) == 1
    assert not verify_store.fn(store=str(folder)).ok
    assert heal_flow(replicas=[str(replica)], store=str(folder)).ok
    assert verify_flow(store=str(folder)).ok
    assert heal_flow.name == "mltrack-heal-store"


def test_what_is_found_is_an_event(damaged: RawFolder, folder: Path) -> None:
    """Automations can wait for these; whether they are emitted, other tests show for all such events."""
    assert {"mltrack.store.verified", "mltrack.store.unhealthy", "mltrack.store.healed"} <= set(_EMITTED)


def test_parameters_of_the_form(folder: Path) -> None:
    described = verify_flow.parameters.model_dump()["properties"]
    assert described["level"]["enum"] == ["structure", "attested", "read"]
    assert all(each.get("description") for each in described.values())
    assert all(each.get("description") for each in heal_flow.parameters.model_dump()["properties"].values())


def test_what_means_nothing_is_refused(folder: Path) -> None:
    with pytest.raises(InvalidInputError):
        verify_store.fn(level="deep", store=str(folder))
