"""What ``register_model`` means by a run id and a path: a local folder, a run, refs, or MLflow."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
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
from mltrack_tasks.registry.sourcefiles import (
    ModelSource,
    SourceFile,
    files_of_refs,
    local_files,
    path_of_ref,
)
from mltrack_tasks.registry.storedruns import files_of_run, find_run
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
    this machine, if it is a ``Path``, absolute, or begins with ``./``, ``../`` or ``~``; with a run, the name
    of its outputs in this store, or its artifact path here if it was migrated, or there in MLflow; without a
    run, a local path. A run id must be known, here or in MLflow, whatever the path. Raises NotFoundError that
    says where it was looked for.
    """
    if run_id is not None and not isinstance(run_id, RunManifest):
        checked_id(run_id)
    run = find_run(store, run_id) if isinstance(run_id, str) else run_id
    if isinstance(run_id, RunManifest):
        _require_inputs(store, run_id)
    refs, is_local = _refs(store, model_path), _is_local(model_path)
    if run_id is not None and refs is None and not is_local:
        with _by_name(store, run, str(run_id), str(model_path), tracking_uri) as found:
            yield found
        return
    about = _of_run(run) if run is not None else _elsewhere(store, run_id, tracking_uri)
    if refs is not None:
        yield replace(about, files=files_of_refs(store, refs))
        return
    with local_files(store, model_path) as files:
        yield replace(about, files=files)


@contextmanager
def _by_name(
    store: Store, run: RunManifest | None, run_id: str, name: str, tracking_uri: str | None
) -> Iterator[ModelSource]:
    """Find a model in a run by its name: in this store, then in MLflow. A local path is no guess for it."""
    about = ModelSource((), source_runs=(run_id,)) if run is None else _of_run(run)
    files = () if run is None else files_of_run(store, run, name)
    if files:
        yield replace(about, files=files)
        return
    has = "there is no run" if run is None else "nothing of that name is in the run"
    with ExitStack() as opened:
        try:
            model = opened.enter_context(
                tracking.run_model(about.source_runs[0], name, tracking_uri=tracking_uri)
            )
        except (NotFoundError, InvalidInputError) as error:
            if not _is_absence(error):
                raise
            raise NotFoundError(
                f"No model {name!r} was found: {has} {about.source_runs[0]!r} in {store.location}; "
                f"{str(error).rstrip('.')}.{_hint(about.source_runs[0], name)}",
                details={"run": about.source_runs[0], "model_path": name},
            ) from error
        yield _merged(about, model, opened.enter_context(local_files(store, model.folder)))


def _elsewhere(store: Store, run_id: object, tracking_uri: str | None) -> ModelSource:
    """What MLflow noted of a run that is not in this store; nothing without a run."""
    if run_id is None:
        return ModelSource(())
    try:
        noted = tracking.noted_of(str(run_id), tracking_uri=tracking_uri)
    except (NotFoundError, InvalidInputError) as error:
        if not _is_absence(error):
            raise
        raise NotFoundError(
            f"There is no run {run_id!r} in {store.location}; {str(error).rstrip('.')}. Store the run first, "
            "or register without a run id.",
            details={"run": run_id},
        ) from error
    return _merged(ModelSource((), source_runs=(str(run_id),)), noted, ())


def _is_absence(error: Exception) -> bool:
    """Whether MLflow knows nothing of a run: also where it cannot be asked, as its client is not here."""
    return isinstance(error, NotFoundError) or not tracking.is_installed()


def _hint(run_id: str, name: str) -> str:
    """Say how to name a file or folder of this machine, if one was named in the place of something else."""
    with os_errors(f"{name[:80]!r}"):
        is_here = Path(name).exists()
    if is_here:
        return f" For what lies in {Path.cwd()}, give {'./' + name!r}."
    if os.path.exists(run_id):
        return f" For files of this machine, give None as the run, and {run_id!r:.80} as model_path."
    return ""


def _merged(about: ModelSource, noted: tracking.Noted, files: tuple[SourceFile, ...]) -> ModelSource:
    return replace(
        about,
        files=files,
        params={**noted.params, **about.params},
        metrics={**noted.metrics, **about.metrics},
        tags={**noted.tags, **about.tags},
    )


def _of_run(run: RunManifest) -> ModelSource:
    """What a run of this store says, without files."""
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
    if isinstance(model_path, (Path, DataRef, Mapping)):
        return isinstance(model_path, Path)
    if not isinstance(model_path, str) or not model_path:
        raise InvalidInputError(f"model_path is {model_path!r:.80}; give a path, a ref or a mapping.")
    return model_path in (".", "..") or model_path.startswith(_LOCAL)
