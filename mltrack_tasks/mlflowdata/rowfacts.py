"""Rows of MLflow's tables -> facts.

What begins with ``gather_`` puts the rows of several tables together, the others read what it gives.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mltrack_tasks.layout import STATUSES
from mltrack_tasks.mlflowdata import scalars
from mltrack_tasks.mlflowdata.facts import (
    ACTIVE,
    DELETED,
    Experiment,
    LoggedModel,
    RunFacts,
)
from mltrack_tasks.mlflowdata.rows import Grouped, Row, Tables, pairs
from mltrack_tasks.mlflowdata.textfiles import answer
from mltrack_tasks.mlflowdata.words import MODEL_STATUSES, RUN_NAME

EXPERIMENT = ("experiment_id", "name", "lifecycle_stage")
_RUN = (
    *("run_uuid", "experiment_id", "name", "user_id", "status", "lifecycle_stage"),
    *("start_time", "end_time", "artifact_uri"),
)
_MODEL = (
    *("model_id", "name", "experiment_id", "source_run_id", "status", "model_type"),
    *("creation_timestamp_ms", "lifecycle_stage", "artifact_location"),
)
_MODEL_METRIC = (
    *("model_id", "metric_name", "metric_timestamp_ms", "metric_value", "metric_step", "run_id"),
    *("dataset_name", "dataset_digest"),
)
_DATASET = ("name", "digest", "dataset_source_type", "dataset_source", "dataset_schema", "dataset_profile")
_LINK = ("source_id", "source_type", "destination_type", "destination_id", "step")
_MODEL_LINKS = "destination_type IN ('MODEL_OUTPUT', 'MODEL_INPUT')"


def experiment(row: Row, tags: Sequence[Row]) -> Experiment:
    """Read an experiment."""
    key, name, lifecycle = row
    what = f"The experiment {key!r}"
    return Experiment(
        experiment_id=scalars.identifier(key, f"{what}: id"),
        name=scalars.text(name, f"{what}: name"),
        lifecycle=_lifecycle(lifecycle, what),
        folder=None,
        tags=pairs(tags, f"{what}: tags"),
    )


def gather_runs(tables: Tables, experiment_names: Mapping[Any, Any]) -> Iterator[tuple[Row, ...]]:
    """Put together what ``run`` reads, run by run in the order of ids."""
    params = Grouped(tables.rows("params", ("run_uuid", "key", "value")), "params")
    tags = Grouped(tables.rows("tags", ("run_uuid", "key", "value")), "tags")
    points = ("run_uuid", "key", "timestamp", "value", "step", "is_nan")
    # The order of get_metric_history; NaN is kept as 0 and goes after it, so that the order is settled.
    order = ("timestamp", "step", "value", "is_nan")
    history = Grouped(tables.rows("metrics", points, order=order), "metrics")
    latest = Grouped(tables.rows("latest_metrics", points), "latest_metrics")
    columns = ("destination_id", "source_id", "input_uuid")
    found = tables.rows("inputs", columns, order=columns[1:], where="destination_type = 'RUN'")
    inputs = Grouped(found, "inputs")
    links = tables.rows("inputs", _LINK, order=_LINK[1:], where=_MODEL_LINKS)
    models = Grouped(links, "inputs")
    for row in tables.rows("runs", _RUN):
        key = row[0]
        datasets = tuple(_gather_datasets(tables, inputs.take(key)))
        texts = (tuple(params.take(key)), tuple(tags.take(key)))
        metrics = (tuple(history.take(key)), tuple(latest.take(key)))
        yield row, (experiment_names.get(row[1]),), *texts, *metrics, datasets, tuple(models.take(key))


def run(
    row: Row,
    experiment_name: Row,
    params: Sequence[Row],
    tags: Sequence[Row],
    history: Sequence[Row],
    latest: Sequence[Row],
    datasets: Sequence[tuple[Row, Sequence[Row]]],
    models: Sequence[Row],
) -> RunFacts:
    """Read a run."""
    key, experiment_id, name, user, status, lifecycle, started_at, ended_at, artifact_uri = row
    what = f"The run {key!r}"
    named = pairs(tags, f"{what}: tags")
    points = _points(history, f"{what}: metrics")
    return RunFacts(
        run_id=scalars.identifier(key, f"{what}: id"),
        experiment_id=scalars.identifier(experiment_id, f"{what}: experiment_id"),
        experiment_name=scalars.optional_text(experiment_name[0], f"{what}: experiment"),
        name=scalars.optional_text(name, f"{what}: name") or named.get(RUN_NAME) or None,
        user=scalars.optional_text(user, f"{what}: user_id") or None,
        status=scalars.choice(scalars.text(status, f"{what}: status").lower(), STATUSES, f"{what}: status"),
        lifecycle=_lifecycle(lifecycle, what),
        started_at=scalars.moment(started_at, f"{what}: start_time"),
        ended_at=scalars.moment(ended_at, f"{what}: end_time"),
        artifact_uri=scalars.optional_text(artifact_uri, f"{what}: artifact_uri") or None,
        params=pairs(params, f"{what}: params"),
        metrics=_answers(points, _points(latest, f"{what}: latest_metrics")),
        history=points,
        tags=named,
        datasets=[_dataset(fields, found, f"{what}: datasets") for fields, found in datasets],
        models=[_model_link(link, f"{what}: models") for link in models if _is_link(link)],
    )


def gather_logged_models(tables: Tables) -> Iterator[tuple[Row, ...]]:
    """Put together what ``logged_model`` reads, model by model in the order of ids."""
    columns = ("model_id", "param_key", "param_value")
    params = Grouped(tables.rows("logged_model_params", columns), "logged_model_params")
    columns = ("model_id", "tag_key", "tag_value")
    tags = Grouped(tables.rows("logged_model_tags", columns), "logged_model_tags")
    order = ("metric_name", "metric_timestamp_ms", "metric_step")
    metrics = Grouped(tables.rows("logged_model_metrics", _MODEL_METRIC, order=order), "logged_model_metrics")
    for row in tables.rows("logged_models", _MODEL):
        key = row[0]
        yield row, tuple(params.take(key)), tuple(tags.take(key)), tuple(metrics.take(key))


def logged_model(row: Row, params: Sequence[Row], tags: Sequence[Row], metrics: Sequence[Row]) -> LoggedModel:
    """Read a logged model."""
    key, name, experiment_id, run_id, status, type, created_at, lifecycle, artifact_uri = row
    what = f"The logged model {key!r}"
    if not isinstance(status, int) or status not in MODEL_STATUSES:
        raise scalars.refuse(status, f"{what}: status", f"a number of {sorted(MODEL_STATUSES)}")
    return LoggedModel(
        model_id=scalars.identifier(key, f"{what}: id"),
        name=scalars.optional_text(name, f"{what}: name") or None,
        experiment_id=scalars.identifier(experiment_id, f"{what}: experiment_id"),
        source_run_id=scalars.optional_identifier(run_id, f"{what}: source_run_id"),
        status=MODEL_STATUSES[status],
        type=scalars.optional_text(type, f"{what}: model_type") or None,
        params=pairs(params, f"{what}: params"),
        tags=pairs(tags, f"{what}: tags"),
        metrics=[_model_point(point, f"{what}: metrics") for point in metrics],
        folder=None,
        created_at=scalars.moment(created_at, f"{what}: creation_timestamp_ms"),
        lifecycle=_lifecycle(lifecycle, what),
        artifact_uri=scalars.optional_text(artifact_uri, f"{what}: artifact_location") or None,
    )


def _lifecycle(value: object, what: str) -> str:
    return scalars.choice(value or ACTIVE, (ACTIVE, DELETED), f"{what}: lifecycle_stage")


def _points(rows: Sequence[Row], what: str) -> dict[str, list[list[Any]]]:
    points: dict[str, list[list[Any]]] = {}
    for key, timestamp, value, step, is_nan in rows:
        number = float("nan") if is_nan else scalars.real(value, what)
        point = [scalars.whole(timestamp, what), number, scalars.whole(step or 0, what)]
        points.setdefault(scalars.text(key, what), []).append(point)
    return points


def _answers(history: Mapping[str, list[list[Any]]], kept: Mapping[str, list[list[Any]]]) -> dict[str, float]:
    """Choose each metric's value: the one that MLflow keeps apart, or, where it does not, of the history."""
    return {key: answer(points) for key, points in {**history, **kept}.items()}


