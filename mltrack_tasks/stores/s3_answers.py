"""What S3 says of objects -> Stat, and listings by boto3 for what obstore cannot name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mltrack_tasks.digest import hex_from_base64, is_composite
from mltrack_tasks.stores.base import Level, Stat


@dataclass(frozen=True)
class BucketFolder:
    """One folder of a store in ``bucket``: ``root`` and ``base`` are what its full keys begin with.

    ``root`` is the store's own prefix and ``base`` the folder's, both empty or ending in ``/``.
    """

    bucket: str
    root: str
    base: str

    @property
    def key(self) -> str:
        """The folder relative to the store."""
        return self.base[len(self.root) :]

    def stats(self, found: Iterable[Mapping[str, Any]]) -> Iterator[Stat]:
        """Read what obstore lists, without the folder's own placeholder object."""
        for meta in found:
            if meta["path"].startswith(self.base):
                yield self._stat(meta["path"], meta["size"], meta["e_tag"], meta["last_modified"])

    def list(self, client: Any, after: str) -> Iterator[Stat]:
        """List all that is below by boto3, after the key ``after`` of the store."""
        options = {"StartAfter": self.root + after} if after else {}
        for page in self._pages(client, options):
            yield from self._listed(page)

    def level(self, client: Any) -> Level:
        """List one level by boto3."""
        level: Level = ([], [])
        for page in self._pages(client, {"Delimiter": "/"}):
            level[0].extend(self._listed(page))
            level[1].extend(
                common["Prefix"][len(self.base) :].removesuffix("/")
                for common in page.get("CommonPrefixes", ())
            )
        return level

    def uploads(self, client: Any) -> Iterator[Stat]:
        """List the uploads in parts that were begun and neither completed nor aborted, by boto3."""
        paginator = client.get_paginator("list_multipart_uploads")
        for page in paginator.paginate(Bucket=self.bucket, Prefix=self.base):
            for raw in page.get("Uploads", ()):
                yield self._stat(raw["Key"], 0, None, raw["Initiated"])

    def _pages(self, client: Any, options: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        paginator = client.get_paginator("list_objects_v2")
        yield from paginator.paginate(Bucket=self.bucket, Prefix=self.base, **options)

    def _listed(self, page: Mapping[str, Any]) -> Iterator[Stat]:
        for raw in page.get("Contents", ()):
            if raw["Key"] != self.base:  # the folder's own placeholder object
                yield self._stat(raw["Key"], raw["Size"], raw["ETag"], raw["LastModified"])

    def _stat(self, full: str, size: int, etag: str | None, modified: Any) -> Stat:
        return Stat(full[len(self.root) :], size, etag, modified)


def stat_of(key: str, raw: dict[str, Any]) -> Stat:
    """Read what HeadObject answers about ``key`` of the store."""
    whole, composite = _checksums(raw)
    return Stat(
        key,
        raw["ContentLength"],
        raw.get("ETag"),
        raw["LastModified"],
        storage_class=raw.get("ArchiveStatus") or raw.get("StorageClass"),
        restored='ongoing-request="false"' in raw.get("Restore", ""),
        restoring='ongoing-request="true"' in raw.get("Restore", ""),
        sha256=whole,
        composite=composite,
    )


def _checksums(raw: dict[str, Any]) -> tuple[str | None, str | None]:
    """Read a HEAD's answer -> (digest of the whole object, composite checksum); at most one is there.

    Some servers leave the number of parts off a composite; the ETag has it too.
    """
    checksum = raw.get("ChecksumSHA256")
    if not checksum:
        return None, None
    if is_composite(checksum):
        return None, checksum
    parts = (raw.get("ETag") or "").strip('"').partition("-")[2]
    if parts and raw.get("ChecksumType") != "FULL_OBJECT":
        return None, f"{checksum}-{parts}"
    return hex_from_base64(checksum), None
