"""Exact JSON: one byte string per value, one value per byte string."""

from __future__ import annotations

import json
import math
import tracemalloc
from collections import OrderedDict
from enum import IntEnum
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mltrack_tasks import canonical
from mltrack_tasks.errors import IntegrityError, InvalidInputError
from mltrack_tasks.records import Record
from mltrack_tasks.recordstore import create_record
from mltrack_tasks.stores.memory import MemoryStore
from tests.floor0.strategies import exact, plain_json, values


@given(values)
def test_what_goes_in_comes_back_the_same(value: Any) -> None:
    assert exact(canonical.loads_value(canonical.dumps_value(value))) == exact(value)


@given(values, values)
def test_two_values_share_bytes_only_if_they_are_the_same(one: Any, other: Any) -> None:
    same = canonical.dumps_value(one) == canonical.dumps_value(other)
    assert same == (exact(one) == exact(other))


@given(values)
def test_bytes_are_canonical(value: Any) -> None:
    body = canonical.dumps_value(value)
    assert canonical.dumps(canonical.loads(body, what="it")) == body
    json.loads(body.decode(), parse_constant=pytest.fail)


@given(plain_json)
def test_plain_json_comes_back_too(value: Any) -> None:
    assert exact(canonical.loads(canonical.dumps(value), what="it")) == exact(value)


@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda t: t.encode("utf-8", "surrogatepass")))
def test_hostile_bytes_are_refused_or_read(body: bytes) -> None:
    try:
        value = canonical.loads_value(body)
    except IntegrityError:
        return
    canonical.dumps_value(value)


DIFFERENT: list[tuple[Any, Any]] = [
    (1, 1.0),
    (1, True),
    (0, False),
    (0.0, -0.0),
    (0, None),
    ("1", 1),
    ("", None),
    ([], {}),
    ([], None),
    ([[]], []),
    ({"a": None}, {}),
    ({"$f": "nan"}, math.nan),
    ({"$$f": "nan"}, {"$f": "nan"}),
    (math.inf, -math.inf),
    (1e16, 10**16),
    ("é", "e\u0301"),
    ("nan", math.nan),
    ({"a": {"b": 1}}, {"a.b": 1}),
]


@pytest.mark.parametrize(("one", "other"), DIFFERENT, ids=repr)
def test_values_that_must_not_be_mixed_up(one: Any, other: Any) -> None:
    assert canonical.dumps_value(one) != canonical.dumps_value(other)
    for value in (one, other):
        assert exact(canonical.loads_value(canonical.dumps_value(value))) == exact(value)


def test_equal_values_have_equal_bytes() -> None:
    assert canonical.dumps_value({"b": 1, "a": [2]}) == canonical.dumps_value({"a": [2], "b": 1})
    assert canonical.dumps_value({"b": 1, "ä": "ü"}) == '{"b":1,"ä":"ü"}'.encode()
    assert canonical.dumps_value(math.nan) == b'{"$f":"nan"}'


def _short(item: object) -> str:
    return str(item)[:20] if isinstance(item, str) else type(item).__name__


class Number(IntEnum):
    ONE = 1


class Text(str):
    __slots__ = ()


REFUSED: list[tuple[Any, str]] = [
    ((1, 2), "use a list"),
    ({1, 2}, "use a list"),
    ({1: "a"}, "'1'"),
    ({None: 1}, "NoneType"),
    ({True: 1}, "bool"),
    ({("a",): 1}, "tuple"),
    (np.float64(1.5), r"\.item\(\)"),
    (np.int64(1), r"\.item\(\)"),
    (np.bool_(True), r"\.item\(\)"),
    (np.arange(2), r"\.tolist\(\)"),
    (b"bytes", "bytes"),
    (1j, "complex"),
    (Number.ONE, "plain Python type"),
    (Text("x"), "plain Python type"),
    ({Text("x"): 1}, "the key 'x' of type"),
    (frozenset(), "use a list"),
    (OrderedDict(a=1), "plain Python type"),
    (object(), "object"),
    ("\ud800", "lone surrogate"),
    ({"\udfff": 1}, "lone surrogate"),
    (1 << 20_000, "store it as a string"),
]


