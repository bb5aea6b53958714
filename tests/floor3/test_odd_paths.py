"""Paths and values that a user should not give, and what they are told."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mltrack_tasks.access import check_access
from mltrack_tasks.content import forget_data, list_data, retrieve_data, retrieve_file, store_data, store_file
from mltrack_tasks.errors import ConflictError, FormatError, IntegrityError, InvalidInputError, NotFoundError
from mltrack_tasks.runs import store_run
from mltrack_tasks.stores import open_directory, open_memory
from mltrack_tasks.stores.base import Store


@pytest.fixture
def store() -> Store:
    return open_memory()


@pytest.mark.timeout(10)
def test_a_pipe_or_device_is_no_place_for_a_file(store: Store, tmp_path: Path) -> None:
    ref = store_data(store, b"1")
    os.mkfifo(tmp_path / "pipe")
    for target in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        with pytest.raises(InvalidInputError, match="no plain file"):
            retrieve_file(store, ref, target)


@pytest.mark.timeout(10)
def test_a_file_of_another_size_is_not_hashed(store: Store, tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ConflictError):
        retrieve_file(store, store_data(store, b"1"), tmp_path / "sparse")


def test_forgetting_spares_what_a_newer_version_wrote(store: Store) -> None:
    store_data(store, 1, "a")
    [stat] = list(store.list("names/a/"))
    newer = json.dumps({**json.loads(store.get(stat.key)), "format": 2}).encode()
    store.delete([stat.key])
    store.create(stat.key, newer)
    with pytest.raises(FormatError, match="Upgrade"):
        forget_data(store, "a")
    assert store.get(stat.key) == newer


def test_the_text_of_a_ref_is_a_ref_in_a_run(store: Store) -> None:
    ref = store_data(store, {"a": 1}, "a")
    run = store_run(store, "r", {"x": str(ref)}, storage_mode="flat")
    assert run.data["x"].hash == ref.hash
    assert run.values == {}
    assert retrieve_data(store, run.data["x"]) == {"a": 1}
    assert any(stat.key.endswith("/r") for stat in store.list(f"runs/by_data/{ref.hash[:2]}/{ref.hash}/"))
    with pytest.raises(NotFoundError):
        store_run(store, "s", {"x": f"sha256:{'0' * 64}.bin"}, storage_mode="flat")


@pytest.mark.parametrize("metrics", [np.array([1.0, 2.0]), np.array([1.0])])
def test_an_array_is_no_metric(store: Store, metrics: object) -> None:
    with pytest.raises(InvalidInputError, match="not a number"):
        store_run(store, "r", metrics={"a": metrics}, storage_mode="flat")


@pytest.mark.parametrize("mode", [None, 5, {"by_type": 1}])
def test_a_storage_mode_of_another_type(store: Store, mode: object) -> None:
    with pytest.raises(InvalidInputError, match="storage"):
        store_run(store, "r", storage_mode=mode)  # type: ignore[arg-type]


def test_paths_that_the_system_refuses(store: Store, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(InvalidInputError):
        store_file(store, tmp_path / "loop")
    with pytest.raises(InvalidInputError):
        open_directory(tmp_path / ("x" * 300))


def test_something_else_in_the_place_of_a_blob_is_named(tmp_path: Path) -> None:
    store = open_directory(tmp_path / "store")
    ref = store_data(store, b"1")
    path = tmp_path / "store" / ref.storage_path
    path.unlink()
    path.mkdir()
    with pytest.raises(IntegrityError, match="no plain file"):
        store_data(store, b"1")


def test_a_ref_with_another_size_reads_by_its_digest(store: Store) -> None:
    ref = store_data(store, b"1234")
    assert retrieve_data(store, replace(ref, size_bytes=99)) == b"1234"
    assert [item.ref for item in list_data(store)] == [ref]


def test_check_access_tells_of_a_place_inside_another_store(tmp_path: Path) -> None:
    store_data(open_directory(tmp_path / "outer"), 1)
    report = check_access(open_directory(tmp_path / "outer" / "inner"))
    assert not report.ok
    assert [check.name for check in report.checks if check.ok is False] == ["write and delete"]
    assert "lies inside the store" in report.checks[-1].detail
    assert check_access(open_directory(tmp_path / "outer")).ok
