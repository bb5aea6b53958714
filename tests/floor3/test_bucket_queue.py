"""The queue to which a bucket sends: created, opened to S3, given a place for dead letters; others' stays."""

from __future__ import annotations

import json
import secrets
from typing import Any

import pytest

from mltrack_tasks.arrivals.process import process_new_data
from mltrack_tasks.bucket.reverting import undo_bucket_change
from mltrack_tasks.content import store_data
from mltrack_tasks.errors import AccessError, InvalidInputError
from tests.floor3.buckets import Bucket
from tests.servers import S3Server

OTHERS = {
    "Sid": "Others",
    "Effect": "Allow",
    "Principal": {"AWS": "arn:aws:iam::123456789012:root"},
    "Action": "sqs:SendMessage",
    "Resource": "*",
}


class Place:
    """A bucket, and the ARN of a queue that is not there yet."""

    def __init__(self, server: S3Server) -> None:
        self.bucket = Bucket(server)
        self.sqs: Any = self.bucket.service("sqs")
        self.name = f"q-{secrets.token_hex(6)}"
        self.arn = f"arn:aws:sqs:us-east-1:123456789012:{self.name}"
        self.settings: dict[str, Any] = {
            "recommended": False,
            "notifications": {"queue_arn": self.arn, "create_queue": True},
        }

    def attributes(self, name: str = "") -> dict[str, Any]:
        url = self.sqs.get_queue_url(QueueName=name or self.name)["QueueUrl"]
        found: dict[str, Any] = self.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])[
            "Attributes"
        ]
        return found

    def statements(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.attributes().get("Policy") or '{"Statement": []}')[
            "Statement"
        ]
        return found


@pytest.fixture
def place(s3_server: S3Server) -> Place:
    return Place(s3_server)


def test_from_nothing_to_work_that_starts(place: Place) -> None:
    looked = place.bucket.look(**place.settings)
    assert looked.to_change == ("queue", "notifications")
    with pytest.raises(place.sqs.exceptions.QueueDoesNotExist):
        place.attributes()
    assert place.bucket.apply(**place.settings).changes == (1, 2)
    [ours] = place.statements()
    assert ours["Principal"] == {"Service": "s3.amazonaws.com"}
    assert ours["Condition"] == {"ArnLike": {"aws:SourceArn": f"arn:aws:s3:::{place.bucket.name}"}}
    assert place.attributes(f"{place.name}-dead")["MessageRetentionPeriod"] == "1209600"
    ref = store_data(place.bucket.store, [1], "n")
    acted: list[str] = []
    found = process_new_data(place.bucket.store, place.arn, lambda batch: acted.extend(batch.refs), wait_s=0)
    assert (acted, found.buried) == ([str(ref)], 0)
    assert place.bucket.apply(**place.settings).changes == ()
    place.sqs.set_queue_attributes(
        QueueUrl=place.sqs.get_queue_url(QueueName=place.name)["QueueUrl"], Attributes={"Policy": ""}
    )
    drifted = place.bucket.apply(**place.settings)
    assert drifted.row("queue").drift
    assert len(place.statements()) == 1


def test_what_others_set_of_the_queue_stays(place: Place) -> None:
    elsewhere = place.sqs.create_queue(QueueName=f"{place.name}-elsewhere")["QueueUrl"]
    arn = place.sqs.get_queue_attributes(QueueUrl=elsewhere, AttributeNames=["QueueArn"])["Attributes"][
        "QueueArn"
    ]
    redrive = {"deadLetterTargetArn": arn, "maxReceiveCount": 2}
    theirs = {"Version": "2012-10-17", "Id": "theirs", "Statement": [OTHERS]}
    texts = {"RedrivePolicy": json.dumps(redrive), "Policy": json.dumps(theirs), "VisibilityTimeout": "77"}
    place.sqs.create_queue(QueueName=place.name, Attributes=texts)
    done = place.bucket.apply(**place.settings)
    assert [each["Sid"] for each in place.statements()] == ["Others", f"{place.statements()[1]['Sid']}"]
    assert place.statements()[0] == OTHERS
    assert json.loads(place.attributes()["RedrivePolicy"])["deadLetterTargetArn"] == arn
    assert place.attributes()["VisibilityTimeout"] == "77"
    for change in reversed(done.changes):
        undo_bucket_change(place.bucket.store, change, dry_run=False)
    assert json.loads(place.attributes()["Policy"]) == theirs


def test_undoing_leaves_the_queue_and_closes_it(place: Place) -> None:
    done = place.bucket.apply(**place.settings)
    for change in reversed(done.changes):
        undo_bucket_change(place.bucket.store, change, dry_run=False)
    assert place.statements() == []
    assert "RedrivePolicy" in place.attributes()


def test_queues_that_cannot_be(place: Place) -> None:
    for arn, error, message in (
        ("mltrack", InvalidInputError, "no ARN"),
        (f"arn:aws:sqs:us-east-1:999999999999:{place.name}", AccessError, "account"),
    ):
        settings = {**place.settings, "notifications": {"queue_arn": arn, "create_queue": True}}
        with pytest.raises(error, match=message):
            place.bucket.apply(**settings)
