"""A queue of SQS as a document beside those of a bucket: its ARN and policy, and where dead letters go."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mltrack_tasks.errors import AccessError, IntegrityError, InvalidInputError
from mltrack_tasks.stores.queues import client_of, parse_queue
from mltrack_tasks.stores.s3 import S3Store
from mltrack_tasks.stores.s3_errors import botocore_errors

DEAD_LETTERS = "-dead"
"""What is added to a queue's name for that of its dead letters, where it has none yet."""
_RETENTION = 1_209_600
"""[s] that dead letters are kept: 14 days, the longest that SQS has."""
_TEXTS = ("Policy", "RedrivePolicy")
_MISSING = ("QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue")


def read_queue(store: S3Store, arn: str) -> dict[str, Any]:
    """Read what is set of a queue; empty if there is none. Raises AccessError where it may not be read."""
    named = parse_queue(arn)
    if not named.account:
        raise InvalidInputError(f"{arn!r} is no ARN of a queue; write arn:aws:sqs:<region>:<account>:<name>.")
    client = client_of(store, named.region)
    try:
        with botocore_errors("sqs:GetQueueUrl", arn):
            url = client.get_queue_url(QueueName=named.name, QueueOwnerAWSAccountId=named.account)["QueueUrl"]
    except AccessError as error:
        if error.details.get("code") in _MISSING:
            return {}
        raise
    with botocore_errors("sqs:GetQueueAttributes", arn):
        found = client.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn", *_TEXTS])["Attributes"]
    texts = {name: _parsed(found[name], name, arn) for name in _TEXTS if found.get(name)}
    return {"QueueArn": found["QueueArn"], **texts}


def write_queue(store: S3Store, document: Mapping[str, Any]) -> None:
    """Create the queue and its dead letters where they are missing, and set the rest of the document.

    Raises AccessError if these credentials would create it in another account.
    """
    arn = str(document["QueueArn"])
    named = parse_queue(arn)
    client = client_of(store, named.region)
    if document.get("RedrivePolicy", {}).get("deadLetterTargetArn") == arn + DEAD_LETTERS:
        retention = {"MessageRetentionPeriod": str(_RETENTION)}
        with botocore_errors("sqs:CreateQueue", arn + DEAD_LETTERS):
            client.create_queue(QueueName=named.name + DEAD_LETTERS, Attributes=retention)
    if not read_queue(store, arn):
        with botocore_errors("sqs:CreateQueue", arn):
            client.create_queue(QueueName=named.name)
    with botocore_errors("sqs:GetQueueUrl", arn):
        url = client.get_queue_url(QueueName=named.name)["QueueUrl"]
        found = client.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"][
            "QueueArn"
        ]
    if found != arn:
        raise AccessError(f"These credentials have the queue {found}, not {arn}: check account and region.")
    texts = {name: json.dumps(document[name]) if document.get(name) else "" for name in _TEXTS}
    with botocore_errors("sqs:SetQueueAttributes", arn):
        client.set_queue_attributes(QueueUrl=url, Attributes=texts)


def _parsed(text: str, name: str, arn: str) -> Any:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise IntegrityError(f"The {name} of {arn} is no JSON: {error}. Set it right by hand.") from error
    return found
