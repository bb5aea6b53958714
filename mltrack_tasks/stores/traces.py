"""Removing what a trial left in a bucket: objects, their versions and delete markers, and begun uploads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from mltrack_tasks.errors import MLTrackError
from mltrack_tasks.stores.retry import tried
from mltrack_tasks.stores.s3 import S3Store
from mltrack_tasks.stores.s3_errors import botocore_errors


@dataclass(frozen=True)
class Traces:
    """What remained of a trial: ``left`` could not be removed, ``unseen`` could not be looked for."""

    left: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()


def remove_traces(store: S3Store, start: str, *, before: datetime | None = None) -> Traces:
    """Remove all whose key begins with ``start``, which no other trial has, as if it had never been.

    ``start`` is relative to the store. With ``before`` only what is older than that. Where versions are kept,
    removing one takes s3:DeleteObjectVersion.
    """
    return _Broom(store, f"{store.settings.prefix}/{start}".lstrip("/"), before).sweep()


class _Broom:
    def __init__(self, store: S3Store, base: str, before: datetime | None) -> None:
        self._client: Any = store.client
        self._before = before
        self._bucket, self._base = {"Bucket": store.settings.bucket}, base
        self._where = f"s3://{store.settings.bucket}/{base}"
        self._left: list[str] = []
        self._unseen: list[str] = []

    def sweep(self) -> Traces:
        """Objects first: who may not list versions can still delete these."""
        self._each("list", "list_objects_v2", "Contents", self._delete)
        if self._keeps_versions():
            self._each("versions", "list_object_versions", "Versions", self._delete_version)
            self._each("versions", "list_object_versions", "DeleteMarkers", self._delete_version)
        self._each("uploads", "list_multipart_uploads", "Uploads", self._abort)
        return Traces(tuple(self._left), tuple(self._unseen))

    def _keeps_versions(self) -> bool:
        """Whether the bucket ever did. Who may not ask that looks for versions."""
        try:
            with botocore_errors("s3:GetBucketVersioning", self._where):
                return "Status" in self._client.get_bucket_versioning(**self._bucket)
        except MLTrackError:
            return True

    def _each(self, verb: str, listing: str, member: str, remove: Callable[[Any], None]) -> None:
        try:
            found = tried(lambda: self._found(verb, listing, member))
        except MLTrackError as error:
            self._unseen.append(str(error))
            return
        for each in found:
            try:
                tried(partial(remove, each))
            except MLTrackError as error:
                self._left.append(f"{each['Key']}: {error}")

    def _found(self, verb: str, listing: str, member: str) -> list[dict[str, Any]]:
        with botocore_errors(verb, self._where):
            answer = getattr(self._client, listing)(**self._bucket, Prefix=self._base)
            return [each for each in answer.get(member, ()) if self._is_old(each)]

    def _is_old(self, found: dict[str, Any]) -> bool:
        return self._before is None or (found.get("LastModified") or found["Initiated"]) < self._before

    def _delete(self, found: dict[str, Any]) -> None:
        with botocore_errors("delete", self._where):
            self._client.delete_object(**self._bucket, Key=found["Key"])

    def _delete_version(self, found: dict[str, Any]) -> None:
        with botocore_errors("s3:DeleteObjectVersion", self._where):
            self._client.delete_object(**self._bucket, Key=found["Key"], VersionId=found["VersionId"])

    def _abort(self, found: dict[str, Any]) -> None:
        with botocore_errors("abort", self._where):
            self._client.abort_multipart_upload(**self._bucket, Key=found["Key"], UploadId=found["UploadId"])
