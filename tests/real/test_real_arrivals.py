"""New data starts work, with the messages that a real server sends to its queue and through its bridge."""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import boto3
import pytest

from mltrack_tasks.arrivals.batches import Batch
from mltrack_tasks.arrivals.process import process_new_data
from mltrack_tasks.arrivals.report import ArrivalReport
from mltrack_tasks.bucket.provision import provision_bucket
from mltrack_tasks.content import store_data
from mltrack_tasks.errors import TransientError
from mltrack_tasks.runs import store_run
from mltrack_tasks.stores import Store, open_s3
from tests.real.collecting import quiet
from tests.real.conftest import RealServer

NAME = "data ü+%20"


class Place:
    """A bucket of its own, with a queue and its dead letters."""

    def __init__(self, server: RealServer, client: Any) -> None:
        self.server, self.client = server, client
        settings = replace(server.settings, bucket=f"mltrack-tests-{secrets.token_hex(8)}", prefix="mltrack")
        self.bucket, self.store = settings.bucket, open_s3(settings)
        client.create_bucket(Bucket=self.bucket)
        self.sqs, self.events = self.service("sqs"), self.service("events")
        self.dead_url, dead = self.queue("dead")
        redrive = json.dumps({"deadLetterTargetArn": dead, "maxReceiveCount": "9"})
        self.url, self.arn = self.queue("queue", RedrivePolicy=redrive)
        self.batches: list[Batch] = []
        self.fails, self.slow = 0, False
        self.given_away: list[Any] | None = None

    def service(self, name: str) -> Any:
        settings = self.server.settings
        return boto3.client(
            name,  # type: ignore[call-overload]
            endpoint_url=settings.endpoint_url,
            region_name=settings.region,
            aws_access_key_id=settings.keys.access_key,
            aws_secret_access_key=settings.keys.secret_key,
        )

    def queue(self, name: str, **attributes: str) -> tuple[str, str]:
        url = self.sqs.create_queue(QueueName=f"{self.bucket}-{name}", Attributes=attributes)["QueueUrl"]
        found = self.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
        return str(url), str(found["Attributes"]["QueueArn"])

    def act(self, batch: Batch) -> str:
        if self.fails:
            self.fails -= 1
            raise TransientError("Not now.")
        if self.slow:
            threading.Event().wait(2.5)
            self.given_away = self.sqs.receive_message(QueueUrl=self.url).get("Messages", [])
        self.batches.append(batch)
        return str(len(self.batches))

    def process(self, **options: Any) -> ArrivalReport:
        asked = {"subscription": "s", "wait_s": 3, "observe": quiet, **options}
        return process_new_data(self.store, self.arn, self.act, **asked)

    def remove(self) -> None:
        for found in self.client.list_objects_v2(Bucket=self.bucket).get("Contents", ()):
            self.client.delete_object(Bucket=self.bucket, Key=found["Key"])
        self.client.delete_bucket(Bucket=self.bucket)
        for url in (self.url, self.dead_url):
            self.sqs.delete_queue(QueueUrl=url)


@pytest.fixture
def queued(server: RealServer, client: Any) -> Iterator[Place]:
    """``conftest.py`` leaves out the tests that use it where the server sends to no queue."""
    place = Place(server, client)
    yield place
    place.remove()


def provision(store: Store, **notifications: Any) -> None:
    provision_bucket(
        store, {"recommended": False, "notifications": notifications}, dry_run=False, observe=quiet
    )


def test_messages_of_the_bucket(queued: Place) -> None:
    provision(queued.store, queue_arn=queued.arn)
    ref = store_data(queued.store, [1], NAME, observe=quiet)
    run = store_run(queued.store, "r", {"again": ref, "new": b"2"}, storage_mode="flat", observe=quiet)
    queued.sqs.send_message(QueueUrl=queued.url, MessageBody="{")
    queued.fails = 1
    with pytest.raises(TransientError):
        queued.process()
    found = queued.process()
    assert sorted(each for batch in queued.batches for each in batch.refs) == sorted(map(str, run.all_refs))
    assert (found.records, found.new, found.buried, found.tests) == (2, 2, 1, 2)
    dead = queued.sqs.receive_message(QueueUrl=queued.dead_url, MessageAttributeNames=["All"])["Messages"]
    assert [(each["Body"], "mltrack.reason" in each["MessageAttributes"]) for each in dead] == [("{", True)]
    # A message that comes again, though it was deleted, and one of data that is known by then.
    store_data(queued.store, [1], "another name", observe=quiet)
    again = queued.process()
    assert (again.records, again.new, again.known) == (1, 0, 1)
    # What takes longer than a message stays hidden is not given to anybody else.
    store_data(queued.store, [3], "slow", observe=quiet)
    queued.slow = True
    assert queued.process(visibility_s=1).new == 1
    assert queued.given_away == []
    assert queued.process(wait_s=0).messages == 0


def test_messages_of_the_bridge(queued: Place) -> None:
    pattern = {"source": ["aws.s3"], "detail": {"bucket": {"name": [queued.bucket]}}}
    queued.events.put_rule(Name=queued.bucket, EventPattern=json.dumps(pattern))
    queued.events.put_targets(Rule=queued.bucket, Targets=[{"Id": "queue", "Arn": queued.arn}])
    provision(queued.store, event_bridge=True)
    ref = store_data(queued.store, [1], NAME, observe=quiet)
    found = queued.process()
    assert [batch.refs for batch in queued.batches] == [(str(ref),)]
    assert (found.records, found.new) == (1, 1)
    assert found.foreign == found.messages - 1  # the bridge tells of all that is written
    queued.events.remove_targets(Rule=queued.bucket, Ids=["queue"])
    queued.events.delete_rule(Name=queued.bucket)
