"""The bucket that the demo runs in, and a look into it that does not go through the library."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, NamedTuple

import boto3
from prefect_aws import AwsCredentials
from pydantic import SecretStr

from mltrack_tasks import MLTrackStore
from mltrack_tasks.access import check_access

from .report import CheckFailed

EMBEDDED_BUCKET = "your-mltrack-bucket"
REGION = "us-east-1"


class Entry(NamedTuple):
    """What a listing tells of one object."""

    size_bytes: int
    modified: datetime


@contextmanager
def embedded() -> Iterator[MLTrackStore]:
    """Serve S3 from this process's memory, on a free port of this machine -> the store in its bucket."""
    try:
        from moto.server import ThreadedMotoServer
    except ImportError as error:
        raise SystemExit(
            "The demo's own S3 is moto, which is missing: pip install 'moto[s3,server]', or set "
            "MLTRACK_S3_BUCKET to use a bucket of yours."
        ) from error

    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # else a line for each request
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        block = MLTrackStore(
            bucket=EMBEDDED_BUCKET,
            credentials=AwsCredentials(
                aws_access_key_id="demo", aws_secret_access_key=SecretStr("demo"), region_name=REGION
            ),
            endpoint_url=f"http://{host}:{port}",
        )
        _client(block).create_bucket(Bucket=EMBEDDED_BUCKET)
        yield block
    finally:
        server.stop()


def users_own(bucket: str) -> MLTrackStore:
    """A store under a fresh prefix of the user's bucket, with the user's AWS settings."""
    prefix = f"mltrack-demo-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
    return MLTrackStore(bucket=bucket, prefix=prefix)


def require_access(block: MLTrackStore) -> None:
    """Try all that the demo will do, or raise CheckFailed with what is refused and the fix."""
    failed = [check for check in check_access(block.open()).checks if check.ok is False]
    if failed:
        raise CheckFailed("\n".join(f"{check.name}: {check.detail} {check.fix}" for check in failed))
    print("Access: list, read, write, delete; and nothing can be overwritten")


def listing(block: MLTrackStore) -> dict[str, Entry]:
    """List everything under the store's prefix: key relative to the store -> entry."""
    folder = f"{block.prefix}/"
    pages = _client(block).get_paginator("list_objects_v2").paginate(Bucket=block.bucket, Prefix=folder)
    return {
        item["Key"].removeprefix(folder): Entry(item["Size"], item["LastModified"])
        for page in pages
        for item in page.get("Contents", [])
    }


def raw_bytes(block: MLTrackStore, key: str) -> bytes:
    """Read one object, its key relative to the store."""
    answer = _client(block).get_object(Bucket=block.bucket, Key=f"{block.prefix}/{key}")
    return bytes(answer["Body"].read())


def _client(block: MLTrackStore) -> Any:
    keys: dict[str, Any] = {"region_name": block.region_name, "endpoint_url": block.endpoint_url}
    if isinstance(block.credentials, AwsCredentials) and block.credentials.aws_secret_access_key:
        keys["region_name"] = block.credentials.region_name
        keys["aws_access_key_id"] = block.credentials.aws_access_key_id
        keys["aws_secret_access_key"] = block.credentials.aws_secret_access_key.get_secret_value()
    return boto3.client("s3", **keys)
