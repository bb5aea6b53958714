"""A run of MLflow -> the fields of its manifest."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from mltrack_tasks import events, layout
from mltrack_tasks.errors import IntegrityError, InvalidInputError
from mltrack_tasks.filetree import Entry
from mltrack_tasks.migration.groups import RunGroup, id_of
from mltrack_tasks.mlflowdata.facts import Experiment, RunFacts
from mltrack_tasks.mlflowdata.filestore import Datasets, read_experiment, read_run
from mltrack_tasks.mlflowdata.history import history_frame

MAX_POINTS = 2_000
"""Points of metrics that stand in the manifest; of more, the history is a table beside it."""

Read = Callable[[Sequence[Entry]], dict[str, bytes]]
"""Files -> path -> bytes."""


class Experiments:
    """The experiments around a batch of runs, each read when a run first asks for it. Safe in threads."""

    def __init__(self, around: Mapping[str, Sequence[Entry]], read: Read) -> None:
        self._around, self._read = around, read
        self._known: dict[str, tuple[Experiment | None, Datasets]] = {}
        self._lock = threading.Lock()

    def get(self, folder: str) -> tuple[Experiment | None, Datasets]:
        """Read an experiment and its datasets; None, with a warning in the log, if it is damaged."""
        with self._lock:
            if folder not in self._known:
                self._known[folder] = self._load(folder)
            return self._known[folder]

    def _load(self, folder: str) -> tuple[Experiment | None, Datasets]:
        cut = len(folder) + 1 if folder else 0
        bodies = self._read(self._around.get(folder, ()))
        files = {path[cut:]: body for path, body in bodies.items()}
        inputs = {path[9:]: body for path, body in files.items() if path.startswith("datasets/")}
        what = f"The experiment {folder!r}"
        datasets = Datasets(inputs, what=what)
        try:
            return read_experiment(files, what=what, folder=folder), datasets
        except IntegrityError as error:
            events.logger.warning("left out: %s", error)
            return None, datasets


def surrounds(path: str, experiment: str) -> bool:
    """Whether a file tells of its experiment: what ``Experiments`` needs of it."""
    inside = path[len(experiment) + 1 :] if experiment else path
    return inside == "meta.yaml" or inside.startswith(("tags/", "datasets/"))


def speaking(paths: Iterable[str], group: RunGroup) -> list[str]:
    """Choose the files of a run that say something about it, rather than being one of its artifacts."""
    folder = f"{group.folders[0]}/" if group.folders[0] else ""
    artifacts = f"{folder}artifacts/"
    return [path for path in paths if path.startswith(folder) and not path.startswith(artifacts)]


def facts_of(group: RunGroup, files: Mapping[str, bytes], experiments: Experiments) -> RunFacts | None:
    """Read what MLflow says of a run; None, with a warning in the log, if MLflow could not read it either.

    Such a run is kept byte for byte all the same.
    """
    cut = len(group.folders[0]) + 1
    try:
        experiment, datasets = experiments.get(group.experiment)
        inside = {path[cut:]: body for path, body in files.items()}
        what = f"The run {group.run_id!r}"
        return read_run(inside, what=what, run_id=group.run_id, experiment=experiment, datasets=datasets)
    except IntegrityError as error:
        events.logger.warning("kept as files only: %s", error)
        return None


def described(facts: RunFacts, *, trashed: bool) -> tuple[dict[str, Any], dict[str, Any], Any]:
    """Map facts -> (fields of a RunManifest, the field ``mlflow``, the history as a frame if it is long)."""
    project = facts.experiment_name or facts.experiment_id
    fields = {
        "status": facts.status,
        "project": _name(project),
        "storage_modes": ("by_project",),
        "params": facts.params,
        "metrics": facts.metrics,
        "tags": facts.tags,
        "started_at": facts.started_at,
        "ended_at": facts.ended_at,
    }
    long = sum(map(len, facts.history.values())) > MAX_POINTS
    beyond = {
        "experiment_id": facts.experiment_id,
        "experiment_name": facts.experiment_name,
        "name": facts.name,
        "user": facts.user,
        "lifecycle": "deleted" if trashed else facts.lifecycle,
        "artifact_uri": facts.artifact_uri,
        "history": {} if long else facts.history,
        "datasets": facts.datasets,
        "models": facts.models,
    }
    return fields, beyond, history_frame(facts.history) if long else None


def _name(project: str) -> str:
    try:
        layout.encode_segment(project)
    except InvalidInputError:
        return id_of(project)
    return project
