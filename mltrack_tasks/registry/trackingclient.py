"""Tracking servers and remote artifacts, through MLflow's client.

MLflow's own ``runs:/`` and ``models:/`` addresses are not used: they are looked up at the process's default
address, which makes a database in the working directory where there is none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from mltrack_tasks.errors import (
    AccessError,
    IntegrityError,
    InvalidInputError,
    MLTrackError,
    NotFoundError,
    TransientError,
)
from mltrack_tasks.registry.trackedruns import Tracked, last_values
from mltrack_tasks.stores.files import os_errors
from mltrack_tasks.stores.s3_errors import botocore_errors

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

SERVERS = ("http", "https")
_MISSING = frozenset({"RESOURCE_DOES_NOT_EXIST", "NOT_FOUND", "ENDPOINT_NOT_FOUND"})
_DENIED = frozenset({"PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"})
_REFUSED = frozenset({"INVALID_PARAMETER_VALUE", "BAD_REQUEST"})
_LOGIN = "Check the address, MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD or MLFLOW_TRACKING_TOKEN."
_USER = re.compile(r"(?<=://)[^/\s]*@")
_ASKED = re.compile(r"\?\S*")
_SAFE_NAME = re.compile(r"[\w .-]+")
_INDIRECT = ("runs", "models")


def shown(address: str) -> str:
    """An address as messages may show it: without user, password and query."""
    return _ASKED.sub("", _USER.sub("", address))


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


@contextmanager
def mlflow_errors(address: str, what: str) -> Iterator[None]:
    """Translate what MLflow and the libraries below it raise; no message shows the login in ``address``."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        with botocore_errors("read", what):
            yield
    except MLTrackError:
        raise
    except MlflowException as error:
        raise _of_mlflow(error.error_code, _said(error, address), address, what) from None
    except SQLAlchemyError as error:
        raise TransientError(
            f"MLflow's database does not answer for {what}: {_said(error, address)}. Try again; if it stays, "
            "check the address and its login."
        ) from None
    except ImportError as error:
        raise InvalidInputError(
            f"MLflow lacks a library to read {what}: {_said(error, address)}. Install it."
        ) from None
    except OSError as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status is None and error.errno is not None:
            with os_errors(what):
                raise
        raise _of_status(status, _said(error, address), what) from None


def _of_mlflow(code: str, said: str, address: str, what: str) -> MLTrackError:
    if code in _MISSING:
        return NotFoundError(f"MLflow has no {what}: {said}.")
    if code in _DENIED:
        return AccessError(f"MLflow denies {what}: {said}. {_LOGIN}")
    if code in _REFUSED or urlsplit(address).scheme not in SERVERS:
        return InvalidInputError(f"MLflow refuses {what}: {said}.")
    return TransientError(f"MLflow could not give {what}: {said}. Try again; if it stays, check the address.")


def _of_status(status: int | None, said: str, what: str) -> MLTrackError:
    if status in (401, 403):
        return AccessError(f"MLflow's server denies {what}: {said}. {_LOGIN}")
    if status == 404:
        return NotFoundError(f"MLflow's server has no {what}.")
    return TransientError(f"MLflow could not give {what}: {said}. Try again; if it stays, check the address.")


def _said(error: Exception, address: str) -> str:
    """The start of a message, without what the address keeps secret."""
    text = " ".join(_USER.sub("", str(error)).split())
    for secret in _secrets(address):
        text = text.replace(secret, "***")
    return text[:300].rstrip(".")


def _secrets(address: str) -> set[str]:
    """What is not to be shown: the password, or a user without one, as it stands and decoded; the query."""
    login = urlsplit(address).netloc.rpartition("@")[0]
    parts = {login.partition(":")[2] or login, urlsplit(address).query} - {""}
    return parts | {unquote(part) for part in parts}


def _logged(model: LoggedModel) -> Tracked:
    points = [(each.key, int(each.step), int(each.timestamp), each.value) for each in model.metrics or []]
    tags: Mapping[str, str] = model.tags or {}
    return Tracked(
        id=model.model_id,
        experiment_id=str(model.experiment_id),
        places=(model.artifact_location,) if model.artifact_location else (),
        params=dict(model.params or {}),
        metrics=last_values(points),
        tags=dict(tags),
        name=model.name,
        run_id=model.source_run_id,
    )
