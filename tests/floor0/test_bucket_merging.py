"""Laws of merging: what is not ours keeps its bytes and order, twice is once."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mltrack_tasks.bucket.merging import (
    LIFECYCLE,
    NOTIFICATIONS,
    SELECTORS,
    STATEMENTS,
    TIERS,
    Shape,
    foreign,
    merge,
    merge_policy,
    own,
    parse_policy,
    same_document,
    same_rules,
)
from mltrack_tasks.bucket.naming import is_bucket_key, rule_base, sid_base
from mltrack_tasks.errors import IntegrityError

BASE = rule_base("a/b")
NAMES = st.text("xyz", min_size=1, max_size=2)
BODIES = st.dictionaries(
    st.sampled_from(["Status", "Filter", "Days"]), st.one_of(NAMES, st.integers(0, 9)), max_size=3
)


def rules(shape: Shape, base: str) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Rules whose ids begin with ``base``, each id once; others' may lack an id."""
    made = st.builds(lambda name, body: {shape.id: f"{base}{name}", **body}, NAMES, BODIES)
    return st.lists(made, max_size=3, unique_by=lambda rule: str(rule[shape.id]))


@st.composite
def documents(draw: st.DrawFn, shape: Shape, base: str = BASE) -> dict[str, Any] | None:
    """A document of rules of ours and of others, mixed, with other fields."""
    document: dict[str, Any] = draw(st.dictionaries(st.sampled_from(["Role", "Version"]), NAMES))
    others = st.one_of(rules(shape, ""), rules(shape, rule_base("a")), st.lists(BODIES, max_size=2))
    for name in shape.lists:
        mixed = draw(st.permutations([*draw(rules(shape, base)), *draw(others)]))
        if mixed:
            document[name] = mixed
    return draw(st.sampled_from([document, None]))


@st.composite
def cases(draw: st.DrawFn) -> tuple[Shape, dict[str, Any] | None, dict[str, list[Any]]]:
    shape = draw(st.sampled_from([LIFECYCLE, NOTIFICATIONS, SELECTORS, TIERS]))
    wanted = {name: draw(rules(shape, BASE)) for name in shape.lists}
    return shape, draw(documents(shape)), wanted


@given(cases())
def test_merging(case: tuple[Shape, dict[str, Any] | None, dict[str, list[Any]]]) -> None:
    shape, document, wanted = case
    before = json.dumps(document)
    merged = merge(document, shape, BASE, wanted)
    assert json.dumps(document) == before  # what was handed in is not changed
    assert json.dumps(foreign(merged, shape, BASE)) == json.dumps(foreign(document, shape, BASE))
    assert same_rules(own(merged, shape, BASE), wanted, shape)
    assert json.dumps(merge(merged, shape, BASE, wanted)) == json.dumps(merged)
    # With the rules that were there before, it says what it said.
    back = merge(merged, shape, BASE, own(document, shape, BASE))
    assert same_rules(own(back, shape, BASE), own(document, shape, BASE), shape)
    assert foreign(back, shape, BASE) == foreign(document, shape, BASE)


@given(cases(), st.sampled_from(["a", "a/b/c", "b", ""]))
def test_stores_of_one_bucket_do_not_meet(
    case: tuple[Shape, dict[str, Any] | None, dict[str, list[Any]]], other: str
) -> None:
    shape, document, wanted = case
    mine = merge(document, shape, BASE, wanted)
    theirs = {
        name: [{**rule, shape.id: rule_base(other) + "x"} for rule in each[:1]]
        for name, each in wanted.items()
    }
    both = merge(mine, shape, rule_base(other), theirs)
    assert own(both, shape, BASE) == own(mine, shape, BASE)


@given(documents(STATEMENTS, sid_base("a/b")), rules(STATEMENTS, sid_base("a/b")), st.sampled_from([None, 2]))
def test_policies_are_texts(
    document: dict[str, Any] | None, wanted: list[dict[str, Any]], indent: int | None
) -> None:
    base = sid_base("a/b")
    text = None if document is None else json.dumps(document, indent=indent)
    merged = merge_policy(text, base, wanted)
    assert merge_policy(merged, base, wanted) == merged
    ours = own(parse_policy(merged), STATEMENTS, base).get("Statement", [])
    assert same_rules({"Statement": ours}, {"Statement": wanted}, STATEMENTS)
    if merged is not None:
        theirs = foreign(document, STATEMENTS, base).get("Statement", [])
        assert foreign(parse_policy(merged), STATEMENTS, base).get("Statement", []) == theirs
    if same_rules(own(document, STATEMENTS, base), {"Statement": wanted}, STATEMENTS):
        assert merged == text


def test_a_single_bare_statement_is_one() -> None:
    text = '{"Version":"2012-10-17","Statement":{"Sid":"x","Effect":"Deny"}}'
    base = sid_base("p")
    merged = parse_policy(merge_policy(text, base, [{"Sid": f"{base}A"}]))
    assert merged == {
        "Version": "2012-10-17",
        "Statement": [{"Sid": "x", "Effect": "Deny"}, {"Sid": f"{base}A"}],
    }


def test_a_policy_that_cannot_be_written_as_it_is_is_refused() -> None:
    with pytest.raises(IntegrityError, match="not valid JSON"):
        merge_policy('{"Statement":[{"Sid":"a","Sid":"b"}]}', sid_base("p"), [{"Sid": "x"}])
    with pytest.raises(IntegrityError, match="not a JSON object"):
        merge_policy("[]", sid_base("p"), [])


@given(st.text(min_size=0, max_size=300).map(lambda text: text.strip("/")), st.text(max_size=300))
def test_ids_are_of_one_store_and_fit(one: str, other: str) -> None:
    assume(one != other)
    try:
        bases = rule_base(one), rule_base(other)
    except UnicodeEncodeError:
        assume(False)
    assert len(f"{bases[0]}abort-uploads") <= 255
    assert bases[0].startswith("mltrack-")
    assert not bases[0].startswith(bases[1])
    assert sid_base(one) != sid_base(other)
    assert sid_base(one).isalnum()


@pytest.mark.parametrize(
    ("found", "written", "same"),
    [
        ({"A": [1]}, {"A": [1]}, True),
        ({"A": 1, "MFADelete": "Disabled"}, {"A": 1}, True),
        ({"A": 1, "B": [2]}, {"A": 1}, False),
        ({"Name": "Prefix"}, {"Name": "prefix"}, True),
        ({"Name": "Other"}, {"Name": "other"}, False),
        ('{"a":["x","y"]}', '{"a": ["y","x"]}', True),
        ('{"a":["x"]}', '{"a":"x"}', True),
        ('{"a":"x"}', '{"a":"z"}', False),
        (None, None, True),
        (None, {}, False),
    ],
)
def test_what_a_bucket_says_in_its_own_way(found: Any, written: Any, same: bool) -> None:
    assert same_document(found, written) is same


def test_keys_of_records() -> None:
    assert is_bucket_key("bucket/changes/00000001.json")
    assert not is_bucket_key("bucket/changes/1.json")
    assert not is_bucket_key("bucket/00000001.json")
