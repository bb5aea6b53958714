"""Folders of an MLflow file store -> facts, as MLflow's client would answer them.

Each reader takes the files of one folder by their paths relative to it, and ``what`` for messages. Files that
a reader does not know are left alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from mltrack_tasks.errors import IntegrityError
from mltrack_tasks.mlflowdata import scalars
from mltrack_tasks.mlflowdata.facts import (
    ACTIVE,
    DELETED,
    Experiment,
    LoggedModel,
    RegisteredModel,
    RegisteredVersion,
    RunFacts,
)
from mltrack_tasks.mlflowdata.textfiles import Named, answer, below, model_points, run_points, texts_of
from mltrack_tasks.mlflowdata.words import (
    MODEL_STATUSES,
    RUN_NAME,
    RUN_STATUSES,
    STAGE_DELETED,
    model_of_source,
    stage_of,
    version_status,
)
from mltrack_tasks.mlflowdata.yamls import load_mapping

META = "meta.yaml"
_VERSION = re.compile(r"version-([0-9]{1,18})")
_UPDATED = "last_updated_timestamp"
_DATASET = ("name", "digest", "source_type", "source")
_DATASET_OPTIONAL = ("schema", "profile")


class Datasets:
    """The datasets of an experiment: its folder ``datasets/``, each file read when a run first names it."""

    def __init__(self, files: Mapping[str, bytes], *, what: str) -> None:
        self._files = files
        self._what = what
        self._read: dict[str, dict[str, Any]] = {}

    def get(self, dataset_id: str) -> dict[str, Any] | None:
        """Return a dataset's fields, or None if there is none of this id; IntegrityError if it is damaged."""
        path = f"{dataset_id}/{META}"
        if dataset_id not in self._read and path in self._files:
            meta = _Meta(self._files[path], f"{self._what}, {path}")
            self._read[dataset_id] = {
                **{key: meta.text(key) for key in _DATASET},
                **{key: meta.optional_text(key) for key in _DATASET_OPTIONAL},
            }
        return self._read.get(dataset_id)


class _Meta:
    """Fields of a meta.yaml, each admitted when it is asked for."""

    def __init__(self, data: bytes, what: str) -> None:
        self.fields = load_mapping(data, what)
        self.what = what

    def text(self, key: str) -> str:
        return scalars.text(self.fields.get(key), f"{self.what}: {key}")

    def optional_text(self, key: str) -> str | None:
        return scalars.optional_text(self.fields.get(key), f"{self.what}: {key}")

    def identifier(self, *keys: str) -> str:
        found = next((self.fields[key] for key in keys if key in self.fields), None)
        return scalars.identifier(found, f"{self.what}: {keys[0]}")

    def optional_identifier(self, key: str) -> str | None:
        return scalars.optional_identifier(self.fields.get(key), f"{self.what}: {key}")

    def whole(self, key: str) -> int:
        return scalars.whole(self.fields.get(key), f"{self.what}: {key}")

    def moment(self, key: str) -> Any:
        return scalars.moment(self.fields.get(key), f"{self.what}: {key}")

    def lifecycle(self) -> str:
        what = f"{self.what}: lifecycle_stage"
        return scalars.choice(self.fields.get("lifecycle_stage") or ACTIVE, (ACTIVE, DELETED), what)

    def status(self, statuses: Mapping[int, str], default: int | None) -> str:
        value = self.fields.get("status", default)
        if not isinstance(value, int) or value not in statuses:
            raise scalars.refuse(value, f"{self.what}: status", f"a number of {sorted(statuses)}")
        return statuses[value]


