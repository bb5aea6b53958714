"""Tracking servers and remote artifacts, through MLflow's client.

MLflow's own ``runs:/`` and ``models:/`` addresses are not used: they are looked up at the process's default
address, which makes a database in the working directory where there is none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from mltrack_tasks.errors import IntegrityError, NotFoundError
from mltrack_tasks.mlflowdata.scalars import is_identifier
from mltrack_tasks.registry.trackedruns import Tracked, last_values
from mltrack_tasks.registry.trackingerrors import mlflow_errors, shown

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

_SAFE_NAME = re.compile(r"[\w .-]+")
_INDIRECT = ("runs", "models")


class ClientRuns:
    """A tracking server, or a database that is none of this machine's files."""

    def __init__(self, address: str) -> None:
        self.where = shown(address)
        self._address = address
        with mlflow_errors(address, self.where):
            from mlflow import MlflowClient

            self._client: MlflowClient = MlflowClient(tracking_uri=address, registry_uri=address)

    def run(self, run_id: str) -> Tracked:
        """Look up a run."""
        if not is_identifier(run_id):
            raise NotFoundError(f"There can be no run {run_id!r} in {self.where}.")
        with mlflow_errors(self._address, f"run {run_id!r} in {self.where}"):
            run: Any = self._client.get_run(run_id)
        return Tracked(
            id=run_id,
            experiment_id=str(run.info.experiment_id),
            places=(run.info.artifact_uri,) if run.info.artifact_uri else (),
            params=dict(run.data.params),
            metrics=dict(run.data.metrics),
            tags=dict(run.data.tags),
        )

    def model(self, model_id: str) -> Tracked:
        """Look up a logged model by its id."""
        with mlflow_errors(self._address, f"logged model {model_id!r} in {self.where}"):
            return _logged(self._client.get_logged_model(model_id))

    def models(self, run: Tracked, name: str | None = None) -> list[Tracked]:
        """Look up the logged models that a run made, or those of one name; none before MLflow 3."""
        try:
            with mlflow_errors(self._address, f"logged models of the run {run.id!r} in {self.where}"):
                found = [
                    each for each in self._search(run.experiment_id, name) if each.source_run_id == run.id
                ]
        except NotFoundError:
            return []
        return [_logged(model) for model in found if name in (None, model.name)]

    def _search(self, experiment_id: str, name: str | None) -> Iterator[LoggedModel]:
        """All of an experiment; the server narrows it to a name that needs no quoting."""
        asked = f"name = '{name}'" if name is not None and _SAFE_NAME.fullmatch(name) else None
        token: str | None = None
        while True:
            page = self._client.search_logged_models([experiment_id], asked, page_token=token)
            yield from page
            token = page.token
            if not token:
                return


class RemoteArtifacts:
    """Artifacts below an address that MLflow knows how to read."""

    def __init__(self, address: str, tracking_uri: str) -> None:
        self.where = shown(address)
        self._tracking_uri = tracking_uri
        if urlsplit(address).scheme in _INDIRECT:
            raise IntegrityError(f"Artifacts are said to be at {self.where}, which is no place for them.")
        with mlflow_errors(tracking_uri, self.where):
            from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

            self._artifacts: Any = get_artifact_repository(address, tracking_uri=tracking_uri)

    def names(self, path: str = "") -> list[str]:
        """Name what is in a folder of artifacts: full paths, none if there is no such folder."""
        try:
            with mlflow_errors(self._tracking_uri, self.where):
                return [str(each.path) for each in self._artifacts.list_artifacts(path or None)]
        except NotFoundError:
            return []

    def fetch(self, path: str, folder: Path) -> Path | None:
        """Download a file or folder (``""``: all) into a folder -> where it is now, or None if not there."""
        above = path.rpartition("/")[0]
        listed = self.names(above)
        if not listed or (path and path not in listed):
            return None
        with mlflow_errors(self._tracking_uri, f"{path!r} at {self.where}"):
            return Path(self._artifacts.download_artifacts(path, str(folder)))


def _logged(model: LoggedModel) -> Tracked:
    points = [(each.key, int(each.step), int(each.timestamp), each.value) for each in model.metrics or []]
    return Tracked(
        id=model.model_id,
        experiment_id=str(model.experiment_id),
        places=(model.artifact_location,) if model.artifact_location else (),
        params=dict(model.params or {}),
        metrics=last_values(points),
        tags=dict(model.tags or {}),
        name=model.name,
        run_id=model.source_run_id,
    )
