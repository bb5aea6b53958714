"""MLflow's words and numbers for states, which its file store and its database share."""

from __future__ import annotations

import re

from mltrack_tasks.mlflowdata import scalars

RUN_NAME = "mlflow.runName"
"""Tag that holds a run's name where the field is empty, as older MLflow left it."""

RUN_STATUSES = {1: "running", 2: "scheduled", 3: "finished", 4: "failed", 5: "killed"}
MODEL_STATUSES = {0: "unspecified", 1: "pending", 2: "ready", 3: "failed"}
VERSION_STATUSES = ("pending_registration", "failed_registration", "ready")
STAGE_NONE = "None"
STAGE_DELETED = "Deleted_Internal"
_MODEL_SOURCE = re.compile(r"models:/(m-[0-9a-f]{32})")


def version_status(value: object, what: str) -> str:
    """State of a registered version, in lower case; ready where it was not written."""
    if value is None:
        return "ready"
    return scalars.choice(scalars.text(value, f"{what}: status").lower(), VERSION_STATUSES, f"{what}: status")


def stage_of(stage: str | None) -> str | None:
    """Stage of a registered version; None where MLflow writes the word."""
    return None if stage == STAGE_NONE else stage or None


def model_of_source(source: str | None) -> str | None:
    """Id of the logged model that a version was made of, where its source says it."""
    match = _MODEL_SOURCE.fullmatch(source or "")
    return match[1] if match else None