def read_run(
    files: Mapping[str, bytes],
    *,
    what: str,
    run_id: str | None = None,
    experiment: Experiment | None = None,
    datasets: Datasets | None = None,
) -> RunFacts:
    """Read a run's folder, without its artifacts.

    ``run_id`` and ``experiment``: what the folder's place says; as in MLflow, a run that says otherwise is
    refused. A dataset input that ``datasets`` does not know is left out, as MLflow's client does.
    Raises IntegrityError for a run that MLflow could not read either, or that it would not have written.
    """
    meta = _meta(files, what)
    parts = below(files, ("params", "metrics", "tags", "inputs", "outputs"), what)
    tags = texts_of(parts["tags"])
    history = {name: run_points(data, path) for name, (path, data) in parts["metrics"].items()}
    facts = RunFacts(
        run_id=meta.identifier("run_id", "run_uuid"),
        experiment_id=meta.identifier("experiment_id"),
        experiment_name=experiment.name if experiment else None,
        name=meta.optional_text("run_name") or tags.get(RUN_NAME) or None,
        user=meta.optional_text("user_id") or None,
        status=meta.status(RUN_STATUSES, default=1),
        lifecycle=meta.lifecycle(),
        started_at=meta.moment("start_time"),
        ended_at=meta.moment("end_time"),
        artifact_uri=meta.optional_text("artifact_uri") or None,
        params=texts_of(parts["params"]),
        metrics={name: answer(points) for name, points in history.items() if points},
        history=history,
        tags=tags,
        datasets=list(_dataset_inputs(parts["inputs"], datasets)),
        models=[*_model_outputs(parts["outputs"]), *_model_inputs(parts["inputs"])],
    )
    _check_place(facts, what, run_id, experiment)
    return facts


def read_experiment(files: Mapping[str, bytes], *, what: str, folder: str | None = None) -> Experiment:
    """Read an experiment: ``meta.yaml`` and ``tags/`` of its folder; other files are not looked at."""
    meta = _meta(files, what)
    return Experiment(
        experiment_id=meta.identifier("experiment_id"),
        name=meta.text("name"),
        lifecycle=meta.lifecycle(),
        folder=folder,
        tags=texts_of(below(files, ("tags",), what)["tags"]),
    )


def read_logged_model(files: Mapping[str, bytes], *, what: str, folder: str | None = None) -> LoggedModel:
    """Read a logged model's folder, without its artifacts; ``folder`` is where these are."""
    meta = _meta(files, what)
    parts = below(files, ("params", "metrics", "tags"), what)
    return LoggedModel(
        model_id=meta.identifier("model_id"),
        name=meta.optional_text("name") or None,
        experiment_id=meta.identifier("experiment_id"),
        source_run_id=meta.optional_identifier("source_run_id"),
        status=meta.status(MODEL_STATUSES, default=2),
        type=meta.optional_text("model_type") or None,
        params=texts_of(parts["params"]),
        tags=texts_of(parts["tags"]),
        metrics=[
            point
            for name, (path, data) in parts["metrics"].items()
            for point in model_points(name, data, path)
        ],
        folder=folder,
        created_at=meta.moment("creation_timestamp"),
        lifecycle=meta.lifecycle(),
        artifact_uri=meta.optional_text("artifact_location") or None,
    )


def read_registered_models(files: Mapping[str, bytes], *, what: str) -> list[RegisteredModel]:
    """Read a registry's folder ``models/``; IntegrityError at the first that is damaged."""
    folders: dict[str, dict[str, bytes]] = {}
    for path, data in files.items():
        folder, _, rest = path.partition("/")
        folders.setdefault(folder, {})[rest] = data
    return [
        read_registered_model(own, what=f"{what}/{folder}", name=folder)
        for folder, own in folders.items()
        if META in own
    ]


