"""A model out of MLflow: the files of a run's artifact or logged model, and what was noted of the run."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from mltrack_tasks.errors import InvalidInputError, NotFoundError
from mltrack_tasks.layout import check_path
from mltrack_tasks.registry.trackedruns import FileRuns, Tracked, Tracking, sqlite_runs
from mltrack_tasks.registry.trackingclient import ClientRuns, RemoteArtifacts
from mltrack_tasks.registry.trackingerrors import shown
from mltrack_tasks.stores.files import os_errors

ADDRESS = "MLFLOW_TRACKING_URI"
_INTERNAL = "mlflow."
"""What the tags begin with that MLflow sets: its history of logged models, the user, the source."""
_MODEL_ID = re.compile(r"(?:models:/)?(m-[0-9a-f]{32})(?:/(.+))?")
_SQLITE = re.compile(r"sqlite(?:\+\w+)?:///(.+)")
_NAMED = frozenset({"databricks", "databricks-uc", "uc"})
"""Addresses of MLflow that are no paths, though they look like one."""
_SHOWN = 10


@dataclass(frozen=True)
class Noted:
    """What was noted of a run: params, metrics (their last values), and the tags that people set."""

    run_id: str
    params: dict[str, str]
    metrics: dict[str, float]
    tags: dict[str, str]


@dataclass(frozen=True)
class TrackedModel(Noted):
    """A model's files on this machine, a ``folder`` or one file, and what was noted of the run behind it.

    What was noted of the logged model, if it is one, comes before what was noted of the run. ``model_id`` is
    that of a logged model of MLflow 3, else None.
    """

    folder: Path
    model_id: str | None = None


def is_installed() -> bool:
    """Tell whether MLflow's client can be imported."""
    return find_spec("mlflow") is not None


@contextmanager
def run_model(run_id: str, model_path: str, *, tracking_uri: str | None = None) -> Iterator[TrackedModel]:
    """Find a model of a run in MLflow -> its files, which may be used until the context ends.

    ``model_path``: a path among the run's artifacts, or a logged model of MLflow 3: its name, its id
    ``m-...`` or ``models:/m-...``, each also with a path below it. A logged model goes before an artifact of
    its name, and the newest of a name before others. Files of this machine are used where they lie, others
    are fetched into a temporary folder. Paths that a tracking server of another machine names are refused.

    ``tracking_uri``: a server, a database, or a file store; None: what MLflow was told in this process, then
    MLFLOW_TRACKING_URI, then ``./mlruns`` or ``./mlflow.db``. File stores and SQLite are read without MLflow;
    nothing is written there, and no store is begun.

    Raises NotFoundError if there is no such run or artifact or nothing says where to ask, AccessError if the
    server wants another login, TransientError if it does not answer (after MLflow's own tries:
    MLFLOW_HTTP_REQUEST_MAX_RETRIES), InvalidInputError for an address or path that cannot be, or if MLflow is
    needed and not installed.
    """
    address = _address_of(tracking_uri)
    with _opened(address) as tracking:
        run = tracking.run(run_id)
        model, path = _chosen(tracking, run, model_path)
        with tempfile.TemporaryDirectory(prefix="mltrack-model-") as scratch:
            found = _fetched(model, path, address, Path(scratch))
            if found is None:
                raise NotFoundError(_nothing(tracking, run, model_path, address))
            yield TrackedModel(
                folder=found,
                run_id=run_id,
                params={**run.params, **model.params},
                metrics={**run.metrics, **model.metrics},
                tags=_set_by_people({**run.tags, **model.tags}),
                model_id=None if model is run else model.id,
            )


def noted_of(run_id: str, *, tracking_uri: str | None = None) -> Noted:
    """Look up what was noted of a run in MLflow. Asks where ``run_model`` does, and raises the same."""
    with _opened(_address_of(tracking_uri)) as tracking:
        run = tracking.run(run_id)
    return Noted(run_id, dict(run.params), dict(run.metrics), _set_by_people(run.tags))


def _set_by_people(tags: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in tags.items() if not key.startswith(_INTERNAL)}


def _address_of(tracking_uri: str | None) -> str:
    """Choose where to ask. MLflow is not asked for its default: it would begin a store there."""
    told = tracking_uri or _told() or os.environ.get(ADDRESS)
    if told:
        return told
    if any(Path("mlruns").glob("*/meta.yaml")):
        return "mlruns"
    if Path("mlflow.db").exists():
        return "sqlite:///mlflow.db"
    raise NotFoundError(
        f"MLflow was not asked: neither tracking_uri nor {ADDRESS} is given, and {Path.cwd()} has neither "
        "mlflow.db nor runs in mlruns"
    )


def _told() -> str | None:
    """What ``mlflow.set_tracking_uri`` was told in this process."""
    if sys.modules.get("mlflow") is None:
        return None
    from mlflow import tracking

    asked: Any = tracking  # annotated in part
    return str(asked.get_tracking_uri()) if asked.is_tracking_uri_set() else None


