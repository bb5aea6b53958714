"""What ``register_model`` means by a run id and a path: a local folder, a run, refs, or MLflow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from mltrack_tasks import layout
from mltrack_tasks.content import resolve_ref
from mltrack_tasks.errors import InvalidInputError, NotFoundError
from mltrack_tasks.parallel import map_ordered
from mltrack_tasks.records import RunManifest
from mltrack_tasks.refs import DataRef, is_ref_text
from mltrack_tasks.registry import tracking
from mltrack_tasks.registry.runsource import files_of_run, find_run
from mltrack_tasks.registry.sources import (
    ModelSource,
    SourceFile,
    files_of_refs,
    local_files,
    path_of_ref,
)
from mltrack_tasks.run_inputs import checked_id
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.files import os_errors

_LOCAL = ("/", "./", "../", "~")
"""What a text begins with that can only be a path of this machine."""


@contextmanager
def model_source(
    store: Store, run_id: str | RunManifest | None, model_path: Any, *, tracking_uri: str | None
) -> Iterator[ModelSource]:
    """Find the files of a model, and what the run behind them says of it.

    ``model_path`` is, in this order: a ref (a model of one file) or a mapping of paths to refs; a path of
    this machine, if it is a ``Path``, absolute, or begins with ``./``, ``../`` or ``~``; the name of outputs
    of the run in this store, or its artifact path there if it was migrated; an artifact path of the run in
    MLflow; a local path after all. Raises NotFoundError that says where it was looked for.
    """
    if run_id is not None and not isinstance(run_id, RunManifest):
        checked_id(run_id)
    run = find_run(store, run_id) if isinstance(run_id, str) else run_id
    about = _about(run, run_id)
    if isinstance(run_id, RunManifest):
        _require_inputs(store, run_id)
    refs = _refs(store, model_path)
    if refs is not None:
        yield replace(about, files=files_of_refs(store, refs))
    elif _is_local(model_path):
        with local_files(store, model_path) as files:
            yield replace(about, files=files)
    else:
        with _by_name(store, run, about, str(model_path), tracking_uri) as found:
            yield found


@contextmanager
def _by_name(
    store: Store, run: RunManifest | None, about: ModelSource, name: str, tracking_uri: str | None
) -> Iterator[ModelSource]:
    """Find a model by a name that may be a run's, MLflow's, or that of a local file."""
    files: tuple[SourceFile, ...] = () if run is None else files_of_run(store, run, name)
    if files:
        yield replace(about, files=files)
        return
    reasons = [] if run is None else [f"the run {run.run_id!r} in {store.location} has nothing of that name"]
    if about.source_runs and tracking.is_installed():
        try:
            opened = tracking.run_model(about.source_runs[0], name, tracking_uri=tracking_uri)
            model = opened.__enter__()
        except NotFoundError as error:
            reasons.append(str(error))
        else:
            try:
                with local_files(store, model.folder) as files:
                    yield _merged(about, model, files)
            finally:
                opened.__exit__(None, None, None)
            return
    elif about.source_runs:
        reasons.append("MLflow, which might know it, is not installed (extra `mlflow`)")
    with os_errors(f"{name[:80]!r}"):
        is_here = Path(name).exists()
    if not is_here:
        reasons.append(f"there is no {name!r} in {Path.cwd()}")
        raise NotFoundError(f"No model {name!r} was found: {'; '.join(reasons)}.")
    with local_files(store, name) as files:
        yield replace(about, files=files)


def _merged(about: ModelSource, model: tracking.TrackedModel, files: tuple[SourceFile, ...]) -> ModelSource:
    return replace(
        about,
        files=files,
        params={**model.params, **about.params},
        metrics={**model.metrics, **about.metrics},
        tags={**model.tags, **about.tags},
    )


def _about(run: RunManifest | None, run_id: str | RunManifest | None) -> ModelSource:
    """What is known without the files: from the run if this store has it."""
    if run is None:
        return ModelSource((), source_runs=() if run_id is None else (str(run_id),))
    return ModelSource(
        (),
        source_runs=(run.run_id,),
        training_data=run.inputs,
        params=run.params,
        metrics=run.metrics,
        tags=run.tags,
    )


def _require_inputs(store: Store, run: RunManifest) -> None:
    """Raise NotFoundError if a run that was handed over is of another store, which has its inputs."""
    keys = {name: layout.blob_key(ref.hash, ref.format) for name, ref in run.inputs.items()}
    for (name, key), stat in zip(
        keys.items(), map_ordered(store.head, keys.values(), store.max_workers), strict=True
    ):
        if stat is None:
            raise NotFoundError(
                f"The input {name!r} of the run {run.run_id!r} is not in {store.location} ({key}), as if the "
                "run were of another store. Store its inputs here first, or give its id alone.",
                details={"key": key},
            )


def _refs(store: Store, model_path: Any) -> dict[str, DataRef | str] | None:
    """The refs that are the model's files, or None if ``model_path`` is something else."""
    if isinstance(model_path, DataRef):
        return {path_of_ref(model_path): model_path}
    if is_ref_text(model_path):
        ref = resolve_ref(store, model_path)
        return {path_of_ref(ref): ref}
    if isinstance(model_path, Mapping):
        if not model_path:
            raise InvalidInputError("model_path is an empty mapping; give the path and ref of each file.")
        return dict(model_path)
    return None


def _is_local(model_path: Any) -> bool:
    if isinstance(model_path, Path):
        return True
    if not isinstance(model_path, str) or not model_path:
        raise InvalidInputError(f"model_path is {model_path!r:.80}; give a path, a ref or a mapping.")
    return model_path in (".", "..") or model_path.startswith(_LOCAL)
