"""Earlier versions of objects, and deleted ones, of a bucket that keeps them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from mltrack_tasks.stores.base import Older
from mltrack_tasks.stores.s3_errors import botocore_errors

_CHUNK = 1024 * 1024


def older_versions(client: Any, bucket: str, key: str) -> Iterator[Older]:
    """List the versions of an object that are not the current one, newest first; also of a deleted one."""
    where = f"s3://{bucket}/{key}"
    with botocore_errors("versions", where):
        pages = client.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=key)
        found = [each for page in pages for each in page.get("Versions", ()) if each["Key"] == key]
    for each in found:
        if not each["IsLatest"]:
            read = partial(_read, client, bucket, key, each["VersionId"])
            yield Older(each["Size"], each["LastModified"], read)


def undelete(client: Any, bucket: str, folder: str) -> int:
    """Remove the delete markers that hide objects below ``folder`` -> how many there were."""
    where = f"s3://{bucket}/{folder}"
    with botocore_errors("versions", where):
        pages = client.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=folder)
        markers = [each for page in pages for each in page.get("DeleteMarkers", ()) if each["IsLatest"]]
    with botocore_errors("delete", where):
        for each in markers:
            client.delete_object(Bucket=bucket, Key=each["Key"], VersionId=each["VersionId"])
    return len(markers)


def _read(client: Any, bucket: str, key: str, version: str) -> Iterator[bytes]:
    with botocore_errors("version", f"s3://{bucket}/{key}"):
        answer = client.get_object(Bucket=bucket, Key=key, VersionId=version)
        yield from answer["Body"].iter_chunks(_CHUNK)
