"""The two gates, in both directions, and every key of the tree."""

from __future__ import annotations

import os.path
import re
from datetime import UTC, date, datetime, timedelta, timezone
from urllib.parse import quote, unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mltrack_tasks import layout
from mltrack_tasks.errors import IntegrityError, InvalidInputError
from mltrack_tasks.layout import MAX_KEY, MAX_SEGMENT, decode_segment, encode_segment

DIGEST = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
NAMES = st.text(min_size=1, max_size=30) | st.text("./~%az09AF_- \u00fc", min_size=1, max_size=12)
SEGMENTS = NAMES | st.text("abcdef0123456789ABCDEF%~.", max_size=12)
PLAIN_SEGMENT = re.compile(r"[A-Za-z0-9._%-]+")


def good(name: str) -> bool:
    """The rule of the key gate, said in another way."""
    if name in ("", ".", "..") or any(0xD800 <= ord(c) <= 0xDFFF for c in name):
        return False
    if any(ord(c) < 32 or 127 <= ord(c) <= 159 for c in name):
        return False
    plain = sum(c.isascii() and (c.isalnum() or c in "._-") for c in name)
    return plain + 3 * (len(name.encode()) - plain) <= MAX_SEGMENT


@given(NAMES)
@example("é" * 33 + "aa")
@example("é" * 33 + "aaa")
def test_a_name_is_encoded_and_comes_back_or_is_refused(name: str) -> None:
    if not good(name):
        with pytest.raises(InvalidInputError):
            encode_segment(name)
        return
    segment = encode_segment(name)
    assert PLAIN_SEGMENT.fullmatch(segment)
    assert segment not in (".", "..")
    assert len(segment) <= MAX_SEGMENT
    assert unquote(segment, errors="strict") == name
    assert decode_segment(segment) == name


@given(SEGMENTS)
@example("%2e")
@example("%C3%BC")
@example("%c3%bc")
@example("%61")
def test_a_segment_is_decoded_and_encodes_to_itself_or_is_refused(segment: str) -> None:
    try:
        name = decode_segment(segment)
    except IntegrityError:
        return
    assert encode_segment(name) == segment


@given(NAMES, NAMES)
def test_different_names_have_different_segments(one: str, other: str) -> None:
    if good(one) and good(other):
        assert (encode_segment(one) == encode_segment(other)) is (one == other)


SAFE = {
    "exp_20240115_001": "exp_20240115_001",
    "a.b-c_D9": "a.b-c_D9",
    "../x": "..%2Fx",
    "a/b": "a%2Fb",
    "/": "%2F",
    "...": "...",
    ".x": ".x",
    "a b": "a%20b",
    " ": "%20",
    "ü": "%C3%BC",
    "日本": "%E6%97%A5%E6%9C%AC",
    "😀": "%F0%9F%98%80",
    "%2e%2e": "%252e%252e",
    "%": "%25",
    "~": "%7E",
    "~00000002": "%7E00000002",
    "a~00000002": "a%7E00000002",
    "~name~x": "%7Ename%7Ex",
    "a\\b": "a%5Cb",
    "C:": "C%3A",
    "a*?[x]": "a%2A%3F%5Bx%5D",
    "\u202e": "%E2%80%AE",
    "e\u0301": "e%CC%81",
    "é": "%C3%A9",
    "A": "A",
    "x" * MAX_SEGMENT: "x" * MAX_SEGMENT,
}
REFUSED = {
    "": "cannot be a name",
    ".": "cannot be a name",
    "..": "cannot be a name",
    "a\nb": "control character",
    "\n": "control character",
    "a\0": "control character",
    "\x7f": "control character",
    "\x85": "control character",
    "\ud800": "lone surrogate",
    "x" * 300: "takes 300 bytes.*limit is 200",
    "x" * (MAX_SEGMENT + 1): "takes 201 bytes",
    "ü" * 34: "takes 204 bytes",
}


@pytest.mark.parametrize(("name", "segment"), SAFE.items(), ids=lambda text: ascii(text[:20]))
def test_names_of_the_table_are_encoded(name: str, segment: str) -> None:
    assert encode_segment(name) == segment
    assert decode_segment(segment) == name


@pytest.mark.parametrize(("name", "says"), REFUSED.items(), ids=lambda text: ascii(text[:20]))
def test_names_of_the_table_are_refused_with_the_rule(name: str, says: str) -> None:
    with pytest.raises(InvalidInputError, match=f"^The run id .*{says}"):
        encode_segment(name, what="The run id")


