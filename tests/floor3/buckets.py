"""Buckets of moto, one a test, and what lies in them that is not ours."""

from __future__ import annotations

import secrets
from typing import Any

import boto3

from mltrack_tasks.bucket.provision import provision_bucket
from mltrack_tasks.bucket.report import BucketReport
from mltrack_tasks.bucket.settings import BucketSettings
from mltrack_tasks.stores import Store, open_s3
from tests.servers import S3Server
from tests.settings import settings_of

LOGS_EXPIRE: dict[str, Any] = {
    "ID": "logs expire",
    "Filter": {"Prefix": "logs/"},
    "Status": "Enabled",
    "Expiration": {"Days": 3},
}
OTHERS_QUEUE: dict[str, Any] = {
    "Id": "others",
    "QueueArn": "arn:aws:sqs:us-east-1:123456789012:others",
    "Events": ["s3:ObjectRemoved:*"],
}
OTHERS_STATEMENT: dict[str, Any] = {
    "Sid": "Others",
    "Effect": "Deny",
    "Principal": {"AWS": "*"},
    "Action": "s3:DeleteBucket",
    "Resource": "arn:aws:s3:::NAME",
}


class Bucket:
    """One bucket of a server, past the library; ``store`` is a store in it under the prefix ``mltrack``."""

    def __init__(self, server: S3Server, *, create: bool = True) -> None:
        self.server, self.name = server, f"bucket-{secrets.token_hex(6)}"
        self.client: Any = self.service("s3")
        if create:
            self.client.create_bucket(Bucket=self.name)
        self.store: Store = open_s3(settings_of(server, bucket=self.name, prefix="mltrack"))

    def service(self, name: str) -> Any:
        """A boto3 client of another service of the same server."""
        return boto3.client(
            name,  # type: ignore[call-overload]
            endpoint_url=self.server.endpoint,
            region_name=self.server.region,
            aws_access_key_id=self.server.access_key,
            aws_secret_access_key=self.server.secret_key,
        )

    def raw(self, method: str) -> bytes:
        """The very bytes that the server answers."""
        bodies: list[bytes] = []
        self.client.meta.events.register(
            "before-parse.s3", keep := (lambda response_dict, **_: bodies.append(response_dict["body"]))
        )
        getattr(self.client, method)(Bucket=self.name)
        self.client.meta.events.unregister("before-parse.s3", keep)
        return bodies[-1]

    def lifecycle(self) -> list[dict[str, Any]]:
        """The lifecycle's rules."""
        found: list[dict[str, Any]] = self.client.get_bucket_lifecycle_configuration(Bucket=self.name)[
            "Rules"
        ]
        return found

    def put_lifecycle(self, *rules: dict[str, Any]) -> None:
        """Write a lifecycle, as another administrator does."""
        self.client.put_bucket_lifecycle_configuration(
            Bucket=self.name, LifecycleConfiguration={"Rules": list(rules)}
        )

    def look(self, **settings: Any) -> BucketReport:
        """A dry run."""
        return provision_bucket(self.store, BucketSettings(**settings))

    def apply(self, **settings: Any) -> BucketReport:
        """An apply."""
        return provision_bucket(self.store, BucketSettings(**settings), dry_run=False)
