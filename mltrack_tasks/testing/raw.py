"""Raw access to what a store wrote, past the store: the second witness of its contract."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Protocol

import obstore
from obstore.store import MemoryStore as Objects

Names = list[str]


class Raw(Protocol):
    """Keys relative to the store's root."""

    def get(self, key: str) -> bytes | None:
        """Read a whole object, or None."""

    def put(self, key: str, body: bytes) -> bool:
        """Write an object whatever was there. False: nothing of this name can exist there."""

    def delete(self, key: str) -> None:
        """Remove an object; a missing one is fine."""

    def list(self) -> Names:
        """Name every object, in no order."""


class RawObjects:
    """Raw access to an obstore MemoryStore."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    def get(self, key: str) -> bytes | None:
        try:
            return bytes(obstore.get(self._objects, key).bytes())
        except FileNotFoundError:
            return None

    def put(self, key: str, body: bytes) -> bool:
        try:
            obstore.put(self._objects, key, body)
        except ValueError:
            return False
        return True

    def delete(self, key: str) -> None:
        obstore.delete(self._objects, key)

    def list(self) -> Names:
        return [meta["path"] for chunk in obstore.list(self._objects) for meta in chunk]


class RawFolder:
    """Raw access to a directory. Names that a path cannot spell (``a//b``, ``x/../y``) cannot exist there."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def get(self, key: str) -> bytes | None:
        path = self._root / key
        return path.read_bytes() if path.is_file() else None

    def put(self, key: str, body: bytes) -> bool:
        if os.path.normpath(key) != key:
            return False
        path = self._root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
        return True

    def delete(self, key: str) -> None:
        (self._root / key).unlink(missing_ok=True)

    def list(self) -> Names:
        files = (path for path in self._root.rglob("*") if path.is_symlink() or not path.is_dir())
        names = (path.relative_to(self._root).as_posix() for path in files)
        return [name for name in names if name != ".tmp/lock"]


class RawS3:
    """Raw access to a prefix of a bucket through a boto3 client."""

    def __init__(self, client: Any, bucket: str, prefix: str) -> None:
        self._client, self._bucket = client, bucket
        self._base = f"{prefix}/" if prefix else ""

    def get(self, key: str) -> bytes | None:
        try:
            answer = self._client.get_object(Bucket=self._bucket, Key=self._base + key)
        except self._client.exceptions.NoSuchKey:
            return None
        body: bytes = answer["Body"].read()
        return body

    def put(self, key: str, body: bytes) -> bool:
        try:
            self._client.put_object(Bucket=self._bucket, Key=self._base + key, Body=body)
        except self._client.exceptions.ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] == 400:
                return False  # MinIO refuses names with empty or dotted segments
            raise
        return True

    def delete(self, key: str) -> None:
        self._client.delete_object(Bucket=self._bucket, Key=self._base + key)

    def list(self) -> Names:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._base)
        found = [entry["Key"] for page in pages for entry in page.get("Contents", ())]
        return [key[len(self._base) :] for key in found]

    def open_uploads(self) -> Names:
        """Name the keys of uploads that were begun and neither completed nor aborted."""
        answer = self._client.list_multipart_uploads(Bucket=self._bucket, Prefix=self._base)
        return [upload["Key"][len(self._base) :] for upload in answer.get("Uploads", ())]

    def clear(self) -> None:
        """Remove all objects and open uploads under the prefix."""
        answer = self._client.list_multipart_uploads(Bucket=self._bucket, Prefix=self._base)
        for upload in answer.get("Uploads", ()):
            self._client.abort_multipart_upload(
                Bucket=self._bucket, Key=upload["Key"], UploadId=upload["UploadId"]
            )
        for key in self.list():
            self.delete(key)