@pytest.mark.parametrize("name", [None, 1, b"x", ["x"], ("x",)], ids=repr)
def test_a_name_is_a_string(name: object) -> None:
    with pytest.raises(InvalidInputError, match=r"must be a string, not \w+: "):
        encode_segment(name)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "segment",
    [
        *("", ".", "..", "%2e%2e", "%2E%2E", "%2E", "a%2", "a%", "%zz", "%2f", "a~b", "~", "a b", "a/b", "ü"),
        *("%41", "a%00", "%0A", "%ED%A0%80", "%FF", "%C3", "x" * 201, "a+b\n", "%C3%BC%", "%c3%BC"),
    ],
    ids=ascii,
)
def test_segments_that_we_never_wrote_are_refused(segment: str) -> None:
    with pytest.raises(IntegrityError, match="not a name that this library wrote"):
        decode_segment(segment)


# every key of the tree


def keys_of(name: str) -> dict[str, str]:
    """Every key that a name stands in."""
    moment = datetime(2024, 1, 15, 23, 59, tzinfo=UTC)
    keys = {
        "name": layout.name_key(name, DIGEST),
        "manifest": layout.manifest_key(name),
        "revision": layout.manifest_key(name, 2),
        "log": layout.log_key(moment, name, 1),
        "run pin": layout.run_pin_key(DIGEST, name),
        "name pin": layout.name_pin_key(DIGEST, name),
    }
    return keys | {mode: layout.view_key(mode, name, name) for mode in layout.STORAGE_MODES[:-1]}


@given(NAMES)
@example("../../x")
@example("..")
def test_no_name_leads_a_key_outside_its_folder(name: str) -> None:
    if not good(name):
        for key in (lambda: layout.manifest_key(name), lambda: layout.view_key("by_type", name, "x")):
            with pytest.raises(InvalidInputError):
                key()
        return
    depth = {key: path.count("/") for key, path in keys_of("x").items()}
    for kind, key in keys_of(name).items():
        assert layout.check_key(key, "some/prefix") == key
        assert key.count("/") == depth[kind]
        assert os.path.normpath(f"/store/{key}") == f"/store/{key}"


@given(NAMES, NAMES)
def test_different_names_never_share_a_key(one: str, other: str) -> None:
    if not (good(one) and good(other)) or one == other:
        return
    assert not set(keys_of(one).values()) & set(keys_of(other).values())
    assert layout.manifest_key(one, 2) != layout.manifest_key(other)


def test_the_tree_is_that_of_the_format() -> None:
    moment = datetime(2024, 1, 15, 23, 59, tzinfo=timezone(timedelta(hours=-1)))
    assert layout.blob_key(DIGEST, "parquet") == f"data/ba/{DIGEST}/data.parquet"
    assert layout.blob_metadata_key(DIGEST) == f"data/ba/{DIGEST}/metadata.json"
    assert layout.blob_parts_key(DIGEST) == f"data/ba/{DIGEST}/multipart.json"
    assert layout.name_key("a b", DIGEST) == f"names/a%20b/{DIGEST}.json"
    assert layout.manifest_key("r/1") == "manifests/r%2F1.json"
    assert layout.manifest_key("r/1", 12) == "manifests/r%2F1~00000012.json"
    assert layout.log_key(moment, "r", 3) == "runs/log/2024-01-16/r~00000003"
    assert layout.run_pin_key(DIGEST, "r") == f"runs/by_data/ba/{DIGEST}/r"
    assert layout.name_pin_key(DIGEST, "n") == f"runs/by_data/ba/{DIGEST}/~name~n"
    assert layout.view_key("by_project", "p q", "r") == "runs/by_project/p%20q/r"
    assert layout.view_key("by_date", "2024-01-15", "r") == "runs/by_date/2024-01-15/r"


@pytest.mark.parametrize("digest", ["", "ab", "../" + DIGEST, DIGEST.upper(), DIGEST + "/", None], ids=str)
def test_keys_of_blobs_take_digests_only(digest: str) -> None:
    for key in (layout.blob_folder, layout.blob_metadata_key, layout.blob_parts_key, layout.pin_folder):
        with pytest.raises(InvalidInputError, match="not a digest"):
            key(digest)
    with pytest.raises(InvalidInputError, match="not a digest"):
        layout.name_key("x", digest)


@pytest.mark.parametrize("format", ["", "csv", "JSON", "json/../x", "bin ", None, 1], ids=repr)
def test_keys_of_blobs_take_known_formats_only(format: str) -> None:
    with pytest.raises(
        InvalidInputError, match=r"The format .* is unknown; choose one of parquet, npy, json"
    ):
        layout.blob_key(DIGEST, format)


