"""Stores that MLflow itself made: what we read of them is what MLflow's client answers."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from mlflow import MlflowClient
from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    LoggedModelInput,
    LoggedModelOutput,
    Metric,
    ViewType,
)

from mltrack_tasks.mlflowdata.database import Database, backup
from mltrack_tasks.mlflowdata.facts import Experiment, LoggedModel, RegisteredModel, RunFacts
from mltrack_tasks.mlflowdata.filestore import (
    Datasets,
    read_experiment,
    read_logged_model,
    read_registered_models,
    read_run,
)
from mltrack_tasks.mlflowdata.treelayout import layout_of

pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy"),
    pytest.mark.filterwarnings("ignore:.*transition_model_version_stage:FutureWarning"),
]

NAN, INF = float("nan"), float("inf")
ODD_TEXTS = {
    "plain": "adam",
    "empty": "",
    "lines": "one\ntwo\r\nthree\n",
    "unicode": "größe 模型 🚀 \u2028 \x85",
    "yaml": "{a: [1, 2]} # no comment",
    "number": "0123",
    "word": "null",
    "nested/name/of param": "x" * 4_000,
}
RUN_NAMES = [
    "yes",
    "1e3",
    "0x1F",
    "2001-01-01",
    " a: b # c ",
    'it\'s "so"',
    "名前 " * 30,
    "- x",
    "*a",
    "!!set",
]
MEASURED = [(5, 1.0, 0), (5, NAN, 1), (4, INF, 1), (9, 2.5, 1), (9, 3.5, 1), (9, -1.5, 1), (2, 7.0, -3)]
TIES = [(5, 2.0, 0), (5, 1.0, 0), (7, NAN, 2), (7, 4.0, 2), (7, NAN, 2)]


class Made(NamedTuple):
    """A store that MLflow filled, and what we read of it."""

    client: MlflowClient
    runs: dict[str, RunFacts]
    experiments: dict[str, Experiment]
    logged_models: dict[str, LoggedModel]
    registered_models: dict[str, RegisteredModel]
    trashed: set[str]


def fill(client: MlflowClient) -> None:
    """Write something of each kind."""
    experiment = client.create_experiment("größe: [1]", tags={"team/lead": "a\nb"})
    _odd_run(client, experiment)
    for name in RUN_NAMES:
        client.create_run(experiment, run_name=name)
    client.set_terminated(client.create_run(experiment).info.run_id, "KILLED", end_time=1_700_000_000_001)
    client.delete_run(client.create_run(experiment, start_time=0).info.run_id)
    gone = client.create_experiment("gone", tags={"why": "test"})
    client.log_metric(client.create_run(gone).info.run_id, "m", 1.5, timestamp=3, step=4)
    client.delete_experiment(gone)


def _odd_run(client: MlflowClient, experiment: str) -> None:
    run = client.create_run(
        experiment, start_time=1_700_000_000_123, run_name="näme: #1", tags=ODD_TEXTS
    ).info.run_id
    for key, value in ODD_TEXTS.items():
        client.log_param(run, key, value)
    for key, points in (
        ("loss/val", MEASURED),
        ("ties", TIES),
        ("nan", [(5, NAN, 0)]),
        ("inf", [(5, -INF, 2**40)]),
    ):
        for timestamp, value, step in points:
            client.log_metric(run, key, value, timestamp, step)
    sets = [
        Dataset(name, f"d{name}", "local", '{"uri": "x"}', schema, profile)
        for name, schema, profile in _DATASETS
    ]
    contexts = [InputTag("mlflow.data.context", "training"), InputTag("o", "ü: 1")]
    client.log_inputs(run, [DatasetInput(sets[0], contexts), DatasetInput(sets[1], [])])
    of_data = {"dataset_name": "train", "dataset_digest": "dtrain", "run_id": run}
    client.log_batch(run, metrics=[Metric("auc", 0.5, 7, 3, **of_data), Metric("auc", 0.7, 6, 9, **of_data)])
    _models(client, experiment, run, of_data)
    client.set_terminated(run, "FAILED", end_time=1_700_000_009_999)


_DATASETS = [("train", '{"mlflow_colspec": [{"name": "ü"}]}' * 20, '{"rows": 3}'), ("test", None, None)]


def _models(client: MlflowClient, experiment: str, run: str, of_data: dict[str, str]) -> None:
    model = client.create_logged_model(
        experiment, name="clf", source_run_id=run, params={"k": "v"}, tags={"t": "ü"}, model_type="agent"
    ).model_id
    client.log_outputs(run, [LoggedModelOutput(model, step=4)])
    client.log_inputs(run, models=[LoggedModelInput(model)])
    for value, step in ((0.25, 2), (0.5, 3), (INF, 1)):
        client.log_batch(run, metrics=[Metric("acc", value, 8, step, model_id=model, **of_data)])
    client.log_metric(run, "f1", 0.75, timestamp=9, step=1, model_id=model)
    client.finalize_logged_model(model, "READY")
    client.delete_logged_model(client.create_logged_model(experiment, name="dropped").model_id)
    client.create_registered_model("churn", tags={"owner": "ü"}, description="line\nline")
    client.create_model_version("churn", f"models:/{model}", run_id=run, tags={"a": "1"}, description="first")
    for source in ("/somewhere/model", "/somewhere/else"):
        client.create_model_version("churn", source)
    client.delete_model_version("churn", "2")
    client.set_registered_model_alias("churn", "champion", "3")
    client.set_registered_model_alias("churn", "oldest", "1")
    client.transition_model_version_stage("churn", "1", "Staging")
    client.create_registered_model("empty")


@contextlib.contextmanager
def filled(folder: Path, uri: str) -> Iterator[MlflowClient]:
    """MLflow at work in a folder, where it also keeps what it was not told to keep elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        patch.setenv("MLFLOW_TRACKING_URI", uri)  # its registry asks a client of its own for logged models
        client = MlflowClient(uri, registry_uri=uri)
        fill(client)
        yield client


