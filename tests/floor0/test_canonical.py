"""Exact JSON: one byte string per value, one value per byte string; damage is an IntegrityError."""

from __future__ import annotations

import enum
import json
import math
from collections import OrderedDict
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mltrack_tasks import canonical
from mltrack_tasks.canonical import MAX_DEPTH, dumps, dumps_value, loads, loads_value
from mltrack_tasks.errors import IntegrityError, InvalidInputError

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
KEYS = st.one_of(TEXT, TEXT.map("$".__add__), st.sampled_from(["$", "$$", "$f", "$$f", "$$$f", "f", ""]))
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), TEXT, st.sampled_from(["nan", "inf", "-inf"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(KEYS, inner, max_size=4)),
    max_leaves=12,
)

NAN, INF = math.nan, math.inf
CONFUSABLE: list[Any] = [
    *(0, 0.0, -0.0, False, "", "0", None, [], {}, "null", [None], {"": None}),
    *(1, 1.0, True, "1", "true", "1.0", [1], [1.0], [True], [[1]], {"1": 1}, {"1": 1.0}, {"1": True}),
    *(NAN, INF, -INF, "nan", "inf", "-inf", "NaN", "Infinity", [NAN], [INF]),
    *({"$f": "nan"}, {"$f": "inf"}, {"$f": NAN}, {"$$f": "nan"}, {"f": "nan"}, {"$f": {"$f": "nan"}}),
    *({"$f": "nan", "a": 1}, {"$": 1}, {"$$": 1}, {"$a": 1}, {"$$a": 1}, {"a": 1}, {"a": [1]}),
    *({"a": {"b": 1}}, {"a": 1, "b": 1}, [["a", 1]], "é", "e\u0301", "\ufeff", "\ufffd", "\0", "\\u0000"),
    *(10**16, 1e16, 10**400, 2**53, float(2**53), 2**53 + 1, 5e-324, 0.1, 0.1 + 0.2, 0.3),
]
"""Values that other encodings, or Python's ==, take for one another."""


def same(left: Any, right: Any) -> bool:
    """Compare values by type and content, without the code under test."""
    if type(left) is not type(right):
        return False
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, float):
        if math.isnan(left) or math.isnan(right):
            return math.isnan(left) and math.isnan(right)
        return left == right and math.copysign(1, left) == math.copysign(1, right)
    return bool(left == right)


@given(VALUES)
def test_a_value_comes_back_with_exact_types(value: Any) -> None:
    body = dumps_value(value)
    back = loads_value(body)
    assert same(back, value)
    assert dumps_value(back) == body


@given(VALUES)
def test_the_bytes_are_strict_json_that_any_reader_takes(value: Any) -> None:
    def refuse(token: str) -> None:
        raise AssertionError(token)

    json.loads(dumps_value(value).decode("utf-8"), parse_constant=refuse)


def test_values_that_look_alike_have_different_bytes() -> None:
    for left in CONFUSABLE:
        for right in CONFUSABLE:
            assert (dumps_value(left) == dumps_value(right)) is same(left, right), (left, right)


@given(st.tuples(VALUES, VALUES).map(list) | st.lists(st.sampled_from(CONFUSABLE), min_size=2, max_size=2))
def test_bytes_are_equal_exactly_when_values_are(pair: list[Any]) -> None:
    left, right = pair
    assert (dumps_value(left) == dumps_value(right)) is same(left, right)


@given(st.dictionaries(KEYS, SCALARS, min_size=2, max_size=6))
def test_the_order_of_keys_makes_no_difference(value: dict[str, Any]) -> None:
    assert dumps_value(dict(reversed(value.items()))) == dumps_value(value)


