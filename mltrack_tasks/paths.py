"""File paths inside records: any name that a POSIX file system takes, spelled in one way only."""

from __future__ import annotations

import base64
from typing import Any

from mltrack_tasks import layout
from mltrack_tasks.errors import IntegrityError, InvalidInputError

_BASE64 = "base64"


def path_bytes(path: str) -> bytes:
    """Bytes of a path as a POSIX file system holds them; InvalidInputError for a path that is not safe."""
    try:
        return layout.check_path(path).encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise InvalidInputError(f"The path {path!r:.80} holds a lone surrogate; rename the file.") from error


def sort_key(path: str) -> bytes:
    """What paths are sorted by: their bytes."""
    return path.encode("utf-8", "surrogateescape")


def spell(text: str) -> Any:
    """Spell what ``os.fsdecode`` gave -> JSON: text, or ``{"base64": ...}`` where it is not UTF-8."""
    if text.isascii():
        return text
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raw = text.encode("utf-8", "surrogateescape")
        return {_BASE64: base64.b64encode(raw).decode()}
    return text


def read_spelled(raw: Any, what: str) -> str:
    """Read what ``spell`` wrote; IntegrityError for anything else, also for a second spelling."""
    text = raw
    try:
        if isinstance(raw, dict):
            text = base64.b64decode(raw.get(_BASE64, ""), validate=True).decode("utf-8", "surrogateescape")
        if isinstance(text, str) and spell(text) == raw:
            return text
    except (ValueError, TypeError) as error:
        raise IntegrityError(f"{what} does not spell a name: {raw!r:.80}: {error}.") from error
    raise IntegrityError(f"{what} does not spell a name as this library does: {raw!r:.80}.")