@pytest.mark.parametrize(("value", "reason"), REFUSED, ids=_short)
def test_what_would_not_come_back_is_refused_by_its_path(value: Any, reason: str) -> None:
    for inside, path in ((value, "it"), ({"a": [0, value]}, r"it\['a'\]\[1\]")):
        with pytest.raises(InvalidInputError, match=reason) as raised:
            canonical.dumps_value(inside, what="it")
        assert raised.match(path)


def test_nesting_has_a_limit_both_ways() -> None:
    deep: Any = math.nan
    for _ in range(canonical.MAX_DEPTH):
        deep = [deep]
    assert exact(canonical.loads_value(canonical.dumps_value(deep))) == exact(deep)
    with pytest.raises(InvalidInputError, match="flatten"):
        canonical.dumps_value([deep])
    for depth in (300, 900, 5_000, 200_000):
        for body in (b"[" * depth + b"]" * depth, b'{"a":' * depth + b"1" + b"}" * depth):
            with pytest.raises(IntegrityError, match=r"nested|recursion"):
                canonical.loads_value(body)


@pytest.mark.parametrize("around", [0, 20])
def test_the_deepest_value_has_room_in_a_record_and_no_more(around: int) -> None:
    """Plain JSON may be 20 levels deeper than a value: its escapes and the record around it."""
    depth = canonical.MAX_DEPTH + around
    body = b"[" * depth + b"]" * depth
    assert canonical.dumps(canonical.loads(body, what="it")) == body
    for opening, closing in ((b"[", b"]"), (b'{"a":', b"}")):
        inner = b"1" if closing == b"}" else b""
        with pytest.raises(IntegrityError, match="nested more than 120 levels"):
            canonical.loads(opening * 121 + inner + closing * 121, what="it")


def test_large_integers_come_back() -> None:
    for number in (2**14_000 - 1, 1 - 2**14_000, 10**4_000):
        assert canonical.loads_value(canonical.dumps_value([number])) == [number]
    with pytest.raises(InvalidInputError, match="14001 bits; store it as a string"):
        canonical.dumps_value(2**14_000)


@given(values, st.data())
def test_damaged_bytes_are_refused_or_read_as_another_value(value: Any, data: st.DataObject) -> None:
    body = bytearray(canonical.dumps_value(value))
    body[data.draw(st.integers(0, len(body) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        back = canonical.loads_value(body)
    except IntegrityError:
        return
    assert exact(canonical.loads_value(canonical.dumps_value(back))) == exact(back)


def test_a_cycle_is_refused() -> None:
    cycle: list[Any] = []
    cycle.append(cycle)
    with pytest.raises(InvalidInputError, match="nested"):
        canonical.dumps_value(cycle)


def test_wide_values_are_no_deep_ones() -> None:
    wide = [[[]] for _ in range(5_000)]
    assert canonical.loads_value(canonical.dumps_value(wide)) == wide


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"\xef\xbb\xbf1",
        b"NaN",
        b"-Infinity",
        b"1e999",
        b'{"a":1,"a":1}',
        b'{"x":{"a":1,"a":2}}',
        b"[1,]",
        b"{'a':1}",
        b"1 2",
        b'"\\ud800"',
        b'{"\\uDC00":1}',
        b'["\\ud83d","\\ude00"]',
        b"9" * 5_000,
        b'{"$f":"huge"}',
        b'{"$f":1}',
        b'{"$f":"nan","a":1}',
        b'{"$":1}',
        b'{"a":[{"$x":1}]}',
    ],
    ids=lambda body: body[:12].decode("latin-1"),
)
def test_what_strict_json_does_not_allow_is_refused(body: bytes) -> None:
    with pytest.raises(IntegrityError, match="the source"):
        canonical.loads_value(body, what="the source")


def test_a_key_that_stands_twice_is_found_among_many() -> None:
    """In one pass: comparing each with each would take hours."""
    keys = [*range(300_000), 299_999]
    body = ("{" + ",".join(f'"{key}":0' for key in keys) + "}").encode()
    with pytest.raises(IntegrityError, match="'299999' stands twice"):
        canonical.loads(body, what="the source")


def test_escapes_of_others_are_read() -> None:
    assert canonical.loads_value(b' {"a" : "\\u00e9\\ud83d\\ude00"} ') == {"a": "é😀"}
    text = "\\ud800"  # a backslash and five letters, no surrogate
    assert canonical.loads_value(canonical.dumps_value(text)) == text


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ([1, 2.5, "a", None, True, 2**20_000], r"value\[5\]"),
        ([1, (2,)], r"value\[1\]"),
        ({"a": {"b": [0, "\ud800"]}}, r"value\['a'\]\['b'\]\[1\]"),
    ],
)
def test_what_cannot_be_kept_is_named_by_its_path(value: Any, named: str) -> None:
    with pytest.raises(InvalidInputError, match=named):
        canonical.escape(value)