def test_the_bytes_are_those_of_the_format() -> None:
    value = {"ü": [1, 1.0, True, None, -0.0, 1e16], "a": {"$x": NAN, "y": "\n"}, "$f": [INF, -INF]}
    assert dumps_value(value) == (
        b'{"$$f":[{"$f":"inf"},{"$f":"-inf"}],"a":{"$$x":{"$f":"nan"},"y":"\\n"},'
        b'"\xc3\xbc":[1,1.0,true,null,-0.0,1e+16]}'
    )


class _Text(str):
    __slots__ = ()


class _Level(enum.IntEnum):
    LOW = 1


def _nested(depth: int, leaf: Any = 1) -> Any:
    value = leaf
    for level in range(depth):
        value = {"k": value} if level % 2 else [value]
    return value


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ((1, 2), r"params is a tuple.*use a list"),
        ({"a": [1, (2,)]}, r"params\['a'\]\[1\] is a tuple"),
        ({"a": {1, 2}}, r"params\['a'\] is a set.*use a list"),
        (frozenset(), r"params is a frozenset"),
        ({"a": np.float64(1)}, r"params\['a'\] is a numpy\.float64.*\.item\(\)"),
        ([np.int64(1)], r"params\[0\] is a numpy\.int64.*\.item\(\)"),
        (np.zeros(2), r"params is a numpy\.ndarray.*\.tolist\(\)"),
        ({1: "a"}, r"params has the key 1 of type int.*come back as '1'"),
        ({"a": {None: 1}}, r"params\['a'\] has the key None"),
        ({True: 1}, r"the key True of type bool"),
        ({_Text("a"): 1}, r"the key 'a' of type .*_Text"),
        ({"a": "\ud800"}, r"params\['a'\] has a lone surrogate"),
        ({"a": {"\udfff": 1}}, r"a key of params\['a'\] has a lone surrogate"),
        ({"a": _Text("x")}, r"params\['a'\] is a .*_Text.*plain Python type"),
        ([_Level.LOW], r"params\[0\] is a .*_Level.*plain Python type"),
        (OrderedDict(a=1), r"params is a collections\.OrderedDict.*plain Python type"),
        ({"a": b"x"}, r"params\['a'\] is a bytes"),
        (Decimal("1"), r"params is a decimal\.Decimal"),
        (1j, r"params is a complex"),
        (object(), r"params is a object.*convert it"),
        ({"a": 1 << 20_000}, r"params\['a'\] is an integer of 20001 bits"),
        (-(1 << 14_000), r"params is an integer of 14001 bits"),
        (_nested(MAX_DEPTH + 1), rf"params\[0\].* is nested more than {MAX_DEPTH} levels"),
        (_nested(100_000), rf"nested more than {MAX_DEPTH} levels"),
    ],
)
def test_what_would_not_come_back_is_refused_by_its_path(value: Any, says: str) -> None:
    with pytest.raises(InvalidInputError, match=says):
        dumps_value(value, what="params")


def test_a_value_that_holds_itself_is_refused() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(InvalidInputError, match="nested more than"):
        dumps_value(value)


@pytest.mark.parametrize("leaf", [1, NAN, "$", [], {}], ids=repr)
def test_the_deepest_values_come_back(leaf: Any) -> None:
    depth = MAX_DEPTH - (leaf in ([], {}))
    value = _nested(depth, leaf)
    assert same(loads_value(dumps_value(value)), value)


@pytest.mark.parametrize("number", [2**14_000 - 1, -(2**14_000) + 1, 10**4_000], ids=lambda n: "large int")
def test_the_largest_integers_come_back(number: int) -> None:
    assert loads_value(dumps_value([number])) == [number]


