"""Parts of a store into a folder: chosen, refused before any transfer, and never over something else."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from mltrack_tasks.errors import (
    ConflictError,
    IntegrityError,
    InvalidInputError,
    MLTrackError,
    NotFoundError,
)
from mltrack_tasks.migration import download_from_s3
from mltrack_tasks.runs import store_run
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.guard import GuardedStore
from mltrack_tasks.stores.memory import MemoryStore
from mltrack_tasks.stores.observed import CountingStore, FaultyStore
from tests.floor3.migrationtrees import fill, kept, migrate, quiet, restored, stored

CONTENTS = {
    "a/small": b"1",
    "a/deep/packed": b"2" * 5_000,
    "b/own": b"3" * 40_000,
    "b/small": b"4",
    "beside": b"5",
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLTRACK_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture
def tree(store: Store, tmp_path: Path) -> Path:
    """A folder that is in the store."""
    tree = fill(tmp_path / "tree", CONTENTS)
    migrate(store, tree)
    return tree


def paths(store: Store, **options: Any) -> list[str]:
    return [item[0] for item in restored(store, **options) if item[1] == "f"]


def test_runs_by_id(store: Store, tree: Path) -> None:
    assert paths(store, run_ids=["a"]) == ["a/deep/packed", "a/small"]
    assert paths(store, run_ids=["b", "a", "b"]) == ["a/deep/packed", "a/small", "b/own", "b/small"]
    assert not paths(store, run_ids=[])
    whole = {item[0]: item for item in kept(tree)}
    assert all(item == whole[item[0]] for item in restored(store, run_ids=["a", "b"]))


def test_runs_by_project(store: Store, tree: Path) -> None:
    store_run(store, "plain", {"v": [1, 2]}, project="churn")
    store_run(store, "other", {"v": 3}, project="else")
    assert paths(store, project="churn") == ["plain/manifest.json", "plain/v.json"]


def test_a_migration_alone(store: Store, tree: Path, tmp_path: Path) -> None:
    store_run(store, "plain", {"v": 1}, storage_mode="flat")
    migrate(store, fill(tmp_path / "second", {"c/x": b"1"}), name="second")
    assert paths(store, migration="second") == ["c/x"]
    assert paths(store, migration="nightly") == sorted(CONTENTS)
    assert paths(store) == sorted([*CONTENTS, "c/x", "plain/manifest.json", "plain/v.json"])


def test_runs_of_tasks_come_with_their_manifest(store: Store, tmp_path: Path) -> None:
    first = {"v": {"k": 1}, "raw": b"bytes"}
    run = store_run(store, "a/b c", first, storage_mode="flat", params={"lr": 0.1}, tags={"t": "ü"})
    store_run(store, "a/b c", {"v": 2}, storage_mode="flat", if_exists="revise")
    download_from_s3(store, tmp_path / "back", observe=quiet)
    folder = tmp_path / "back" / "a%2Fb%20c"
    assert sorted(os.listdir(folder)) == ["manifest.json", "v.json"]
    assert json.loads((folder / "v.json").read_bytes()) == 2
    assert (folder / "manifest.json").read_bytes() == store.get("manifests/a%2Fb%20c~00000002.json")
    assert run.revision == 1


def test_names_that_two_groups_share_are_kept_apart(store: Store) -> None:
    data, inputs, outputs = {"v": 1, "manifest": 2}, {"v": 3}, {"v": 4, "w.json": 5}
    store_run(store, "r", data, inputs=inputs, outputs=outputs, storage_mode="flat")
    assert paths(store) == [
        "r/data~manifest.json",
        "r/inputs~v.json",
        "r/manifest.json",
        "r/outputs~v.json",
        "r/v.json",
        "r/w.json",
    ]


@pytest.mark.parametrize(
    "choice", [{"run_ids": ["a", "nobody"]}, {"migration": "nobody"}, {"run_ids": ["nobody"]}]
)
def test_what_is_not_there_is_told_before_anything_is_fetched(
    choice: dict[str, Any], store: Store, tree: Path, tmp_path: Path
) -> None:
    counted = CountingStore(store)
    with pytest.raises(NotFoundError, match="nobody"):
        download_from_s3(counted, tmp_path / "back", observe=quiet, **choice)
    assert not any(key.startswith("data/") for verb, key in counted.log)
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize(
    "choice",
    [
        {"run_ids": ["a"], "project": "p"},
        {"run_ids": ["a"], "migration": "nightly"},
        {"migration": "nightly", "since": "2024-01-01"},
        {"run_ids": "a"},
        {"run_ids": [".."]},
        {"migration": ""},
        {"migration": "a\n"},
    ],
)
def test_a_choice_that_makes_no_sense_is_refused(
    choice: dict[str, Any], store: Store, tree: Path, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInputError):
        download_from_s3(store, tmp_path / "back", observe=quiet, **choice)
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize("path", ["a/small", "a/deep/packed", "b/own"])
def test_another_file_in_the_way_is_kept(path: str, store: Store, tree: Path, tmp_path: Path) -> None:
    back = fill(tmp_path / "back", {path: b"mine", "stranger": b"s"})
    with pytest.raises(ConflictError, match=path.rpartition("/")[2]):
        download_from_s3(store, back, observe=quiet)
    assert (back / path).read_bytes() == b"mine"
    download_from_s3(store, back, overwrite=True, observe=quiet)
    assert [item for item in kept(back) if item[0] != "stranger"] == kept(tree)
    assert (back / "stranger").read_bytes() == b"s"


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_in_the_way_of_a_file_is_never_removed(
    overwrite: bool, store: Store, tree: Path, tmp_path: Path
) -> None:
    back = fill(tmp_path / "back", {"beside/mine": b"mine"})
    with pytest.raises(ConflictError, match="beside"):
        download_from_s3(store, back, overwrite=overwrite, observe=quiet)
    assert (back / "beside/mine").read_bytes() == b"mine"


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("link", ["a", "b"])
def test_a_link_in_the_target_leads_nowhere(
    link: str, overwrite: bool, store: Store, tree: Path, tmp_path: Path
) -> None:
    outside = fill(tmp_path / "outside", {"mine": b"mine"})
    back = tmp_path / "back"
    back.mkdir()
    (back / link).symlink_to(outside)
    with pytest.raises(ConflictError):
        download_from_s3(store, back, overwrite=overwrite, observe=quiet)
    assert os.listdir(outside) == ["mine"]


def test_a_link_of_the_tree_is_not_followed_by_its_own_restore(store: Store, tmp_path: Path) -> None:
    """A link, and later a folder of that name: each restore is of one state."""
    tree, outside = fill(tmp_path / "tree", {"r/x": b"1"}), fill(tmp_path / "outside", {"mine": b"mine"})
    (tree / "r/sub").symlink_to(outside)
    migrate(store, tree)
    back = tmp_path / "back"
    download_from_s3(store, back, observe=quiet)
    (tree / "r/sub").unlink()
    migrate(store, fill(tree, {"r/sub/mine": b"other"}))
    with pytest.raises(ConflictError):
        download_from_s3(store, back, overwrite=True, observe=quiet)
    assert (outside / "mine").read_bytes() == b"mine"
    assert restored(store) == kept(tree)


def test_permissions_and_times_of_what_is_there_are_set_right(
    store: Store, tree: Path, tmp_path: Path
) -> None:
    back = fill(tmp_path / "back", CONTENTS)
    (back / "a").chmod(0o700)
    (back / "b/own").chmod(0o600)
    counted = CountingStore(store)
    report = download_from_s3(counted, back, observe=quiet)
    assert (report.written_files, report.present) == (0, len(CONTENTS))
    assert kept(back) == kept(tree)


def test_migrations_that_do_not_fit_together_are_refused(store: Store, tree: Path, tmp_path: Path) -> None:
    migrate(store, fill(tmp_path / "second", {"beside": b"other", "c/x": b"1"}), name="second")
    counted = CountingStore(store)
    with pytest.raises(ConflictError, match="beside"):
        download_from_s3(counted, tmp_path / "back", observe=quiet)
    assert not (tmp_path / "back").exists()
    assert paths(store, migration="second") == ["beside", "c/x"]


def test_migrations_that_hold_the_same_file_fit(store: Store, tree: Path, tmp_path: Path) -> None:
    second = fill(tmp_path / "second", {"beside": CONTENTS["beside"], "c/x": b"1"})
    os.utime(second / "beside", ns=(5, 5))
    migrate(store, second, name="second")
    assert paths(store) == sorted([*CONTENTS, "c/x"])


def test_a_restore_that_was_stopped_goes_on(store: Store, tree: Path, tmp_path: Path) -> None:
    faultless = FaultyStore(store, 0)
    download_from_s3(faultless, tmp_path / "whole", observe=quiet)
    for step in range(1, faultless.count + 1):
        back = tmp_path / f"back {step}"
        with pytest.raises(MLTrackError):
            download_from_s3(FaultyStore(store, step, "crash"), back, observe=quiet)
        whole = {item[0]: item[-1] for item in kept(tree)}
        there = {item[0]: item[-1] for item in kept(back)} if back.exists() else {}
        assert there.items() <= whole.items()
        report = download_from_s3(store, back, observe=quiet)
        assert report.present == sum(digest != "" for digest in there.values())
        assert kept(back) == kept(tree)


@pytest.mark.parametrize("format", ["bin"])
def test_damaged_bytes_are_never_written(format: str, store: Store, tree: Path, tmp_path: Path) -> None:
    for key in [key for key in stored(store) if key.startswith("data/")]:
        damaged = GuardedStore(MemoryStore())
        for each, body in stored(store).items():
            if each != "format.json":
                damaged.create(each, bytes(len(body)) if each == key else body)
        back = tmp_path / f"back {key.replace('/', ' ')}"
        with pytest.raises(IntegrityError):
            download_from_s3(damaged, back, observe=quiet)
        whole = {item[0]: item[-1] for item in kept(tree)}
        if back.exists():
            assert {item[0]: item[-1] for item in kept(back)}.items() <= whole.items()


def test_an_empty_store_gives_an_empty_folder(store: Store) -> None:
    assert restored(store) == []
