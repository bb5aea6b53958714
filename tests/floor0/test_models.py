"""Model versions: ids follow from content, records come back whole, and forged ones are refused."""

from __future__ import annotations

import copy
import hashlib
import json
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mltrack_tasks import canonical, layout
from mltrack_tasks.errors import FormatError, IntegrityError, InvalidInputError
from mltrack_tasks.modelkeys import (
    ID_DIGITS,
    VERSIONS,
    check_version,
    is_version,
    parse_version_key,
    version_id,
    version_key,
    versions_folder,
)
from mltrack_tasks.models import ModelFile, ModelVersion, check_files, tree_digest
from mltrack_tasks.records import Record
from tests.floor0.strategies import plain_json
from tests.floor0.test_records import HOSTILE, REF, nodes, removed, replaced

DAY = date(2024, 1, 15)
FILES = (
    ModelFile("MLmodel", "ab" * 32, "bin", 10),
    ModelFile("bin/run me", "cd" * 32, "bin", 20, executable=True),
    ModelFile("data/w\udcff.npy", "ef" * 32, "npy", 30),
)
TREE = tree_digest(FILES)
VERSION = ModelVersion(
    model="churn / ü",
    version=version_id(DAY, TREE),
    tree_digest=TREE,
    files=FILES,
    source_runs=("a run", "r/1"),
    training_data={"train": REF},
    metrics={"f1": 0.5, "loss": float("nan")},
    params={"lr": 0.1},
    tags={"team": "x"},
    metadata={"signature": {"inputs": []}},
    description="says\nwhat it is",
    extra={"from the future": [1]},
    provenance={"at": "2024-01-15T12:00:00Z"},
)
RECORD = {"format": 1, "content": VERSION.to_content(), "provenance": dict(VERSION.provenance)}


def read(raw: Any) -> ModelVersion:
    record = Record.from_bytes(canonical.dumps(raw), what="the record")
    return ModelVersion.from_record(record, what="the record")


def test_a_version_comes_back_whole() -> None:
    again = read(RECORD)
    assert canonical.dumps(again.to_content()) == canonical.dumps(VERSION.to_content())
    assert replace(again, metrics={}) == replace(VERSION, metrics={})  # NaN does not equal itself
    assert (again.files, again.size_bytes, again.created) == (FILES, 60, False)
    assert again.registered_at == datetime(2024, 1, 15, 12, tzinfo=UTC)
    assert read(replaced(RECORD, ("provenance",), {"at": "2025-01-01T00:00:00Z"})) == again
    assert hash(again) == hash(VERSION)


def test_the_tree_digest_by_hand() -> None:
    """Canonical JSON of path, digest and executable bit, sorted by the path's bytes."""
    rows = [
        {"digest": "ab" * 32, "executable": False, "path": "MLmodel"},
        {"digest": "cd" * 32, "executable": True, "path": "bin/run me"},
        {"digest": "ef" * 32, "executable": False, "path_base64": "ZGF0YS93/y5ucHk="},
    ]
    text = json.dumps(rows, separators=(",", ":")).encode()
    assert hashlib.sha256(text).hexdigest() == TREE
    assert tree_digest(reversed(FILES)) == TREE


def test_what_the_tree_digest_covers() -> None:
    one = ModelFile("a", "ab" * 32, "bin", 1)
    for same in (replace(one, size_bytes=2), replace(one, format="npy")):  # both follow from the bytes
        assert tree_digest([same]) == tree_digest([one])
    others = [replace(one, path="b"), replace(one, digest="cd" * 32), replace(one, executable=True)]
    assert len({tree_digest([file]) for file in [one, *others]}) == 4


@pytest.mark.parametrize(
    ("paths", "reason"),
    [
        ([], "at least one file"),
        (["a", "b", "a"], "stands twice"),
        (["a", "a/b"], "'a/b' lies below another"),
        (["a", "a-b", "a/b/c"], "'a/b/c' lies below another"),
        (["../x"], "not plainly relative"),
        (["/etc/x"], "not plainly relative"),
        (["a//b"], "not plainly relative"),
        (["a\0b"], "NUL"),
        (["a\ud800"], "lone surrogate"),
        ([""], "not a file path"),
    ],
)
def test_files_that_are_no_tree(paths: list[str], reason: str) -> None:
    with pytest.raises(InvalidInputError, match=reason):
        check_files(ModelFile(path, "ab" * 32, "bin", 1) for path in paths)


