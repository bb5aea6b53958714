"""What is registered when a run is named: never a local folder that happens to have the right name."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow import MlflowClient

from mltrack_tasks import registry
from mltrack_tasks.content import store_data
from mltrack_tasks.errors import InvalidInputError, NotFoundError
from mltrack_tasks.registry import tracking
from mltrack_tasks.runs import store_run
from mltrack_tasks.stores.base import Store


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a folder ``model``, and no MLflow."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_bytes(b"of this folder")
    return tmp_path


@pytest.fixture
def tracked(here: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A run in the ``mlruns`` of the working directory."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    client = MlflowClient(f"file://{here}/mlruns")
    run = client.create_run(client.create_experiment("e", artifact_location=str(here / "artifacts")))
    client.log_param(run.info.run_id, "depth", 3)
    client.log_metric(run.info.run_id, "auc", 0.75)
    client.set_tag(run.info.run_id, "team", "x")
    return str(run.info.run_id)


def test_a_mistyped_run_id_registers_no_local_folder(store: Store) -> None:
    with pytest.raises(NotFoundError, match=r"no run 'typo' in memory.*MLflow was not asked.*'\./model'"):
        registry.register_model(store, "typo", "m")
    assert not list(store.list(""))


def test_a_path_in_the_place_of_the_run_is_told_where_it_belongs(store: Store, here: Path) -> None:
    (here / "other").mkdir()
    with pytest.raises(NotFoundError, match="give None as the run, and 'other' as model_path"):
        registry.register_model(store, "other", "m", "best")


@pytest.mark.parametrize("path", ["./model", "~/model", Path("model"), Path("model").absolute()])
def test_nor_one_that_is_named_as_such(
    store: Store, path: str | Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record would name a run that nobody finds, for ever."""
    monkeypatch.setenv("HOME", str(here))
    with pytest.raises(NotFoundError, match=r"no run 'typo' in memory.*MLflow was not asked"):
        registry.register_model(store, "typo", "m", path)
    assert not list(store.list(""))


def test_nor_refs(store: Store) -> None:
    ref = store_data(store, b"w", "weights")
    for given in (ref, str(ref), {"w": ref}):
        with pytest.raises(NotFoundError, match="no run 'typo'"):
            registry.register_model(store, "typo", "m", given)


def test_both_places_are_named(store: Store, tracked: str) -> None:
    for path in ("model", "./model"):
        with pytest.raises(NotFoundError, match=r"no run 'typo' in memory.*no run 'typo' in .*mlruns"):
            registry.register_model(store, "typo", "m", path)


def test_a_known_run_and_a_path_that_can_only_be_local(store: Store, tracked: str) -> None:
    store_run(store, "r", project="p", metrics={"auc": 0.5})
    for path in ("./model", Path("model")):
        made = registry.register_model(store, "r", "m", path)
        assert (made.source_runs, made.metrics) == (("r",), {"auc": 0.5})
    made = registry.register_model(store, tracked, "n", Path("model"))
    assert (made.params, made.metrics, made.tags) == ({"depth": "3"}, {"auc": 0.75}, {"team": "x"})
    assert made.source_runs == (tracked,)


def test_a_known_run_without_that_model_is_no_local_folder(store: Store, tracked: str) -> None:
    run = store_run(store, "r", project="p")
    for given in ("r", run, tracked):
        with pytest.raises(NotFoundError, match=r"No model 'model' was found.*'\./model'"):
            registry.register_model(store, given, "m", "model")
    assert registry.list_models(store) == []


def test_without_a_run_a_plain_name_is_a_local_path(store: Store) -> None:
    made = registry.register_model(store, None, "m", "model")
    assert [file.path for file in made.files] == ["weights"]
    for absent in ("nothing", "model/weights/below", "./nothing", Path("nothing")):
        with pytest.raises(NotFoundError, match="on this machine"):
            registry.register_model(store, None, "m", absent)


def test_a_run_that_only_the_missing_client_could_know(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "is_installed", lambda: False)
    for path in ("model", "./model"):
        with pytest.raises(NotFoundError, match=r"no run 'r' in memory.*mltrack_tasks\[mlflow\]"):
            registry.register_model(store, "r", "m", path, tracking_uri="http://127.0.0.1:9")


@pytest.mark.parametrize("path", ["", None, 3, b"model", {}])
def test_what_is_no_path(store: Store, path: object) -> None:
    with pytest.raises(InvalidInputError, match="model_path"):
        registry.register_model(store, None, "m", path)  # type: ignore[arg-type]
