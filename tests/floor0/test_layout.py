"""Names and keys: both gates, both ways. Nothing ever leaves the store's prefix."""

from __future__ import annotations

import posixpath
import re
from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mltrack_tasks import layout
from mltrack_tasks.errors import IntegrityError, InvalidInputError

DIGEST = "ab" * 32
SAFE = re.compile(r"[A-Za-z0-9._%-]+")

NAMES = {
    "../x": "..%2Fx",
    "a/b": "a%2Fb",
    "/abs": "%2Fabs",
    "%2e%2e": "%252e%252e",
    "~00000002": "%7E00000002",
    "a~00000002": "a%7E00000002",
    "~name~x": "%7Ename%7Ex",
    "...": "...",
    ".hidden": ".hidden",
    "a b+c": "a%20b%2Bc",
    "Ünï 日本": "%C3%9Cn%C3%AF%20%E6%97%A5%E6%9C%AC",
    "C:\\x": "C%3A%5Cx",
    "nul.json": "nul.json",
    "-rf": "-rf",
    "x" * 200: "x" * 200,
}
"""Names that are kept, and their segments."""
REFUSED = ["", ".", "..", "a\nb", "\0", "\x7f", "\x85", "\ud800", "x" * 300, "ü" * 40, "/" * 67]
"""Names that are refused."""


@pytest.mark.parametrize("name", NAMES)
def test_names_are_encoded_and_restored(name: str) -> None:
    segment = layout.encode_segment(name)
    assert segment == NAMES[name]
    assert layout.decode_segment(segment) == name


@pytest.mark.parametrize("name", REFUSED, ids=lambda name: ascii(name[:8]))
def test_names_that_cannot_be_are_refused_everywhere(name: str) -> None:
    makers = (
        layout.encode_segment,
        layout.name_folder,
        layout.manifest_key,
        lambda name: layout.name_key(name, DIGEST),
        lambda name: layout.run_pin_key(DIGEST, name),
        lambda name: layout.name_pin_key(DIGEST, name),
        lambda name: layout.log_key(datetime.now(UTC), name, 1),
        lambda name: layout.view_key("by_project", name, "r"),
        lambda name: layout.view_key("by_project", "p", name),
    )
    for make in makers:
        with pytest.raises(InvalidInputError):
            make(name)


@pytest.mark.parametrize("name", [None, 1, b"x", ["x"]])
def test_names_are_strings(name: object) -> None:
    with pytest.raises(InvalidInputError, match="must be a string"):
        layout.encode_segment(name)  # type: ignore[arg-type]


@given(st.text(max_size=80))
def test_every_name_is_kept_or_refused(name: str) -> None:
    try:
        segment = layout.encode_segment(name)
    except InvalidInputError:
        return
    assert SAFE.fullmatch(segment)
    assert segment not in (".", "..")
    assert len(segment) <= layout.MAX_SEGMENT
    assert layout.decode_segment(segment) == name


@given(st.text(max_size=40), st.text(max_size=40))
def test_two_names_never_share_a_segment(one: str, other: str) -> None:
    try:
        same = layout.encode_segment(one) == layout.encode_segment(other)
    except InvalidInputError:
        return
    assert same == (one == other)


HOSTILE_SEGMENTS = [
    "",
    ".",
    "..",
    "a/b",
    "%2",
    "%zz",
    "%2f",
    "%41",
    "a b",
    "~",
    "%00",
    "%0A",
    "%C3",
    "%FF",
    "ü",
]


@pytest.mark.parametrize("segment", [*HOSTILE_SEGMENTS, "\ud800", "%ED%A0%80", "x" * 201])
def test_segments_that_we_did_not_write_are_refused(segment: str) -> None:
    with pytest.raises(IntegrityError):
        layout.decode_segment(segment)


@given(st.text(max_size=60))
def test_a_segment_is_read_only_if_it_is_the_one_that_we_write(segment: str) -> None:
    try:
        name = layout.decode_segment(segment)
    except IntegrityError:
        return
    assert layout.encode_segment(name) == segment


