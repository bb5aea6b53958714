"""What MLflow says about a run, a model or an experiment, whichever way it kept it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

ACTIVE, DELETED = "active", "deleted"
"""MLflow's life-cycle stages."""


@dataclass(frozen=True)
class RunFacts:
    """A run. Times are UTC, exact to the millisecond."""

    run_id: str
    experiment_id: str
    experiment_name: str | None
    name: str | None
    user: str | None
    status: str
    """One of ``layout.STATUSES``."""
    lifecycle: str
    """``active`` or ``deleted``."""
    started_at: datetime | None
    ended_at: datetime | None
    artifact_uri: str | None
    params: dict[str, str]
    metrics: dict[str, float]
    """The one value of each metric that MLflow's client answers."""
    history: dict[str, list[list[Any]]]
    """Points ``[timestamp_ms, value, step]``, or with two more: name and digest of the dataset.

    In the order of MLflow's ``get_metric_history``: as logged in a file store, by timestamp, step and value
    in a database. The step is the one that was logged, also where MLflow's file store answers 0 (points with
    a dataset).
    """
    tags: dict[str, str]
    datasets: list[dict[str, Any]] = field(default_factory=list)
    """Inputs: ``name digest source_type source schema profile`` and ``tags``, a mapping."""
    models: list[dict[str, Any]] = field(default_factory=list)
    """Logged models: ``model_id``, ``direction`` (``output`` or ``input``), ``step`` (None of an input)."""


@dataclass(frozen=True)
class LoggedModel:
    """A model that a run logged; MLflow 3 keeps it beside the runs."""

    model_id: str
    name: str | None
    experiment_id: str
    source_run_id: str | None
    status: str
    """``unspecified``, ``pending``, ``ready`` or ``failed``."""
    type: str | None
    params: dict[str, str]
    tags: dict[str, str]
    metrics: list[list[Any]]
    """Points ``[metric, timestamp_ms, value, step, run_id, dataset_name, dataset_digest]``, the last two None
    where there is no dataset."""
    folder: str | None
    """Of its artifacts, relative to the tree; None if they are elsewhere, or nobody knows."""
    created_at: datetime | None
    lifecycle: str = ACTIVE
    artifact_uri: str | None = None


@dataclass(frozen=True)
class RegisteredVersion:
    """One version of a registered model."""

    version: int
    run_id: str | None
    source: str | None
    storage_location: str | None
    """Where MLflow found the files when it was registered; older MLflow does not say it."""
    model_id: str | None
    status: str
    """``pending_registration``, ``failed_registration`` or ``ready``."""
    stage: str | None
    """``Staging``, ``Production``, ``Archived`` or None."""
    description: str | None
    tags: dict[str, str]
    created_at: datetime | None


@dataclass(frozen=True)
class RegisteredModel:
    """A registered model with the versions that were not deleted, oldest first."""

    name: str
    description: str | None
    tags: dict[str, str]
    aliases: dict[str, int]
    versions: tuple[RegisteredVersion, ...]
    damaged: dict[int, str] = field(default_factory=dict)
    """Number of a version that cannot be read -> why not."""
    updated_at: datetime | None = None
    """When MLflow last changed it or one of its versions, as far as it says so."""


@dataclass(frozen=True)
class Experiment:
    """An experiment."""

    experiment_id: str
    name: str
    lifecycle: str
    folder: str | None
    """Relative to the tree; None if it is in a database."""
    tags: dict[str, str]