@contextmanager
def _opened(address: str) -> Iterator[Tracking]:
    sqlite = _SQLITE.fullmatch(address.partition("?")[0])
    if sqlite is not None:
        with sqlite_runs(_sqlite_path(sqlite[1])) as runs:
            yield runs
        return
    folder = local_path(address)
    if folder is None:
        _require_mlflow()
        yield ClientRuns(address)
    elif folder.is_dir():
        yield FileRuns(folder)
    else:
        raise NotFoundError(
            f"There is no MLflow store at {shown(address)}: no folder {folder} on this machine"
        )


def _sqlite_path(given: str) -> Path:
    """MLflow writes the path of its default database percent-encoded."""
    path = Path(given)
    return path if path.exists() else Path(unquote(given))


def _require_mlflow() -> None:
    if not is_installed():
        raise InvalidInputError(
            "This tracking address or artifact store needs MLflow's client, which is not installed: install "
            "the extra `mlflow` (pip install 'mltrack_tasks[mlflow]')."
        )


def local_path(address: str) -> Path | None:
    """The path of this machine that an address means, or None if it is elsewhere.

    As in MLflow, ``%20`` is a space in plain paths too.
    """
    parts = _split(address)
    if parts.scheme == "" and address not in _NAMED and not address.startswith("//"):
        return Path(unquote(address)).absolute()
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return Path(unquote(parts.path)).absolute()
    return None


def _split(address: str) -> SplitResult:
    try:
        parts = urlsplit(address)
        _ = parts.port  # looked at only when asked for
        return parts
    except ValueError:
        raise InvalidInputError(
            f"{shown(address)} is no address; look at its brackets and port, and percent-encode what is "
            "special in a password (/ is %2F, ? is %3F, # is %23)."
        ) from None


def _chosen(tracking: Tracking, run: Tracked, model_path: str) -> tuple[Tracked, str]:
    """Choose the run, or the logged model that a path begins with; and the path below it."""
    given = _MODEL_ID.fullmatch(model_path)
    if given is not None:
        model = tracking.model(given[1])
        if model.run_id not in (None, run.id):
            raise InvalidInputError(
                f"The logged model {given[1]!r} was made by the run {model.run_id!r}, not by {run.id!r}."
            )
        return model, check_path(given[2]) if given[2] else ""
    if model_path.startswith(("models:/", "runs:/")):
        raise InvalidInputError(
            f"model_path is {model_path!r:.80}; give a path among the run's artifacts, the name of a logged "
            "model, or its id, models:/m-..."
        )
    path = check_path(model_path.rstrip("/"))
    name, _, below = path.partition("/")
    return next(((model, below) for model in tracking.models(run, name)), (run, path))


def _fetched(model: Tracked, path: str, address: str, scratch: Path) -> Path | None:
    """Look for files at the places of a run or model -> where they are on this machine; None if nowhere."""
    for place in model.places:
        _require_ours(place, address)
        root = local_path(place)
        if root is not None:
            found = _inside(root, path)
        else:
            _require_mlflow()
            found = RemoteArtifacts(place, address).fetch(path, scratch)
        if found is not None:
            return found
    return None


def _require_ours(place: str, address: str) -> None:
    """Let only a tracking server of this machine name paths of this machine: another's are its own.

    And a hostile one would have any file of the worker's copied into the bucket.
    """
    host = _split(address).hostname
    if _split(place).scheme in ("", "file") and place not in _NAMED and host and not _is_this_machine(host):
        raise InvalidInputError(
            f"The tracking server {shown(address)} keeps these artifacts in a folder of its own machine, "
            f"{shown(place)}. If this machine has that folder too, register it as a local folder: "
            "register_model(None, model_name, path). Or let the server serve its artifacts "
            "(mlflow server --serve-artifacts)."
        )


def _is_this_machine(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _inside(root: Path, path: str) -> Path | None:
    """What is at a path of local artifacts. InvalidInputError if a link leads it out of them."""
    found = root / path if path else root
    with os_errors(str(found)):
        if not found.exists() or (found.is_dir() and not any(found.iterdir())):
            return None
        if not found.resolve().is_relative_to(root.resolve()):
            raise InvalidInputError(f"{found} is a link that leads out of the artifacts of its run.")
    return found


def _nothing(tracking: Tracking, run: Tracked, model_path: str, address: str) -> str:
    """Say that there is no such artifact, and what there is."""
    names = {model.name or model.id for model in tracking.models(run)}
    absent = []
    for place in run.places:
        root = local_path(place)
        if root is None:
            names.update(RemoteArtifacts(place, address).names())
        elif root.is_dir():
            with os_errors(str(root)):
                names.update(entry.name for entry in root.iterdir())
        else:
            absent.append(place)
    first = ", ".join(map(repr, sorted(names)[:_SHOWN])) + (", ..." if len(names) > _SHOWN else "")
    has = f"it has {first}" if names else "it has none"
    where = f" ({shown(absent[-1])} is not on this machine)" if absent and not names else ""
    return f"The run {run.id!r} in {tracking.where} has no artifact {model_path!r}; {has}{where}"
