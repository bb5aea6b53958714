"""Tasks for the model registry: registered, promoted, rolled back, downloaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from mltrack_tasks import calls, registry
from mltrack_tasks.assets import made, used
from mltrack_tasks.blocks import MLTrackStore
from mltrack_tasks.errors import GateError
from mltrack_tasks.modelkeys import check_alias, version_key
from mltrack_tasks.models import ModelVersion
from mltrack_tasks.promoted import show_promotion, show_refusal
from mltrack_tasks.promotions import Promotion
from mltrack_tasks.records import RunManifest
from mltrack_tasks.refs import DataRef
from mltrack_tasks.registry import ModelSummary
from mltrack_tasks.registry.asking import check_gates
from mltrack_tasks.registry.gates import Gate as Gate  # flows stand on this floor alone
from mltrack_tasks.resolve import open_store
from mltrack_tasks.tasking import mltrack_task, recorded, report
from mltrack_tasks.transactions import moving


@mltrack_task
def register_model(
    run_id: str | RunManifest | None,
    model_name: str,
    model_path: str | Path | DataRef | Mapping[str, Any] = "model",
    *,
    description: str | None = None,
    tags: Mapping[str, Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
    params: Mapping[str, Any] | None = None,
    training_data: Mapping[str, DataRef | str] | None = None,
    materialize: bool | None = None,
    tracking_uri: str | None = None,
    store: MLTrackStore | str | None = None,
) -> ModelVersion:
    """Register a local folder, an artifact of an MLflow run, or refs as a version -> ``.s3_location``.

    The same bytes are the same version (``created=False``). Raises NotFoundError if there is no such model,
    InvalidInputError for symbolic links and bad names.
    """
    opened = open_store(store)
    with recorded():
        version = registry.register_model(
            opened,
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
            observe=report,
        )
    for ref in version.training_data.values():
        used(opened, ref.storage_path, name=ref.name)
    key = version_key(version.model, version.version)
    return made(opened, key, version, name=f"{version.model} {version.version}")


@mltrack_task
def promote_model(
    model_name: str,
    version: str,
    alias: str = "production",
    *,
    gates: Sequence[Any] = (),
    reason: str | None = None,
    approval: Mapping[str, Any] | None = None,
    request_id: str | None = None,
    store: MLTrackStore | str | None = None,
) -> Promotion:
    """Move an alias to a version whose gates pass, with its files in place -> the promotion.

    A retry of the task or its flow appends nothing twice; other calls, and equal ones in a flow, are others
    (docs/registry.md). Raises GateError if a gate refuses; the alias is as it was then. In a flow, both
    versions are shown side by side as an artifact, or what the gates said.
    """
    return _move(
        registry.promote_model,
        *(store, model_name, alias, request_id, {"version": version}),
        gates=gates,
        reason=reason,
        approval=approval,
    )


@mltrack_task
def rollback_model(
    model_name: str,
    alias: str = "production",
    *,
    to: str | None = None,
    reason: str | None = None,
    if_current: int | None = None,
    request_id: str | None = None,
    store: MLTrackStore | str | None = None,
) -> Promotion:
    """Move an alias back to the version before, or to one that it stood for -> the new promotion.

    Retries go back once, as those of ``promote_model``; two calls in a flow go back twice. Raises
    NotFoundError if it stood for none before, ConflictError if the promotion of the number ``if_current``
    is not in force.
    """
    asked = {"to": to, "if_current": if_current}
    return _move(registry.rollback_model, store, model_name, alias, request_id, asked, reason=reason)


@mltrack_task
def remove_alias(
    model_name: str,
    alias: str,
    *,
    reason: str | None = None,
    if_current: int | None = None,
    request_id: str | None = None,
    store: MLTrackStore | str | None = None,
) -> Promotion:
    """Let an alias stand for nothing -> the event; its history stays.

    Raises NotFoundError if it is not in use.
    """
    asked = {"if_current": if_current}
    return _move(registry.remove_alias, store, model_name, alias, request_id, asked, reason=reason)


@mltrack_task
def resolve_model(
    model_name: str, version_or_alias: str = "production", *, store: MLTrackStore | str | None = None
) -> ModelVersion:
    """Read what a version id, an alias or ``latest`` stands for -> the version, with ``.s3_location``."""
    return registry.resolve_model(open_store(store), model_name, version_or_alias)


@mltrack_task
def list_models(*, store: MLTrackStore | str | None = None) -> list[ModelSummary]:
    """List all models with their versions and aliases, by name; ``damaged`` names aliases not to be read."""
    return registry.list_models(open_store(store))


@mltrack_task
def model_history(
    model_name: str, alias: str = "production", *, store: MLTrackStore | str | None = None
) -> list[Promotion]:
    """Read all promotions of an alias, oldest first. Raises NotFoundError if there never were any."""
    return registry.model_history(open_store(store), model_name, alias)


@mltrack_task
def model_at(
    model_name: str, alias: str, time: datetime, *, store: MLTrackStore | str | None = None
) -> ModelVersion:
    """Read the version that an alias stood for at a time. Raises NotFoundError if it stood for none."""
    return registry.model_at(open_store(store), model_name, alias, time)


@mltrack_task
def deprecate_version(
    model_name: str, version: str, *, reason: str | None = None, store: MLTrackStore | str | None = None
) -> ModelVersion:
    """Take a version out of use -> the version. Raises ConflictError while an alias stands for it."""
    with recorded():
        return registry.deprecate_version(
            open_store(store), model_name, version, reason=reason, observe=report
        )


@mltrack_task
def set_policy(
    model_name: str, alias: str, gates: Sequence[Any], *, store: MLTrackStore | str | None = None
) -> list[Any]:
    """Say which gates guard ``staging`` or ``production`` of a model from now on -> the gates."""
    with recorded():
        return registry.set_policy(open_store(store), model_name, alias, gates, observe=report)


@mltrack_task
def download_model(
    model_name: str, version_or_alias: str, path: str | Path, *, store: MLTrackStore | str | None = None
) -> Path:
    """Write a version's files into a folder of the worker's machine -> the absolute path.

    Verified, and whole or not at all. A folder with exactly these files is left alone; anything else there
    is a ConflictError.
    """
    return registry.download_model(open_store(store), model_name, version_or_alias, path)[1]


@mltrack_task
def load_model(
    model_name: str,
    version_or_alias: str = "production",
    *,
    trusted_digest: str | None = None,
    flavor: str | None = None,
    store: MLTrackStore | str | None = None,
) -> Any:
    """Load a version into the worker's memory -> what its author saved; MLflow models through MLflow.

    What could run its author's code, as pickles do, is an InvalidInputError, unless ``trusted_digest`` is the
    version's ``tree_digest``. The result is not persisted: a model is loaded where it is used.
    """
    return registry.load_model(
        open_store(store), model_name, version_or_alias, trusted_digest=trusted_digest, flavor=flavor
    )


@mltrack_task
def copy_model(
    model_name: str,
    version: str,
    target_store: MLTrackStore | str,
    *,
    store: MLTrackStore | str | None = None,
) -> ModelVersion:
    """Copy a version into another store, by digest and under the same id -> the version there."""
    with recorded():
        return registry.copy_model(
            open_store(store), model_name, version, open_store(target_store), observe=report
        )


def check_promotion(alias: str, gates: Sequence[Any]) -> None:
    """Raise InvalidInputError for an alias or gates that no promotion could have; nothing is asked."""
    check_alias(alias)
    check_gates(gates)


def _move(
    operation: Callable[..., Promotion],
    where: MLTrackStore | str | None,
    model_name: str,
    alias: str,
    request_id: str | None,
    asked: Mapping[str, Any],
    **options: Any,
) -> Promotion:
    """Move an alias by an operation of the registry; ``asked`` tells this call from another one."""
    store = open_store(where)
    if not request_id:
        request_id = calls.request_id(store, operation.__name__, model_name, alias, *asked.values())
    named = {"model_name": model_name, "alias": alias, "request_id": request_id}
    try:
        with recorded(), moving(store, model_name, alias, request_id):
            done = operation(store, **named, **asked, **options, observe=report)
    except GateError as refused:
        show_refusal(refused, alias)
        raise
    show_promotion(store, done)
    return done
