"""The tasks and flows about money: what they hand out and show."""

from __future__ import annotations

from pathlib import Path

import pytest
from prefect_aws import MinIOCredentials

from flows.estimate_costs import estimate_costs as costs_flow
from flows.restore_data import restore_data as restore_flow
from mltrack_tasks import (
    CostEstimate,
    InvalidInputError,
    MLTrackStore,
    RestoredData,
    estimate_costs,
    retrieve_data,
    store_data,
)
from mltrack_tasks.stores.s3 import S3Store
from tests.floor4.test_trust_tasks import shown
from tests.servers import S3Server
from tests.settings import settings_of


def test_the_flow_shows_tables_and_a_chart(tmp_path: Path) -> None:
    place = str(tmp_path / "store")
    store_data.fn(b"x" * 200_000, "big | name", store=place)
    policy = {"Rules": [{"ID": "a|b", "Status": "Enabled", "Filter": {}, "Expiration": {"Days": 1}}]}
    found = costs_flow(lifecycle=policy, monthly_puts=1_000_000, store=place)
    assert isinstance(found, CostEstimate)
    assert found.owners[0].owner == "(named data)"
    assert "under $0.0001" in shown("mltrack-costs")["data"]
    assert "lifecycle rules" in shown("mltrack-costs-what-if")["data"]
    chart = shown("mltrack-costs-chart")["data"]
    assert "data:image/svg+xml;base64," in chart
    assert "Requests and reads of a month: $5.00." in chart


def test_the_task_outside_a_flow(tmp_path: Path) -> None:
    place = str(tmp_path / "store")
    store_data.fn(1, store=place)
    assert estimate_costs.fn(region="eu-central-1", store=place).region == "eu-central-1"
    with pytest.raises(InvalidInputError, match="no prices of the region"):
        estimate_costs.fn(region="nowhere", store=place)


def test_the_flow_that_restores(s3_server: S3Server) -> None:
    """Archived in moto: a dry run looks, then it is restored and waited for, and the artifact says so."""
    settings = settings_of(s3_server)
    block = MLTrackStore(
        bucket=settings.bucket,
        prefix=settings.prefix,
        endpoint_url=s3_server.endpoint,
        credentials=MinIOCredentials(
            minio_root_user=s3_server.access_key, minio_root_password=s3_server.secret_key
        ),
        region_name=s3_server.region,
    )
    block.save("restoring", overwrite=True)
    ref = store_data.fn(b"x" * 1000, "x", store=block)
    there = {"Bucket": settings.bucket, "Key": f"{settings.prefix}/{ref.storage_path}"}
    client = S3Store(settings).client
    client.copy_object(**there, CopySource=there, StorageClass="GLACIER")
    looked = restore_flow(refs=[str(ref)], dry_run=True, store="restoring")
    assert isinstance(looked, RestoredData)
    assert (looked.archived, looked.started) == (1, 0)
    found = restore_flow(refs=[str(ref)], wait="poll", poll_minutes=0.01, store="restoring")
    assert found.done
    assert "started" in shown("mltrack-restore")["data"]
    assert retrieve_data.fn(ref, store=block) == b"x" * 1000
