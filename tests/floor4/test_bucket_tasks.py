"""The tasks and the flow that provision a bucket: what they hand out, show and emit."""

from __future__ import annotations

import json

import pytest

from flows.provision_bucket import provision_bucket as provision_flow
from mltrack_tasks import (
    BucketReport,
    BucketSettings,
    InvalidInputError,
    MLTrackStore,
    events,
    provision_bucket,
    undo_bucket_change,
)
from mltrack_tasks.bucket.report import pretty
from mltrack_tasks.tasking import _EMITTED
from mltrack_tasks.tasks.bucket import told
from tests.floor3.buckets import LOGS_EXPIRE, Bucket
from tests.floor4.conftest import block_of
from tests.floor4.test_trust_tasks import shown
from tests.servers import S3Server
from tests.settings import settings_of


@pytest.fixture
def bucket(s3_server: S3Server) -> Bucket:
    return Bucket(s3_server)


@pytest.fixture
def block(bucket: Bucket) -> MLTrackStore:
    return block_of(settings_of(bucket.server, bucket=bucket.name, prefix="mltrack"))


def test_the_flow_only_looks_until_it_is_told(
    bucket: Bucket, block: MLTrackStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    block.save("provisioned", overwrite=True)
    bucket.put_lifecycle({**LOGS_EXPIRE, "ID": "logs | `expire`"})
    found = provision_flow(store="provisioned")
    assert isinstance(found, BucketReport)
    assert found.dry_run
    rows = json.loads(shown("mltrack-bucket")["data"])
    assert [row["document"] for row in rows if row["state"] == "change"] == list(found.to_change)
    text = shown("mltrack-bucket-documents")["data"]
    assert found.plan in text
    assert '"ID": "logs | `expire`"' in text  # in a block of code, as it is
    assert len(bucket.lifecycle()) == 1
    done = provision_flow(plan=found.plan, store="provisioned")
    assert done.changes == (1, 2, 3, 4)
    assert len(bucket.lifecycle()) == 3
    assert "undo_bucket_change" in shown("mltrack-bucket-documents")["data"].replace("\\", "")
    provision_flow(undo=done.changes[-1], dry_run=False, store="provisioned")
    assert len(bucket.lifecycle()) == 1


def test_the_tasks_outside_a_flow(block: MLTrackStore) -> None:
    settings = {"lifecycle": {"abort_uploads_days": 2}, "recommended": False}
    done = provision_bucket.fn(settings, dry_run=False, store=block)
    assert done.to_change == ("lifecycle",)
    assert provision_bucket.fn(BucketSettings(), store=block).row("lifecycle").state == "same"
    assert undo_bucket_change.fn(1, store=block).to_change == ("lifecycle",)
    with pytest.raises(InvalidInputError, match=r"lifecycle\.abort_uploads_days"):
        provision_bucket.fn({"lifecycle": {"abort_uploads_days": 0}}, store=block)
    assert {events.BUCKET_CHANGED, events.BUCKET_DRIFTED} <= set(_EMITTED)


def test_a_document_cannot_end_its_block_of_code() -> None:
    report = BucketReport("s3://b/p", "b", True, False, "0" * 64, ())
    assert told(report).startswith("**would change")
    assert pretty("not JSON") == "not JSON"
    assert pretty(None) == "(none)"