def test_what_is_escaped_is_another_list() -> None:
    """What the caller does with its own afterwards changes no record."""
    value = [[1, 2.5, "a"], {"b": [None]}]
    escaped = canonical.escape(value)
    assert escaped == value
    assert escaped is not value
    assert escaped[0] is not value[0]
    assert escaped[1]["b"] is not value[1]["b"]


def marks(value: Any) -> int:
    """What begins or separates values: containers, and the commas in them."""
    if not isinstance(value, (list, dict)):
        return 0
    inner = value.values() if isinstance(value, dict) else value
    return 1 + max(len(value) - 1, 0) + sum(map(marks, inner))


@given(plain_json, st.integers(1, 9))
def test_values_are_counted_as_they_would_be_parsed(value: Any, size: int) -> None:
    """Whatever texts hold, and wherever a slice ends."""
    with pytest.MonkeyPatch.context() as patch:
        for name, number in (("FREE_VALUES", -1), ("BYTES_PER_VALUE", 10**9), ("_SLICE", size)):
            patch.setattr(canonical, name, number)
        assert canonical.too_many_values(canonical.dumps(value)) == marks(value)


@pytest.mark.parametrize("item", ["[]", "{}", "[[]]", '{"":0}', "0", '"ab"', '{"":[{}]}'])
def test_a_record_of_too_many_values_is_refused_unparsed(item: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canonical, "FREE_VALUES", 20_000)
    monkeypatch.setattr(canonical, "_SLICE", 4_096)
    many = canonical.FREE_VALUES * 2
    body = f'{{"format":1,"content":{{"a":[{",".join([item] * many)}]}},"provenance":{{}}}}'.encode()
    tracemalloc.start()
    try:
        with pytest.raises(IntegrityError, match=r"^it holds [0-9,]+ values"):
            Record.from_bytes(body, what="it")
        assert tracemalloc.get_traced_memory()[1] < 4 * len(body)
    finally:
        tracemalloc.stop()


def test_large_records_of_files_and_digests_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The densest that this library writes: of files, of digests. However many there are."""
    monkeypatch.setattr(canonical, "FREE_VALUES", 0)
    entry = f'["a/b","file",false,120,1700000000000000000,"{"ab" * 32}"],'
    for item in (entry, f'"{"ab" * 32}",', f'{{"x":"{"[{,," * 20}"}},'):
        assert not canonical.too_many_values((item * 10_000).encode())


def test_a_record_that_could_not_be_read_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canonical, "FREE_VALUES", 20_000)
    store = MemoryStore()
    with pytest.raises(InvalidInputError, match=r"would hold [0-9,]+ values"):
        create_record(store, "k", {"a": [[]] * 40_000}, what="x")
    assert not list(store.list(""))