@pytest.fixture(scope="module")
def file_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    tree = tmp_path_factory.mktemp("files")
    with filled(tree, f"file://{tree}/mlruns") as client:
        yield read_tree(tree, client)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    folder = tmp_path_factory.mktemp("sqlite")
    with filled(folder, f"sqlite:///{folder}/mlflow.db") as client:
        backup(folder / "mlflow.db", folder / "copy.db")
        with Database(folder / "copy.db") as copy:
            assert copy.is_mlflow
            yield Made(
                client,
                {run.run_id: run for run in copy.runs()},
                {experiment.experiment_id: experiment for experiment in copy.experiments()},
                {model.model_id: model for model in copy.logged_models()},
                {model.name: model for model in copy.registered_models()},
                set(),
            )


def read_tree(tree: Path, client: MlflowClient) -> Made:
    found = (Path(folder, name) for folder, _, names in os.walk(tree) for name in names)
    paths = sorted((str(path.relative_to(tree)) for path in found), key=os.fsencode)
    (store,) = layout_of(paths).stores

    def files(folder: str) -> dict[str, bytes]:
        inside = (path for path in paths if path.startswith(f"{folder}/"))
        return {path.removeprefix(f"{folder}/"): (tree / path).read_bytes() for path in inside}

    experiments = {
        key: read_experiment(files(folder), what=folder, folder=folder)
        for key, folder in store.experiments.items()
    }
    runs = {}
    for folder, run_id in store.runs.items():
        above = folder.rpartition("/")[0]
        runs[run_id] = read_run(
            files(folder),
            what=folder,
            run_id=run_id,
            experiment=experiments[above.rpartition("/")[2]],
            datasets=Datasets(files(f"{above}/datasets"), what=above),
        )
    models = [read_logged_model(files(folder), what=folder) for folder in store.logged_models]
    registered = read_registered_models(files(str(store.models_folder)), what="registry")
    return Made(
        client,
        runs,
        experiments,
        {model.model_id: model for model in models},
        {model.name: model for model in registered},
        {store.runs[folder] for folder in store.trashed},
    )


@pytest.fixture(params=["file_store", "database"])
def made(request: pytest.FixtureRequest) -> Made:
    """Each store in turn."""
    made: Made = request.getfixturevalue(request.param)
    return made


