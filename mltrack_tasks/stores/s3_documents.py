"""The documents of a bucket's configuration: how boto3 reads and writes each, and what it loses."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any


@dataclass(frozen=True)
class Api:
    """How boto3 reads and writes a document.

    ``get`` and ``put`` are its methods, ``member`` what holds the document, in the request and (if
    ``wrapped``) in the answer; ``absent`` the codes of there being none; ``beside`` members of the answer
    that belong to the request, beside the document; ``action`` the IAM action without Get or Put.
    """

    get: str
    put: str
    member: str
    action: str
    wrapped: bool = False
    delete: str | None = None
    absent: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    off: tuple[tuple[str, Any], ...] = ()
    """What is written where there was nothing and nothing can be deleted."""


APIS: dict[str, Api] = {
    "versioning": Api(
        "get_bucket_versioning",
        "put_bucket_versioning",
        "VersioningConfiguration",
        "BucketVersioning",
        off=(("Status", "Suspended"),),
    ),
    "encryption": Api(
        "get_bucket_encryption",
        "put_bucket_encryption",
        "ServerSideEncryptionConfiguration",
        "EncryptionConfiguration",
        wrapped=True,
        delete="delete_bucket_encryption",
        absent=("ServerSideEncryptionConfigurationNotFoundError", "NoSuchBucketEncryptionConfiguration"),
    ),
    "public_access": Api(
        "get_public_access_block",
        "put_public_access_block",
        "PublicAccessBlockConfiguration",
        "BucketPublicAccessBlock",
        wrapped=True,
        delete="delete_public_access_block",
        absent=("NoSuchPublicAccessBlockConfiguration",),
    ),
    "ownership": Api(
        "get_bucket_ownership_controls",
        "put_bucket_ownership_controls",
        "OwnershipControls",
        "BucketOwnershipControls",
        wrapped=True,
        delete="delete_bucket_ownership_controls",
        absent=("OwnershipControlsNotFoundError",),
    ),
    "policy": Api(
        "get_bucket_policy",
        "put_bucket_policy",
        "Policy",
        "BucketPolicy",
        wrapped=True,
        delete="delete_bucket_policy",
        absent=("NoSuchBucketPolicy",),
    ),
    "lifecycle": Api(
        "get_bucket_lifecycle_configuration",
        "put_bucket_lifecycle_configuration",
        "LifecycleConfiguration",
        "LifecycleConfiguration",
        delete="delete_bucket_lifecycle",
        absent=("NoSuchLifecycleConfiguration",),
        # Left out, S3 would set it back to its default.
        beside=("TransitionDefaultMinimumObjectSize",),
    ),
    "archive_tiers": Api(
        "list_bucket_intelligent_tiering_configurations",
        "put_bucket_intelligent_tiering_configuration",
        "",  # read and written by parts, each whole
        "IntelligentTieringConfiguration",
    ),
    "acceleration": Api(
        "get_bucket_accelerate_configuration",
        "put_bucket_accelerate_configuration",
        "AccelerateConfiguration",
        "AccelerateConfiguration",
        off=(("Status", "Suspended"),),
    ),
    "logging": Api("get_bucket_logging", "put_bucket_logging", "BucketLoggingStatus", "BucketLogging"),
    "replication": Api(
        "get_bucket_replication",
        "put_bucket_replication",
        "ReplicationConfiguration",
        "ReplicationConfiguration",
        wrapped=True,
        delete="delete_bucket_replication",
        absent=("ReplicationConfigurationNotFoundError",),
    ),
    "notifications": Api(
        "get_bucket_notification_configuration",
        "put_bucket_notification_configuration",
        "NotificationConfiguration",
        "BucketNotification",
    ),
}


def plain(value: Any) -> Any:
    """Map what boto3 hands out onto plain JSON: moments become text in UTC."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


def lost_of(body: bytes, again: bytes) -> list[str]:
    """Name the elements of an XML document that are missing, or say something else, in another."""
    missing = Counter(_leaves(body)) - Counter(_leaves(again))
    return sorted({path for path, _ in missing})


def _leaves(body: bytes) -> Iterator[tuple[str, str]]:
    if not body.strip():
        return
    todo = [("", element) for element in ElementTree.fromstring(body)]
    while todo:
        above, element = todo.pop()
        path = f"{above}/{element.tag.rpartition('}')[2]}".lstrip("/")
        if len(element):
            todo.extend((path, child) for child in element)
        else:
            yield path, _value(element.text or "")


def _value(text: str) -> str:
    """The text of an element, so that equal moments and truths are equal."""
    bare = text.strip()
    try:
        return plain(datetime.fromisoformat(bare)) if bare[4:5] == "-" and "T" in bare else bare
    except ValueError:
        return bare
