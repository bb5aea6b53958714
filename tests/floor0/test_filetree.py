"""Entries of trees: as JSON and back, in parts that a change leaves alone, refused where they are no tree."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mltrack_tasks import canonical
from mltrack_tasks.digest import sha256_hex
from mltrack_tasks.errors import IntegrityError
from mltrack_tasks.filetree import (
    FILE,
    FOLDER,
    LINK,
    PART_MEAN,
    Entry,
    check_tree,
    decode_part,
    encode_part,
    from_row,
    in_order,
    parts_of,
    to_row,
)
from mltrack_tasks.paths import read_spelled, spell

DIGEST = "0" * 64
NAMES = st.binary(min_size=1, max_size=20).filter(
    lambda raw: not {0, 47} & set(raw) and raw not in (b".", b"..")
)
TEXTS = NAMES.map(lambda raw: raw.decode("utf-8", "surrogateescape"))
DIGESTS = st.binary(max_size=9).map(sha256_hex)
WHOLE = st.integers(-(2**62), 2**62)
ENTRIES = st.one_of(
    st.tuples(TEXTS, st.integers(0, 0o777), st.integers(0, 2**62), WHOLE, DIGESTS).map(
        lambda v: Entry(v[0], FILE, *v[1:4], digest=v[4])
    ),
    st.tuples(TEXTS, st.integers(0, 0o777)).map(lambda v: Entry(v[0], FOLDER, v[1])),
    st.tuples(TEXTS, TEXTS).map(lambda v: Entry(v[0], LINK, target=v[1])),
)


@given(ENTRIES)
def test_an_entry_comes_back_as_it_was(entry: Entry) -> None:
    assert from_row(canonical.loads(canonical.dumps(to_row(entry)), what="row"), "row") == entry


@given(st.lists(ENTRIES))
def test_a_part_comes_back_as_it_was(entries: list[Entry]) -> None:
    assert decode_part(encode_part(entries), what="part") == entries


@given(TEXTS)
def test_a_name_has_one_spelling(text: str) -> None:
    assert read_spelled(spell(text), "name") == text


@pytest.mark.parametrize(
    "raw",
    [{"base64": "YQ=="}, {"base64": "/w==", "x": 1}, {"base64": "@"}, {"base64": 1}, {}, 1, None, ["a"]],
)
def test_any_other_spelling_is_refused(raw: Any) -> None:
    with pytest.raises(IntegrityError):
        read_spelled(raw, "name")


GOOD = ["a/b", FILE, 0o644, 3, 5, DIGEST]


@pytest.mark.parametrize(
    ("place", "value"),
    [
        *((0, path) for path in ("", "/a", "a/", "a//b", "..", "a/../b", ".", "a\0b", 1, None)),
        *((1, kind) for kind in ("x", FOLDER, LINK, None, 1)),
        *((2, mode) for mode in (-1, 0o1000, 0o4755, True, "644", None)),
        *((3, size) for size in (-1, 2**63, 1.0, True, None)),
        *((4, mtime) for mtime in (2**63, -(2**63), 1.5, None)),
        *((5, digest) for digest in ("", DIGEST[1:], DIGEST.replace("0", "A"), None)),
    ],
)
def test_a_row_that_cannot_be_is_refused(place: int, value: Any) -> None:
    assert from_row(GOOD, "row").path == "a/b"
    with pytest.raises(IntegrityError):
        from_row([*GOOD[:place], value, *GOOD[place + 1 :]], "row")


@pytest.mark.parametrize(
    "row", [None, [], ["a"], {}, [*GOOD, 1], ["a", LINK, ""], ["a", LINK, "x\0"], ["a", FOLDER]]
)
def test_what_is_no_row_is_refused(row: Any) -> None:
    with pytest.raises(IntegrityError):
        from_row(row, "row")


@pytest.mark.parametrize(
    "paths", [["a", "a"], ["b", "a"], ["a", "a/b"], ["a", "a-b", "a/b"], ["a/b", "a/b/c/d"]]
)
def test_what_is_no_tree_is_refused(paths: list[str]) -> None:
    with pytest.raises(IntegrityError):
        check_tree([Entry(path, FILE, digest=DIGEST) for path in paths], "tree")


def test_a_tree_is_ordered_by_bytes() -> None:
    entries = in_order([Entry(path, FOLDER) for path in ("ü", "a/b", "z", "a", "a-b", "\udcff")])
    assert [entry.path for entry in entries] == ["a", "a-b", "a/b", "z", "ü", "\udcff"]
    check_tree(entries, "tree")


def test_a_change_leaves_the_other_parts_alone() -> None:
    entries = [
        Entry(f"{number:07}", FILE, 0o644, 1, number, digest=DIGEST) for number in range(20 * PART_MEAN)
    ]
    before = [encode_part(part) for part in parts_of(entries)]
    changed = entries[:7_000] + entries[7_001:10_000] + [Entry("0010000~", FOLDER), *entries[10_001:]]
    after = [encode_part(part) for part in parts_of(changed)]
    assert 5 < len(before) < 60
    assert len(set(before) ^ set(after)) <= 6
    assert [entry for part in parts_of(entries) for entry in part] == entries
