"""A tracking folder migrated night by night: what changed becomes a revision, and nothing else is touched."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from mltrack_tasks.manifests import read_manifest
from mltrack_tasks.migration import hashcache
from mltrack_tasks.runs import get_run, list_runs
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.observed import CountingStore
from tests.floor1.test_mlflow_stores import filled
from tests.floor3.migrationtrees import fill, kept, migrate, quiet, restored, stored

pytestmark = pytest.mark.filterwarnings("ignore:.*transition_model_version_stage:FutureWarning")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLTRACK_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(hashcache, "SETTLED", 0)


@pytest.fixture
def client(tmp_path: Path) -> Iterator[MlflowClient]:
    """MLflow at work on a file store in ``tmp_path``."""
    with filled(tmp_path, f"file://{tmp_path}/mlruns") as client:
        yield client


def written(store: CountingStore) -> list[str]:
    """Keys that calls tried to write."""
    return [key for verb, key in store.log if verb in ("create", "replace", "complete")]


def test_a_run_at_work_becomes_revisions(client: MlflowClient, store: Store, tmp_path: Path) -> None:
    tree = tmp_path / "mlruns"
    run = client.create_run("0").info.run_id
    client.log_metric(run, "loss", 1.0, timestamp=1, step=0)
    migrate(store, tree)
    assert get_run(store, run).status == "running"

    client.log_metric(run, "loss", 0.5, timestamp=2, step=1)
    counted = CountingStore(store)
    assert migrate(counted, tree).runs == (run,)
    assert [k for k in written(counted) if k.startswith("manifests/")] == [f"manifests/{run}~00000002.json"]
    assert get_run(store, run).metrics == {"loss": 0.5}

    client.set_terminated(run)
    client.set_tag(run, "note", "good")
    assert migrate(store, tree).runs == (run,)
    last = get_run(store, run)
    assert (last.revision, last.status, last.tags["note"]) == (3, "finished", "good")
    assert read_manifest(store, run, 1).metrics == {"loss": 1.0}

    client.set_tag(run, "note", "best")
    assert migrate(store, tree).runs == (run,)
    assert get_run(store, run).tags["note"] == "best"
    listed = [each for each in list_runs(store, project="Default", observe=quiet) if each.run_id == run]
    assert [each.revision for each in listed] == [4]

    assert restored(store) == kept(tree)
    alone = {item[0]: item for item in restored(store, run_ids=[run])}
    assert alone[f"0/{run}/tags/note"] == next(i for i in kept(tree) if i[0] == f"0/{run}/tags/note")


def test_a_run_that_is_deleted_and_restored_in_mlflow(
    client: MlflowClient, store: Store, tmp_path: Path
) -> None:
    run = client.create_run("0").info.run_id
    migrate(store, tmp_path / "mlruns")
    client.delete_run(run)
    assert migrate(store, tmp_path / "mlruns").runs == (run,)
    assert get_run(store, run).extra["migration"]["mlflow"]["lifecycle"] == "deleted"
    client.restore_run(run)
    assert migrate(store, tmp_path / "mlruns").runs == (run,)
    assert get_run(store, run).revision == 3
    assert restored(store) == kept(tmp_path / "mlruns")


def test_a_deleted_experiment_moves_with_its_runs(client: MlflowClient, store: Store, tmp_path: Path) -> None:
    experiment = client.create_experiment("short-lived")
    run = client.create_run(experiment).info.run_id
    migrate(store, tmp_path / "mlruns")
    client.delete_experiment(experiment)
    migrate(store, tmp_path / "mlruns")
    assert restored(store) == kept(tmp_path / "mlruns")
    assert [item[0] for item in restored(store, run_ids=[run]) if item[0].endswith("meta.yaml")] == [
        f".trash/{experiment}/{run}/meta.yaml"
    ]


def test_a_changed_experiment_name_reaches_runs_that_change(
    client: MlflowClient, store: Store, tmp_path: Path
) -> None:
    experiment = client.create_experiment("before")
    run = client.create_run(experiment).info.run_id
    migrate(store, tmp_path / "mlruns")
    client.rename_experiment(experiment, "after")
    client.set_tag(run, "a", "b")
    migrate(store, tmp_path / "mlruns")
    assert get_run(store, run).project == "after"
    assert [each.run_id for each in list_runs(store, project="after", observe=quiet)] == [run]
    assert not list_runs(store, project="before", observe=quiet)


def test_folders_become_revisions_too(store: Store, tmp_path: Path) -> None:
    tree = fill(tmp_path / "tree", {f"{run}/{name}": name.encode() for run in "abc" for name in ("x", "y")})
    migrate(store, tree)
    fill(tree, {"b/x": b"changed"})
    assert migrate(store, tree).runs == ("b",)
    (tree / "c/y").unlink()
    assert migrate(store, tree).runs == ("c",)
    assert [get_run(store, run).revision for run in "abc"] == [1, 2, 2]
    assert restored(store) == kept(tree)


def test_back_to_an_earlier_state_is_the_newest_revision(store: Store, tmp_path: Path) -> None:
    tree = fill(tmp_path / "tree", {"r/x": b"1"})
    for content in (b"1", b"2", b"1"):
        fill(tree, {"r/x": content})
        migrate(store, tree)
        assert restored(store, run_ids=["r"])[-1][-1] == kept(tree)[-1][-1]
    assert get_run(store, "r").revision == 3


@pytest.mark.parametrize("size", [10, 5_000, 40_000, 1_100_000])
def test_a_change_that_shows_by_neither_size_nor_time(size: int, store: Store, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for byte in (b"1", b"2"):
        _fill_at(tree, byte * size)
        migrate(store, tree)
    assert restored(store) == restored(store, run_ids=["r"]) == kept(tree)


def test_a_folder_that_is_gone_stays_a_run(store: Store, tmp_path: Path) -> None:
    tree = fill(tmp_path / "tree", {"a/x": b"1", "b/x": b"2"})
    migrate(store, tree)
    (tree / "a/x").unlink()
    (tree / "a").rmdir()
    assert not migrate(store, tree).runs
    assert restored(store, migration="nightly") == kept(tree)
    assert [item[0] for item in restored(store, run_ids=["a"])] == ["a", "a/x"]
    before = stored(store)
    assert migrate(store, tree).unchanged
    assert stored(store) == before


@pytest.mark.parametrize("interrupted", [1, 2])
def test_a_state_between_two_crashes_is_not_what_a_run_says(
    interrupted: int, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs written by calls that died before the last record; then the folder is as it was at first."""
    tree = tmp_path / "tree"
    with monkeypatch.context() as patch:
        patch.setattr("mltrack_tasks.migration.migrate.finish_migration", _die)
        for content in (b"1", b"2")[:interrupted]:
            _fill_at(tree, content)
            with pytest.raises(KeyboardInterrupt):
                migrate(store, tree)
    _fill_at(tree, b"1")
    migrate(store, tree)
    assert restored(store) == restored(store, run_ids=["r"]) == kept(tree)


def _fill_at(tree: Path, content: bytes) -> None:
    """Each content as of one and the same time, so that equal contents are equal states."""
    fill(tree, {"r/x": content})
    os.utime(tree / "r/x", ns=(5, 5))


def _die(*args: object, **options: object) -> None:
    raise KeyboardInterrupt
