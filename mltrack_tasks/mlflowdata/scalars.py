"""Values out of files and databases of others -> values of the kind that is expected, or IntegrityError."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from mltrack_tasks.errors import IntegrityError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,255}")
_LARGEST = 2**63 - 1
"""MLflow's times, steps and versions are signed numbers of 64 bits."""


def refuse(value: object, what: str, expected: str) -> IntegrityError:
    """Make the error for a value that is not what it should be; long values are cut."""
    return IntegrityError(f"{what} should be {expected}, not {str(repr(value))[:80]}.")


def text(value: object, what: str) -> str:
    """Admit text without lone surrogates."""
    if not isinstance(value, str):
        raise refuse(value, what, "text")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise refuse(value, what, "Unicode text") from error
    return value


def optional_text(value: object, what: str) -> str | None:
    """Admit text, or None where there is none."""
    return None if value is None else text(value, what)


def identifier(value: object, what: str) -> str:
    """Admit an id as MLflow makes them; numbers become text, as in files of MLflow before 1.0."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LARGEST:
        return str(value)
    if isinstance(value, str) and _IDENTIFIER.fullmatch(value):
        return value
    raise refuse(value, what, "an id of letters, digits, _ and -")


def optional_identifier(value: object, what: str) -> str | None:
    """Admit an id, or None where there is none."""
    return None if value is None or value == "" else identifier(value, what)


def is_identifier(name: str) -> bool:
    """Tell whether a name can be an id."""
    return _IDENTIFIER.fullmatch(name) is not None


def whole(value: object, what: str) -> int:
    """Admit a signed number of 64 bits."""
    if isinstance(value, bool) or not isinstance(value, int) or not -_LARGEST - 1 <= value <= _LARGEST:
        raise refuse(value, what, "a whole number")
    return value


def real(value: object, what: str) -> float:
    """Admit a number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise refuse(value, what, "a number")
    return float(value)


def moment(value: object, what: str) -> datetime | None:
    """Milliseconds since 1970 -> UTC, or None where there is none."""
    if value is None:
        return None
    try:
        return _EPOCH + timedelta(milliseconds=whole(value, what))
    except OverflowError as error:
        raise refuse(value, what, "milliseconds since 1970") from error


def latest(values: Iterable[object]) -> datetime | None:
    """Choose the latest of some moments [ms since 1970]; what is no moment is passed over."""
    found: list[datetime] = []
    for value in values:
        try:
            known = moment(value, "")
        except IntegrityError:
            continue
        found += [] if known is None else [known]
    return max(found, default=None)


def choice(value: object, choices: Sequence[str], what: str) -> str:
    """Admit one of a few words."""
    if isinstance(value, str) and value in choices:
        return value
    raise refuse(value, what, " or ".join(choices))


def texts(value: object, what: str) -> dict[str, str]:
    """Admit a mapping of text to text; None is an empty one."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise refuse(value, what, "a mapping")
    return {text(key, what): text(item, f"{what} {key!r}") for key, item in value.items()}
