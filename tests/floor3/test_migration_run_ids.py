"""Whose id a run has: folders named by people, ids that others have, and names that cannot be any."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mltrack_tasks.errors import InvalidInputError, PartialTransferError
from mltrack_tasks.migration import migrate_to_s3
from mltrack_tasks.migration.groups import id_of
from mltrack_tasks.runs import get_run, store_run
from mltrack_tasks.stores.base import Store
from tests.floor3.migrationtrees import fill, kept, migrate, restored, stored


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLTRACK_CACHE_DIR", str(tmp_path / "cache"))


def test_folders_on_top_are_runs_by_their_names(store: Store, tmp_path: Path) -> None:
    tree = fill(tmp_path / "tree", {"2024 run/x": b"1", "größe/x": b"2", "r/deep/er/x": b"3", "loose": b"4"})
    (tree / "empty").mkdir()
    assert sorted(migrate(store, tree).runs) == ["2024 run", "größe", "r"]
    assert restored(store) == kept(tree)


def test_a_folder_without_folders_is_one_run(store: Store, tmp_path: Path) -> None:
    tree = fill(tmp_path / "my run", {"x": b"1", "y": b"2"})
    assert migrate(store, tree).runs == ("my run",)
    assert restored(store, run_ids=["my run"]) == kept(tree)


def test_a_folder_can_be_named_as_one_run(store: Store, tmp_path: Path) -> None:
    tree = fill(tmp_path / "tree", {"a/x": b"1", "b/x": b"2"})
    assert migrate(store, tree, run_id="mine").runs == ("mine",)
    assert restored(store, run_ids=["mine"]) == kept(tree)
    assert migrate(store, tree, run_id="mine").runs == ()


def test_names_that_cannot_be_ids_get_one_that_stays(store: Store, tmp_path: Path) -> None:
    odd = ["a\nb", "n" * 250, os.fsdecode(b"\xff\xfe"), "漢" * 70, "x\x7f"]
    tree = fill(tmp_path / "tree", {f"{name}/x": name.encode("utf-8", "surrogateescape") for name in odd})
    runs = migrate(store, tree).runs
    assert len(set(runs)) == len(odd)
    assert all(run.isascii() and run.isprintable() for run in runs)
    assert restored(store) == kept(tree)
    for run in runs:
        assert len([item for item in restored(store, run_ids=[run]) if item[1] == "f"]) == 1
    fill(tree, {f"{odd[0]}/y": b"new"})
    (again,) = migrate(store, tree).runs
    assert get_run(store, again).revision == 2


def test_an_id_that_a_task_has_taken_is_not_touched(store: Store, tmp_path: Path) -> None:
    theirs = store_run(store, "taken", {"v": 1}, storage_mode="flat")
    files = {"taken/x": b"1", "taken/own": b"2" * 40_000, "free/x": b"3", "loose": b"4"}
    tree = fill(tmp_path / "tree", files)
    with pytest.raises(PartialTransferError, match="taken") as caught:
        migrate(store, tree)
    assert [path for path, _ in caught.value.failed] == ["taken", "taken/x"]
    assert get_run(store, "taken") == theirs
    assert {"free/x", "loose"} <= {item[0] for item in restored(store, migration="nightly")}
    assert "taken/x" not in {item[0] for item in restored(store, migration="nightly")}

    with pytest.raises(PartialTransferError, match="taken"):
        migrate(store, tree)
    (tree / "taken").rename(tree / "renamed")
    migrate(store, tree)
    assert restored(store, migration="nightly") == kept(tree)
    assert get_run(store, "taken") == theirs


def test_folders_of_two_migrations_do_not_become_one_run(store: Store, tmp_path: Path) -> None:
    one = fill(tmp_path / "one", {"exp1/x": b"1"})
    two = fill(tmp_path / "two", {"exp1/x": b"2", "exp2/x": b"3"})
    migrate(store, one, name="laptop")
    with pytest.raises(PartialTransferError, match="exp1"):
        migrate(store, two, name="server")
    assert restored(store, migration="laptop") == restored(store, run_ids=["exp1"]) == kept(one)
    assert [item[0] for item in restored(store, run_ids=["exp2"])] == ["exp2", "exp2/x"]
    assert [i[0] for i in restored(store, migration="server") if i[1] == "f"] == ["exp2/x"]

    (two / "exp2/x").rename(two / "exp1/y")
    (two / "exp2").rmdir()
    migrate(store, two, name="laptop")  # the same folder, which has moved: its runs get revisions
    assert get_run(store, "exp1").revision == 2
    assert restored(store, migration="laptop") == kept(two)


def test_a_run_that_fails_for_its_id_does_not_cost_what_was_stored(store: Store, tmp_path: Path) -> None:
    tree = fill(tmp_path / "tree", {"r/x": b"1"})
    migrate(store, tree)
    store_run(store, "s", {"v": 1}, storage_mode="flat")
    before = kept(tree)
    with pytest.raises(PartialTransferError):
        migrate(store, fill(tree, {"s/x": b"2"}))
    assert [item for item in restored(store, migration="nightly") if item[0].startswith("r")] == before


def test_the_same_tracking_folder_under_two_names_is_the_same_runs(store: Store, tmp_path: Path) -> None:
    run_id = "a" * 32
    meta = f"experiment_id: '0'\nlifecycle_stage: active\nrun_id: {run_id}\nrun_name: n\nstatus: 3\n"
    tree = fill(
        tmp_path / "mlruns",
        {
            "0/meta.yaml": b"artifact_location: a\nexperiment_id: '0'\nlifecycle_stage: active\nname: D\n",
            f"0/{run_id}/meta.yaml": f"{meta}artifact_uri: a\nuser_id: u\nstart_time: 1\n".encode(),
            f"0/{run_id}/params/p": b"v",
        },
    )
    migrate(store, tree, name="one")
    migrate(store, tree, name="two")
    assert get_run(store, run_id).revision == 1
    assert restored(store) == restored(store, migration="two") == kept(tree)


def test_a_file_where_a_stored_file_was_replaced_by_a_pipe(store: Store, tmp_path: Path) -> None:
    """What is no file any more stays what was stored, and does not keep the rest from being stored."""
    tree = fill(tmp_path / "tree", {"r/x": b"1", "r/f": b"2"})
    migrate(store, tree)
    (tree / "r/f").unlink()
    os.mkfifo(tree / "r/f")
    fill(tree, {"r/x": b"changed", "r/new": b"3"})
    migrate(store, tree)
    contents = {item[0]: item[-1] for item in restored(store, migration="nightly")}
    assert sorted(contents) == ["r", "r/f", "r/new", "r/x"]
    assert contents.items() > {item[0]: item[-1] for item in kept(tree)}.items()


@pytest.mark.parametrize(
    "options",
    [
        {"run_id": ""},
        {"run_id": ".."},
        {"run_id": "a\nb"},
        {"run_id": "n" * 201},
        {"name": ".."},
        {"name": "a\tb"},
        {"name": "\udcff"},
        {"include": "*.csv"},
        {"exclude": "*.csv"},
        {"min_age": timedelta(seconds=-1)},
        {"min_age": 3600},
    ],
)
def test_options_that_make_no_sense_are_refused(
    options: dict[str, Any], store: Store, tmp_path: Path
) -> None:
    tree = fill(tmp_path / "tree", {"r/x": b"1"})
    with pytest.raises(InvalidInputError):
        migrate(store, tree, **options)
    assert not stored(store)


@pytest.mark.parametrize("path", ["missing", "file", "http://localhost:5000", "sqlite:///mlflow.db"])
def test_paths_that_are_no_folder_are_refused(path: str, store: Store, tmp_path: Path) -> None:
    fill(tmp_path, {"file": b""})
    with pytest.raises(InvalidInputError):
        migrate(store, path if "://" in path else tmp_path / path)
    assert not stored(store)


def test_a_folder_without_files_is_refused_unless_it_may_be_empty(store: Store, tmp_path: Path) -> None:
    (tmp_path / "tree/sub").mkdir(parents=True)
    with pytest.raises(InvalidInputError, match="allow_empty"):
        migrate(store, tmp_path / "tree", allow_empty=False)
    assert not stored(store)
    migrate(store, tmp_path / "tree")
    assert restored(store) == kept(tmp_path / "tree")


def test_mlflow_runs_keep_their_ids(store: Store, tmp_path: Path) -> None:
    tree = fill(tmp_path / "mlruns", {"0/meta.yaml": b"experiment_id: '0'\n", f"0/{'a' * 32}/meta.yaml": b""})
    with pytest.raises(InvalidInputError, match="run_id"):
        migrate(store, tree, run_id="mine")
    assert not stored(store)


def test_which_folders_are_runs_may_change(store: Store, tmp_path: Path) -> None:
    """A run inside another that is none any more: its old manifest does not have what is new."""
    tree = fill(tmp_path / "tree", {"q/x": b"1", "q/deep/y": b"2"})
    migrate(store, tree)
    migrate(store, fill(tree, {"q/x": b"changed", "z": b"3"}), run_id="mine")
    assert restored(store) == restored(store, run_ids=["mine"]) == kept(tree)
    migrate(store, fill(tree, {"q/deep/y": b"changed too"}), run_id="other")
    assert restored(store) == kept(tree)
    migrate(store, fill(tree, {"q/new": b"4"}))
    assert restored(store) == kept(tree)
    assert get_run(store, "q").revision == 2


def test_a_tracking_folder_that_is_none_any_more(store: Store, tmp_path: Path) -> None:
    run_id = "a" * 32
    tree = fill(
        tmp_path / "tree",
        {
            "mlruns/0/meta.yaml": b"experiment_id: '0'\nlifecycle_stage: active\nname: D\n",
            f"mlruns/0/{run_id}/meta.yaml": f"run_id: {run_id}\nexperiment_id: '0'\nstatus: 3\n".encode(),
            f"mlruns/0/{run_id}/params/p": b"1",
        },
    )
    migrate(store, tree)
    (tree / "mlruns/0/meta.yaml").unlink()
    (tree / f"mlruns/0/{run_id}/meta.yaml").unlink()
    migrate(store, fill(tree, {f"mlruns/0/{run_id}/params/p": b"2"}))
    assert restored(store) == kept(tree)


def test_what_was_deleted_here_outlasts_calls_that_change_nothing(store: Store, tmp_path: Path) -> None:
    tree = fill(tmp_path / "tree", {"a": b"1"})
    options: dict[str, Any] = {"delete_after_upload": True, "min_age": timedelta(0)}
    migrate(store, tree, **options)
    migrate(store, fill(tree, {"b": b"2"}))
    migrate(store, tree, **options)
    migrate(store, tree, **options)
    assert not kept(tree)
    assert [item[0] for item in restored(store)] == ["a", "b"]


def test_a_folder_named_as_the_id_of_another_is_another_run(store: Store, tmp_path: Path) -> None:
    odd = "a\x01b"
    derived = id_of(odd)
    for name in (odd, derived):
        (tmp_path / "tree" / name).mkdir(parents=True)
        (tmp_path / "tree" / name / "file").write_text(name)

    done = migrate_to_s3(store, tmp_path / "tree")

    assert len(set(done.runs)) == 2
    assert derived in done.runs
