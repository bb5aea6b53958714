"""A model out of MLflow: where its files are, fetched if need be, and what MLflow says of the run behind it.

MLflow's own client is asked, so that what it can open can be registered: file stores, databases, tracking
servers, and the logged models of MLflow 3. Nothing of MLflow's global state is changed.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from mltrack_tasks.errors import InvalidInputError, NotFoundError
from mltrack_tasks.registry.trackingerrors import shown, translated

_MODEL_ID = re.compile(r"m-[0-9a-f]{32}")
_NO_MODEL_NAME = re.compile(r"""[/:.%"']""")
"""What the names of logged models cannot have; a quote would end the filter that looks for them."""
_INTERNAL = "mlflow."
"""What the tags begin with that MLflow sets: its history of logged models, the user, the source."""
_SQLITE = re.compile(r"sqlite(?:\+\w+)?:///([^?]*)")


@dataclass(frozen=True)
class TrackedModel:
    """A model's files on this machine, a ``folder`` or one file, and what MLflow says of the run behind it.

    ``tags`` are those that people set. ``model_id`` is that of a logged model of MLflow 3, else None.
    """

    folder: Path
    run_id: str
    params: dict[str, str]
    metrics: dict[str, float]
    tags: dict[str, str]
    model_id: str | None = None


def is_installed() -> bool:
    """Tell whether MLflow's client can be imported."""
    return find_spec("mlflow") is not None


@contextmanager
def run_model(run_id: str, model_path: str, *, tracking_uri: str | None = None) -> Iterator[TrackedModel]:
    """Find a model of a run in MLflow -> its files, which may be used until the context ends.

    ``model_path`` is the name or id (``m-...``) of a logged model of the run, or a path among the run's
    artifacts; of a logged model, also a path below it. A logged model goes first, as in MLflow. Files of
    this machine are used where they are, others are fetched into a temporary folder.

    MLflow's client makes a database where there is none, so it is asked only where there is something:
    at ``tracking_uri``, at the address that is set (also as MLFLOW_TRACKING_URI), or in ``./mlruns`` or
    ``./mlflow.db``. Raises NotFoundError if there is no such place, run or model, AccessError if the server
    refuses, TransientError if it does not answer, InvalidInputError if the address or path cannot be used.
    """
    if not is_installed():
        raise InvalidInputError("MLflow is not installed; install the extra `mlflow`.")
    path = _checked_path(model_path)
    address = _address(tracking_uri)
    what = f"{path!r} of the run {run_id!r} in MLflow at {shown(address)}"
    with tempfile.TemporaryDirectory(prefix="mltrack-model-") as scratch:
        with translated(what):
            found = _fetched(_client(address), run_id, path, Path(scratch))
        if found is None:
            raise NotFoundError(f"There is no {what}: neither a logged model nor an artifact of that name.")
        yield found


def _checked_path(model_path: str) -> str:
    """Admit a plain relative path -> without slashes around it."""
    path = model_path.strip("/")
    if any(part in ("", ".", "..") for part in path.split("/")):
        raise InvalidInputError(f"{model_path!r:.80} is no path among the artifacts of a run.")
    return path


def _address(given: str | None) -> str:
    """Choose where to ask; NotFoundError if there is nothing, which MLflow's client would then make."""
    from mlflow.tracking import get_tracking_uri, is_tracking_uri_set

    address = str(given or get_tracking_uri())
    place = _local_place(address)
    if place is None or place.exists():
        return address
    if given or is_tracking_uri_set():  # type: ignore[no-untyped-call]
        raise NotFoundError(f"There is no MLflow at {shown(address)}: no {place} on this machine")
    raise NotFoundError(
        f"MLflow was not asked: no tracking address is given or set, and neither runs in ./mlruns nor "
        f"./mlflow.db are in {Path.cwd()}"
    )


def _local_place(address: str) -> Path | None:
    """The folder or database that an address means on this machine, or None for servers."""
    sqlite = _SQLITE.fullmatch(address.partition("?")[0])
    if sqlite:
        path = Path(sqlite[1])
        return path if path.exists() else Path(unquote(sqlite[1]))
    if address.startswith("file:") or (":" not in address and not address.startswith("databricks")):
        from mlflow.utils.file_utils import local_file_uri_to_path

        return Path(local_file_uri_to_path(address))  # type: ignore[no-untyped-call]
    return None


def _client(address: str) -> Any:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        return MlflowClient(tracking_uri=address)
    except MlflowException as error:
        reason = shown(str(error))[:500]
        raise InvalidInputError(f"MLflow's client cannot open {shown(address)}: {reason}") from None


def _fetched(client: Any, run_id: str, path: str, scratch: Path) -> TrackedModel | None:
    """Look for a model of a run, and fetch it; None if the run has none of that name."""
    run = client.get_run(run_id)
    name, _, below = path.partition("/")
    model = _logged_model(client, run, name)
    found = None
    if model is not None:
        found = _files(client, model.artifact_location, below, scratch)
    if found is None:
        model, found = None, _files(client, run.info.artifact_uri, path, scratch)
    if found is None:
        return None
    return TrackedModel(
        folder=found,
        run_id=run.info.run_id,
        params=dict(run.data.params),
        metrics=dict(run.data.metrics),
        tags={key: value for key, value in run.data.tags.items() if not key.startswith(_INTERNAL)},
        model_id=None if model is None else model.model_id,
    )


def _logged_model(client: Any, run: Any, name: str) -> Any:
    """Find the logged model of a run by its id or name, the newest of several; None if there is none."""
    from mlflow.exceptions import MlflowException

    try:
        if _MODEL_ID.fullmatch(name):
            model = client.get_logged_model(name)
            return model if model.source_run_id == run.info.run_id else None
        return None if _NO_MODEL_NAME.search(name) else _named_model(client, run, name)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND", "ENDPOINT_NOT_FOUND"):
            return None  # no such model, or a server of MLflow 2, which has none at all
        raise


def _named_model(client: Any, run: Any, name: str) -> Any:
    found: list[Any] = []
    token: str | None = None
    while True:
        page = client.search_logged_models(
            [run.info.experiment_id], filter_string=f"name = '{name}'", page_token=token
        )
        found += [model for model in page if model.source_run_id == run.info.run_id]
        token = page.token
        if not token:
            return max(found, key=lambda model: model.creation_timestamp, default=None)


def _files(client: Any, location: str, path: str, scratch: Path) -> Path | None:
    """Find what lies at a path below a place of artifacts -> its path on this machine; None if nothing."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

    artifacts = get_artifact_repository(location, tracking_uri=client.tracking_uri)
    if isinstance(artifacts, LocalArtifactRepository):
        root = Path(artifacts.artifact_dir)
        place = root / path
        if not place.exists():
            return None
        if not place.resolve().is_relative_to(root.resolve()):
            raise InvalidInputError(f"{path!r} leads out of the run's artifacts in {root}.")
        return place.absolute()
    if not _is_there(artifacts, path):
        return None
    return Path(artifacts.download_artifacts(path, str(scratch)))  # type: ignore[no-untyped-call]


def _is_there(artifacts: Any, path: str) -> bool:
    """Tell whether there is a folder with something in it, or a file: a download would not."""
    if artifacts.list_artifacts(path or None):
        return True
    above = path.rpartition("/")[0]
    return bool(path) and any(each.path == path for each in artifacts.list_artifacts(above or None))
