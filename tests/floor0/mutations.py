"""Bytes of records changed as an attacker, a bug or a disk would change them. For hypothesis."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from hypothesis import strategies as st

HUGE = 10**4_299
"""The largest power of ten that JSON may hold here: twice as much has a digit more than Python prints."""
DEEP: Any = json.loads("[" * 130 + "]" * 130)
VALUES: list[Any] = [
    *(None, True, False, -1, 0, 1, 2, 2**31, 2**53 + 1, 2**63 - 1, 2**63, 2**64, HUGE, 9 * HUGE, -HUGE),
    *(
        0.5,
        -0.0,
        1e308,
        5e-324,
        "",
        ".",
        "..",
        "../x",
        "/x",
        "a/../../x",
        "a\0b",
        "a\nb",
        "\ud800",
        "~",
        "%2F",
    ),
    *("x" * 300, "é" * 5_000, "latest", "v20240115_a1b2c3", "0" * 64, "sha256:" + "0" * 64 + ".bin"),
    *("0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z", "2024-02-30T00:00:00Z", "9999-12-31"),
    *("2024-01-01T00:00:00.000000000Z", "٢٠٢٤-01-01T00:00:00Z", "bin", "parquet", "running", "by_date"),
    *([], {}, [[]], [{}], {"": 0}, {"a": {"b": []}}, {"$f": "nan"}, {"$f": "x"}, {"$x": 1}, {"$$x": 1}, DEEP),
    *({"base64": "/w=="}, {"base64": "Li4vb3V0"}, {"base64": 5}, ["x"], [0], [None], [HUGE], ["a", "a"]),
]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON value but its root."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from places(item, (*path, key))


def drop(holder: Any, key: Any, _: Any) -> None:
    """Leave a field or an item out."""
    del holder[key]


def retype(holder: Any, key: Any, value: Any) -> None:
    """Put something else in its place."""
    holder[key] = value


def wrap(holder: Any, key: Any, _: Any) -> None:
    """Put it a level deeper."""
    holder[key] = [holder[key]]


def double(holder: Any, key: Any, _: Any) -> None:
    """Say it twice: an item again, a field under another name."""
    if isinstance(holder, list):
        holder.insert(key, copy.deepcopy(holder[key]))
    else:
        holder[f"{key} "] = holder[key]


def extend(holder: Any, key: Any, value: Any) -> None:
    """Add something to what is there."""
    inner = holder[key]
    if isinstance(inner, dict):
        inner["new"] = value
    elif isinstance(inner, list):
        inner.append(value)
    elif isinstance(inner, str):
        holder[key] = inner + (value if isinstance(value, str) else " ")
    elif type(inner) in (int, float):
        holder[key] = -inner


def swap(holder: Any, key: Any, _: Any) -> None:
    """Exchange the values of two fields, or two items."""
    other = next(iter(holder)) if isinstance(holder, dict) else 0
    holder[key], holder[other] = holder[other], holder[key]


def many(holder: Any, key: Any, value: Any) -> None:
    """Make a thousand of it."""
    value = None if len(repr(value)) > 100 else value
    holder[key] = {str(n): value for n in range(300)} if isinstance(holder[key], dict) else [value] * 300


STRUCTURAL: Sequence[Callable[[Any, Any, Any], None]] = (
    drop,
    retype,
    retype,
    retype,
    wrap,
    double,
    extend,
    swap,
    many,
)


def encoded(value: Any) -> bytes:
    """JSON bytes, also of what canonical JSON refuses to write."""
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()


@st.composite
def otherwise_said(draw: st.DrawFn, body: bytes) -> bytes:
    """The record ``body`` with one to three of its values dropped, doubled, extended or replaced."""
    value = json.loads(body)
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3]))):
        found = list(places(value))
        if not found:
            break
        path = draw(st.sampled_from(found))
        holder = value
        for key in path[:-1]:
            holder = holder[key]
        draw(st.sampled_from(STRUCTURAL))(holder, path[-1], copy.deepcopy(draw(st.sampled_from(VALUES))))
    return encoded(value)


SPLICES = (
    *(b"\x00", b"\xff", b"\xef\xbb\xbf", b"{", b"[", b"]", b"}", b'"', b",", b"\\ud800", b"\\u0000", b"NaN"),
    *(
        b"-Infinity",
        b"1e999999",
        b"-0",
        b"1" * 5_000,
        b"[" * 2_000,
        b'{"a":' * 2_000,
        b'"format":1,',
        b"\r\n",
    ),
    *(b'"content":{},', b"1E400", b"0x10", b"'", b"null", b"//"),
)


@st.composite
def otherwise_spelled(draw: st.DrawFn, body: bytes) -> bytes:
    """The bytes ``body`` cut, with bits flipped, or with something put in or over."""
    kind = draw(st.sampled_from(["flip", "cut", "splice", "over", "twice", "recoded"]))
    place = draw(st.integers(0, max(len(body) - 1, 0)))
    if kind == "flip" and body:
        return body[:place] + bytes([body[place] ^ (1 << draw(st.integers(0, 7)))]) + body[place + 1 :]
    if kind == "cut":
        return body[:place]
    if kind == "twice":
        return body + body
    if kind == "recoded":
        return body.decode("latin1").encode(draw(st.sampled_from(["utf-16", "utf-32-le", "utf-8-sig"])))
    piece = draw(st.sampled_from(SPLICES))
    return body[:place] + piece + body[place + (len(piece) if kind == "over" else 0) :]


def forged(body: bytes) -> st.SearchStrategy[bytes]:
    """A JSON record, changed in its structure more often than in its bytes."""
    said = otherwise_said(body)
    return st.one_of(said, said, said, otherwise_spelled(body))