def comparable(value: Any) -> Any:
    """A value that equals another one if both hold the same, NaN included."""
    return json.dumps(value, sort_keys=True, default=str)


def since_1970(ms: int | None) -> datetime | None:
    return None if ms is None else datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)


def answered(client: MlflowClient, run_id: str) -> dict[str, Any]:
    """A run as MLflow's client gives it, in our words."""
    run = client.get_run(run_id)
    info = run.info
    return {
        "run_id": info.run_id,
        "experiment_id": info.experiment_id,
        "experiment_name": client.get_experiment(info.experiment_id).name,
        "name": info.run_name,
        "user": info.user_id,
        "status": info.status.lower(),
        "lifecycle": info.lifecycle_stage,
        "started_at": since_1970(info.start_time),
        "ended_at": since_1970(info.end_time),
        "artifact_uri": info.artifact_uri,
        "params": run.data.params,
        "metrics": run.data.metrics,
        "history": {key: points_of(client, run_id, key) for key in run.data.metrics},
        "tags": run.data.tags,
        "datasets": by_text(
            {**dict(given.dataset), "tags": {tag.key: tag.value for tag in given.tags}}
            for given in run.inputs.dataset_inputs
        ),
        "models": by_text(
            [
                {"model_id": m.model_id, "direction": "output", "step": m.step}
                for m in run.outputs.model_outputs
            ]
            + [{"model_id": m.model_id, "direction": "input", "step": None} for m in run.inputs.model_inputs]
        ),
    }


def points_of(client: MlflowClient, run_id: str, key: str) -> list[list[Any]]:
    points = client.get_metric_history(run_id, key)
    return [
        [p.timestamp, p.value, p.step, *([p.dataset_name, p.dataset_digest] if p.dataset_name else [])]
        for p in points
    ]


def by_text(items: Any) -> list[Any]:
    """In an order that does not depend on who lists them."""
    return sorted(items, key=comparable)


def read(facts: RunFacts) -> dict[str, Any]:
    return {
        **asdict(facts),
        "datasets": by_text(facts.datasets),
        "models": by_text(facts.models),
    }


def test_every_run_is_found(made: Made) -> None:
    listed = [
        run.info.run_id
        for experiment in made.client.search_experiments(view_type=ViewType.ALL)
        for run in made.client.search_runs([experiment.experiment_id], run_view_type=ViewType.ALL)
    ]
    assert sorted(made.runs) == sorted(listed)
    assert len(listed) == len(RUN_NAMES) + 4
    assert {run.name for run in made.runs.values()} >= set(RUN_NAMES)


def test_runs_of_the_file_store_are_what_the_client_answers(file_store: Made) -> None:
    for run_id, facts in file_store.runs.items():
        expected = answered(file_store.client, run_id)
        # MLflow's file store writes the step of a point with a dataset, and reads it as 0.
        known = {key: [_as_mlflow_reads(p) for p in points] for key, points in facts.history.items()}
        assert comparable(read(replace(facts, history=known))) == comparable(expected)


def _as_mlflow_reads(point: list[Any]) -> list[Any]:
    return [*point[:2], 0, *point[3:]] if len(point) == 5 else point


def test_runs_of_the_database_are_what_the_client_answers(database: Made) -> None:
    for run_id, facts in database.runs.items():
        assert comparable(read(facts)) == comparable(answered(database.client, run_id))


def test_steps_of_points_with_a_dataset_are_kept(file_store: Made) -> None:
    (facts,) = (run for run in file_store.runs.values() if "auc" in run.history)
    assert facts.history["auc"] == [[7, 0.5, 3, "train", "dtrain"], [6, 0.7, 9, "train", "dtrain"]]


def test_names_times_and_texts_are_exact(made: Made) -> None:
    (facts,) = (run for run in made.runs.values() if run.name == "näme: #1")
    assert facts.params == ODD_TEXTS
    assert {key: facts.tags[key] for key in ODD_TEXTS} == ODD_TEXTS
    assert facts.started_at == datetime(2023, 11, 14, 22, 13, 20, 123_000, tzinfo=UTC)
    assert facts.ended_at == datetime(2023, 11, 14, 22, 13, 29, 999_000, tzinfo=UTC)
    assert facts.status == "failed"
    assert math.isnan(facts.metrics["nan"])
    assert facts.history["inf"][0][2] == 2**40
    assert len(facts.history["loss/val"]) == len(MEASURED)
    assert {dataset["name"] for dataset in facts.datasets} == {"train", "test"}
    assert {model["direction"] for model in facts.models} == {"input", "output"}


