"""MLflow's stores restored into another folder, the first one gone: its client finds the artifacts there."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.tracking._tracking_service import utils

from mltrack_tasks.errors import ConflictError, InvalidInputError
from mltrack_tasks.localtree import LocalTree
from mltrack_tasks.migration import download_from_s3, finish_restore, plan_restore, restore_batch
from mltrack_tasks.migration.repoint import repoint_tree
from mltrack_tasks.runs import store_run
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.guard import GuardedStore
from mltrack_tasks.stores.memory import MemoryStore
from tests.floor3.migrationtrees import Tree, fill, kept, migrate, quiet

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")

PLACES = ["plain", "two words/größe #1 'x'"]
"""Names of folders that addresses have to be written for."""
BODY = b"weights" * 1_000


class Made(NamedTuple):
    """A tree that MLflow filled and that was migrated; the folder is gone."""

    store: Store
    tree: Tree
    old: Path
    run: str
    empty_run: str
    model: str
    experiment: str
    database: bool


@pytest.fixture(scope="module", params=["files", "plain", "sqlite"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    old = (
        tmp_path_factory.mktemp("old place") / "with a name of many words that is folded in two lines of YAML"
    )
    (old / "artifact").mkdir(parents=True)
    (old / "artifact" / "weights.bin").write_bytes(BODY)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(old)
        for name in ("MLFLOW_ALLOW_FILE_STORE", "MLFLOW_DISABLE_TELEMETRY"):
            patch.setenv(name, "true")
        patch.setenv("MLTRACK_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        database = request.param == "sqlite"
        uris = {
            "files": f"file://{old}/mlruns",
            "plain": str(old / "mlruns"),
            "sqlite": f"sqlite:///{old}/mlflow.db",
        }
        ids = _fill(_client(uris[request.param], patch), old)
        shutil.rmtree(old / "artifact")
        store = GuardedStore(MemoryStore())
        migrate(store, old)
        tree = seen(old)
        patch.undo()
        patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        patch.setenv("MLTRACK_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        shutil.rmtree(old)
        yield Made(store, tree, old, *ids, database)


def _client(uri: str, patch: pytest.MonkeyPatch) -> MlflowClient:
    patch.setenv("MLFLOW_TRACKING_URI", uri)
    patch.setenv("MLFLOW_REGISTRY_URI", uri)
    return MlflowClient(uri, registry_uri=uri)


def _fill(client: MlflowClient, old: Path) -> tuple[str, str, str, str]:
    experiment = client.create_experiment("exp")
    away = client.create_experiment("away", artifact_location="s3://bucket/away")
    run, empty = (client.create_run(experiment).info.run_id for _ in range(2))
    client.log_artifact(run, "artifact/weights.bin", "sub folder/ü 100%")
    model = client.create_logged_model(experiment, name="clf", source_run_id=run).model_id
    client.log_model_artifacts(model, "artifact")
    client.finalize_logged_model(model, "READY")
    client.create_registered_model("churn")
    inside = f"{client.get_run(run).info.artifact_uri}/sub folder"
    for source in (f"models:/{model}", inside, f"runs:/{run}/sub folder", "s3://bucket/x/artifacts"):
        client.create_model_version("churn", source, run_id=run)
    client.create_run(away)
    gone = client.create_experiment("gone")
    client.create_run(gone)
    client.delete_experiment(gone)
    return run, empty, model, experiment


def seen(tree: Path) -> Tree:
    """What is in a tree; of a database what it holds, as only that is kept of one that may be in use."""
    return [(*item[:-1], _dump(tree / item[0])) if item[0].endswith(".db") else item for item in kept(tree)]


def _dump(path: Path) -> str:
    with closing(sqlite3.connect(path)) as database:
        return "\n".join(database.iterdump())


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / str(request.param)


def _opened(made: Made, place: Path, patch: pytest.MonkeyPatch) -> MlflowClient:
    """MLflow in the new place; it would remember where the artifacts of a run were in an earlier test."""
    patch.setattr(utils, "_artifact_repos_cache", OrderedDict())
    uri = f"sqlite:///{place}/mlflow.db" if made.database else (place / "mlruns").as_uri()
    return _client(uri, patch)


def _weights(folder: str) -> list[bytes]:
    return [path.read_bytes() for path in Path(folder).rglob("weights.bin")]


def test_the_client_finds_artifacts_in_the_new_place(
    made: Made, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    download_from_s3(made.store, place, repoint_artifacts=True, observe=quiet)
    client = _opened(made, place, monkeypatch)
    (target := tmp_path / "downloaded").mkdir()
    assert _weights(client.download_artifacts(made.run, "sub folder", str(target))) == [BODY]
    assert [item.path for item in client.list_artifacts(made.run, "sub folder")] == ["sub folder/ü 100%"]
    assert _weights(download_artifacts(f"models:/{made.model}", dst_path=str(target / "model"))) == [BODY]
    for version in ("1", "2", "3"):
        fresh = target / version
        assert _weights(download_artifacts(f"models:/churn/{version}", dst_path=str(fresh))) == [BODY], (
            version
        )
    assert not made.old.exists()


def test_what_is_logged_next_lies_in_the_new_place(
    made: Made, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    download_from_s3(made.store, place, repoint_artifacts=True, observe=quiet)
    client = _opened(made, place, monkeypatch)
    (tmp_path / "note").write_text("later")
    for run in (made.empty_run, client.create_run(made.experiment).info.run_id):
        client.log_artifact(run, str(tmp_path / "note"))
        assert (place / "mlruns" / made.experiment / run / "artifacts" / "note").read_text() == "later"
    assert not made.old.exists()


def test_addresses_elsewhere_stay(made: Made, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    download_from_s3(made.store, place, repoint_artifacts=True, observe=quiet)
    client = _opened(made, place, monkeypatch)
    (away,) = client.search_runs([client.get_experiment_by_name("away").experiment_id])
    assert away.info.artifact_uri == f"s3://bucket/away/{away.info.run_id}/artifacts"
    versions = {version.version: version.source for version in client.search_model_versions()}
    by_number = {int(number): source for number, source in versions.items()}
    assert by_number[1] == f"models:/{made.model}"
    assert by_number[3] == f"runs:/{made.run}/sub folder"
    assert by_number[4] == "s3://bucket/x/artifacts"


def test_without_being_asked_every_byte_is_the_stored_one(made: Made, tmp_path: Path) -> None:
    download_from_s3(made.store, tmp_path / "new", observe=quiet)
    assert seen(tmp_path / "new") == made.tree


def test_only_what_has_addresses_differs(made: Made, tmp_path: Path) -> None:
    download_from_s3(made.store, tmp_path / "new", repoint_artifacts=True, observe=quiet)
    before = {item[0]: item for item in made.tree}
    after = {item[0]: item for item in seen(tmp_path / "new")}
    assert sorted(before) == sorted(after)
    changed = {path for path in before if before[path] != after[path]}
    names = {path.rpartition("/")[2] for path in changed}
    assert names == ({"mlflow.db"} if made.database else {"meta.yaml"})
    assert all(before[path][2] == after[path][2] for path in changed), "permissions"
    assert not any("/artifacts/" in path for path in changed)
    if made.database:
        held, holds = before["mlflow.db"][-1], after["mlflow.db"][-1]
        assert str(made.old) in held
        assert holds == held.replace(str(made.old), str(tmp_path / "new"))
    else:
        assert f"mlruns/{made.experiment}/{made.run}/meta.yaml" in changed
        assert f"mlruns/{made.experiment}/models/{made.model}/meta.yaml" in changed


def test_again_needs_overwrite(made: Made, tmp_path: Path) -> None:
    new = tmp_path / "new"
    download_from_s3(made.store, new, repoint_artifacts=True, observe=quiet)
    once = [item[:4] for item in kept(new)]
    with pytest.raises(ConflictError):
        download_from_s3(made.store, new, repoint_artifacts=True, observe=quiet)
    download_from_s3(made.store, new, repoint_artifacts=True, overwrite=True, observe=quiet)
    assert [item[:4] for item in kept(new)] == once
    download_from_s3(made.store, new, overwrite=True, observe=quiet)
    assert seen(new) == made.tree


def test_the_last_step_done_twice_changes_nothing_more(made: Made, tmp_path: Path) -> None:
    """A task that is tried again starts it anew."""
    plan = plan_restore(made.store, observe=quiet)
    for batch in plan.batches:
        restore_batch(made.store, batch, tmp_path / "new", observe=quiet)
    finish_restore(made.store, plan, tmp_path / "new", repoint_artifacts=True, observe=quiet)
    once = kept(tmp_path / "new")
    finish_restore(made.store, plan, tmp_path / "new", repoint_artifacts=True, observe=quiet)
    assert kept(tmp_path / "new") == once


def test_a_run_alone_leads_to_its_artifacts(made: Made, tmp_path: Path) -> None:
    download_from_s3(made.store, tmp_path, run_ids=[made.run], repoint_artifacts=True, observe=quiet)
    metas = [path.read_text() for path in tmp_path.rglob("meta.yaml")]
    assert bool(metas) is not made.database
    assert all(str(made.old) not in text.replace("\n  ", " ") for text in metas)


def test_other_files_of_the_target_are_let_be(made: Made, tmp_path: Path) -> None:
    run = "f" * 32
    meta = f"artifact_uri: /old/mlruns/0/{run}/artifacts\nexperiment_id: '0'\nrun_id: {run}\n".encode()
    own = {f"mlruns/0/{run}/meta.yaml": meta, f"mlruns/0/{run}/artifacts/x": b"1"}
    fill(tmp_path / "new", own)
    download_from_s3(made.store, tmp_path / "new", repoint_artifacts=True, observe=quiet)
    assert (tmp_path / "new" / "mlruns" / "0" / run / "meta.yaml").read_bytes() == meta


def test_links_are_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tree where what is to be changed is a link to a file outside, or lies behind one."""
    monkeypatch.setenv("MLTRACK_CACHE_DIR", str(tmp_path / "cache"))
    run, other = "a" * 32, "b" * 32
    meta = "artifact_uri: /old/mlruns/0/{0}/artifacts\nexperiment_id: '0'\nrun_id: {0}\n"
    outside = fill(tmp_path / "outside", {"meta.yaml": meta.format(run).encode()})
    fill(outside, {f"{other}/meta.yaml": meta.format(other).encode()})
    with closing(sqlite3.connect(outside / "mlflow.db")) as database:
        database.execute("CREATE TABLE runs (run_uuid, experiment_id, artifact_uri)")
        row = (run, 0, f"/old/mlruns/0/{run}/artifacts")
        database.execute("INSERT INTO runs VALUES (?, ?, ?)", row)
        database.commit()
    new = fill(tmp_path / "new", {f"mlruns/0/{run}/artifacts/x": b"1", "mlruns/0/meta.yaml": b"a: 1\n"})
    (new / "mlruns" / "0" / run / "meta.yaml").symlink_to(outside / "meta.yaml")
    (new / "mlruns" / "0" / other).symlink_to(outside / other)
    (new / "mlflow.db").symlink_to(outside / "mlflow.db")
    before = kept(outside)
    paths = [f"mlruns/0/{run}/artifacts/x", f"mlruns/0/{run}/meta.yaml", "mlruns/0/meta.yaml", "mlflow.db"]
    with LocalTree(new) as tree:
        assert repoint_tree(tree, [*paths, f"mlruns/0/{other}/meta.yaml"]) == 0
    assert kept(outside) == before


