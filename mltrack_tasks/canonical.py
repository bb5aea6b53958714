"""Exact JSON: one byte string per value, one value per byte string.

Two layers. ``dumps``/``loads`` turn plain JSON values into canonical bytes and back, strictly.
``escape``/``unescape`` map the user's values onto plain JSON, so that NaN and the infinities survive:
a non-finite float becomes ``{"$f": "nan"}``, and a user's key that begins with ``$`` gets a second one.

What would not come back as it went in is refused by name: tuples, sets, numpy scalars, non-string keys,
subclasses of the plain types, lone surrogates.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

from mltrack_tasks.errors import IntegrityError, InvalidInputError

MAX_DEPTH = 100
"""Nesting allowed in a value. Python's own JSON decoder fails near 1,000 levels; real data stays below 20."""

_MAX_PLAIN_DEPTH = MAX_DEPTH + 20
"""Nesting allowed in plain JSON: a value, its escapes, and the record around it."""

_SMALL = 2**63
FREE_VALUES, BYTES_PER_VALUE = 1_000_000, 16
"""Values that a record may hold: so many, and one more for each so many [bytes].

``[[],[],...]`` takes 27 times its bytes as Python objects, and a record of 64 MiB so 1.8 GB. Lists of digests
or files, of which large records consist, have 30 bytes and more for each value.
"""

_SLICE = 256 * 1024
_NUMBERS = frozenset({int, float})
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_NON_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def dumps(value: Any) -> bytes:
    """Encode plain JSON -> canonical UTF-8 bytes (sorted keys, no spaces, no NaN)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8")


def loads(body: bytes | bytearray | memoryview, *, what: str) -> Any:
    """Decode UTF-8 JSON bytes -> plain value; ``what`` names the source in errors.

    Raises IntegrityError on anything that strict JSON does not allow: duplicate keys, NaN tokens, numbers
    beyond a float's range, broken UTF-8, lone surrogates, nesting that no writer of ours produces.
    """
    raw = bytes(body)
    try:
        value = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_unique_keys,
            parse_constant=_refuse_constant,
            parse_float=_finite,
        )
        if raw.count(b"[") + raw.count(b"{") > _MAX_PLAIN_DEPTH:
            _refuse_depth(value)
        if _SURROGATE.search(raw):
            dumps(value)  # fails on a lone surrogate; two that belong together are one character
        return value
    except (ValueError, RecursionError) as error:
        raise IntegrityError(
            f"{what} is not valid JSON: {error}. It was damaged or written by something else; "
            "restore it from a copy."
        ) from error


def too_many_values(body: bytes | bytearray | memoryview) -> int:
    """Count the values in a record's JSON without parsing it -> how many, or 0 if it may hold as many."""
    raw = bytes(body)
    allowed = FREE_VALUES + len(raw) // BYTES_PER_VALUE
    if marks(raw) <= allowed:  # texts may hold the same characters, so this counts too many
        return 0
    found = marks_outside_texts(raw)
    return found if found > allowed else 0


def marks(raw: bytes) -> int:
    """Count what begins or separates values."""
    return raw.count(b",") + raw.count(b"[") + raw.count(b"{")


def marks_outside_texts(raw: bytes) -> int:
    """Count the same outside of quotes, slice by slice: there may be millions of quotes."""
    plain = raw.replace(rb"\\", b"").replace(rb"\"", b"")
    found, inside = 0, 0
    for start in range(0, len(plain), _SLICE):
        pieces = plain[start : start + _SLICE].split(b'"')
        found += marks(b"".join(pieces[inside::2]))
        inside ^= (len(pieces) - 1) & 1
    return found


def dumps_value(value: Any, *, what: str = "value") -> bytes:
    """Encode a user's JSON value -> canonical bytes; ``loads_value`` gives back an equal value.

    Raises InvalidInputError naming the path of what cannot be kept exactly.
    """
    return dumps(escape(value, what=what))


def loads_value(body: bytes | bytearray | memoryview, *, what: str = "JSON value") -> Any:
    """Decode what ``dumps_value`` wrote. Raises IntegrityError when the bytes are not of that form."""
    return unescape(loads(body, what=what), what=what)


def escape(value: Any, *, what: str = "value", depth: int = 0) -> Any:
    """Map a user's value onto plain JSON, or raise InvalidInputError naming the offending path."""
    if depth > MAX_DEPTH:
        raise InvalidInputError(f"{what} is nested more than {MAX_DEPTH} levels deep; flatten it.")
    kind = type(value)
    if value is None or kind is bool:
        return value
    if kind is int:
        return _printable_int(value, what)
    if kind is float:
        return value if math.isfinite(value) else {"$f": repr(value)}
    if kind is str:
        return _encodable(value, what)
    if kind is list:
        if depth < MAX_DEPTH and _are_numbers(value):
            return value.copy()
        return [
            v if depth < MAX_DEPTH and _is_as_it_is(v) else escape(v, what=f"{what}[{i}]", depth=depth + 1)
            for i, v in enumerate(value)
        ]
    if kind is dict:
        return dict(_escape_items(value, what, depth))
    raise InvalidInputError(
        f"{what} is a {_type_name(kind)}, which JSON cannot keep exactly; {_advice(kind)}."
    )


