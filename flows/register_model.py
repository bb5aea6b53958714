"""Register a model by hand or from the UI."""

from typing import Any

from prefect import flow

from mltrack_tasks import ModelVersion, tasks
from mltrack_tasks.forms import OptionalText, StoreChoice, completed


@flow(name="mltrack-register-model", flow_run_name="register {model_name}")
def register_model(
    run_id: OptionalText,
    model_name: str,
    model_path: str = "model",
    description: OptionalText = None,
    tags: dict[str, Any] | None = None,
    metadata: dict[str, Any] | None = None,
    metrics: dict[str, float] | None = None,
    params: dict[str, Any] | None = None,
    training_data: dict[str, str] | None = None,
    materialize: bool | None = None,
    tracking_uri: OptionalText = None,
    store: StoreChoice = None,
) -> ModelVersion:
    """Register the files of a model as a version; the same files again are the same version.

    Args:
        run_id: The run that made it, of this store or of MLflow; none for files of the worker's machine.
        model_name: Name of the model.
        model_path: Artifact path or output of the run, or a path of the worker's machine (`./...` or `/...`).
        description: What the version is.
        tags: Tags of the version, beside those of the run.
        metadata: Whatever else is to be kept with the version.
        metrics: Metrics of the version, beside those of the run.
        params: Params of the version, beside those of the run.
        training_data: What it was trained on: names with refs (`sha256:....parquet`).
        materialize: Make real files under their own names; by default up to 1 GiB.
        tracking_uri: Address of MLflow's tracking server or folder.
        store: A saved block, or as text a block's name, `s3://bucket/prefix`, or a directory.
    """
    done = tasks.register_model(
        run_id,
        model_name,
        model_path,
        description=description,
        tags=tags,
        metadata=metadata,
        metrics=metrics,
        params=params,
        training_data=training_data,
        materialize=materialize,
        tracking_uri=tracking_uri,
        store=store,
    )
    return completed(done, f"{model_name} {done.version} was {'created' if done.created else 'present'}")
