"""Copies inside a bucket, made by the server: whole, or in the parts in which a blob of that size goes up."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from mltrack_tasks.digest import SINGLE_PUT_LIMIT, part_size_for
from mltrack_tasks.errors import InvalidInputError, MLTrackError, TransientError
from mltrack_tasks.parallel import map_ordered
from mltrack_tasks.stores.retry import tried
from mltrack_tasks.stores.s3_errors import botocore_errors, failure_of_botocore, translate
from mltrack_tasks.stores.s3_settings import S3Settings
from mltrack_tasks.stores.s3_upload import object_options

PATIENCE_ABOVE = 512 * 1024
"""[bytes] A server may be silent for longer than READ_TIMEOUT while it copies more."""

WHOLE_LIMIT = 5 * 1024**3
"""[bytes] Largest object that S3 copies by one request."""
_DECODED_TWICE = ("%", "?versionId=")
"""Ceph 16 decodes the source of a part twice: these make another key of it, or end the server by abort()."""

Answer = dict[str, Any]


class _NoChecksumsError(Exception):
    """The server does not tell the SHA-256 of parts that it copies."""


class Copier:
    """Copies objects. Safe in threads.

    An upload that was begun with SHA-256 wants one of each part when it is completed. AWS tells it of a part
    that it copied; MinIO refuses to copy one into such an upload, and the others say nothing. So the first
    part finds that out, and without it the upload is begun again: its ETag then says what a checksum would.
    """

    def __init__(self, client: Any, make_patient: Callable[[], Any]) -> None:
        self._client, self._make_patient = client, make_patient
        self._patient: Any = None
        self._attests = True
        self._lock = threading.Lock()

    def copy(self, settings: S3Settings, source: str, target: str, size: int, *, answered: bool) -> Answer:
        """Copy one full key over another -> what HeadObject would say of the copy, as far as it is known."""
        client = self._client if size <= PATIENCE_ABOVE else self._get_patient()
        job = _Job(client, settings, source, target, size, answered)
        misread = any(text in source for text in _DECODED_TWICE)
        if size <= SINGLE_PUT_LIMIT or (misread and size <= WHOLE_LIMIT):
            return job.whole()
        if self._attests:
            try:
                return job.in_parts({"ChecksumAlgorithm": "SHA256"})
            except _NoChecksumsError:
                answer = job.in_parts({})
                self._attests = False
                return answer
        return job.in_parts({})

    def _get_patient(self) -> Any:
        with self._lock:
            self._patient = self._patient or self._make_patient()
            return self._patient


@dataclass(frozen=True)
class _Job:
    """One copy."""

    client: Any
    settings: S3Settings
    source: str
    target: str
    size: int
    answered: bool

    def whole(self) -> Answer:
        with self._errors():
            answer = self.client.copy_object(
                **self._to(),
                **self._from(),
                **object_options(self.settings, self.target),
                ChecksumAlgorithm="SHA256",
                TaggingDirective="REPLACE",  # by none: to copy them needs s3:GetObjectTagging
            )
        return self._described(answer.get("CopyObjectResult", {}))

    def in_parts(self, checksum: dict[str, str]) -> Answer:
        """Copy in parts, each tried again by itself: the whole would only begin anew."""
        with self._begun(checksum) as upload:
            count = -(-self.size // part_size_for(self.size))
            parts = [self._first(upload, checksum)]
            copy = partial(self._tried, upload)
            parts += map_ordered(copy, range(2, count + 1), self.settings.max_workers)
            with self._errors():
                answer = self.client.complete_multipart_upload(
                    **self._to(), UploadId=upload, MultipartUpload={"Parts": [_named(part) for part in parts]}
                )
        return self._described({"LastModified": parts[-1].get("LastModified"), **answer})

    def _first(self, upload: str, checksum: dict[str, str]) -> Answer:
        try:
            part = self._tried(upload, 1)
        except InvalidInputError as error:
            if checksum:
                raise _NoChecksumsError from error
            raise
        if checksum and not part.get("ChecksumSHA256"):
            raise _NoChecksumsError
        return part

    def _tried(self, upload: str, number: int) -> Answer:
        return tried(lambda: self._part(upload, number))

    def _part(self, upload: str, number: int) -> Answer:
        step = part_size_for(self.size)
        start = (number - 1) * step
        end = min(start + step, self.size) - 1
        with self._errors():
            answer = self.client.upload_part_copy(
                **self._to(),
                **self._from(),
                UploadId=upload,
                PartNumber=number,
                CopySourceRange=f"bytes={start}-{end}",
            )
        return {**answer["CopyPartResult"], "PartNumber": number}

    @contextmanager
    def _begun(self, checksum: dict[str, str]) -> Iterator[str]:
        """Begin an upload -> its id; it is dropped if anything fails before it is completed."""
        options = object_options(self.settings, self.target)
        with self._errors():
            upload = self.client.create_multipart_upload(**self._to(), **options, **checksum)["UploadId"]
        try:
            yield upload
        except BaseException as error:
            try:
                tried(lambda: self._abort(upload))
            except MLTrackError as failed:
                error.add_note(f"The parts copied so far could not be dropped either: {failed}")
            raise

    def _abort(self, upload: str) -> None:
        with botocore_errors("abort", self._where(self.target)):
            try:
                self.client.abort_multipart_upload(**self._to(), UploadId=upload)
            except self.client.exceptions.NoSuchUpload:
                return  # completed, though its answer was lost, or dropped by a lifecycle rule

    def _to(self) -> dict[str, Any]:
        payer = {"RequestPayer": "requester"} if self.settings.request_payer else {}
        return {"Bucket": self.settings.bucket, "Key": self.target, **payer}

    def _from(self) -> dict[str, Any]:
        return {"CopySource": {"Bucket": self.settings.bucket, "Key": self.source}}

    def _where(self, key: str) -> str:
        return f"s3://{self.settings.bucket}/{key}"

    @contextmanager
    def _errors(self) -> Iterator[None]:
        where = f"{self._where(self.source)} to {self._where(self.target)}"
        with botocore_errors("copy", where, answered=self.answered):
            try:
                yield
            except self.client.exceptions.ClientError as error:
                failure = failure_of_botocore(error)
                if failure.code in ("NoSuchKey", "404"):
                    raise translate(failure, "get", self._where(self.source), answered=True) from error
                if failure.code == "NoSuchUpload":
                    raise TransientError(f"The copy to {self._where(self.target)} was broken off.") from error
                raise

    def _described(self, result: Answer) -> Answer:
        """Fill up an answer to what HeadObject says. Ceph leaves out the ETag of an upload, or its quotes."""
        etag = str(result.get("ETag") or "").strip('"')
        modified = result.get("LastModified") or datetime.now(UTC)
        return {
            **result,
            "ContentLength": self.size,
            "ETag": f'"{etag}"' if etag else None,
            "LastModified": modified,
        }


def _named(part: Answer) -> Answer:
    """What the completion says of a part."""
    return {name: part[name] for name in ("PartNumber", "ETag", "ChecksumSHA256") if part.get(name)}
