"""Stores that MLflow itself made, migrated and restored: MLflow's client answers as before, and so do we."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from mlflow import MlflowClient
from mlflow.entities import ViewType

from mltrack_tasks.canonical import unescape
from mltrack_tasks.migration import download_from_s3, hashcache
from mltrack_tasks.migration.report import MigrationReport
from mltrack_tasks.records import RunManifest
from mltrack_tasks.runs import get_run, list_runs
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.guard import GuardedStore
from mltrack_tasks.stores.memory import MemoryStore
from mltrack_tasks.stores.observed import CountingStore
from tests.floor1.test_mlflow_stores import answered, by_text, comparable, filled
from tests.floor3.migrationtrees import AT_ONCE, kept, migrate, quiet, restored

pytestmark = pytest.mark.filterwarnings("ignore:.*transition_model_version_stage:FutureWarning")


class Moved(NamedTuple):
    """A tree that MLflow filled, and the store that it was migrated into."""

    tree: Path
    client: MlflowClient
    store: Store
    report: MigrationReport


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, MlflowClient]]:
    """A file store, with an artifact of each size class in one run."""
    tree = tmp_path_factory.mktemp("files")
    with filled(tree, f"file://{tree}/mlruns") as client:
        artifacts = Path(client.get_run(some_run(client)).info.artifact_uri.removeprefix("file://"))
        for size in (0, 10, 5_000, 50_000, 1_500_000):
            (artifacts / "sub folder").mkdir(parents=True, exist_ok=True)
            (artifacts / "sub folder" / str(size)).write_bytes(b"x" * size)
        yield tree, client


@pytest.fixture(scope="module")
def moved(source: tuple[Path, MlflowClient], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moved]:
    tree, client = source
    store = GuardedStore(MemoryStore())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLTRACK_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(hashcache, "SETTLED", 0)
        yield Moved(tree, client, store, migrate(store, tree / "mlruns"))


def all_runs(client: MlflowClient) -> list[str]:
    experiments = [e.experiment_id for e in client.search_experiments(view_type=ViewType.ALL)]
    found = [client.search_runs([one], run_view_type=ViewType.ALL) for one in experiments]
    return sorted(run.info.run_id for runs in found for run in runs)


def some_run(client: MlflowClient) -> str:
    return min(run for run in all_runs(client) if client.get_run(run).data.params)


def everything(client: MlflowClient) -> dict[str, Any]:
    """All that the client answers."""
    experiments = client.search_experiments(view_type=ViewType.ALL)
    active = [e.experiment_id for e in experiments if e.lifecycle_stage == "active"]
    versions = client.search_model_versions()
    return {
        "experiments": by_text(dict(experiment) for experiment in experiments),
        "runs": {run_id: answered(client, run_id) for run_id in all_runs(client)},
        "models": by_text(model.to_dictionary() for model in client.search_logged_models(active)),
        "registered": by_text(
            [model.name, model.description, model.tags, model.aliases, model.creation_timestamp]
            for model in (
                client.get_registered_model(each.name) for each in client.search_registered_models()
            )
        ),
        "versions": by_text({**dict(version), "tags": dict(version.tags)} for version in versions),
    }


def artifacts_of(client: MlflowClient, run_id: str, folder: str = "") -> list[tuple[str, int | None]]:
    found: list[tuple[str, int | None]] = []
    for item in client.list_artifacts(run_id, folder or None):
        found.append((item.path, item.file_size))
        if item.is_dir:
            found += artifacts_of(client, run_id, item.path)
    return sorted(found, key=lambda item: item[0])


def test_the_restored_tree_is_the_same(moved: Moved) -> None:
    assert moved.report.source == "mlflow"
    assert restored(moved.store) == kept(moved.tree / "mlruns")


def test_the_client_answers_as_before(moved: Moved, tmp_path: Path) -> None:
    """In the same place, as paths of artifacts are absolute; the first tree is out of the way meanwhile."""
    expected, run = everything(moved.client), some_run(moved.client)
    artifacts = artifacts_of(moved.client, run)
    place, aside = moved.tree / "mlruns", tmp_path / "aside"
    place.rename(aside)
    try:
        download_from_s3(moved.store, place, observe=quiet)
        again = MlflowClient(moved.client.tracking_uri, registry_uri=moved.client.tracking_uri)
        assert comparable(everything(again)) == comparable(expected)
        assert artifacts_of(again, run) == artifacts
        assert ("sub folder/1500000", 1_500_000) in artifacts
        assert kept(place) == kept(aside)
    finally:
        shutil.rmtree(place)
        aside.rename(place)


def test_manifests_say_what_the_client_says(moved: Moved) -> None:
    runs = all_runs(moved.client)
    assert sorted(moved.report.runs) == runs
    for run_id in runs:
        expected = answered(moved.client, run_id)
        # MLflow's file store writes the step of a point with a dataset, and reads it as 0.
        ours = told(get_run(moved.store, run_id))
        ours["history"] = {
            key: [[*p[:2], 0, *p[3:]] if len(p) == 5 else p for p in points]
            for key, points in ours["history"].items()
        }
        assert comparable(ours) == comparable(expected)


def told(manifest: RunManifest) -> dict[str, Any]:
    """What a manifest says of a run, in the words of ``answered``."""
    beyond = unescape(manifest.extra["migration"]["mlflow"])
    return {
        "run_id": manifest.run_id,
        "experiment_id": beyond["experiment_id"],
        "experiment_name": beyond["experiment_name"],
        "name": beyond["name"],
        "user": beyond["user"],
        "status": manifest.status,
        "lifecycle": beyond["lifecycle"],
        "started_at": manifest.started_at,
        "ended_at": manifest.ended_at,
        "artifact_uri": beyond["artifact_uri"],
        "params": dict(manifest.params),
        "metrics": dict(manifest.metrics),
        "history": beyond["history"],
        "tags": dict(manifest.tags),
        "datasets": by_text(beyond["datasets"]),
        "models": by_text(beyond["models"]),
    }


def test_runs_are_found_by_their_experiment(moved: Moved) -> None:
    of_run = {run: answered(moved.client, run)["experiment_name"] for run in all_runs(moved.client)}
    listed = list_runs(moved.store, project="größe: [1]", observe=quiet)
    assert {run.run_id for run in listed} == {run for run, name in of_run.items() if name == "größe: [1]"}
    assert {run.status for run in listed} >= {"running", "failed", "killed"}


def test_one_run_comes_back_under_its_path(moved: Moved) -> None:
    whole = {item[0]: item for item in kept(moved.tree / "mlruns")}
    for run_id in (some_run(moved.client), *[run for run in all_runs(moved.client) if _is_gone(moved, run)]):
        alone = restored(moved.store, run_ids=[run_id])
        files = [item for item in alone if item[1] == "f"]
        assert files
        assert all(whole[item[0]] == item for item in files)
        # Models that it logged lie beside it, in a folder of the experiment.
        own = {item[0] for item in files if "/models/" not in item[0]}
        assert own == {path for path in whole if run_id in path and whole[path][1] == "f"}


def _is_gone(moved: Moved, run_id: str) -> bool:
    return moved.client.get_run(run_id).info.lifecycle_stage == "deleted"


def test_unchanged_again_is_no_work(moved: Moved) -> None:
    counted = CountingStore(moved.store)
    assert migrate(counted, moved.tree / "mlruns").unchanged
    assert counted.requests <= 3
    assert not counted.sent.total()


def test_a_folder_above_the_store_is_migrated_as_well(moved: Moved, tmp_path: Path) -> None:
    store = GuardedStore(MemoryStore())
    shutil.copytree(moved.tree / "mlruns", tmp_path / "work" / "deep" / "mlruns")
    (tmp_path / "work" / "notes").mkdir()
    (tmp_path / "work" / "notes" / "read me").write_text("1")
    report = migrate(store, tmp_path / "work")
    assert sorted(report.runs) == sorted([*all_runs(moved.client), "notes"])
    assert restored(store) == kept(tmp_path / "work")
    assert migrate(store, tmp_path / "work").unchanged


def test_a_long_history_is_a_table_beside_the_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLTRACK_CACHE_DIR", str(tmp_path / "cache"))
    run = _bare_run(tmp_path / "mlruns", status=3)
    lines = "".join(f"{when} {when / 7!r} {when % 5}\n" for when in range(2_500))
    (run / "metrics" / "loss").write_text(lines)
    store = GuardedStore(MemoryStore())
    migrate(store, tmp_path / "mlruns")
    manifest = get_run(store, run.name)
    assert manifest.metrics == {"loss": max((w % 5, w, w / 7) for w in range(2_500))[2]}
    assert list(manifest.data) == ["metric_history"]
    assert restored(store) == kept(tmp_path / "mlruns")


@pytest.mark.parametrize("damage", ["meta.yaml", "metrics/loss", "params/p"])
def test_a_run_that_mlflow_could_not_read_is_kept_byte_for_byte(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLTRACK_CACHE_DIR", str(tmp_path / "cache"))
    run = _bare_run(tmp_path / "mlruns", status=3)
    (run / damage).write_bytes(b"\xff: [")
    store = GuardedStore(MemoryStore())
    migrate(store, tmp_path / "mlruns")
    assert restored(store) == kept(tmp_path / "mlruns")
    assert restored(store, run_ids=[run.name])


def test_a_running_run_is_not_deleted_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLTRACK_CACHE_DIR", str(tmp_path / "cache"))
    running, ended = (_bare_run(tmp_path / "mlruns", status=status) for status in (1, 3))
    store = GuardedStore(MemoryStore())
    whole = kept(tmp_path / "mlruns")
    report = migrate(store, tmp_path / "mlruns", delete_after_upload=True, min_age=AT_ONCE)
    assert (running / "meta.yaml").exists()
    assert not ended.exists()
    assert (tmp_path / "mlruns" / "0" / "meta.yaml").exists()
    assert {path.split("/")[1] for path, _ in report.kept} == {running.name}
    assert restored(store) == whole
    again = migrate(store, tmp_path / "mlruns", delete_after_upload=True)
    assert not again.deleted_files
    assert restored(store) == whole


def _bare_run(store: Path, *, status: int) -> Path:
    """A run as MLflow lays it out, without MLflow."""
    experiment = store / "0"
    run = experiment / f"{status:a>32}"  # a number would be one in YAML, too
    for folder in ("metrics", "params", "tags", "artifacts"):
        (run / folder).mkdir(parents=True)
    (experiment / "meta.yaml").write_text(
        "artifact_location: a\nexperiment_id: '0'\nlifecycle_stage: active\nname: Default\n"
    )
    (run / "meta.yaml").write_text(
        f"artifact_uri: a\nend_time: 2\nentry_point_name: ''\nexperiment_id: '0'\nlifecycle_stage: active\n"
        f"run_id: {run.name}\nrun_name: n\nsource_type: 4\nstart_time: 1\nstatus: {status}\nuser_id: u\n"
    )
    (run / "metrics" / "loss").write_text("1 0.5 0\n")
    (run / "params" / "p").write_text("v")
    return run
