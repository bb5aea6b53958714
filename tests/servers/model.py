"""What a running S3 server is to a test: an endpoint and credentials."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

REGION = "us-east-1"


@dataclass(frozen=True)
class S3Server:
    """A server and its owner's credentials; ``alt`` is a second user without rights of its own."""

    name: str
    endpoint: str
    access_key: str
    secret_key: str = field(repr=False)
    region: str = REGION
    alt_access_key: str | None = None
    alt_secret_key: str | None = field(default=None, repr=False)
    alt_session_token: str | None = field(default=None, repr=False)


def client(server: S3Server, *, tries: int = 1, timeout: float = 60.0) -> S3Client:
    """Return a boto3 client that adds nothing of its own: path style, one try, no checksums.

    It ignores proxies, and reads back damaged bytes without complaint.
    """
    config = Config(
        retries={"total_max_attempts": tries, "mode": "standard"},
        connect_timeout=5,
        read_timeout=timeout,
        max_pool_connections=32,
        s3={"addressing_style": "path"},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        proxies={},
    )
    return boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        region_name=server.region,
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
        config=config,
    )


def create_bucket(server: S3Server, name: str) -> str:
    """Create the bucket; one that the same user already owns is fine."""
    s3 = client(server)
    with suppress(s3.exceptions.BucketAlreadyOwnedByYou):
        s3.create_bucket(Bucket=name)
    return name
