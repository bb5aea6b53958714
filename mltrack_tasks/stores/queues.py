"""A queue of SQS, with the credentials of a store."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from botocore.config import Config

from mltrack_tasks.errors import InvalidInputError, TransientError
from mltrack_tasks.stores.retry import tried
from mltrack_tasks.stores.s3 import S3Store
from mltrack_tasks.stores.s3_errors import botocore_errors
from mltrack_tasks.stores.s3_settings import CONNECT_TIMEOUT, READ_TIMEOUT

AT_ONCE = 10
"""Messages that one request receives, deletes or holds."""
MAX_VISIBILITY = 43_200
"""[s] that a message may stay hidden, 12 hours from when it was received (SQS's quotas)."""
REASON = "mltrack.reason"
"""The attribute of a buried message that says why it is there."""
_MAX_REASON = 1_000

_ARN = re.compile(r"arn:[a-z-]+:sqs:(?P<region>[a-z0-9-]+):(?P<account>[0-9]+):(?P<name>[A-Za-z0-9_-]+)")
_URL = re.compile(
    r"https?://(?P<host>[^/?#@]+)/(?:queue/[a-z0-9-]+/)?(?P<account>[0-9]+)/(?P<name>[A-Za-z0-9_-]+)"
)
_NAME = re.compile(r"[A-Za-z0-9_-]{1,80}")
_HOST = re.compile(r"sqs\.(?P<region>[a-z0-9-]+)\.amazonaws\.")

T = TypeVar("T")


@dataclass(frozen=True)
class Message:
    """One message: this receipt of it is deleted or held by ``handle``; ``times`` says how often it came."""

    id: str
    body: str
    handle: str
    times: int


@dataclass(frozen=True)
class Named:
    """How a queue is named: by name, and by account and region where they were said."""

    name: str
    account: str | None = None
    region: str | None = None


def parse_queue(queue: str) -> Named:
    """Read a queue's name, ARN or URL. InvalidInputError for anything else, and for FIFO queues."""
    if not isinstance(queue, str):
        raise InvalidInputError(f"The queue is {queue!r:.80}; give its name, ARN or URL.")
    if queue.endswith(".fifo"):
        raise InvalidInputError(f"{queue!r} is a FIFO queue, to which S3 sends nothing; give a standard one.")
    if match := _ARN.fullmatch(queue):
        return Named(match["name"], match["account"], match["region"])
    if match := _URL.fullmatch(queue):
        host = _HOST.match(match["host"])
        return Named(match["name"], match["account"], host["region"] if host else None)
    if _NAME.fullmatch(queue):
        return Named(queue)
    raise InvalidInputError(f"{queue!r:.200} is no queue; give its name, ARN or URL.")


class Queue:
    """One queue, and the queue for what cannot be understood that it is set up with.

    The endpoint is the store's, as S3-compatible servers have theirs, or AWS_ENDPOINT_URL_SQS; an address in
    the queue's URL is not called, so that credentials go nowhere else. Safe for several threads.
    """

    def __init__(self, store: S3Store, queue: str) -> None:
        named = parse_queue(queue)
        self.name, self._client = named.name, client_of(store, named.region)
        self._url = self._url_of(named)
        self._dead = self._dead_letters()

    def receive(self, limit: int, *, visibility_s: int, wait_s: int) -> list[Message]:
        """Receive up to ``limit`` messages, which stay hidden from others for ``visibility_s`` [s].

        Waits up to ``wait_s`` [s] for the first. An empty list: there are none now.
        """
        answer = self._ask(
            "ReceiveMessage",
            lambda: self._client.receive_message(
                QueueUrl=self._url,
                MaxNumberOfMessages=min(limit, AT_ONCE),
                VisibilityTimeout=visibility_s,
                WaitTimeSeconds=wait_s,
                AttributeNames=["ApproximateReceiveCount"],
            ),
        )
        return [
            Message(
                raw["MessageId"],
                raw["Body"],
                raw["ReceiptHandle"],
                int(raw.get("Attributes", {}).get("ApproximateReceiveCount", 1)),
            )
            for raw in answer.get("Messages", ())
        ]

    def delete(self, messages: Sequence[Message]) -> None:
        """Delete messages that are done with. TransientError if some are not: they come again."""

        def send(entries: list[dict[str, Any]]) -> Any:
            return self._client.delete_message_batch(QueueUrl=self._url, Entries=entries)

        self._in_batches("DeleteMessage", messages, {}, send)

    def hold(self, messages: Sequence[Message], seconds: int) -> None:
        """Keep messages hidden for ``seconds`` from now on; 0 shows them to everybody again."""

        def send(entries: list[dict[str, Any]]) -> Any:
            return self._client.change_message_visibility_batch(QueueUrl=self._url, Entries=entries)

        self._in_batches("ChangeMessageVisibility", messages, {"VisibilityTimeout": seconds}, send)

    def bury(self, message: Message, reason: str) -> None:
        """Put a message into the queue for dead letters, with the reason, and then delete it here."""
        said = {"DataType": "String", "StringValue": _printable(reason)[:_MAX_REASON]}
        self._ask(
            "SendMessage",
            lambda: self._client.send_message(
                QueueUrl=self._dead, MessageBody=message.body, MessageAttributes={REASON: said}
            ),
        )
        self.delete([message])

    def _in_batches(
        self,
        action: str,
        messages: Sequence[Message],
        options: dict[str, Any],
        send: Callable[[list[dict[str, Any]]], Any],
    ) -> None:
        failed: list[dict[str, Any]] = []
        for start in range(0, len(messages), AT_ONCE):
            entries = [
                {"Id": str(number), "ReceiptHandle": message.handle, **options}
                for number, message in enumerate(messages[start : start + AT_ONCE])
            ]
            answer = self._ask(action, lambda entries=entries: send(entries))  # type: ignore[misc]
            failed += answer.get("Failed", ())
        if failed:  # only now: the others are not to come again with them
            code, said = (failed[0].get(name) for name in ("Code", "Message"))
            raise TransientError(
                f"sqs:{action} on the queue {self.name} failed for {len(failed)} of {len(messages)} "
                f"messages: {code}: {said}. They come again.",
                details={"code": code, "queue": self.name},
            )

    def _url_of(self, named: Named) -> str:
        owner = {"QueueOwnerAWSAccountId": named.account} if named.account else {}
        answer = self._ask(
            "GetQueueUrl", lambda: self._client.get_queue_url(QueueName=named.name, **owner), named.name
        )
        return str(answer["QueueUrl"])

    def _dead_letters(self) -> str:
        names = ["RedrivePolicy"]
        answer = self._ask(
            "GetQueueAttributes",
            lambda: self._client.get_queue_attributes(QueueUrl=self._url, AttributeNames=names),
        )
        policy = json.loads(answer.get("Attributes", {}).get("RedrivePolicy") or "{}")
        if not policy.get("deadLetterTargetArn"):
            raise InvalidInputError(
                f"The queue {self.name} has no queue for dead letters, and what cannot be understood would "
                "come for ever: set its RedrivePolicy (provision_bucket: notifications.create_queue)."
            )
        return self._url_of(parse_queue(policy["deadLetterTargetArn"]))

    def _ask(self, action: str, call: Callable[[], T], name: str | None = None) -> T:
        def ask() -> T:
            with botocore_errors(f"sqs:{action}", f"the queue {name or self.name}"):
                return call()

        return tried(ask)


def client_of(store: S3Store, region: str | None) -> Any:
    """Make the client for SQS with a store's credentials and certificates, and its endpoint if it has one."""
    config = Config(
        connect_timeout=CONNECT_TIMEOUT,
        read_timeout=READ_TIMEOUT + 20,  # a request for messages may wait so long
        retries={"total_max_attempts": 1},
    )
    own = None if os.environ.get("AWS_ENDPOINT_URL_SQS") else store.settings.endpoint_url
    with botocore_errors("sqs:*", store.location):
        return store.session.client(
            "sqs",
            region_name=region or store.client.meta.region_name,
            endpoint_url=own,
            verify=store.settings.verify,
            config=config,
        )


def _printable(text: str) -> str:
    return "".join(each if each.isprintable() else " " for each in text) or "unknown"