@pytest.mark.parametrize("body", [b"", b"no database", b"SQLite format 3\x00" + bytes(4_000)])
def test_a_database_that_is_damaged_or_none_stays(
    body: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLTRACK_CACHE_DIR", str(tmp_path / "cache"))
    fill(tmp_path / "new", {"odd.db": body, f"1/{'a' * 32}/artifacts/x": b"1"})
    before = kept(tmp_path / "new")
    with LocalTree(tmp_path / "new") as tree:
        assert repoint_tree(tree, ["odd.db", f"1/{'a' * 32}/artifacts/x", "gone.db"]) == 0
    assert kept(tmp_path / "new") == before
    assert not list((tmp_path / "cache").iterdir())


def test_a_store_has_nothing_to_re_point(store: Store, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="layout"):
        download_from_s3(store, tmp_path / "new", layout="store", repoint_artifacts=True, observe=quiet)
    assert not os.path.lexists(tmp_path / "new")


def test_runs_that_were_not_migrated_are_as_before(store: Store, tmp_path: Path) -> None:
    store_run(store, run_id="own", storage_mode="flat", observe=quiet)
    download_from_s3(store, tmp_path / "one", observe=quiet)
    download_from_s3(store, tmp_path / "two", repoint_artifacts=True, observe=quiet)
    assert [item[0] for item in kept(tmp_path / "two")] == [item[0] for item in kept(tmp_path / "one")]
