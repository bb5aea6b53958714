"""Which store a task uses: what is written, what the surroundings say, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mltrack_tasks import InvalidInputError, MLTrackStore, NotFoundError
from mltrack_tasks.resolve import CONFIG_FILE, find_store, open_store


def write_config(folder: Path, text: str) -> Path:
    path = folder / CONFIG_FILE
    path.write_text(text, encoding="utf-8")
    return path


def test_a_block_is_itself() -> None:
    block = MLTrackStore(bucket="bucket")
    assert find_store(block) is block


@pytest.mark.parametrize(
    ("text", "bucket", "prefix"),
    [
        ("s3://bucket", "bucket", "mltrack"),
        ("s3://bucket/", "bucket", "mltrack"),
        ("s3://bucket/team", "bucket", "team"),
        ("s3://bucket/team/ml/", "bucket", "team/ml"),
    ],
)
def test_an_address_names_bucket_and_prefix(text: str, bucket: str, prefix: str) -> None:
    settings = find_store(text).s3_settings()
    assert (settings.bucket, settings.prefix) == (bucket, prefix)


@pytest.mark.parametrize(
    ("text", "relative"), [("./data", "data"), (".", "."), ("a/b", "a/b"), ("../c", "../c")]
)
def test_a_slash_or_a_dot_names_a_directory(text: str, relative: str, nowhere: Path) -> None:
    assert find_store(text).path == str((nowhere / relative).absolute())


def test_absolute_and_home_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_store("/data/mltrack").path == "/data/mltrack"
    assert find_store("~/mltrack").path == str(tmp_path / "mltrack")


def test_a_plain_name_is_a_block_even_beside_a_directory_of_that_name(nowhere: Path) -> None:
    (nowhere / "by-name").mkdir()
    saved = MLTrackStore(path=str(nowhere / "elsewhere"))
    saved.save("by-name", overwrite=True)
    assert find_store("by-name") == saved
    assert open_store("by-name").location == str(nowhere / "elsewhere")


def test_an_unknown_block_says_how_to_save_one() -> None:
    with pytest.raises(NotFoundError, match=r"MLTrackStore\(\.\.\.\)\.save\('prdo'\).*write \./prdo"):
        find_store("prdo")


def test_a_block_that_this_version_refuses_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have been edited in the UI, or saved by another version: it is there, so not NotFound."""
    MLTrackStore.model_construct(bucket="a/b").save("spoilt", overwrite=True)
    with pytest.raises(InvalidInputError, match=r"spoilt.*not a bucket's name"):
        find_store("spoilt")


@pytest.mark.parametrize("text", ["file:///data", "http://host/bucket", "gs://bucket", "S3://bucket"])
def test_other_addresses_are_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match="only s3://"):
        find_store(text)


@pytest.mark.parametrize("text", ["s3://", "s3:///prefix", "s3://bucket/../x"])
def test_a_bad_address_is_named(text: str) -> None:
    with pytest.raises(InvalidInputError, match=text):
        find_store(text)


@pytest.mark.parametrize("value", ["", 5, {"bucket": "b"}, Path("/data")])
def test_what_is_no_store_is_refused(value: Any) -> None:
    with pytest.raises(InvalidInputError, match="not a block, name, address or directory"):
        find_store(value)


def test_nothing_lists_the_three_ways() -> None:
    with pytest.raises(InvalidInputError, match=f"(?s)MLTRACK_STORE.*MLTRACK_S3_BUCKET.*{CONFIG_FILE}"):
        find_store(None)


