"""Large objects in parts: CreateMultipartUpload, UploadPart, CompleteMultipartUpload with a condition."""

from __future__ import annotations

import threading
from typing import Any

from mltrack_tasks import layout
from mltrack_tasks.digest import base64_from_raw, composite_checksum
from mltrack_tasks.stores.base import Upload
from mltrack_tasks.stores.s3_errors import botocore_errors, failure_of_botocore
from mltrack_tasks.stores.s3_parts import PartClient
from mltrack_tasks.stores.s3_settings import S3Settings

_UNDECIDED = (
    *("PreconditionFailed", "ConditionalRequestConflict", "ConcurrentModification", "412", "409"),
    "NoSuchUpload",  # what is left of an upload whose completion lost its answer
)


class S3Upload(Upload):
    """One multipart upload. Each part carries its SHA-256, so that S3 refuses a damaged one."""

    def __init__(
        self,
        client: Any,
        parts: PartClient,
        settings: S3Settings,
        key: str,
        replacing: str | None,
        *,
        answered: bool,
    ) -> None:
        self._client, self._sender = client, parts
        self._target = {"Bucket": settings.bucket, "Key": key}
        self._payer = {"RequestPayer": "requester"} if settings.request_payer else {}
        self._where = f"s3://{settings.bucket}/{key}"
        self._replacing = replacing
        self._parts: dict[int, dict[str, Any]] = {}
        self._digests: dict[int, bytes] = {}
        self._lock = threading.Lock()
        self._open = True
        with botocore_errors("upload", self._where, answered=answered):
            self._id = client.create_multipart_upload(
                **self._target, **self._payer, **object_options(settings, key), ChecksumAlgorithm="SHA256"
            )["UploadId"]

    def part(self, number: int, body: bytes, digest: bytes) -> None:
        checksum = base64_from_raw(digest)
        with botocore_errors("upload", self._where):
            target = {**self._target, **self._payer}
            answer = self._sender.get(target).upload_part(
                **target, UploadId=self._id, PartNumber=number, Body=body, ChecksumSHA256=checksum
            )
        with self._lock:
            self._digests[number] = digest
            self._parts[number] = {"PartNumber": number, "ETag": answer["ETag"], "ChecksumSHA256": checksum}

    def complete(self) -> bool:
        numbers = sorted(self._parts)
        condition = {"IfNoneMatch": "*"} if self._replacing is None else {"IfMatch": self._replacing}
        with botocore_errors("upload", self._where):
            try:
                self._client.complete_multipart_upload(
                    **self._target,
                    **self._payer,
                    **condition,
                    UploadId=self._id,
                    MultipartUpload={"Parts": [self._parts[number] for number in numbers]},
                    ChecksumSHA256=composite_checksum(self._digests[number] for number in numbers),
                )
            except self._client.exceptions.ClientError as error:
                if failure_of_botocore(error).code in _UNDECIDED:
                    return False
                raise
        self._open = False
        return True

    def abort(self) -> None:
        if not self._open:
            return
        self._open = False
        with botocore_errors("abort", self._where):
            try:
                self._client.abort_multipart_upload(**self._target, **self._payer, UploadId=self._id)
            except self._client.exceptions.NoSuchUpload:
                return  # completed after all, or dropped by a lifecycle rule


def object_options(settings: S3Settings, key: str) -> dict[str, Any]:
    """boto3's arguments for an object that is made at ``key``: storage class (of blobs) and encryption."""
    options: dict[str, Any] = {}
    relative = key.removeprefix(f"{settings.prefix}/") if settings.prefix else key
    if settings.storage_class and layout.parse_blob_key(relative):
        options["StorageClass"] = settings.storage_class
    if settings.encryption:
        options["ServerSideEncryption"] = settings.encryption
    if settings.kms_key_id:
        options["SSEKMSKeyId"] = settings.kms_key_id
    if settings.bucket_key is not None:
        options["BucketKeyEnabled"] = settings.bucket_key
    return options
