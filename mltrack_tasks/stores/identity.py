"""Who we are to S3, and where the bucket is: the questions behind most access problems."""

from __future__ import annotations

from dataclasses import dataclass

from mltrack_tasks.stores.base import Store, WrapperStore
from mltrack_tasks.stores.s3 import S3Store
from mltrack_tasks.stores.s3_errors import botocore_errors

_SOURCES = {
    "explicit": "given in the block",
    "env": "environment variables",
    "shared-credentials-file": "the shared credentials file",
    "config-file": "the AWS config file",
    "custom-process": "the profile's credential_process",
    "sso": "an SSO login",
    "assume-role": "an assumed role",
    "assume-role-with-web-identity": "a web identity (service account)",
    "container-role": "the container's role",
    "iam-role": "the instance's role",
    "login": "an `aws login` session",
}


@dataclass(frozen=True)
class Identity:
    """The caller as STS knows it; None where the server has no STS."""

    account: str
    arn: str


def s3_of(store: Store) -> S3Store | None:
    """The S3 store inside the wrappers, or None for a directory or memory."""
    while isinstance(store, WrapperStore):
        store = store.inner
    return store if isinstance(store, S3Store) else None


def credential_source(store: S3Store) -> str:
    """Say from which link of the chain the credentials came, and which key id: never the secret."""
    credentials = store.session.get_credentials()
    if credentials is None:
        return "none"
    with botocore_errors("sts:GetCallerIdentity", store.location):
        key_id = credentials.get_frozen_credentials().access_key or ""
    method = credentials.method or "unknown"
    return f"{_SOURCES.get(method, method)} (key id ...{key_id[-4:]})"


def identity(store: S3Store) -> Identity | None:
    """Ask STS who the credentials belong to; None on an S3-compatible server, which has none."""
    if store.settings.endpoint_url:
        return None
    with botocore_errors("sts:GetCallerIdentity", store.location):
        answer = store.session.client("sts").get_caller_identity()
    return Identity(answer["Account"], answer["Arn"])


def bucket_region(store: S3Store) -> str | None:
    """Region of the bucket by HeadBucket; None if the server does not say."""
    with botocore_errors("list", f"s3://{store.settings.bucket}"):
        answer = store.client.head_bucket(Bucket=store.settings.bucket)
    region = answer.get("BucketRegion")
    return str(region) if region else None
