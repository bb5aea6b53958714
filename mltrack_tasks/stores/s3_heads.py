"""HEADs with checksums, by botocore's own signer and connections, past the rest of boto3.

An audit sends one for each blob, and of a ``head_object`` two thirds of the CPU go into validating, endpoint
rules and parsing (docs/adr/0012-trust.md has the figures). The first one goes through boto3 and shows where
the bucket is and how requests to it are signed; so does every one that is answered in any way but "here it
is" and "not there", for redirects and for errors that boto3 knows to name.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple
from urllib.parse import quote

_OPERATION = "HeadObject"
_HEADERS = {
    "ETag": "etag",
    "StorageClass": "x-amz-storage-class",
    "ArchiveStatus": "x-amz-archive-status",
    "Restore": "x-amz-restore",
    "ChecksumSHA256": "x-amz-checksum-sha256",
    "ChecksumType": "x-amz-checksum-type",
}
"""Fields of boto3's answer, as ``stat_of`` reads them, and where they stand."""


class _Way(NamedTuple):
    """What boto3 made of a request: its address up to the key, how it is signed, and by whom it is sent."""

    base: str
    signing: Mapping[str, Any]
    agent: str


class HeadClient:
    """Sends HEADs for one bucket with a client's credentials, endpoint and certificates. Safe in threads."""

    def __init__(self, client: Any, bucket: str, *, request_payer: bool) -> None:
        self._client, self._bucket = client, bucket
        self._payer = {"RequestPayer": "requester"} if request_payer else {}
        self._way: _Way | None = None
        self._asked = threading.local()
        self._refused = 0
        # Both are botocore's own affair: where a version lacks them, all goes through boto3.
        self._sign = getattr(getattr(client, "_request_signer", None), "sign", None)
        self._session = getattr(getattr(client, "_endpoint", None), "http_session", None)
        client.meta.events.register(f"before-sign.s3.{_OPERATION}", self._learn)

    def head(self, key: str) -> dict[str, Any]:
        """Ask for what the server knows of an object, as ``head_object`` answers; botocore's errors."""
        way = self._way
        if way is None or self._refused > 2:
            return self._by_boto(key)
        answer = self._send(way, key)
        if answer.status_code == 404:
            raise self._client.exceptions.ClientError({"Error": {"Code": "404"}}, _OPERATION)
        if answer.status_code == 200:
            return _read(answer.headers)
        found = self._by_boto(key)
        self._refused += 1  # and boto3 was not: our way is not understood here
        return found

    def _by_boto(self, key: str) -> dict[str, Any]:
        self._asked.key = key
        found: dict[str, Any] = self._client.head_object(
            Bucket=self._bucket, Key=key, ChecksumMode="ENABLED", **self._payer
        )
        return found

    def _learn(self, request: Any, **said: Any) -> None:
        """Take from a request of boto3 how the next ones are made. botocore calls this before it signs."""
        signing, path = request.context.get("signing") or {}, _quoted(getattr(self._asked, "key", ""))
        own = "identity_cache" in signing or "request_credentials" in signing  # of directory buckets
        if self._sign is None or self._session is None or own or not path or not request.url.endswith(path):
            return
        agent = request.headers.get("User-Agent") or b""
        agent = agent.decode() if isinstance(agent, bytes) else str(agent)
        self._way = _Way(request.url.removesuffix(path), dict(signing), agent)

    def _send(self, way: _Way, key: str) -> Any:
        from botocore.awsrequest import AWSRequest

        headers = {"x-amz-checksum-mode": "ENABLED", "User-Agent": way.agent}
        if self._payer:
            headers["x-amz-request-payer"] = "requester"
        request = AWSRequest("HEAD", way.base + _quoted(key), headers)
        request.context.update(signing=dict(way.signing), client_region=self._client.meta.region_name)
        if self._sign is None or self._session is None:
            raise AssertionError("no way is learned without them")
        self._sign(_OPERATION, request)
        return self._session.send(request.prepare())


def _read(headers: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {field: headers[name] for field, name in _HEADERS.items() if name in headers}
    found["ContentLength"] = int(headers["content-length"])
    found["LastModified"] = parsedate_to_datetime(headers["last-modified"])
    return found


def _quoted(key: str) -> str:
    """Percent-encode a key as botocore does for S3."""
    return quote(key, safe="/~")
