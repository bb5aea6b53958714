"""What lies above a store: another store is refused, other programs' files are none of our business."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mltrack_tasks.errors import InvalidInputError
from mltrack_tasks.stores import open_directory, open_s3
from mltrack_tasks.stores.s3 import S3Store
from mltrack_tasks.stores.s3_settings import S3Settings

FOREIGN = {
    "settings": b'{"indent": 4}',
    "a number": b'{"format": 1}',
    "a text": b'{"format": "1", "store_id": "x"}',
    "a list": b'["format", "store_id"]',
    "no JSON": b"indent = 4",
    "no text": b"\xff\xfe{}",
    "nothing": b"",
    "deep": b"[" * 90_000,
    "large": b'{"format": 1, "store_id": "' + b"x" * 70_000 + b'"}',
}
OURS = {
    "this format": b'{"format":1,"store_id":"x"}',
    "a newer format": json.dumps({"format": 2, "store_id": "x", "more": [1]}, indent=2).encode(),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_foreign_format_file_above_is_none_of_ours(kind: str, tmp_path: Path) -> None:
    (tmp_path / "format.json").write_bytes(FOREIGN[kind])
    open_directory(tmp_path / "a" / "store").create("k", b"x")
    assert (tmp_path / "format.json").read_bytes() == FOREIGN[kind]


@pytest.mark.parametrize("kind", ["settings", "large"])
def test_a_foreign_format_file_above_in_a_bucket_is_none_of_ours(kind: str, s3_above: S3Store) -> None:
    s3_above.create("format.json", FOREIGN[kind])
    inside = open_s3(replace(s3_above.settings, prefix=f"{s3_above.settings.prefix}/a/store"))
    inside.create("k", b"x")
    assert s3_above.get("format.json") == FOREIGN[kind]


@pytest.mark.parametrize("kind", OURS)
def test_a_store_above_is_refused(kind: str, tmp_path: Path, s3_above: S3Store) -> None:
    (tmp_path / "format.json").write_bytes(OURS[kind])
    with pytest.raises(InvalidInputError, match="lies inside the store"):
        open_directory(tmp_path / "a" / "store").create("k", b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["format.json"]
    s3_above.create("format.json", OURS[kind])
    with pytest.raises(InvalidInputError, match="lies inside the store"):
        open_s3(replace(s3_above.settings, prefix=f"{s3_above.settings.prefix}/a/store")).create("k", b"x")
    assert [stat.key for stat in s3_above.list("")] == ["format.json"]


@pytest.fixture
def s3_above(s3_settings: S3Settings) -> S3Store:
    """The folder above in a bucket, seen without any guard."""
    return S3Store(s3_settings)


@pytest.mark.parametrize("kind", ["folder", "link", "dangling link"])
def test_what_is_no_file_above_is_none_of_ours(kind: str, tmp_path: Path) -> None:
    above = tmp_path / "format.json"
    if kind == "folder":
        above.mkdir()
    else:
        (tmp_path / "elsewhere").write_bytes(OURS["this format"])  # a store never makes a link
        above.symlink_to("elsewhere" if kind == "link" else "missing")
    store = open_directory(tmp_path / "store")
    store.create("k", b"x")
    assert store.get("k") == b"x"