@given(st.text(min_size=1, max_size=30), st.integers(1, 99_999_999))
def test_revisions_come_back(run_id: str, revision: int) -> None:
    try:
        segment = layout.revision_segment(run_id, revision)
    except InvalidInputError:
        return
    assert layout.parse_revision_segment(segment) == (run_id, revision)
    assert ("~" in segment) == (revision > 1)


@pytest.mark.parametrize(
    "segment", ["", "~", "r~", "r~1", "r~00000001", "r~00000000", "r~000000002", "r~x", "r~00000002~00000003"]
)
def test_revisions_that_we_did_not_write_are_refused(segment: str) -> None:
    with pytest.raises(IntegrityError):
        layout.parse_revision_segment(segment)


@pytest.mark.parametrize("revision", [0, -1, 100_000_000])
def test_revision_numbers_have_bounds(revision: int) -> None:
    with pytest.raises(InvalidInputError, match="revision"):
        layout.revision_segment("r", revision)


def test_no_run_id_looks_like_a_revision_or_a_pin_of_a_name() -> None:
    assert layout.manifest_key("r~00000002") != layout.manifest_key("r", 2)
    assert layout.run_pin_key(DIGEST, "~name~x") != layout.name_pin_key(DIGEST, "x")
    assert layout.run_of_pin(layout.run_pin_key(DIGEST, "~name~x")) == "~name~x"
    assert layout.run_of_pin(layout.name_pin_key(DIGEST, "x")) is None
    assert layout.name_pin_key(DIGEST, "x y") == f"runs/by_data/ab/{DIGEST}/~name~x%20y"
    for last in ("", "..", "%2e", "a b", "~nam~x"):
        with pytest.raises(IntegrityError):
            layout.run_of_pin(layout.pin_folder(DIGEST) + last)


@given(st.text(max_size=40), st.text(max_size=40))
def test_every_key_stays_in_the_store(one: str, other: str) -> None:
    makers = (
        lambda: layout.name_key(one, DIGEST),
        lambda: layout.manifest_key(one, 2),
        lambda: layout.log_key(datetime.now(UTC), one, 7),
        lambda: layout.view_key("by_model", one, other),
        lambda: layout.run_pin_key(DIGEST, one),
        lambda: layout.name_pin_key(DIGEST, one),
    )
    for make in makers:
        try:
            key = make()
        except InvalidInputError:
            continue
        assert layout.check_key(key, "some/prefix") == key
        assert posixpath.normpath(f"/p/{key}") == f"/p/{key}"
        assert max(map(len, key.split("/"))) <= 255


def test_keys_of_blobs() -> None:
    for format in layout.FORMATS:
        key = layout.blob_key(DIGEST, format)
        assert key == f"data/ab/{DIGEST}/data.{format}"
        assert layout.parse_blob_key(key) == (DIGEST, format)
    for bad in ("AB" * 32, DIGEST[:-1], DIGEST + "0", "../x", "", None, DIGEST + "\n"):
        with pytest.raises(InvalidInputError, match="digest"):
            layout.blob_key(bad, "bin")  # type: ignore[arg-type]
    for format in ("BIN", "exe", "", "bin/../x", None):
        with pytest.raises(InvalidInputError, match="format"):
            layout.blob_key(DIGEST, format)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "key",
    [
        *("", "data", f"data/ab/{DIGEST}", f"data/ab/{DIGEST}/metadata.json", f"data/ac/{DIGEST}/data.bin"),
        *(f"data/ab/{DIGEST}/data.exe", f"data/ab/{DIGEST}/data.", f"data/ab/{DIGEST}/data.bin/"),
        *(f"x/ab/{DIGEST}/data.bin", f"data/ab/{DIGEST.upper()}/data.bin", f"a/data/ab/{DIGEST}/data.bin"),
        *(f"data//{DIGEST}/data.bin", f"data/ab/{DIGEST}/data.bin\n", f"data/ab/../{DIGEST}/data.bin"),
    ],
)
def test_keys_that_are_not_of_blobs(key: str) -> None:
    assert layout.parse_blob_key(key) is None