def test_the_order_of_the_surroundings(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_config(nowhere, 'store = "s3://from-file"')
    assert find_store(None).location == "s3://from-file/mltrack"
    monkeypatch.setenv("MLTRACK_S3_BUCKET", "from-bucket")
    assert find_store(None).location == "s3://from-bucket/mltrack"
    monkeypatch.setenv("MLTRACK_S3_PREFIX", "team/ml")
    assert find_store(None).location == "s3://from-bucket/team/ml"
    monkeypatch.setenv("MLTRACK_STORE", "s3://from-store/p")
    assert find_store(None).location == "s3://from-store/p"
    assert find_store("s3://given").location == "s3://given/mltrack"


def test_the_variable_may_name_a_block_or_a_directory(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = MLTrackStore(bucket="bucket", prefix="x")
    saved.save("from-variable", overwrite=True)
    monkeypatch.setenv("MLTRACK_STORE", "from-variable")
    assert find_store(None) == saved
    monkeypatch.setenv("MLTRACK_STORE", "./data")
    assert find_store(None).path == str(nowhere / "data")


def test_a_bad_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLTRACK_S3_BUCKET", "s3://bucket")
    with pytest.raises(InvalidInputError, match=r"MLTRACK_S3_BUCKET: .*not a bucket's name"):
        find_store(None)


@pytest.mark.parametrize(
    ("text", "relative"),
    [
        ('store = "./data"', "data"),
        ('store = "team/data"', "team/data"),
        ('[store]\npath = "data"', "data"),
        ('[store]\npath = "data"\ncache_dir = "cache"', "data"),
    ],
)
def test_a_directory_in_the_file_is_relative_to_the_file(
    text: str, relative: str, tmp_path: Path, nowhere: Path
) -> None:
    write_config(tmp_path, text)  # in the folder above the working directory
    found = find_store(None)
    assert found.path == str(tmp_path / relative)
    assert found.cache_dir in (None, str(tmp_path / "cache"))


def test_an_absolute_directory_in_the_file_stays(nowhere: Path) -> None:
    write_config(nowhere, '[store]\npath = "/data"')
    assert find_store(None).path == "/data"


def test_the_table_sets_the_fields_of_the_block(nowhere: Path) -> None:
    write_config(
        nowhere, '[store]\nbucket = "b"\nprefix = "p"\nmax_workers = 3\nstorage_class = "GLACIER_IR"'
    )
    found = find_store(None)
    assert (found.location, found.max_workers, found.storage_class) == ("s3://b/p", 3, "GLACIER_IR")


@pytest.mark.parametrize("host", ["a" * 64, "my_minio", "-a", "a..b"])
def test_a_host_that_cannot_be_is_named(host: str, nowhere: Path) -> None:
    write_config(nowhere, f'[store]\nbucket = "b"\nendpoint_url = "http://{host}:9000"')
    with pytest.raises(InvalidInputError, match=f"endpoint_url 'http://{host}:9000'"):
        open_store(None)


def test_the_nearest_file_counts(tmp_path: Path, nowhere: Path) -> None:
    write_config(tmp_path, 'store = "s3://above"')
    assert find_store(None).location == "s3://above/mltrack"
    write_config(nowhere, 'store = "s3://here"')
    assert find_store(None).location == "s3://here/mltrack"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("store = ", "not valid TOML"),
        ("store = " + "[" * 3_000, "not valid TOML"),
        ("store = " + "{a=" * 3_000, "not valid TOML"),
        (f"[store]\nmax_workers = {'9' * 5_000}", "not valid TOML"),
        ('other = "x"', "has no store"),
        ("store = 5", "has no store"),
        ('store = ""', "has no store"),
        ('store = "http://host"', "only s3://"),
        ('[store]\nbucket = "b"\naws_secret_access_key = "SECRET-4711"', "belong into a Prefect block"),
        (
            '[store]\nbucket = "b"\n[store.credentials]\naws_access_key_id = "A"',
            "belong into a Prefect block",
        ),
        ('[store]\nbucket = "b"\npath = "d"', "either bucket"),
        ('[store]\nbucket = "b"\nmax_workers = 100', "max_workers: .*64"),
        ('[store]\nbucket = "b"\nprefix = 5', "prefix: .*string"),
        ("[store]\npath = 5", "path: .*string"),
    ],
)
def test_a_bad_file_is_named_with_what_is_wrong(text: str, said: str, nowhere: Path) -> None:
    path = write_config(nowhere, text)
    with pytest.raises(InvalidInputError, match=said) as caught:
        find_store(None)
    assert str(path) in str(caught.value)
    assert "4711" not in str(caught.value)


def test_a_file_that_is_no_text_is_named(nowhere: Path) -> None:
    (nowhere / CONFIG_FILE).write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidInputError, match="not valid TOML"):
        find_store(None)