@given(st.lists(st.text(st.sampled_from("ab/-.\udcff é"), min_size=1, max_size=6), unique=True, min_size=1))
def test_any_tree_comes_back(paths: list[str]) -> None:
    files = [ModelFile(path, "ab" * 32, "bin", 1) for path in paths]
    try:
        sorted_files = check_files(files)
    except InvalidInputError:
        return
    names = [file.path.encode("utf-8", "surrogateescape") for file in sorted_files]
    assert names == sorted(names)
    tree = tree_digest(files)
    version = ModelVersion("m", version_id(DAY, tree, 64), tree, tuple(files))
    content = json.loads(canonical.dumps(version.to_content()))
    assert read({"format": 1, "content": content, "provenance": {}}).files == sorted_files


def test_ids() -> None:
    assert version_id(DAY, TREE) == f"v20240115_{TREE[:6]}"
    assert [len(version_id(DAY, TREE, digits)) - 10 for digits in ID_DIGITS] == [6, 8, 12, 64]
    assert all(is_version(version_id(DAY, TREE, digits)) for digits in ID_DIGITS)
    assert is_version(version_id(date(1, 2, 3), TREE))
    with pytest.raises(InvalidInputError, match="7"):
        version_id(DAY, TREE, 7)
    with pytest.raises(InvalidInputError, match="not a digest"):
        version_id(DAY, "abc")


@pytest.mark.parametrize(
    "text",
    [
        *("", "latest", "v1", "v20240115", "v20240115_", "v20240115_a1b2c", "v20240115_a1b2c3d", None, 5),
        *("v20240115_A1B2C3", "v20241315_a1b2c3", "v20240230_a1b2c3", "v00000101_a1b2c3", "20240115_a1b2c3"),
        *("v20240115_a1b2c3\n", " v20240115_a1b2c3", "v२२२40115_a1b2c3", "v20240115-a1b2c3", "../x"),
    ],
)
def test_what_is_no_version_id(text: object) -> None:
    assert not is_version(text)
    with pytest.raises(InvalidInputError, match="not a version id"):
        check_version(text)


def test_keys() -> None:
    key = version_key("churn / ü", "v20240115_a1b2c3")
    assert key == "models/development/churn%20%2F%20%C3%BC/v20240115_a1b2c3.json"
    assert key.startswith(versions_folder("churn / ü"))
    assert parse_version_key(key) == ("churn / ü", "v20240115_a1b2c3")
    for bad in ("..", "", "a\nb"):
        with pytest.raises(InvalidInputError):
            version_key(bad, "v20240115_a1b2c3")
    with pytest.raises(InvalidInputError):
        version_key("m", "../../x")


@pytest.mark.parametrize(
    "rest",
    [
        *("", "m", "m/", "m/v20240115_a1b2c3", "m/v20240115_a1b2c3.txt", "m/latest.json", "m/.json"),
        *("m/v20240115_a1b2c3/MLmodel", "m/v20240115_a1b2c3/v20240115_a1b2c3.json"),
        *("v20240115_a1b2c3.json", "/v20240115_a1b2c3.json", "a b/v20240115_a1b2c3.json"),
        *("%2E%2E/v20240115_a1b2c3.json", "../v20240115_a1b2c3.json", f"m/_by_digest/{'a' * 64}"),
        "m/v20240115_a1b2c3.json.json",
    ],
)
def test_keys_that_are_no_versions(rest: str) -> None:
    assert parse_version_key(VERSIONS + rest) is None
    assert parse_version_key("models/registry/m/v20240115_a1b2c3.json") is None


@given(st.text(max_size=12), st.sampled_from(ID_DIGITS))
def test_keys_come_back(model: str, digits: int) -> None:
    version = version_id(DAY, TREE, digits)
    try:
        key = version_key(model, version)
    except InvalidInputError:
        return
    assert parse_version_key(key) == (model, version)


