"""What a message in a queue says: which objects were created. Pure; all forms in which S3's events arrive."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_plus

from mltrack_tasks import canonical, layout
from mltrack_tasks.errors import IntegrityError

MAX_ENVELOPES = 3
"""Envelopes around an event: a topic that feeds a queue adds one."""
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


@dataclass(frozen=True)
class Notice:
    """One object that was created, under its full key; ``other`` is the key if that was encoded after all."""

    bucket: str
    key: str
    other: str = ""


@dataclass(frozen=True)
class Said:
    """What one message says. ``others`` counts events that are no creations; ``test`` is S3's own trial."""

    notices: tuple[Notice, ...] = ()
    others: int = 0
    test: bool = False


def read_message(body: str) -> Said:
    """Read a message: S3's own records, its test event, EventBridge's event, or one of these from a topic.

    Raises IntegrityError, which says what is wrong, for anything else.
    """
    said = _loaded(body)
    for _ in range(MAX_ENVELOPES):
        if said.get("Type") != "Notification" or "Message" not in said:
            break
        said = _loaded(said["Message"])
    if "Records" in said:
        return _records(said["Records"])
    if said.get("Event") == "s3:TestEvent":
        return Said(test=True)
    if "detail-type" in said:
        return _bridged(said)
    raise IntegrityError("The message is of no form that S3, SNS or EventBridge sends about objects.")


def news_in(notice: Notice, bucket: str, root: str) -> tuple[str, ...]:
    """The key within a store of ``bucket`` whose keys begin with ``root``; where it may be one of two, both.

    Empty for a foreign object, and for what is no news.
    """
    if notice.bucket != bucket:
        return ()
    inside = [key[len(root) :] for key in (notice.key, notice.other) if key.startswith(root)]
    return tuple(filter(_is_news, inside))


def _is_news(key: str) -> bool:
    """Tell whether a key of a store is that of a record of data or of a run.

    Blobs are none: they are written before the records, or for none at all where a writer dies.
    """
    return layout.parse_name_key(key) is not None or layout.parse_manifest_key(key) is not None


def _loaded(text: Any) -> dict[str, Any]:
    if not isinstance(text, str):
        raise IntegrityError("The message holds something else where a message was sent on.")
    found = canonical.loads(text.encode("utf-8", "surrogatepass"), what="The message")
    if not isinstance(found, dict):
        raise IntegrityError("The message is no JSON object.")
    return found


def _records(records: Any) -> Said:
    if not isinstance(records, list):
        raise IntegrityError("The message's Records are no list.")
    notices, others = [], 0
    for number, record in enumerate(records):
        where = f"Record {number} of the message"
        if not isinstance(record, Mapping):
            raise IntegrityError(f"{where} is no JSON object.")
        if not _text(record, "eventName", where).removeprefix("s3:").startswith("ObjectCreated:"):
            others += 1
            continue
        s3 = _object(record, "s3", where)
        # S3 encodes keys as forms do.
        key = _decoded(_text(_object(s3, "object", where), "key", where), where)
        notices.append(Notice(_text(_object(s3, "bucket", where), "name", where), key))
    return Said(tuple(notices), others)


def _bridged(event: Mapping[str, Any]) -> Said:
    if event.get("source") != "aws.s3":
        raise IntegrityError(f"The event is of {event.get('source')!r:.80}, not of aws.s3.")
    if event["detail-type"] != "Object Created":
        return Said(others=1)
    detail = _object(event, "detail", "The event")
    bucket, what = _object(detail, "bucket", "The event"), _object(detail, "object", "The event")
    # Amazon's EventBridge gives keys as they are, other servers' encodes them; what is there tells.
    key = _text(what, "key", "The event")
    other = unquote_plus(key, errors="replace")
    name = _text(bucket, "name", "The event")
    return Said((Notice(name, key, other if other != key else ""),))


def _decoded(key: str, where: str) -> str:
    try:
        if _BAD_ESCAPE.search(key):
            raise ValueError("an escape without two hex digits")
        return unquote_plus(key, errors="strict")
    except ValueError as error:
        raise IntegrityError(f"{where} has a key that is not encoded as S3 does it: {error}.") from error


def _object(holder: Mapping[str, Any], name: str, where: str) -> Mapping[str, Any]:
    found = holder.get(name)
    if not isinstance(found, Mapping):
        raise IntegrityError(f"{where} has no {name}.")
    return found


def _text(holder: Mapping[str, Any], name: str, where: str) -> str:
    found = holder.get(name)
    if not isinstance(found, str) or not found:
        raise IntegrityError(f"{where} has no {name}.")
    return found
