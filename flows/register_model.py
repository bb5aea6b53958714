"""Register a model by hand or from the UI."""

from __future__ import annotations

from typing import Any

from prefect import flow

from mltrack_tasks import ModelVersion, tasks


@flow(name="mltrack-register-model")
def register_model(
    model_name: str,
    run_id: str | None = None,
    model_path: str = "model",
    description: str | None = None,
    tags: dict[str, Any] | None = None,
    metrics: dict[str, float] | None = None,
    materialize: bool | None = None,
    tracking_uri: str | None = None,
    store: str | None = None,
) -> ModelVersion:
    """Register the files of a model as a version; the same files again are the same version.

    Args:
        model_name: Name of the model.
        run_id: The run that made it, of this store or of MLflow.
        model_path: Artifact path or output of the run, or a path of the worker's machine (`./...` or `/...`).
        description: What the version is.
        tags: Tags of the version, beside those of the run.
        metrics: Metrics of the version, beside those of the run.
        materialize: Make real files under their own names; by default up to 1 GiB.
        tracking_uri: Address of MLflow's tracking server or folder.
        store: A block's name, `s3://bucket/prefix`, or a directory.
    """
    return tasks.register_model(
        run_id,
        model_name,
        model_path,
        description=description,
        tags=tags,
        metrics=metrics,
        materialize=materialize,
        tracking_uri=tracking_uri,
        store=store,
    )
