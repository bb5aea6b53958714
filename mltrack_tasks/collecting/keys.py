"""The keys below ``gc/``: plans, open batches of deletions, and pins that were taken away."""

from __future__ import annotations

import re

from mltrack_tasks import layout
from mltrack_tasks.digest import check_digest

PLANS = "gc/plans/"
PLAN_PARTS = "gc/parts/"
UNPINNED = "gc/unpinned/"
CLOCKS = "gc/clocks/"

_ID = r"[A-Za-z0-9_-]{1,80}"
_UNPINNED = re.compile(re.escape(UNPINNED) + _ID + r"\.json")


def plan_key(digest: str) -> str:
    """Key of a plan: named by the digest of its content."""
    return f"{PLANS}{check_digest(digest)}.json"


def part_key(digest: str) -> str:
    """Key of a part of a plan: named by the digest of its content."""
    return f"{PLAN_PARTS}{check_digest(digest)}.json"


def batch_key(batch: str) -> str:
    """Key of an open batch of deletions."""
    return f"{layout.GC_DELETING}{batch}.json"


def unpinned_key(batch: str) -> str:
    """Key of the record of the digests that lost a pin in a batch."""
    return f"{UNPINNED}{batch}.json"


def is_unpinned_key(key: str) -> bool:
    """Tell whether a key is that of a record of digests that lost a pin."""
    return _UNPINNED.fullmatch(key) is not None


def clock_key(name: str) -> str:
    """Key of an object that is written and removed at once, to ask a store for the time."""
    return f"{CLOCKS}{name}.json"


def segment_of_record(key: str) -> str:
    """Segment of the run, data name, model or migration that a record's key is of."""
    parts = key.split("/")
    if key.startswith(layout.MANIFESTS):
        return parts[1].removesuffix(".json").partition("~")[0]
    return parts[2] if key.startswith("models/") else parts[1]