def _gather_datasets(tables: Tables, inputs: Sequence[Row]) -> Iterator[tuple[Row, list[Row]]]:
    for dataset_id, input_id in inputs:
        tags = tables.find("input_tags", ("name", "value"), "input_uuid", input_id)
        for row in tables.find("datasets", _DATASET, "dataset_uuid", dataset_id)[:1]:
            yield row, tags


def _dataset(row: Row, tags: Sequence[Row], what: str) -> dict[str, Any]:
    name, digest, source_type, source, schema, profile = row
    return {
        "name": scalars.text(name, what),
        "digest": scalars.text(digest, what),
        "source_type": scalars.text(source_type, what),
        "source": scalars.text(source, what),
        "schema": scalars.optional_text(schema, what),
        "profile": scalars.optional_text(profile, what),
        "tags": pairs(tags, f"{what}: tags"),
    }


def _is_link(row: Row) -> bool:
    return row[:2] in (("RUN_OUTPUT", "MODEL_OUTPUT"), ("RUN_INPUT", "MODEL_INPUT"))


def _model_link(row: Row, what: str) -> dict[str, Any]:
    source_type, _, model_id, step = row
    given = source_type == "RUN_OUTPUT"
    return {
        "model_id": scalars.identifier(model_id, what),
        "direction": "output" if given else "input",
        "step": scalars.whole(step or 0, what) if given else None,
    }


def _model_point(row: Row, what: str) -> list[Any]:
    metric, timestamp, value, step, run_id, dataset_name, dataset_digest = row
    return [
        scalars.text(metric, what),
        scalars.whole(timestamp, what),
        scalars.real(value, what),
        scalars.whole(step, what),
        scalars.text(run_id, what),
        scalars.optional_text(dataset_name, what),
        scalars.optional_text(dataset_digest, what),
    ]
