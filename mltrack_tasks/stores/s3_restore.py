"""RestoreObject: bringing an archived object back for some days."""

from __future__ import annotations

from typing import Any

from mltrack_tasks.stores.retry import tried
from mltrack_tasks.stores.s3 import S3Store
from mltrack_tasks.stores.s3_errors import botocore_errors, failure_of_botocore


def restore_object(store: S3Store, key: str, *, days: int | None, tier: str) -> bool:
    """Begin to restore an object: False if that was under way already.

    ``days`` is how long the copy stays; None for an archive tier of INTELLIGENT_TIERING, from which an object
    comes back for good. Restored already, it stays for ``days`` from now.
    """
    settings = store.settings
    request: dict[str, Any] = {"GlacierJobParameters": {"Tier": tier}}
    if days is not None:
        request["Days"] = days
    asked: dict[str, Any] = {"Bucket": settings.bucket, "Key": f"{settings.prefix}/{key}".lstrip("/")}
    if settings.request_payer:
        asked["RequestPayer"] = "requester"
    if settings.expected_owner:
        asked["ExpectedBucketOwner"] = settings.expected_owner
    where = f"{store.location}/{key}"

    def once() -> bool:
        with botocore_errors("restore", where):
            try:
                store.client.restore_object(**asked, RestoreRequest=request)
            except store.client.exceptions.ClientError as error:
                if failure_of_botocore(error).code == "RestoreAlreadyInProgress":
                    return False
                raise
        return True

    return tried(once)