def unescape(value: Any, *, what: str = "JSON value", depth: int = 0) -> Any:
    """Map plain JSON back onto the user's value.

    Raises IntegrityError on an unknown ``$`` form, and on whatever ``escape`` would not take again.
    """
    if depth > MAX_DEPTH:
        raise IntegrityError(f"{what} is nested more than {MAX_DEPTH} levels deep; this library writes none.")
    if isinstance(value, list):
        return [unescape(v, what=what, depth=depth + 1) for v in value]
    if not isinstance(value, dict):
        return _written(value, what)
    if set(value) == {"$f"} and isinstance(value["$f"], str) and value["$f"] in _NON_FINITE:
        return _NON_FINITE[value["$f"]]
    return {_unescape_key(k, what): unescape(v, what=what, depth=depth + 1) for k, v in value.items()}


def _escape_items(value: dict[Any, Any], what: str, depth: int) -> Iterable[tuple[str, Any]]:
    for key, item in value.items():
        if type(key) is not str:
            raise InvalidInputError(
                f"{what} has the key {key!r} of type {_type_name(type(key))}: JSON keys are strings, and "
                f"{key!r} would come back as {str(key)!r}. Use string keys."
            )
        if not key.isascii():
            _encodable(key, f"a key of {what}")
        if depth >= MAX_DEPTH or not _is_as_it_is(item):
            item = escape(item, what=f"{what}[{key!r}]", depth=depth + 1)
        yield ("$" + key if key.startswith("$") else key), item


def _are_numbers(values: list[Any]) -> bool:
    """Whether plain JSON spells all values of a list as they are, and they are numbers: points, vectors."""
    try:
        return _NUMBERS.issuperset(map(type, values)) and all(map(math.isfinite, values))
    except OverflowError:
        return False  # beyond a float; perhaps too large to be printed


def _is_as_it_is(value: Any) -> bool:
    """Whether plain JSON spells a value as it is, as it does nearly all: those need no name for messages."""
    kind = type(value)
    plain: bool = value is None or kind is bool
    if kind is str:
        plain = value.isascii()
    elif kind is float:
        plain = math.isfinite(value)
    elif kind is int:
        plain = -_SMALL < value < _SMALL
    return plain


def _written(value: Any, what: str) -> Any:
    """Admit a scalar as ``escape`` does (``loads`` has looked at texts already); IntegrityError otherwise."""
    try:
        return _printable_int(value, what) if type(value) is int else value
    except InvalidInputError as error:
        raise IntegrityError(f"{error} This library writes none.") from error


def _unescape_key(key: str, what: str) -> str:
    if not key.startswith("$"):
        return key
    if key.startswith("$$"):
        return key[1:]
    raise IntegrityError(f"{what} has the reserved key {key!r}; it was not written by this library.")


def _encodable(text: str, what: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidInputError(
            f"{what} has a lone surrogate ({error.reason}); UTF-8 cannot hold it."
        ) from error
    return text


def _printable_int(number: int, what: str) -> int:
    # Python refuses to print or parse integers above 4,300 digits; 14,000 bits stay below that.
    if number.bit_length() > 14_000:
        raise InvalidInputError(f"{what} is an integer of {number.bit_length()} bits; store it as a string.")
    return number


def _type_name(kind: type) -> str:
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"


def _advice(kind: type) -> str:
    if kind.__module__ == "numpy":
        return "use .item() for a scalar, .tolist() for an array, or store the array itself"
    if issubclass(kind, (tuple, set, frozenset)):
        return "use a list"
    if issubclass(kind, (str, int, float, dict, list)):
        return "convert it to the plain Python type"
    return "convert it to dict, list, str, int, float, bool or None"


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        [(twice, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {twice!r:.80} stands twice")
    return result


def _refuse_depth(value: Any) -> None:
    level, depth = [value], 0
    while level := [item for item in level if isinstance(item, (list, dict))]:
        depth += 1
        if depth > _MAX_PLAIN_DEPTH:
            raise ValueError(f"it is nested more than {_MAX_PLAIN_DEPTH} levels deep")
        level = [inner for item in level for inner in (item.values() if isinstance(item, dict) else item)]


def _refuse_constant(token: str) -> Any:
    raise ValueError(f"the token {token} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text[:40]} is beyond a float's range")
    return number
