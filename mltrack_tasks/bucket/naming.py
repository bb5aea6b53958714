"""What in a bucket's documents is ours: ids of rules, and statements of the policy; the keys of our "
"records."""

from __future__ import annotations

import re
from urllib.parse import quote

from mltrack_tasks.digest import sha256_hex

CHANGES = "bucket/changes/"
APPLIED = "bucket/applied/"

_NUMBERED = re.compile(r"bucket/(changes|applied)/[0-9]{8}\.json")
_SPELLED = 150
"""Characters of a prefix within an id; S3 takes ids of 255."""


def rule_base(prefix: str) -> str:
    """What the ids of all rules of a store begin with: ``mltrack-<prefix>:``; no other store's begin so."""
    spelled = quote(prefix, safe="/").replace("~", "%7E")
    if len(spelled) > _SPELLED:
        spelled = f"{spelled[: _SPELLED - 17]}~{sha256_hex(prefix.encode())[:16]}"
    return f"mltrack-{spelled}:"


def sid_base(prefix: str) -> str:
    """What the Sids of a store's statements begin with: letters and digits, as policies allow no others."""
    return f"mltrack{sha256_hex(prefix.encode())[:16]}"


def root_of(prefix: str) -> str:
    """What all keys of a store begin with: empty, or ending in ``/``."""
    return f"{prefix}/" if prefix else ""


def is_bucket_key(key: str) -> bool:
    """Tell whether a key is that of a record about the bucket's configuration."""
    return _NUMBERED.fullmatch(key) is not None


def partition_of(region: str | None) -> str:
    """The part of AWS that a region is in, as ARNs name it."""
    for start, partition in (("cn-", "aws-cn"), ("us-gov-", "aws-us-gov")):
        if (region or "").startswith(start):
            return partition
    return "aws"