@given(st.text(max_size=60))
def test_keys_of_names_come_back(name: str) -> None:
    try:
        key = layout.name_key(name, DIGEST)
    except InvalidInputError:
        return
    assert layout.parse_name_key(key) == (name, DIGEST)


@pytest.mark.parametrize(
    "key",
    [
        *("", "names/x", f"names/x/{DIGEST}", f"names/x/{DIGEST}.JSON", f"names//{DIGEST}.json"),
        *(f"names/../{DIGEST}.json", f"names/a b/{DIGEST}.json", f"names/%2e/{DIGEST}.json"),
        *(
            f"names/\ud800/{DIGEST}.json",
            f"names/x/y/{DIGEST}.json",
            f"data/x/{DIGEST}.json",
            "names/x/.json",
        ),
    ],
    ids=ascii,
)
def test_keys_that_are_not_of_names(key: str) -> None:
    assert layout.parse_name_key(key) is None


@pytest.mark.parametrize("path", ["a", "a/b", "ü/ %", "a\nb", "...", "a/.b", "~"])
def test_paths_that_are_admitted(path: str) -> None:
    assert layout.check_path(path) == path


@pytest.mark.parametrize(
    "path", ["", "/", "/a", "a/", "a//b", ".", "..", "a/..", "../a", "./a", "a\0", None, 1]
)
def test_paths_that_are_refused(path: object) -> None:
    with pytest.raises(InvalidInputError):
        layout.check_path(path)  # type: ignore[arg-type]


@given(st.text(st.sampled_from("a./\0"), max_size=12))
def test_an_admitted_path_stays_below_its_root(path: str) -> None:
    try:
        layout.check_path(path)
    except InvalidInputError:
        return
    assert posixpath.normpath(f"/store/{path}") == f"/store/{path}"


@pytest.mark.parametrize(
    ("given", "kept"), [("", ""), ("a", "a"), ("/a/b/", "a/b"), ("ü x", "ü x"), ("/", "")]
)
def test_prefixes(given: str, kept: str) -> None:
    assert layout.check_prefix(given) == kept


@pytest.mark.parametrize("prefix", ["..", "a/../b", "a//b", "./a", "a\nb", "\ud800", None, 1])
def test_prefixes_that_are_refused(prefix: object) -> None:
    with pytest.raises(InvalidInputError, match="prefix"):
        layout.check_prefix(prefix)  # type: ignore[arg-type]


def test_the_length_of_a_key_counts_prefix_and_bytes() -> None:
    assert layout.check_key("x" * layout.MAX_KEY)
    for key, prefix in (("x" * 901, ""), ("x" * 890, "y" * 10), ("ü" * 451, "")):
        with pytest.raises(InvalidInputError, match="limit is 900"):
            layout.check_key(key, prefix)


def test_days_are_in_utc() -> None:
    late = datetime(2024, 1, 15, 23, 30, tzinfo=timezone(timedelta(hours=-5)))
    assert layout.utc_day(late) == "2024-01-16"
    assert layout.parse_day("2024-02-29") == date(2024, 2, 29)
    for text in (
        "",
        "2023-02-29",
        "2024-1-5",
        "20240115",
        "2024-W03-1",
        "2024-01-15\n",
        "2024-01-15T00:00",
        "२०२४-०१-०१",
        "24-01-15",
    ):
        with pytest.raises(IntegrityError, match="yyyy-mm-dd"):
            layout.parse_day(text)


def test_choices() -> None:
    assert layout.check_choice("a", ("a", "b"), "It") == "a"
    for value in ("c", "", None, ["a"], 1):
        with pytest.raises(InvalidInputError, match="choose one of a, b"):
            layout.check_choice(value, ("a", "b"), "It")
