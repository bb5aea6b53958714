"""Who we are to S3, and where the bucket is: the questions behind most access problems."""

from __future__ import annotations

import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from botocore.config import Config
from botocore.exceptions import BotoCoreError

from mltrack_tasks.errors import AccessError, MLTrackError
from mltrack_tasks.stores.base import Store, WrapperStore
from mltrack_tasks.stores.s3 import S3Store
from mltrack_tasks.stores.s3_errors import NO_S3, Failure, botocore_errors, failure_of_botocore, translate
from mltrack_tasks.stores.s3_settings import CONNECT_TIMEOUT, READ_TIMEOUT

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
    """The caller as STS knows it."""

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
    with botocore_errors("sts:GetCallerIdentity", store.location, answered=False):
        key_id = credentials.get_frozen_credentials().access_key or ""
    method = credentials.method or "unknown"
    return f"{_SOURCES.get(method, method)} (key id ...{key_id[-4:]})"


def identity(store: S3Store) -> Identity | None:
    """Ask STS who the credentials belong to; None on an S3-compatible server, which has none."""
    if store.settings.endpoint_url:
        return None
    with botocore_errors("sts:GetCallerIdentity", store.location, answered=False):
        answer = _sts(store).get_caller_identity()
    return Identity(answer["Account"], answer["Arn"])


@dataclass(frozen=True)
class BucketPlace:
    """What HeadBucket says. ``region`` is None if the server does not tell; ``allowed`` False if it refuses.

    A role that may list one prefix only is refused too, and S3 tells it the region all the same. ``ahead``
    is by how many seconds this machine's clock is ahead of the server's; None if that tells no time.
    """

    region: str | None
    allowed: bool
    ahead: float | None = None


def bucket_place(store: S3Store) -> BucketPlace:
    """Ask where the bucket is.

    Raises AccessError if there is none, the endpoint does not answer, or the bucket is not the expected
    owner's.
    """
    bucket, start = store.settings.bucket, time.time()
    try:
        answer = store.client.head_bucket(Bucket=bucket)
    except store.client.exceptions.ClientError as error:
        code = failure_of_botocore(error).code
        if code in ("403", "AccessDenied"):
            return BucketPlace(_region_header(error.response), False, _ahead(error.response, start))
        raise _head_bucket_error(error, bucket) from error
    except BotoCoreError as error:
        raise _head_bucket_error(error, bucket) from error
    _require_owner(store)
    return BucketPlace(answer.get("BucketRegion") or _region_header(answer), True, _ahead(answer, start))


def _require_owner(store: S3Store) -> None:
    """Ask once more in the name of the expected owner, as S3's refusal does not say that this is why."""
    bucket, owner = store.settings.bucket, store.settings.expected_owner
    if not owner:
        return
    try:
        store.client.head_bucket(Bucket=bucket, ExpectedBucketOwner=owner)
    except (BotoCoreError, store.client.exceptions.ClientError) as error:
        if failure_of_botocore(error).code not in ("403", "AccessDenied"):
            raise _head_bucket_error(error, bucket) from error
        raise AccessError(
            f"The bucket {bucket} does not belong to the account {owner}. Check the bucket's name, and "
            "expected_bucket_owner."
        ) from error


def require_listing(store: S3Store) -> None:
    """Ask whether an empty listing is one. Raises AccessError if a login page or the like answered instead.

    A listing of S3 names its bucket; a page of HTML, read as one, is empty.
    """
    settings = store.settings
    where, prefix = f"s3://{settings.bucket}", f"{settings.prefix}/" if settings.prefix else ""
    payer = {"RequestPayer": "requester"} if settings.request_payer else {}
    with botocore_errors("list", where):
        answer = store.client.list_objects_v2(Bucket=settings.bucket, Prefix=prefix, MaxKeys=1, **payer)
    if "Name" not in answer:
        raise translate(Failure(NO_S3, "the answer is no listing of a bucket"), "list", where, answered=True)


def _head_bucket_error(error: Exception, bucket: str) -> MLTrackError:
    """HEAD answers have no body, so a missing bucket is a bare 404."""
    failure = failure_of_botocore(error)
    if failure.code == "404":
        failure = Failure("NoSuchBucket", f"there is no bucket {bucket}")
    return translate(failure, "list", f"s3://{bucket}", answered=False)


def _region_header(answer: dict[str, Any]) -> str | None:
    return _header(answer, "x-amz-bucket-region")


def _header(answer: dict[str, Any], name: str) -> str | None:
    found = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get(name)
    return str(found) if found else None


def _ahead(answer: dict[str, Any], start: float) -> float | None:
    """Compare the time of an answer, to a second, with the middle of our request."""
    said = _header(answer, "date")
    try:
        then = parsedate_to_datetime(said).timestamp() if said else None
    except ValueError:
        return None
    return None if then is None else (start + time.time()) / 2 - then


def region_of(store: S3Store) -> str | None:
    """Region that the store is set to; None if it is set to none."""
    region = store.client.meta.region_name
    return None if region in (None, "aws-global") else str(region)


def _sts(store: S3Store) -> Any:
    config = Config(
        connect_timeout=CONNECT_TIMEOUT, read_timeout=READ_TIMEOUT, retries={"total_max_attempts": 1}
    )
    return store.session.client("sts", region_name=region_of(store) or "us-east-1", config=config)