@pytest.mark.parametrize("mode", ["flat", "by_user", "", "../x", None], ids=repr)
def test_views_take_known_modes_only(mode: str) -> None:
    with pytest.raises(InvalidInputError, match="The storage mode"):
        layout.view_key(mode, "x", "r")


# keys read back


@pytest.mark.parametrize("format", layout.FORMATS)
def test_keys_of_blobs_are_read_back(format: str) -> None:
    assert layout.parse_blob_key(layout.blob_key(DIGEST, format)) == (DIGEST, format)


BLOB = f"data/ba/{DIGEST}/data.bin"


@pytest.mark.parametrize(
    "key",
    [
        *(
            "",
            "data",
            "x",
            f"data/ba/{DIGEST}/metadata.json",
            f"data/ba/{DIGEST}/data",
            BLOB + "/",
            "/" + BLOB,
        ),
        *(f"data/ba/{DIGEST}/data.exe", f"data/ab/{DIGEST}/data.bin", BLOB.upper(), BLOB + "\n", "x/" + BLOB),
        *(f"blob/ba/{DIGEST}/data.bin", f"data/ba/{DIGEST[:-1]}/data.bin", f"data/ba/{DIGEST}/data.bin.bin"),
        *(f"data//{DIGEST}/data.bin", f"data/ba/{DIGEST}/x.data.bin", BLOB.replace("/", "//", 1)),
    ],
    ids=ascii,
)
def test_other_keys_are_not_blobs(key: str) -> None:
    assert layout.parse_blob_key(key) is None


@given(NAMES.filter(good))
def test_keys_of_names_are_read_back(name: str) -> None:
    assert layout.parse_name_key(layout.name_key(name, DIGEST)) == (name, DIGEST)


@pytest.mark.parametrize(
    "key",
    [
        *(
            "",
            "names/",
            "names/x",
            f"names/{DIGEST}.json",
            f"names/../{DIGEST}.json",
            f"names//{DIGEST}.json",
        ),
        *(f"names/a b/{DIGEST}.json", f"names/%2e%2e/{DIGEST}.json", f"names/~x/{DIGEST}.json"),
        *(f"names/x/{DIGEST}", f"names/x/{DIGEST}.json.json", f"names/x/{DIGEST[:-1]}.json", "names/x/.json"),
        *(f"name/x/{DIGEST}.json", f"names/x/y/{DIGEST}.json", f"x/names/{DIGEST}.json"),
    ],
    ids=ascii,
)
def test_other_keys_are_not_names(key: str) -> None:
    assert layout.parse_name_key(key) is None


@given(NAMES.filter(good), st.integers(1, 99_999_999))
@example("a", 1)
@example("a~00000002", 1)
@example("a~00000002", 2)
def test_revisions_are_read_back(run_id: str, revision: int) -> None:
    segment = layout.revision_segment(run_id, revision)
    assert layout.parse_revision_segment(segment) == (run_id, revision)
    assert segment.count("~") == (revision > 1)


@given(SEGMENTS | st.builds("{}~{:08}".format, SEGMENTS, st.integers(0, 10**8)))
def test_a_revision_is_read_only_from_its_one_form(segment: str) -> None:
    try:
        run_id, revision = layout.parse_revision_segment(segment)
    except IntegrityError:
        return
    assert layout.revision_segment(run_id, revision) == segment


@pytest.mark.parametrize(
    "segment",
    [
        *(
            "",
            "~",
            "~00000002",
            "x~",
            "x~2",
            "x~00000000",
            "x~00000001",
            "x~0000002",
            "x~000000002",
            "x~0000000a",
        ),
        *("x~00000002~00000002", "x~00000002\n", "x~٠٠٠٠٠٠٠٢", "..~00000002", "%2e~00000002", "a b~00000002"),
    ],
    ids=ascii,
)
def test_forged_revisions_are_refused(segment: str) -> None:
    with pytest.raises(IntegrityError):
        layout.parse_revision_segment(segment)


@pytest.mark.parametrize("revision", [0, -1, 100_000_000])
def test_revision_numbers_have_eight_digits(revision: int) -> None:
    for key in (layout.revision_segment, layout.manifest_key):
        with pytest.raises(InvalidInputError, match="not a revision number"):
            key("x", revision)


def test_revisions_sort_by_number() -> None:
    keys = [
        layout.log_key(datetime(2024, 1, 1, tzinfo=UTC), "r", n) for n in (1, 2, 9, 10, 11, 99, 100, 12345)
    ]
    assert keys == sorted(keys)


@given(NAMES.filter(good))
@example("~name~x")
@example("name~x")
def test_pins_of_runs_and_of_names_are_kept_apart(name: str) -> None:
    assert layout.run_of_pin(layout.run_pin_key(DIGEST, name)) == name
    assert layout.run_of_pin(layout.name_pin_key(DIGEST, name)) is None


