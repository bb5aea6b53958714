"""Queues of moto, with one for dead letters each, to which a bucket sends its notifications."""

from __future__ import annotations

import json
import secrets
from typing import Any

from tests.floor3.buckets import Bucket


class Queues:
    """A queue and its dead letters, past the library."""

    def __init__(self, bucket: Bucket, *, dead_letters: bool = True) -> None:
        self.sqs: Any = bucket.service("sqs")
        self.name = f"q-{secrets.token_hex(6)}"
        self.dead_url, dead_arn = self._make(f"{self.name}-dead")
        redrive = {"deadLetterTargetArn": dead_arn, "maxReceiveCount": "3"}
        options = {"RedrivePolicy": json.dumps(redrive)} if dead_letters else {}
        self.url, self.arn = self._make(self.name, **options)

    def _make(self, name: str, **attributes: str) -> tuple[str, str]:
        url = self.sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
        found = self.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
        return str(url), str(found["Attributes"]["QueueArn"])

    def send(self, *bodies: str) -> None:
        for body in bodies:
            self.sqs.send_message(QueueUrl=self.url, MessageBody=body)

    def bodies(self) -> list[str]:
        """What lies in the queue: read, and left hidden for a second."""
        found: list[str] = []
        while came := self.sqs.receive_message(
            QueueUrl=self.url, MaxNumberOfMessages=10, VisibilityTimeout=1
        ).get("Messages"):
            found += [message["Body"] for message in came]
        return found

    def count(self, url: str | None = None) -> tuple[int, int]:
        """How many messages are to be had, and how many are hidden."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.sqs.get_queue_attributes(QueueUrl=url or self.url, AttributeNames=names)["Attributes"]
        return int(found[names[0]]), int(found[names[1]])

    def dead(self) -> list[tuple[str, str]]:
        """The dead letters: body and reason."""
        came = self.sqs.receive_message(
            QueueUrl=self.dead_url, MaxNumberOfMessages=10, MessageAttributeNames=["All"]
        )
        return [
            (each["Body"], each["MessageAttributes"]["mltrack.reason"]["StringValue"])
            for each in came.get("Messages", ())
        ]