HOSTILE = [
    *(b"", b" ", b"{", b"[", b'"', b"{]", b"nul", b"tru", b"1 2", b"{}{}", b"[1,]", b'{"a":1,}', b"'a'"),
    *(b"{a:1}", b'{"a"}', b"01", b"1.", b".5", b"+1", b"--1", b"0x10", b"1e", b"// x\n1", b"[1]x", b"\0"),
    *(b"NaN", b"-NaN", b"Infinity", b"-Infinity", b"[NaN]", b'{"a":[1,-Infinity]}', b"nan", b"inf"),
    *(b"1e400", b"-1e400", b"[1E+999]", b"1" * 400 + b".0", b"9" * 5_000, b"-" + b"9" * 5_000),
    *(b'{"a":1,"a":1}', b'{"a":1,"b":2,"a":3}', b'[{"a":{"b":1,"b":2}}]', b'{"a":1,"\\u0061":2}'),
    *(b'"\\ud800"', b'["\\uDFFF"]', b'{"\\udbff":1}', b'"\\udc00\\ud800"', b'"\\ud83dx"', b'"\\x"'),
    *(b'"\xed\xa0\x80"', b'"\xff"', b'"\xc3"', b'"\xc0\x80"', b'"\xf4\x90\x80\x80"', b'"a\nb"', b'"a\0b"'),
    *(b"\xef\xbb\xbf{}", b"\xff\xfe{\x00}\x00", b"{\x00}\x00", b"\x00{\x00}", b"\x80\x04N."),
    *(b"[" * 100_000, b'{"a":' * 100_000, b"[" * 100_000 + b"]" * 100_000, b"[" * 121 + b"]" * 121),
    b'{"a":' * 121 + b"1" + b"}" * 121,
    b"[" * 60 + b"[]," * 200 + b"[" * 90 + b"]" * 90 + b"]" * 60,
]


@pytest.mark.parametrize("body", HOSTILE, ids=lambda body: repr(body[:24]))
def test_hostile_bytes_are_an_integrity_error(body: bytes) -> None:
    with pytest.raises(IntegrityError, match=r"^here/x\.json is not valid JSON: .*restore it from a copy"):
        loads(body, what="here/x.json")


@pytest.mark.parametrize(
    "body",
    [b'{"$f":"NaN"}', b'{"$f":1}', b'{"$f":"nan","a":1}', b'{"$x":1}', b'[{"$":1}]', b'{"a":{"$f":[]}}'],
)
def test_an_unknown_dollar_form_is_an_integrity_error(body: bytes) -> None:
    with pytest.raises(IntegrityError, match=r"^x has the reserved key '\$"):
        loads_value(body, what="x")


@given(st.binary(max_size=60) | st.text('[]{}",:0123456789eE+-.\\u$fnaultrs "', max_size=60).map(str.encode))
@example(b'{"\\u0024f":"nan"}')
def test_random_bytes_give_a_value_or_an_integrity_error(body: bytes) -> None:
    try:
        value = loads_value(body)
    except IntegrityError:
        return
    assert same(loads_value(dumps_value(value)), value)


@given(VALUES, st.data())
def test_damaged_bytes_give_another_value_or_an_integrity_error(value: Any, data: st.DataObject) -> None:
    body = bytearray(dumps_value(value))
    place = data.draw(st.integers(0, len(body) - 1))
    body[place] ^= data.draw(st.integers(1, 255))
    try:
        back = loads_value(body)
    except IntegrityError:
        return
    assert same(loads_value(dumps_value(back)), back)


def test_good_json_of_other_writers_is_read() -> None:
    assert loads(b' {"a" : [1, 2.50, "\\u00fc", "\\ud83d\\ude00", "\\\\ud800"]}\n', what="x") == {
        "a": [1, 2.5, "ü", "😀", "\\ud800"]
    }
    assert loads(bytearray(b"[[]]"), what="x") == loads(memoryview(b"[[]]"), what="x") == [[]]


def test_many_brackets_are_not_depth() -> None:
    value = [[] for _ in range(5_000)]
    assert loads(dumps(value), what="x") == value
    assert loads(dumps("[" * 5_000), what="x") == "[" * 5_000


def test_plain_json_refuses_nan_rather_than_write_it() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical.dumps({"a": NAN})
