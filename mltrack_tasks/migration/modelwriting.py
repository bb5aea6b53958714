"""Registered models of MLflow -> versions and promotions of the registry, in the order of a transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from mltrack_tasks import events, layout
from mltrack_tasks.content import writer_of
from mltrack_tasks.deletions import hold
from mltrack_tasks.errors import InvalidInputError
from mltrack_tasks.events import Event, Observe, log_event
from mltrack_tasks.manifests import read_manifest
from mltrack_tasks.migration.aliaswriting import REFUSED, give_aliases, refusal_of
from mltrack_tasks.migration.changes import said_of
from mltrack_tasks.migration.hashing import Failed
from mltrack_tasks.migration.modelplan import (
    Draft,
    plan_models,
    rows_of,
)
from mltrack_tasks.migration.registries import too_many
from mltrack_tasks.migration.runmanifests import Written
from mltrack_tasks.migration.runplan import RunPlan
from mltrack_tasks.migrations import MigratedAlias, MigratedVersion
from mltrack_tasks.mlflowdata.facts import RegisteredVersion
from mltrack_tasks.models import MAX_FILES, ModelFile, ModelVersion
from mltrack_tasks.records import RunManifest
from mltrack_tasks.refs import DataRef
from mltrack_tasks.registry.registering import mlflow_of, pin_key, write_version
from mltrack_tasks.stores.base import Store

NUMBER_TAG, STAGE_TAG = "mlflow.version", "mlflow.stage"
"""Tags of a version: MLflow's number of it, and the stage that it was in. Each further number with the same
files has a tag of its own, ``mlflow.version.4``, as later registrations add tags and change none."""


class WrittenModels:
    """What became of the registered models. Neither tuple nor dataclass, as ``Uploaded`` is none."""

    __slots__ = ("aliases", "created", "failed", "moves", "versions")

    def __init__(
        self,
        versions: Sequence[MigratedVersion],
        aliases: Sequence[MigratedAlias],
        failed: Sequence[Failed] = (),
        created: int = 0,
        moves: Sequence[str] = (),
    ) -> None:
        self.versions, self.aliases, self.failed = tuple(versions), tuple(aliases), tuple(failed)
        """``versions`` and ``aliases``: what the migration's manifest is to say of them."""
        self.created, self.moves = created, tuple(moves)
        """``created``: how many versions are new here. ``moves``: ids of what was said before aliases were
        moved, and is done."""

    def __repr__(self) -> str:
        return f"<{len(self.versions):,} versions and {len(self.aliases):,} aliases of MLflow's models>"


def write_models(
    store: Store, work: RunPlan, written: Sequence[Written], *, observe: Observe = log_event
) -> WrittenModels:
    """Register MLflow's registered models, and give their aliases -> what is in the store now, what failed.

    Each version whose files are in the folder becomes one here, of the blobs that were sent; those with the
    same files become one. A version whose files are elsewhere is noted with the reason. An alias, and the
    stages Production and Staging, become promotions; no gate is asked. One that somebody moved here since
    stays, and is noted. What the last manifest lists, and MLflow has not changed since, costs no request.
    Run it after ``write_manifests``, and hand what it gives to ``finish_migration``.
    """
    plan = plan_models(work)
    runs = {run.run_id: run.revision for run in work.kept}
    runs |= {run.run_id: run.revision for batch in written for run in batch.runs}
    rows = {(row.model, row.number): row for row in plan.rows}
    failed, created = list(plan.failed), 0
    for number, draft in enumerate(plan.drafts, start=1):
        try:
            version = _register(store, draft, runs)
        except InvalidInputError as error:
            found = [row for row in rows_of(draft, None, str(error)) if (row.model, row.number) not in rows]
        except REFUSED as error:
            failed += [
                refusal_of(draft.model.name, f"version {each.version}", error) for each in draft.versions
            ]
            continue
        else:
            found = rows_of(draft, version.version)
            created += version.created
        rows |= {(row.model, row.number): row for row in found}
        done = {"done": number, "total": len(plan.drafts), "unit": "versions"}
        observe(Event(events.PROGRESS, "registering models", done))
    given = give_aliases(store, work, list(rows.values()), observe)
    failed += given.failed
    return WrittenModels(sorted(rows.values()), sorted(given.rows), failed, created, given.moves)


def _register(store: Store, draft: Draft, runs: Mapping[str, int]) -> ModelVersion:
    """Hold the blobs of a version, and write it, unless it is there."""
    name, newest = draft.model.name, draft.versions[-1]
    if len(draft.files) > MAX_FILES:
        raise InvalidInputError(too_many(len(draft.files)))
    writers = [writer_of(store, _ref(file), file.path) for file in draft.files]
    hold(store, writers, partial(pin_key, name), observe=_ignore)
    known = list(filter(None, (_run(store, each, runs) for each in draft.versions)))
    version = ModelVersion(
        model=name,
        version="",
        tree_digest=draft.tree_digest,
        files=draft.files,
        source_runs=tuple({each.run_id for each in draft.versions if each.run_id and _is_name(each.run_id)}),
        metrics=known[-1].metrics if known else {},
        params=known[-1].params if known else {},
        tags=_tags(draft),
        metadata={"mlflow": {"model": _said_of_model(draft), "versions": list(map(said_of, draft.versions))}},
        mlflow=mlflow_of(store, draft.files),
        description=newest.description,
    )
    return write_version(store, version, materialize=None, observe=_ignore)


def _ref(file: ModelFile) -> DataRef:
    place = layout.blob_key(file.digest, file.format)
    return DataRef(file.digest, file.format, file.size_bytes, place, file.shown_path)


def _run(store: Store, version: RegisteredVersion, runs: Mapping[str, int]) -> RunManifest | None:
    """Read the run that a version is of, as this migration stored it."""
    revision = runs.get(version.run_id or "")
    return None if revision is None else read_manifest(store, version.run_id or "", revision)


def _is_name(run_id: str) -> bool:
    """Whether a run's id passes the key gate."""
    try:
        layout.manifest_key(run_id)
    except InvalidInputError:
        return False
    return True


def _tags(draft: Draft) -> dict[str, str]:
    tags = {key: value for version in draft.versions for key, value in version.tags.items()}
    stages = [version.stage for version in draft.versions if version.stage]
    first, *others = (str(version.version) for version in draft.versions)
    numbers = {NUMBER_TAG: first, **{f"{NUMBER_TAG}.{number}": number for number in others}}
    return {**tags, **({STAGE_TAG: stages[-1]} if stages else {}), **numbers}


def _said_of_model(draft: Draft) -> dict[str, Any]:
    return {"description": draft.model.description, "tags": dict(draft.model.tags)}


def _ignore(event: Event) -> None:
    """Versions of the past are no news, but for the aliases."""
