"""What a bucket bills below a prefix: objects and their classes, older versions, unfinished uploads."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from typing import Any, NamedTuple

from mltrack_tasks.errors import AccessError
from mltrack_tasks.stores.retry import tried
from mltrack_tasks.stores.s3 import S3Store
from mltrack_tasks.stores.s3_errors import botocore_errors

MAX_UPLOADS = 1_000
"""Unfinished uploads whose parts are asked for: each costs a request."""

_Answer = dict[str, Any]


class Held(NamedTuple):
    """One thing that is billed. ``key`` is relative to the store."""

    key: str
    size: int
    storage_class: str
    since: datetime
    """When it was written; of an older version, when a newer one, or a deletion, took its place."""
    current: bool = True
    marker: bool = False
    """Whether this is only the mark of a deletion."""


def has_versions(store: S3Store) -> bool:
    """Whether versions may be listed here; a role may lack s3:ListBucketVersions, a server the operation."""
    try:
        _page(store, "list_object_versions", MaxKeys=1)
    except AccessError:
        return False
    return True


def versions(store: S3Store) -> Iterator[Held]:
    """List all versions of all objects, by key, newest first."""
    asked: _Answer = {}
    newer: tuple[str, datetime] = ("", datetime.min)
    while True:
        page = _page(store, "list_object_versions", **asked)
        marks = [{**raw, "marker": True} for raw in page.get("DeleteMarkers", ())]
        found = sorted([*page.get("Versions", ()), *marks], key=_order)
        for raw in found:
            held = _held(store, raw, newer[1] if newer[0] == raw["Key"] and not raw["IsLatest"] else None)
            newer = raw["Key"], raw["LastModified"]
            if held is not None:
                yield held
        if not page.get("IsTruncated"):
            return
        asked = {"KeyMarker": page["NextKeyMarker"], "VersionIdMarker": page.get("NextVersionIdMarker", "")}
        if not asked["VersionIdMarker"]:
            del asked["VersionIdMarker"]


def current_objects(store: S3Store) -> Iterator[Held]:
    """List the objects as they are now, with their classes, by key."""
    asked: _Answer = {}
    while True:
        page = _page(store, "list_objects_v2", **asked)
        for raw in page.get("Contents", ()):
            held = _held(store, raw, None)
            if held is not None:
                yield held
        if not page.get("IsTruncated"):
            return
        asked = {"ContinuationToken": page["NextContinuationToken"]}


def unfinished(store: S3Store) -> Iterator[Held]:
    """List unfinished uploads with the bytes that their parts take; of more than MAX_UPLOADS, without."""
    found = _uploads(store)
    for raw in islice(found, MAX_UPLOADS):
        yield _upload(store, raw, _size_of_parts(store, raw))
    for raw in found:
        yield _upload(store, raw, 0)


def _uploads(store: S3Store) -> Iterator[_Answer]:
    asked: _Answer = {}
    while True:
        page = _page(store, "list_multipart_uploads", **asked)
        yield from (raw for raw in page.get("Uploads", ()) if raw["Key"].startswith(_base(store)))
        if not page.get("IsTruncated"):
            return
        asked = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}


def _size_of_parts(store: S3Store, upload: _Answer) -> int:
    asked: _Answer = {"Bucket": store.settings.bucket, "Key": upload["Key"], "UploadId": upload["UploadId"]}
    size = 0
    while True:
        page = _ask(store, "list_parts", **asked)
        size += sum(int(part["Size"]) for part in page.get("Parts", ()))
        if not page.get("IsTruncated"):
            return size
        asked["PartNumberMarker"] = page["NextPartNumberMarker"]


def _upload(store: S3Store, raw: _Answer, size: int) -> Held:
    key = raw["Key"][len(_base(store)) :]
    return Held(key, size, raw.get("StorageClass") or "STANDARD", raw["Initiated"], current=False)


def _held(store: S3Store, raw: _Answer, replaced: datetime | None) -> Held | None:
    key = raw["Key"][len(_base(store)) :]
    if not key:
        return None  # the folder's own placeholder
    return Held(
        key,
        raw.get("Size", 0),
        raw.get("StorageClass") or "STANDARD",
        replaced or raw["LastModified"],
        current=bool(raw.get("IsLatest", True)),
        marker=bool(raw.get("marker")),
    )


def _order(raw: _Answer) -> tuple[bytes, bool, float]:
    """By key as S3 orders them, the newest version first: a page lists versions and deletions apart."""
    return raw["Key"].encode(), not raw["IsLatest"], -raw["LastModified"].timestamp()


def _base(store: S3Store) -> str:
    return f"{store.settings.prefix}/".lstrip("/")


def _page(store: S3Store, verb: str, **asked: Any) -> _Answer:
    return _ask(store, verb, Bucket=store.settings.bucket, Prefix=_base(store), **asked)


def _ask(store: S3Store, verb: str, **asked: Any) -> _Answer:
    def once() -> _Answer:
        with botocore_errors("versions" if verb == "list_object_versions" else "uploads", store.location):
            answer: _Answer = getattr(store.client, verb)(**asked)
        return answer

    return tried(once)
