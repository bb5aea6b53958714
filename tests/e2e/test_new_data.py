"""New data starts work, all the way: from the notification to the user's flow, and what that stores."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mltrack_tasks.bucket.provision import provision_bucket
from mltrack_tasks.content import list_data, retrieve_data, store_data
from mltrack_tasks.stores import Store, open_s3
from tests.e2e.deployed import Deployed, environment
from tests.e2e.prefect_server import shared_server
from tests.servers import S3Server, create_bucket
from tests.servers.process import running
from tests.settings import settings_of

pytestmark = pytest.mark.timeout(300)

SERVING = """
import sys
from prefect import flow, serve
from flows.process_new_data import process_new_data
from mltrack_tasks import retrieve_data, store_data

@flow
def total(refs: list[str], store: str) -> None:
    for ref in refs:
        store_data(sum(retrieve_data(ref, store=store)), "total", store=store)

if __name__ == "__main__":
    serve(total.to_deployment("new-data"), process_new_data.to_deployment("watch"))
"""
QUEUE = "arn:aws:sqs:us-east-1:123456789012:"


@pytest.fixture
def bucket(s3_server: S3Server) -> str:
    return create_bucket(s3_server, f"bucket-{secrets.token_hex(6)}")


@pytest.fixture
def store(s3_server: S3Server, bucket: str) -> Store:
    """Its bucket tells a queue of what is new."""
    made = open_s3(settings_of(s3_server, bucket=bucket, prefix="mltrack"))
    queue = {"queue_arn": f"{QUEUE}{bucket}", "create_queue": True}
    provision_bucket(made, {"recommended": False, "notifications": queue}, dry_run=False)
    return made


@pytest.fixture
def watch(s3_server: S3Server, tmp_path: Path) -> Iterator[Deployed]:
    """A process that serves a user's flow, and the one that reads the queue."""
    server, script = shared_server(), tmp_path / "serving.py"
    script.write_text(SERVING, encoding="utf-8")
    settings = environment(server, tmp_path, s3_server.endpoint)
    with running("serve", [sys.executable, str(script)], tmp_path / "serve.log", settings) as child:
        found: list[str] = []

        def known() -> bool:
            asked = {"deployments": {"name": {"any_": ["watch", "new-data"]}}}
            answer = server.ask("deployments/filter", asked)
            found[:] = [each["id"] for each in answer if each["name"] == "watch"]
            return len(answer) == 2

        child.wait_until(known, 120)
        yield Deployed(server, found[0], child)


def test_a_flow_runs_once_on_what_is_new(watch: Deployed, store: Store, bucket: str) -> None:
    where = f"s3://{bucket}/mltrack"
    asked: dict[str, Any] = {
        "queue": bucket,
        "deployment": "total/new-data",
        "parameters": {"store": where},
        "wait": True,
        "store": where,
    }
    store_data(store, [1, 2, 3], "numbers")
    store_data(store, [4, 5], "numbers")
    ended = watch.wait(watch.start(**asked))
    assert ended["state_type"] == "COMPLETED", ended["state"]["message"]
    assert "2 new data in 1 batches" in ended["state"]["message"]
    assert sorted(retrieve_data(store, each.ref) for each in list_data(store, "total")) == [6, 9]
    again = watch.wait(watch.start(**asked))  # only what the flow itself stored is new by now
    assert "0 new data in 0 batches" in again["state"]["message"]
