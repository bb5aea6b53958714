"""Typed reading of untrusted JSON objects, and the one form of time that records hold."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from mltrack_tasks import canonical, layout
from mltrack_tasks.errors import IntegrityError, InvalidInputError

MAX_SIZE = 2**63 - 1
"""Largest number of bytes, rows or anything that a record may say: tables and databases hold no more."""

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z")


def format_time(moment: datetime | None) -> str | None:
    """Write a moment as UTC text ending in Z, to the microsecond; None stays None. Refuse naive times."""
    if moment is None:
        return None
    if not isinstance(moment, datetime) or moment.tzinfo is None:
        raise InvalidInputError(
            f"{moment!r} is not a datetime with a timezone; use datetime.now(timezone.utc) or add tzinfo."
        )
    try:
        utc = moment.astimezone(UTC).replace(tzinfo=None)
    except OverflowError as error:
        raise InvalidInputError(f"{moment!r} lies outside the years 1 to 9999 in UTC.") from error
    return datetime.isoformat(utc) + "Z"  # datetime's own: pandas' would add nanoseconds


def parse_time(text: Any, what: str) -> datetime:
    """Read what ``format_time`` wrote; IntegrityError otherwise."""
    try:
        if isinstance(text, str) and _TIME.fullmatch(text):
            return datetime.fromisoformat(text)
    except ValueError:
        pass
    raise IntegrityError(f"{what} is {text!r}, not a UTC time ending in Z.")


def checked_mapping(values: Mapping[str, Any] | None, what: str) -> dict[str, Any]:
    """Copy a mapping that a user gave, None as empty; InvalidInputError for anything else."""
    if values is None:
        return {}
    if not isinstance(values, Mapping):
        raise InvalidInputError(
            f"{what} is {type(values).__name__}, not a mapping of names to values. "
            "In .map(), wrap a constant mapping in unmapped(...)."
        )
    return dict(values)


def checked_text(text: str | None, what: str) -> str | None:
    """Admit text that a record can keep, or None; InvalidInputError for anything else."""
    if text is not None and not isinstance(text, str):
        raise InvalidInputError(f"{what} is {type(text).__name__}, not text.")
    return None if text is None else str(canonical.escape(str(text), what=what))


class Fields:
    """Typed access to the fields of an untrusted JSON object."""

    def __init__(self, raw: Any, what: str) -> None:
        if not isinstance(raw, dict):
            raise IntegrityError(f"{what} should hold an object, not {type(raw).__name__}.")
        self._raw, self._what = raw, what

    def _take(self, key: str, valid: Callable[[Any], bool], expected: str) -> Any:
        value = self._raw.get(key)
        if not valid(value):
            raise IntegrityError(f"{self._what}: {key} should be {expected}, not {value!r:.80}.")
        return value

    def text(self, key: str) -> str:
        return str(self._take(key, lambda v: isinstance(v, str), "a string"))

    def optional_text(self, key: str) -> str | None:
        value = self._take(key, lambda v: v is None or isinstance(v, str), "a string or null")
        return None if value is None else str(value)

    def size(self, key: str) -> int:
        return int(self._take(key, is_size, "a whole number, not negative"))

    def sizes(self, key: str) -> tuple[int, ...] | None:
        return self._tuple(key, is_size, "sizes")

    def texts(self, key: str) -> tuple[str, ...] | None:
        return self._tuple(key, lambda v: isinstance(v, str), "strings")

    def _tuple(self, key: str, valid: Callable[[Any], bool], expected: str) -> tuple[Any, ...] | None:
        check = lambda v: v is None or (isinstance(v, list) and all(map(valid, v)))  # noqa: E731
        value = self._take(key, check, f"a list of {expected} or null")
        return None if value is None else tuple(value)

    def values(self, key: str) -> dict[str, Any]:
        plain = canonical.unescape(self.objects(key), what=f"{self._what}: {key}")
        if not isinstance(plain, dict):
            raise IntegrityError(f"{self._what}: {key} should be an object, not {plain!r}.")
        return plain

    def objects(self, key: str) -> dict[str, Any]:
        return dict(self._take(key, lambda v: isinstance(v, dict), "an object"))

    def items(self, key: str) -> list[Any]:
        return list(self._take(key, lambda v: isinstance(v, list), "a list"))

    def rows(self, key: str, *valid: Callable[[Any], bool]) -> list[list[Any]]:
        """Lists of as many values as there are tests, each of which its value passes."""
        found = self.items(key)
        for row in found:
            if not isinstance(row, list) or len(row) != len(valid):
                raise IntegrityError(f"{self._what}: {key} has a row that is none: {row!r:.80}.")
            if not all(test(value) for test, value in zip(valid, row, strict=True)):
                raise IntegrityError(f"{self._what}: {key} has a row that cannot be: {row!r:.80}.")
        return found

    def optional_time(self, key: str) -> datetime | None:
        return None if self._raw.get(key) is None else parse_time(self._raw[key], f"{self._what}: {key}")

    def name(self, key: str) -> str:
        return self._gated(self.text(key))

    def optional_name(self, key: str) -> str | None:
        text = self.optional_text(key)
        return None if text is None else self._gated(text)

    def _gated(self, name: str) -> str:
        """Admit a name as the key gate does when it is written; IntegrityError otherwise."""
        try:
            layout.encode_segment(name)
        except InvalidInputError as error:
            raise IntegrityError(f"{self._what}: {error}") from error
        return name

    def named(self, key: str) -> dict[str, Any]:
        objects = self.objects(key)
        for name in objects:
            self._gated(name)
        return objects

    def choice(self, value: str, choices: tuple[str, ...], what: str) -> str:
        if value not in choices:
            raise IntegrityError(f"{self._what}: {value!r} is not a {what}.")
        return value


def is_size(value: Any) -> bool:
    """Tell whether a JSON value is a whole number, not negative and not beyond all measure."""
    return type(value) is int and 0 <= value <= MAX_SIZE


def is_count(value: Any) -> bool:
    """Tell whether a JSON value is a whole number from 1, not beyond all measure."""
    return type(value) is int and 1 <= value <= MAX_SIZE


def is_list(value: Any) -> bool:
    """Tell whether a JSON value is a list."""
    return isinstance(value, list)


def is_spelling(value: Any) -> bool:
    """Tell whether a JSON value may be what ``paths.spell`` wrote, which ``paths.read_spelled`` decides."""
    return isinstance(value, (str, dict))


def is_name(value: Any) -> bool:
    """Tell whether a JSON value passes the key gate."""
    try:
        layout.encode_segment(value)
    except InvalidInputError:
        return False
    return True
