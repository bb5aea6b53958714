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

_REFUSED = ("BadDigest", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch", "InvalidDigest")


class PartClient:
    """Finds out, with the first upload, whether the server checks parts. Safe in threads."""

    def __init__(self, signing: Any, make_other: Callable[[], Any]) -> None:
        self._signing, self._make_other = signing, make_other
        self._chosen: Any = None if signing.meta.endpoint_url.startswith("http://") else signing
        self._lock = threading.Lock()

    def get(self, target: dict[str, Any]) -> Any:
        """Give the client for the parts of what is uploaded to ``target``: boto3's arguments that name it."""
        with self._lock:
            if self._chosen is None:
                self._chosen = self._make_other() if self._checks(target) else self._signing
            return self._chosen

    def _checks(self, target: dict[str, Any]) -> bool:
        """Send a part under the SHA-256 of another: whether it is refused for that.

        In an upload of its own, which is dropped: Ceph RGW completes none that leaves out a part it has.
        """
        trial = self._signing.create_multipart_upload(**target, ChecksumAlgorithm="SHA256")["UploadId"]
        wrong = base64_from_raw(bytes(32))
        try:
            self._signing.upload_part(
                **target, UploadId=trial, PartNumber=1, Body=b"trial", ChecksumSHA256=wrong
            )
        except self._signing.exceptions.ClientError as error:
            return failure_of_botocore(error).code in _REFUSED
        finally:
            self._signing.abort_multipart_upload(**target, UploadId=trial)
        return False