def read_registered_model(
    files: Mapping[str, bytes], *, what: str, name: str | None = None
) -> RegisteredModel:
    """Read a registered model's folder; ``name`` is what its place says. Deleted versions are left out.

    A version that cannot be read is named in ``damaged``, and hides no other.
    """
    meta = _meta(files, what)
    parts = below(files, ("tags", "aliases"), what)
    if name is not None and meta.text("name") != name:
        raise IntegrityError(
            f"{what} says to be the model {meta.text('name')!r}; it lies in that of {name!r}."
        )
    own: dict[str, dict[str, bytes]] = {}
    for path, data in files.items():
        folder, _, rest = path.partition("/")
        if match := _VERSION.fullmatch(folder):
            own.setdefault(match[1], {})[rest] = data
    damaged: dict[int, str] = {}
    versions: list[RegisteredVersion] = []
    changes = [meta.fields.get(_UPDATED)]
    for number in sorted(own, key=int):
        try:
            version = _meta(own[number], f"{what}/version-{number}")
            changes += [version.fields.get(_UPDATED), version.fields.get("creation_timestamp")]
            if version.fields.get("current_stage") != STAGE_DELETED:
                versions.append(_read_version(version, own[number], int(number)))
        except IntegrityError as error:
            damaged[int(number)] = str(error)
    return RegisteredModel(
        name=meta.text("name"),
        description=meta.optional_text("description") or None,
        tags=texts_of(parts["tags"]),
        aliases={alias: _alias(text, what) for alias, text in texts_of(parts["aliases"]).items()},
        versions=tuple(versions),
        damaged=damaged,
        updated_at=scalars.latest(changes),
    )


def _read_version(meta: _Meta, files: Mapping[str, bytes], number: int) -> RegisteredVersion:
    source = meta.optional_text("source") or None
    if meta.whole("version") != number:
        raise IntegrityError(f"{meta.what} says to be version {meta.whole('version')}.")
    return RegisteredVersion(
        version=number,
        run_id=meta.optional_identifier("run_id"),
        source=source,
        storage_location=meta.optional_text("storage_location") or None,
        model_id=meta.optional_identifier("model_id") or model_of_source(source),
        status=version_status(meta.fields.get("status"), meta.what),
        stage=stage_of(meta.optional_text("current_stage")),
        description=meta.optional_text("description") or None,
        tags=texts_of(below(files, ("tags",), meta.what)["tags"]),
        created_at=meta.moment("creation_timestamp"),
    )


def _meta(files: Mapping[str, bytes], what: str) -> _Meta:
    if META not in files:
        raise IntegrityError(f"{what} has no {META}; MLflow writes it first.")
    return _Meta(files[META], f"{what}, {META}")


def _alias(text: str, what: str) -> int:
    try:
        return scalars.whole(int(text), f"{what}: aliases")
    except ValueError as error:
        raise scalars.refuse(text, f"{what}: aliases", "the numbers of versions") from error


def _vertices(named: Named) -> Iterator[_Meta]:
    for name in sorted(named):
        if name.count("/") == 1 and name.endswith(f"/{META}"):
            what, data = named[name]
            yield _Meta(data, what)


def _dataset_inputs(inputs: Named, datasets: Datasets | None) -> Iterator[dict[str, Any]]:
    for meta in _vertices(inputs):
        if datasets is not None and meta.fields.get("source_type") == "DATASET":
            dataset = datasets.get(meta.identifier("source_id"))
            if dataset is not None:
                yield {**dataset, "tags": scalars.texts(meta.fields.get("tags"), f"{meta.what}: tags")}


def _model_outputs(outputs: Named) -> Iterator[dict[str, Any]]:
    for meta in _vertices(outputs):
        if meta.fields.get("destination_type") == "MODEL_OUTPUT":
            model_id = meta.identifier("destination_id")
            yield {"model_id": model_id, "direction": "output", "step": meta.whole("step")}


def _model_inputs(inputs: Named) -> Iterator[dict[str, Any]]:
    for meta in _vertices(inputs):
        if meta.fields.get("source_type") == "MODEL":
            yield {"model_id": meta.identifier("source_id"), "direction": "input", "step": None}


def _check_place(facts: RunFacts, what: str, run_id: str | None, experiment: Experiment | None) -> None:
    if run_id is not None and facts.run_id != run_id:
        raise IntegrityError(f"{what} says to be the run {facts.run_id}; it lies in that of {run_id}.")
    if experiment is not None and facts.experiment_id != experiment.experiment_id:
        raise IntegrityError(
            f"{what} says to be of experiment {facts.experiment_id}; it lies in {experiment.experiment_id}."
        )