@pytest.mark.parametrize("last", ["", "..", "%2e", "a b", "~nam~x", "ü"])
def test_forged_pins_are_refused(last: str) -> None:
    with pytest.raises(IntegrityError):
        layout.run_of_pin(layout.pin_folder(DIGEST) + last)


# the path gate

PATHS = st.text("a./\\\0 ~%\n\u00fc", max_size=12) | st.text(max_size=20)


@given(PATHS)
def test_a_path_stays_under_its_root_or_is_refused(path: str) -> None:
    parts = path.split("/")
    allowed = "\0" not in path and not {"", ".", ".."} & set(parts)
    if not allowed:
        with pytest.raises(InvalidInputError):
            layout.check_path(path)
        return
    assert layout.check_path(path) == path
    assert os.path.normpath(f"/root/of/all/{path}") == f"/root/of/all/{path}"


@pytest.mark.parametrize(
    "path",
    ["", "/", "/etc/passwd", "a/", "a//b", ".", "..", "../x", "a/../b", "a/./b", "./a", "a\0b", None, b"a"],
)
def test_paths_of_the_table_are_refused(path: str) -> None:
    with pytest.raises(InvalidInputError, match=r"path"):
        layout.check_path(path)


@pytest.mark.parametrize(
    "path", ["a", "a/b", "...", ".hidden/..x", "a b\n", "~", "C:\\x", "ü/日", "%2e%2e/x"]
)
def test_paths_are_kept_verbatim(path: str) -> None:
    assert layout.check_path(path) == path


@given(PATHS, st.sampled_from(["", "p", "a/b"]))
def test_a_key_is_a_speakable_path(key: str, prefix: str) -> None:
    try:
        assert layout.check_key(key, prefix) == key
    except InvalidInputError:
        return
    assert layout.check_path(key) == key
    assert key.isprintable() or not any(ord(c) < 32 or 127 <= ord(c) <= 159 for c in key)
    assert key.encode()


@pytest.mark.parametrize(
    ("key", "prefix"), [("x" * MAX_KEY, ""), ("x" * (MAX_KEY - 3), "ab"), ("ü" * 450, "")]
)
def test_keys_of_the_longest_kind_are_taken(key: str, prefix: str) -> None:
    assert layout.check_key(key, prefix) == key
    with pytest.raises(InvalidInputError, match=r"has 901 bytes; the limit is 900"):
        layout.check_key(key + "x", prefix)


def test_the_longest_names_fit_under_a_prefix() -> None:
    for key in keys_of("x" * MAX_SEGMENT).values():
        layout.check_key(key, "p" * 300)


@pytest.mark.parametrize(
    ("given_", "kept"), [("mltrack", "mltrack"), ("/a/b/", "a/b"), ("", ""), ("/", ""), ("ü x", "ü x")]
)
def test_prefixes(given_: str, kept: str) -> None:
    assert layout.check_prefix(given_) == kept


@pytest.mark.parametrize(
    "prefix", ["..", "a/../b", "a//b", "./a", "a\nb", "\0", "\ud800", "a/.", None, 1], ids=ascii
)
def test_prefixes_that_are_refused(prefix: str) -> None:
    with pytest.raises(InvalidInputError, match="prefix"):
        layout.check_prefix(prefix)


# days


@given(st.datetimes(datetime(2, 1, 1), datetime(9998, 12, 31)), st.integers(-14, 14))
def test_a_day_is_that_of_utc(moment: datetime, hours: int) -> None:
    local = moment.replace(tzinfo=UTC).astimezone(timezone(timedelta(hours=hours)))
    day = layout.utc_day(local)
    assert day == f"{moment:%Y-%m-%d}".zfill(10)
    assert layout.parse_day(day) == moment.date()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2024-1-5",
        "20240115",
        "2024-02-30",
        "2024-13-01",
        "0000-01-01",
        "2024-01-15\n",
        "٢٠٢٤-01-15",
        "2024-W03-1",
    ],
)
def test_other_texts_are_not_days(text: str) -> None:
    with pytest.raises(IntegrityError, match="not a day"):
        layout.parse_day(text)
    assert layout.parse_day("2024-02-29") == date(2024, 2, 29)


def test_quoting_has_not_changed_under_us() -> None:
    """The standard library decides what a name's segment is: it must not decide anew in a later Python."""
    every = "".join(map(chr, range(32, 127)))
    kept = "".join(c for c in every if quote(c, safe="") == c)
    assert kept == "-.0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~"
