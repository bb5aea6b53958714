"""Results of Prefect's runs as named data: the same result, of whichever run, is one blob.

Prefect writes a result under a path of its own: JSON of what it is, which differs from run to run, around
what the run gave. The latter is stored as data, and what surrounds it in the metadata of its name.
"""

from __future__ import annotations

from typing import NamedTuple

from mltrack_tasks import content
from mltrack_tasks.errors import IntegrityError, InvalidInputError, NotFoundError
from mltrack_tasks.events import Observe, log_event
from mltrack_tasks.records import NamedData
from mltrack_tasks.refs import DataRef
from mltrack_tasks.stores.base import Store

NAMES = "prefect-result/"
"""What names of results begin with."""
_BEFORE, _AFTER = b'},"result":"', b'"}'


class _Parts(NamedTuple):
    """Bytes of a file: what the run gave, and what stands before and after it."""

    before: bytes
    given: bytes
    after: bytes


def write_result(store: Store, path: str, body: bytes, *, observe: Observe = log_event) -> DataRef:
    """Keep ``body`` as what ``path`` holds from now on -> the ref of what the run gave.

    What the path held before stays stored, too, and counts no more. Raises InvalidInputError for a path
    that is no name, or bytes that are no bytes.
    """
    if not isinstance(body, bytes):
        raise InvalidInputError(f"A result is bytes, not {type(body).__name__}: choose another serializer.")
    before, given, after = _split(body)
    around = {"before": before.decode(), "after": after.decode(), "number": _number(_latest(store, path)) + 1}
    return content.store_data(store, given, NAMES + path, metadata=around, observe=observe)


def read_result(store: Store, path: str) -> bytes:
    """Read what ``path`` holds, byte for byte as it was written. Raises NotFoundError if it holds nothing."""
    found = _latest(store, path)
    if found is None:
        raise NotFoundError(f"No result of a run is at {path!r} in {store.location}.")
    before, after = (found.ref.metadata.get(name) for name in ("before", "after"))
    if not isinstance(before, str) or not isinstance(after, str):
        raise IntegrityError(f"{found.name!r} in {store.location} is no result that this library wrote.")
    given = content.retrieve_data(store, found.ref)
    return before.encode() + bytes(given) + after.encode()


def _split(body: bytes) -> _Parts:
    """Find what the run gave: the JSON text at the end of a record of Prefect's, or all of it."""
    start = body.find(_BEFORE)
    if start < 0 or not body.startswith(b'{"metadata":{') or not body.endswith(_AFTER):
        return _Parts(b"", body, b"")
    begin, end = start + len(_BEFORE), len(body) - len(_AFTER)
    try:
        body[:begin].decode()
    except UnicodeDecodeError:
        return _Parts(b"", body, b"")  # not what Prefect writes
    return _Parts(body[:begin], body[begin:end], body[end:])


def _latest(store: Store, path: str) -> NamedData | None:
    """What was written to a path last; of two at the same time, every reader finds the same."""
    held = content.list_data(store, NAMES + path)
    return max(held, key=lambda each: (_number(each), each.stored_at, each.ref.hash), default=None)


def _number(found: NamedData | None) -> int:
    number = None if found is None else found.ref.metadata.get("number")
    return number if isinstance(number, int) else 0