FORGED: dict[tuple[Any, ...], tuple[Any, str]] = {
    ("model",): ("..", "cannot be a name"),
    ("version",): (f"v20240115_{'0' * 6}", "is not an id of the tree"),
    ("version", ""): ("latest", "is not an id of the tree"),
    ("tree_digest",): ("0" * 64, "says another"),
    ("files",): ([], "at least one file"),
    ("files", ""): ({}, "files should be a list"),
    ("files", 0, "path"): ("../../etc/x", "not plainly relative"),
    ("files", 0, "path", ""): ("bin/run me", "stands twice"),
    ("files", 0, "digest"): ("../../etc", "does not name a blob"),
    ("files", 0, "format"): ("exe", "does not name a blob"),
    ("files", 0, "size_bytes"): (-1, "size_bytes should be a whole number"),
    ("files", 1, "executable"): (1, "executable should be true or false"),
    ("files", 1, "executable", ""): (False, "says another"),
    ("files", 2, "path_base64"): ("TUxtb2RlbA==", "does not spell a path"),
    ("files", 2, "path_base64", "a"): ("Li4v/w==", "not plainly relative"),
    ("files", 2, "path_base64", "b"): ("ZGF0YS93/y5ucHk", "padding"),
    ("files", 2, "path_base64", "c"): (5, "path_base64 should be a string"),
    ("files", 2, "path"): ("both", "does not spell a path"),
    ("source_runs",): ("ab", "source_runs should be a list"),
    ("source_runs", 0): ("a\nb", "control character"),
    ("source_runs", 1): (None, "source_runs should be a string"),
    ("training_data", "train", "storage_path"): ("data/cd/x/data.parquet", "not the place of"),
    ("training_data", ".."): ({}, "cannot be a name"),
    ("metrics",): ({"$x": 1}, r"reserved key '\$x'"),
    ("description",): (5, "description should be a string or null"),
}


@pytest.mark.parametrize("path", FORGED, ids=lambda path: ".".join(map(str, path)))
def test_a_forged_field_is_named(path: tuple[Any, ...]) -> None:
    value, reason = FORGED[path]
    place = path[:-1] if path[-1] in ("", "a", "b", "c") else path
    with pytest.raises(IntegrityError, match=f"^the record.*{reason}"):
        read(replaced(RECORD, ("content", *place), value))


@given(st.sampled_from(sorted(nodes(RECORD), key=repr)), HOSTILE | plain_json)
def test_every_field_forged_is_refused_or_harmless(path: tuple[Any, ...], new: Any) -> None:
    with suppress(IntegrityError, FormatError):
        check_harmless(read(replaced(RECORD, path, new)))


def test_every_field_missing_is_refused_or_harmless() -> None:
    for path in filter(None, nodes(RECORD)):
        with suppress(IntegrityError, FormatError):
            check_harmless(read(removed(RECORD, path)))


def check_harmless(version: ModelVersion) -> None:
    """What was read can be used and written as if it were ours."""
    assert tree_digest(version.files) == version.tree_digest
    assert parse_version_key(version_key(version.model, version.version)) == (version.model, version.version)
    for file in version.files:
        layout.check_path(file.path)
        layout.blob_key(file.digest, file.format)
        assert type(file.size_bytes) is int
        assert type(file.executable) is bool
    for run in version.source_runs:
        layout.manifest_key(run)
    assert all(
        ref.storage_path == layout.blob_key(ref.hash, ref.format) for ref in version.training_data.values()
    )
    for group in (version.metrics, version.params, version.tags, version.metadata):
        canonical.dumps_value(group)
    assert version.description is None or type(version.description) is str
    canonical.dumps(version.to_content())


def test_a_newer_writers_fields_are_kept() -> None:
    newer = copy.deepcopy(RECORD)
    newer["content"]["flavors"] = ["sklearn"]
    assert read(newer).extra == {"from the future": [1], "flavors": ["sklearn"]}
    assert read(newer).to_content()["flavors"] == ["sklearn"]
    forged = replace(VERSION, extra=dict.fromkeys(RECORD["content"], "forged")).to_content()
    assert canonical.dumps(forged) == canonical.dumps(
        replace(VERSION, extra={}).to_content() | {"from the future": "forged"}
    )
