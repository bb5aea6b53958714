"""Which client sends parts: over plain HTTP, one that signs a body only where nothing else protects it.

A part carries its SHA-256 in a signed header. Over TLS boto3 does not hash the body once more to sign it;
over plain HTTP it does, and so does the server: a fifth of the work of a large upload. Where the server
refuses a body that is not its SHA-256, nothing is won by that; where it does not look (Ceph RGW), it is what
finds a damaged part.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from mltrack_tasks.digest import base64_from_raw
from mltrack_tasks.stores.s3_errors import failure_of_botocore

TRIAL_PART = 10_000
"""The highest number that S3 takes. No upload of ours has it, so what is sent under it is dropped."""
_REFUSED = ("BadDigest", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch", "InvalidDigest")


class PartClient:
    """Finds out, with the first upload, whether the server checks parts. Safe in threads."""

    def __init__(self, signing: Any, make_other: Callable[[], Any]) -> None:
        self._signing, self._make_other = signing, make_other
        self._chosen: Any = None if signing.meta.endpoint_url.startswith("http://") else signing
        self._lock = threading.Lock()

    def get(self, upload: dict[str, Any]) -> Any:
        """Give the client for the parts of an upload, of which boto3's arguments are given."""
        with self._lock:
            if self._chosen is None:
                self._chosen = self._make_other() if self._checks(upload) else self._signing
            return self._chosen

    def _checks(self, upload: dict[str, Any]) -> bool:
        """Send a body under the SHA-256 of another: whether it is refused for that."""
        wrong = base64_from_raw(bytes(32))
        try:
            self._signing.upload_part(**upload, PartNumber=TRIAL_PART, Body=b"trial", ChecksumSHA256=wrong)
        except self._signing.exceptions.ClientError as error:
            return failure_of_botocore(error).code in _REFUSED
        return False
