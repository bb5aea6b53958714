"""SHA-256: the name of a blob, and the composite checksum that S3 keeps of a blob sent in parts."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable

from mltrack_tasks.errors import InvalidInputError

MiB = 1024 * 1024
SINGLE_PUT_LIMIT = 64 * MiB
"""Largest blob that goes up as one PUT [bytes]; above it, parts."""
PART_SIZE = 16 * MiB
"""Smallest part [bytes]; doubled while a blob would have more than MAX_PARTS parts."""
MAX_PARTS = 9_000
"""S3 takes 10,000 parts; the margin keeps the rule stable should the limit of one server be lower."""
MAX_BLOB_SIZE = 5 * 1024**4
"""Largest blob [bytes]: 5 TiB, the limit that S3-compatible servers share."""

_DIGEST = re.compile(r"[0-9a-f]{64}")
_COMPOSITE = re.compile(r"[A-Za-z0-9+/]{43}=-([1-9][0-9]{0,4})")


def sha256_hex(body: bytes | bytearray | memoryview) -> str:
    """Digest of a buffer: [bytes] -> 64 lowercase hex digits."""
    return hashlib.sha256(body).hexdigest()


def is_digest(text: object) -> bool:
    """Tell whether ``text`` is exactly 64 lowercase hex digits."""
    return isinstance(text, str) and _DIGEST.fullmatch(text) is not None


def check_digest(text: object) -> str:
    """Return ``text`` if it is a digest, else raise InvalidInputError."""
    if isinstance(text, str) and is_digest(text):
        return text
    raise InvalidInputError(f"{text!r} is not a digest: expected the 64 lowercase hex digits of a SHA-256.")


def part_size_for(size: int) -> int:
    """Size of each part [bytes] of a blob of ``size`` [bytes].

    A function of the size alone, so that every writer of one blob sends the same parts and S3 computes the
    same composite checksum for all of them.
    """
    if size > MAX_BLOB_SIZE:
        raise InvalidInputError(f"A blob of {size:,} bytes is above the limit of {MAX_BLOB_SIZE:,}.")
    part = PART_SIZE
    while size > part * MAX_PARTS:
        part *= 2
    return part


def composite_checksum(part_digests: Iterable[bytes]) -> str:
    """Combine the raw SHA-256 of each part -> ``<base64>-<count>``, as S3 reports it.

    Rule: AWS S3 user guide, "Checking object integrity", composite checksums: the digest of the
    concatenated part digests.
    """
    digests = list(part_digests)
    whole = hashlib.sha256(b"".join(digests)).digest()
    return f"{base64.b64encode(whole).decode()}-{len(digests)}"


def is_composite(text: object) -> bool:
    """Tell whether ``text`` has the form of a composite checksum."""
    return isinstance(text, str) and _COMPOSITE.fullmatch(text) is not None


def hex_from_base64(text: str) -> str | None:
    """Convert S3's base64 SHA-256 of a whole object -> hex digits; None if it is of another form."""
    try:
        raw = base64.b64decode(text, validate=True)
    except ValueError:
        return None
    return raw.hex() if len(raw) == 32 else None


def base64_from_raw(digest: bytes) -> str:
    """Convert a raw SHA-256 -> the base64 text that S3 headers carry."""
    return base64.b64encode(digest).decode()