def test_experiments(made: Made) -> None:
    listed = made.client.search_experiments(view_type=ViewType.ALL)
    assert {key: (e.name, e.lifecycle, e.tags) for key, e in made.experiments.items()} == {
        e.experiment_id: (e.name, e.lifecycle_stage, e.tags) for e in listed
    }
    assert {e.lifecycle for e in made.experiments.values()} == {"active", "deleted"}


def test_what_was_deleted_is_told(file_store: Made) -> None:
    gone = next(e for e in file_store.experiments.values() if e.name == "gone")
    assert gone.folder == f"mlruns/.trash/{gone.experiment_id}"
    trashed = {run.run_id for run in file_store.runs.values() if run.experiment_id == gone.experiment_id}
    assert file_store.trashed == trashed
    assert {run.lifecycle for run in file_store.runs.values()} == {"active", "deleted"}


def test_logged_models(made: Made) -> None:
    listed = made.client.search_logged_models(
        [e for e in made.experiments if made.experiments[e].lifecycle == "active"]
    )
    live = {key: model for key, model in made.logged_models.items() if model.lifecycle == "active"}
    assert sorted(live) == sorted(model.model_id for model in listed)
    for expected in listed:
        ours = live[expected.model_id]
        assert (ours.name, ours.experiment_id, ours.type) == (
            "clf",
            expected.experiment_id,
            expected.model_type,
        )
        assert (ours.source_run_id, ours.status) == (expected.source_run_id, expected.status.value.lower())
        assert (ours.params, ours.tags) == (expected.params, expected.tags)
        assert ours.created_at == since_1970(expected.creation_timestamp)
        assert ours.artifact_uri == expected.artifact_location
        points = [
            [p.key, p.timestamp, p.value, p.step, p.run_id, p.dataset_name, p.dataset_digest]
            for p in expected.metrics
        ]
        assert by_text(_last_of_each(ours.metrics, made.client)) == by_text(points)
        assert len(ours.metrics) == 4
    assert [model.name for model in made.logged_models.values() if model.lifecycle == "deleted"] == [
        "dropped"
    ]


def _last_of_each(points: list[list[Any]], client: MlflowClient) -> list[list[Any]]:
    """A file store answers the last point of each metric and dataset, a database all."""
    if client.tracking_uri.startswith("sqlite"):
        return points
    last: dict[Any, list[Any]] = {}
    rank: Callable[[list[Any]], Any] = lambda point: (point[3], point[1], point[2])  # noqa: E731
    for point in sorted(points, key=rank):
        last[(point[0], *point[5:])] = point
    return list(last.values())


def test_registered_models(made: Made) -> None:
    listed = {model.name: model for model in made.client.search_registered_models()}
    assert sorted(made.registered_models) == sorted(listed) == ["churn", "empty"]
    for name, expected in listed.items():
        ours = made.registered_models[name]
        assert (ours.description, ours.tags) == (expected.description, expected.tags)
        aliases: Mapping[str, Any] = made.client.get_registered_model(name).aliases
        assert ours.aliases == {alias: int(version) for alias, version in aliases.items()}
        versions = sorted(made.client.search_model_versions(f"name='{name}'"), key=lambda v: int(v.version))
        assert [(v.version, v.run_id, v.source, v.description, v.tags) for v in ours.versions] == [
            (int(v.version), v.run_id or None, v.source, v.description, v.tags) for v in versions
        ]
        assert [(v.status.upper(), v.stage or "None") for v in ours.versions] == [
            (v.status, v.current_stage) for v in versions
        ]
        assert [v.created_at for v in ours.versions] == [since_1970(v.creation_timestamp) for v in versions]
    churn = made.registered_models["churn"]
    assert [version.version for version in churn.versions] == [1, 3]
    assert churn.aliases == {"champion": 3, "oldest": 1}
    assert churn.versions[0].model_id in made.logged_models
