"""The task and the flow that replicate: what they hand out, show and emit, and how their runs end."""

from __future__ import annotations

from pathlib import Path

import pytest
from prefect import flow

from flows.replicate_store import replicate_store as replicate_flow
from mltrack_tasks import (
    ConflictError,
    PartialTransferError,
    ReplicationReport,
    end_replication,
    replicate_store,
    retrieve_data,
    store_data,
)
from tests.floor4.test_trust_tasks import shown


def test_a_flow_that_keeps_a_replica(tmp_path: Path) -> None:
    here, there = str(tmp_path / "here"), str(tmp_path / "there")

    @flow
    def pipeline() -> tuple[ReplicationReport, ReplicationReport]:
        ref = store_data(b"kept twice", "kept", store=here)
        first = replicate_store.submit(there, store=here).result()
        assert retrieve_data(ref, store=there) == b"kept twice"
        with pytest.raises(ConflictError, match="replica"):
            store_data.fn(b"other", "other", store=there)
        return first, replicate_flow(there, dry_run=True, store=here)

    first, again = pipeline()
    assert (first.copied_blobs, again.missing_blobs, again.dry_run) == (1, 0, True)
    assert "0 blobs and 0 records to copy" in str(shown("mltrack-replication")["description"])
    end_replication("it is for good", store=there)
    store_data.fn(b"other", "other", store=there)


def test_a_flow_fails_where_something_cannot_be_copied(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    ref = store_data.fn(b"damaged", "kept", store=str(here))
    (here / ref.storage_path).chmod(0o644)
    (here / ref.storage_path).write_bytes(b"Damaged")
    state = replicate_flow(str(there), store=str(here), return_state=True)
    assert state.is_failed()
    with pytest.raises(PartialTransferError, match="do not hash"):
        state.result()
    assert ref.storage_path.rpartition("/")[0] in str(shown("mltrack-replication-failures")["data"]).replace(
        "\\", ""
    )
    assert not (there / ref.storage_path).exists()
