"""Records in a store: created once, read back to settle who won."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from mltrack_tasks import canonical, provenance
from mltrack_tasks.errors import ConflictError, NotFoundError, TransientError
from mltrack_tasks.records import MAX_RECORD_SIZE, Record
from mltrack_tasks.stores.base import Store

_TRIES = 6


def read_record(store: Store, key: str) -> Record:
    """Read and parse a record; NotFoundError, IntegrityError or FormatError if that cannot be done."""
    body = store.get_range(key, 0, MAX_RECORD_SIZE + 1)  # a hostile bucket may hold a record of any size
    return Record.from_bytes(bytes(body), what=f"{store.location}/{key}")


def create_record(store: Store, key: str, content: Mapping[str, Any], *, what: str) -> tuple[Record, bool]:
    """Create a record -> (what is stored now, whether this call wrote it).

    If one is there with equal content, it was ours (a lost answer, a call made again) and that is success.
    Other content raises ConflictError with both; ``what`` names the thing in its message.
    """
    offered = Record(content, provenance.current())
    body = offered.to_bytes()
    for attempt in range(_TRIES):
        if store.create(key, body):
            return offered, True
        try:
            existing = read_record(store, key)
        except NotFoundError:
            if attempt + 1 < _TRIES:
                time.sleep(0.1 * 2**attempt)  # deleted again, or a competing write still in flight
            continue
        if same_content(existing.content, content):
            return existing, False
        raise ConflictError(
            f"{what} is there already with other content ({_difference(existing.content, content)}). "
            "Read it and decide: use another name, or revise it if it may change.",
            existing=dict(existing.content),
            offered=dict(content),
            details={"key": key},
        )
    raise TransientError(f"{key} appears and disappears while it is written to {store.location}. Try again.")


def create_if_absent(store: Store, key: str, content: Mapping[str, Any]) -> bool:
    """Create a record whose content follows from its key, so that one already there is as good."""
    return store.create(key, Record(content, provenance.current()).to_bytes())


def same_content(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Compare exactly: 1, 1.0 and True are three different values."""
    return canonical.dumps(one) == canonical.dumps(other)


def _difference(existing: Mapping[str, Any], offered: Mapping[str, Any]) -> str:
    fields = [
        key
        for key in sorted({*existing, *offered})
        if canonical.dumps(existing.get(key)) != canonical.dumps(offered.get(key))
    ]
    return f"it differs in {', '.join(fields[:8])}"
