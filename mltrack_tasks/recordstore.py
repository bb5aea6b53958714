"""Records in a store: created once, read back to settle who won."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from mltrack_tasks import canonical, provenance
from mltrack_tasks.errors import ConflictError, InvalidInputError, NotFoundError, TransientError
from mltrack_tasks.records import MAX_RECORD_SIZE, Record
from mltrack_tasks.stores.base import Store

_TRIES = 6


def read_record(store: Store, key: str) -> Record:
    """Read and parse a record; NotFoundError, IntegrityError or FormatError if that cannot be done."""
    body = store.get_range(key, 0, MAX_RECORD_SIZE + 1)  # a hostile bucket may hold a record of any size
    return Record.from_bytes(bytes(body), what=f"{store.location}/{key}")


def ensure(store: Store, key: str, body: bytes = b"") -> bool:
    """Make sure that ``key`` is there, with whatever it holds if it was: True if this call wrote it.

    A refused write may also mean a competing one in flight that never lands, so it is looked for. Raises
    InvalidInputError for more than could be read again.
    """
    _require_readable(body, key)
    for attempt in range(_TRIES):
        if store.create(key, body):
            return True
        if store.head(key) is not None:
            return False
        _pause(attempt)
    raise _unsettled(store, key)


def create_record(
    store: Store,
    key: str,
    content: Mapping[str, Any],
    *,
    what: str,
    origin: Mapping[str, Any] | None = None,
) -> tuple[Record, bool]:
    """Create a record -> (what is stored now, whether this call wrote it).

    If one is there with equal content, it was ours (a lost answer, a call made again) and that is success.
    Other content raises ConflictError with both; ``what`` names the thing in its message.
    """
    offered = Record(content, provenance.current() if origin is None else origin)
    body = offered.to_bytes()
    _require_readable(body, f"The record of {what}")
    for attempt in range(_TRIES):
        if store.create(key, body):
            return offered, True
        try:
            existing = read_record(store, key)
        except NotFoundError:
            _pause(attempt)  # deleted again, or a competing write still in flight
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
    raise _unsettled(store, key)


def create_if_absent(store: Store, key: str, content: Mapping[str, Any]) -> bool:
    """Create a record whose content follows from its key, so that one already there is as good."""
    return ensure(store, key, Record(content, provenance.current()).to_bytes())


def same_content(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Compare exactly: 1, 1.0 and True are three different values."""
    return canonical.dumps(one) == canonical.dumps(other)


def _require_readable(body: bytes, what: str) -> None:
    """Refuse to write what ``Record.from_bytes`` would refuse to read."""
    advice = "Store large values as data, and refer to them."
    if len(body) > MAX_RECORD_SIZE:
        raise InvalidInputError(
            f"{what} would take {len(body):,} bytes; the limit is {MAX_RECORD_SIZE:,}. {advice}"
        )
    if many := canonical.too_many_values(body):
        raise InvalidInputError(f"{what} would hold {many:,} values in {len(body):,} bytes. {advice}")


def _pause(attempt: int) -> None:
    """Wait for others to finish; not after the last try."""
    if attempt + 1 < _TRIES:
        time.sleep(0.1 * 2**attempt)


def _unsettled(store: Store, key: str) -> TransientError:
    return TransientError(f"{key} appears and disappears while it is written to {store.location}. Try again.")


def _difference(existing: Mapping[str, Any], offered: Mapping[str, Any]) -> str:
    fields = [
        key
        for key in sorted({*existing, *offered})
        if canonical.dumps(existing.get(key)) != canonical.dumps(offered.get(key))
    ]
    return f"it differs in {', '.join(fields[:8])}"
