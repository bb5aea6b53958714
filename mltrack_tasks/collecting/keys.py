"""The keys below ``gc/``: plans, open batches of deletions, pins that were taken away, and kept marks."""

from __future__ import annotations

import re

from mltrack_tasks import layout
from mltrack_tasks.digest import check_digest, is_digest

PLANS = "gc/plans/"
PLAN_PARTS = "gc/parts/"
UNPINNED = "gc/unpinned/"
CLOCKS = "gc/clocks/"
REMOVALS = "gc/removals/"
MARKS = "gc/marks/"

_ID = r"[A-Za-z0-9_-]{1,80}"
_UNPINNED = re.compile(re.escape(UNPINNED) + _ID + r"\.json")


def plan_key(digest: str) -> str:
    """Key of a plan: named by the digest of its content."""
    return f"{PLANS}{check_digest(digest)}.json"


def part_key(digest: str) -> str:
    """Key of a part of a plan: named by the digest of its content."""
    return f"{PLAN_PARTS}{check_digest(digest)}.json"


def removal_plan_key(digest: str) -> str:
    """Key of a plan of removals: named by the digest of its content."""
    return f"{REMOVALS}{check_digest(digest)}.json"


def batch_key(batch: str) -> str:
    """Key of an open batch of deletions."""
    return f"{layout.GC_DELETING}{batch}.json"


def unpinned_key(batch: str) -> str:
    """Key of the record of the digests that lost a pin in a batch."""
    return f"{UNPINNED}{batch}.json"


def is_unpinned_key(key: str) -> bool:
    """Tell whether a key is that of a record of digests that lost a pin."""
    return _UNPINNED.fullmatch(key) is not None


def marks_key(digest: str) -> str:
    """Key of marks that are kept: named by the digest of their content."""
    return f"{MARKS}{check_digest(digest)}.json"


def is_marks_key(key: str) -> bool:
    """Tell whether a key is one of marks that are kept."""
    return key.startswith(MARKS) and is_digest(key.removeprefix(MARKS).removesuffix(".json"))


def clock_key(name: str) -> str:
    """Key of an object that is written and removed at once, to ask a store for the time."""
    return f"{CLOCKS}{name}.json"


def digest_of(key: str) -> str | None:
    """The digest in whose folder a key lies directly, below ``data/`` or ``runs/by_data/``."""
    folder, _, last = key.rpartition("/")
    digest = folder.rpartition("/")[2]
    if not last or not is_digest(digest):
        return None
    return digest if f"{folder}/" in (layout.blob_folder(digest), layout.pin_folder(digest)) else None


def segment_of_record(key: str) -> str:
    """Segment of the run, data name, model or migration that a record's key is of."""
    parts = key.split("/")
    if key.startswith(layout.MANIFESTS):
        return parts[1].removesuffix(".json").partition("~")[0]
    return parts[2] if key.startswith("models/") else parts[1]
