"""Runs and logged models as tracking stores on this machine have them: file stores and SQLite.

They are read without MLflow, which would begin a store in a folder that has none, upgrade a database that an
older MLflow still uses, and since 3.13 refuses file stores.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from mltrack_tasks.errors import AccessError, InvalidInputError, NotFoundError
from mltrack_tasks.filetree import FILE, FOLDER
from mltrack_tasks.localtree import LocalTree
from mltrack_tasks.mlflowdata import scalars
from mltrack_tasks.mlflowdata.filestore import META, read_logged_model, read_run
from mltrack_tasks.mlflowdata.rows import Row, Tables
from mltrack_tasks.mlflowdata.treelayout import MODELS, TRASH
from mltrack_tasks.stores.files import os_errors

_WAIT_S = 60.0
_RUN = ("run_uuid", "experiment_id", "artifact_uri")
_MODEL = ("model_id", "experiment_id", "artifact_location", "name", "source_run_id", "lifecycle_stage")
_NOTES = ("params", "metrics", "tags")


@dataclass(frozen=True)
class Tracked:
    """A run or a logged model: what was noted of it, and the addresses where its artifacts may be."""

    id: str
    experiment_id: str
    places: tuple[str, ...]
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    name: str | None = None
    run_id: str | None = None
    """Of a logged model: the run that made it."""


class Tracking(Protocol):
    """Where runs are looked up. Raises NotFoundError for what is not there."""

    where: str
    """As messages show it: without logins."""

    def run(self, run_id: str) -> Tracked:
        """Look up a run."""

    def model(self, model_id: str) -> Tracked:
        """Look up a logged model by its id."""

    def models(self, run: Tracked, name: str | None = None) -> list[Tracked]:
        """Look up the logged models that a run made, or those of one name; the newest first."""


class FileRuns:
    """A file store, the ``mlruns`` of MLflow 2.x; deleted runs that are there still are found as well."""

    def __init__(self, root: Path) -> None:
        self.where = str(root)
        self._root = root

    def run(self, run_id: str) -> Tracked:
        """Look up a run."""
        folder = self._find(run_id, f"run {run_id!r}")
        facts = read_run(_files(folder, _NOTES), what=str(folder), run_id=run_id)
        return Tracked(
            id=run_id,
            experiment_id=facts.experiment_id,
            places=_places(folder, facts.artifact_uri),
            params=facts.params,
            metrics=facts.metrics,
            tags=facts.tags,
        )

    def model(self, model_id: str) -> Tracked:
        """Look up a logged model by its id."""
        return _logged(self._find(model_id, f"logged model {model_id!r}", MODELS))[1]

    def models(self, run: Tracked, name: str | None = None) -> list[Tracked]:
        """Look up the logged models that a run made, or those of one name; the newest first."""
        with os_errors(self.where):
            beside = [each / MODELS for each in self._experiments() if each.name == run.experiment_id]
            metas = [meta for folder in beside for meta in folder.glob(f"*/{META}")]
        found = sorted((_logged(meta.parent) for meta in metas), key=lambda each: each[0], reverse=True)
        return [model for _, model in found if model.run_id == run.id and name in (None, model.name)]

    def _find(self, id: str, what: str, *above: str) -> Path:
        if scalars.is_identifier(id):
            with os_errors(self.where):
                for experiment in self._experiments():
                    folder = experiment.joinpath(*above, id)
                    if (folder / META).is_file():
                        return folder
        raise NotFoundError(f"There is no {what} in {self.where}.")

    def _experiments(self) -> list[Path]:
        own = sorted(each for each in self._root.iterdir() if each.name not in (MODELS, TRASH))
        trash = self._root / TRASH
        return own + (sorted(trash.iterdir()) if trash.is_dir() else [])


class SqliteRuns:
    """A tracking database in SQLite, of any version of MLflow. Nothing is written to it."""

    def __init__(self, tables: Tables, where: str) -> None:
        self.where = where
        self._tables = tables

    def run(self, run_id: str) -> Tracked:
        """Look up a run."""
        for key, experiment_id, place in self._rows("runs", _RUN, "run_uuid", run_id):
            what = f"The run {key!r} in {self.where}"
            values = self._tables.find("latest_metrics", ("key", "value", "is_nan"), "run_uuid", key)
            return Tracked(
                id=scalars.text(key, what),
                experiment_id=scalars.identifier(experiment_id, what),
                places=_addresses(place, what),
                params=self._texts("params", ("key", "value"), "run_uuid", key),
                metrics={scalars.text(name, what): _number(value, nan, what) for name, value, nan in values},
                tags=self._texts("tags", ("key", "value"), "run_uuid", key),
            )
        raise NotFoundError(f"There is no run {run_id!r} in {self.where}.")

    def model(self, model_id: str) -> Tracked:
        """Look up a logged model by its id."""
        found = self._models("model_id", model_id)
        if not found:
            raise NotFoundError(f"There is no logged model {model_id!r} in {self.where}.")
        return found[0]

    def models(self, run: Tracked, name: str | None = None) -> list[Tracked]:
        """Look up the logged models that a run made, or those of one name; the newest first."""
        return [each for each in self._models("source_run_id", run.id) if name in (None, each.name)]

    def _models(self, key: str, value: str) -> list[Tracked]:
        rows = self._rows("logged_models", ("creation_timestamp_ms", *_MODEL), key, value)
        rows.sort(key=lambda row: row[0] if isinstance(row[0], int) else 0, reverse=True)
        return [self._model(row[1:]) for row in rows if row[-1] != "deleted"]

    def _model(self, row: Row) -> Tracked:
        id, experiment_id, place, name, run_id, _ = row
        what = f"The logged model {id!r} in {self.where}"
        columns = ("metric_name", "metric_step", "metric_timestamp_ms", "metric_value")
        rows = self._tables.find("logged_model_metrics", columns, "model_id", id)
        return Tracked(
            id=scalars.text(id, what),
            experiment_id=scalars.identifier(experiment_id, what),
            places=_addresses(place, what),
            params=self._texts("logged_model_params", ("param_key", "param_value"), "model_id", id),
            metrics=last_values([_point(row, what) for row in rows]),
            tags=self._texts("logged_model_tags", ("tag_key", "tag_value"), "model_id", id),
            name=scalars.optional_text(name, what),
            run_id=scalars.optional_text(run_id, what),
        )

    def _rows(self, table: str, columns: Sequence[str], key: str, id: str) -> list[Row]:
        return self._tables.find(table, columns, key, id) if scalars.is_identifier(id) else []

    def _texts(self, table: str, columns: tuple[str, str], key: str, id: Any) -> dict[str, str]:
        what = f"{table} of {id!r} in {self.where}"
        rows = self._tables.find(table, columns, key, id)
        return {scalars.text(name, what): scalars.text(value or "", what) for name, value in rows}


@contextmanager
def sqlite_runs(path: Path) -> Iterator[SqliteRuns]:
    """Open a database that MLflow may be using. InvalidInputError if it has none of MLflow's tables."""
    if not path.is_file():
        raise NotFoundError(f"There is no MLflow database {path}.")
    try:
        opened = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=_WAIT_S)
    except sqlite3.Error as error:
        raise AccessError(f"{path} cannot be opened: {error}. See who may read it.") from error
    with closing(opened) as connection:
        for pragma in ("query_only = ON", "trusted_schema = OFF", "cell_size_check = ON"):
            connection.execute(f"PRAGMA {pragma}")
        tables = Tables(connection, str(path))
        if not tables.has("experiments", "runs", "params", "tags"):
            raise InvalidInputError(f"{path} is no database of MLflow; look at the tracking address.")
        yield SqliteRuns(tables, str(path))


def last_values(points: Sequence[tuple[str, int, int, float]]) -> dict[str, float]:
    """Points of name, step, time and value -> the last value of each name."""
    return {name: value for name, _, _, value in sorted(points, key=lambda point: point[1:3])}


def _logged(folder: Path) -> tuple[float, Tracked]:
    """A logged model, and when it was made."""
    model = read_logged_model(_files(folder, _NOTES), what=str(folder))
    points = [(str(name), int(step), int(at), float(value)) for name, at, value, step, *_ in model.metrics]
    tracked = Tracked(
        id=model.model_id,
        experiment_id=model.experiment_id,
        places=_places(folder, model.artifact_uri),
        params=model.params,
        metrics=last_values(points),
        tags=model.tags,
        name=model.name,
        run_id=model.source_run_id,
    )
    return model.created_at.timestamp() if model.created_at else 0.0, tracked


def _files(folder: Path, parts: tuple[str, ...]) -> dict[str, bytes]:
    """The small files of a run's or model's folder; links in it are not followed."""
    with LocalTree(folder) as tree:
        meta = tree.stat(META)
        files = {META: tree.read(meta)} if meta is not None and meta.kind == FILE else {}
        found = [part for part in parts if (entry := tree.stat(part)) is not None and entry.kind == FOLDER]
    for part in found:
        with LocalTree(folder / part) as tree:
            entries = [entry for entry in tree.scan().entries if entry.kind == FILE]
            files.update({f"{part}/{entry.path}": tree.read(entry) for entry in entries})
    return files


def _places(folder: Path, address: str | None) -> tuple[str, ...]:
    """Beside ``meta.yaml`` first: that holds where a tree was moved."""
    own = str(folder.absolute() / "artifacts")
    return (own,) if address is None else (own, address)


def _addresses(place: object, what: str) -> tuple[str, ...]:
    address = scalars.optional_text(place, what)
    return (address,) if address else ()


def _point(row: Row, what: str) -> tuple[str, int, int, float]:
    name, step, at, value = row
    return (
        scalars.text(name, what),
        scalars.whole(step, what),
        scalars.whole(at, what),
        _number(value, 0, what),
    )


def _number(value: object, is_nan: object, what: str) -> float:
    return float("nan") if is_nan else scalars.real(value, what)
