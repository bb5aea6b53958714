"""Registered models of MLflow -> versions and promotions of the registry, in the order of a transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from mltrack_tasks import events, layout
from mltrack_tasks.content import writer_of
from mltrack_tasks.deletions import hold
from mltrack_tasks.errors import ConflictError, IntegrityError, InvalidInputError, MLTrackError, NotFoundError
from mltrack_tasks.events import Event, Observe, log_event
from mltrack_tasks.manifests import read_manifest
from mltrack_tasks.migration.hashing import Failed
from mltrack_tasks.migration.modelplan import (
    Draft,
    Move,
    is_of,
    left_alone,
    moves,
    plan_models,
    request_id,
    rows_of,
    said_of,
)
from mltrack_tasks.migration.runmanifests import Written
from mltrack_tasks.migration.runplan import RunPlan
from mltrack_tasks.migration.scan import Scan
from mltrack_tasks.migration.state import OvertakenError
from mltrack_tasks.migrations import MigratedAlias, MigratedVersion
from mltrack_tasks.mlflowdata.facts import RegisteredVersion
from mltrack_tasks.models import ModelFile, ModelVersion
from mltrack_tasks.promotions import Promotion
from mltrack_tasks.records import RunManifest
from mltrack_tasks.refs import DataRef
from mltrack_tasks.registry.aliases import current_promotion
from mltrack_tasks.registry.moving import append_event, event_of, publish_version, request_of
from mltrack_tasks.registry.reading import read_version, require_in_use
from mltrack_tasks.registry.registering import MAX_FILES, mlflow_of, pin_key, write_version
from mltrack_tasks.registry.rolling import unless_deprecated
from mltrack_tasks.stores.base import Store

NUMBER_TAG, STAGE_TAG = "mlflow.version", "mlflow.stage"
"""Tags of a version: MLflow's number of it, and the stage that it was in. Each further number with the same
files has a tag of its own, ``mlflow.version.4``, as later registrations add tags and change none."""
_REFUSED = (ConflictError, IntegrityError, NotFoundError)
"""What keeps one version or alias from being written, and no other."""


class WrittenModels:
    """What became of the registered models. Neither tuple nor dataclass, as ``Uploaded`` is none."""

    __slots__ = ("aliases", "created", "failed", "versions")

    def __init__(
        self,
        versions: Sequence[MigratedVersion],
        aliases: Sequence[MigratedAlias],
        failed: Sequence[Failed] = (),
        created: int = 0,
    ) -> None:
        self.versions, self.aliases, self.failed = tuple(versions), tuple(aliases), tuple(failed)
        """``versions`` and ``aliases``: what the migration's manifest is to say of them."""
        self.created = created
        """How many versions are new here."""

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
        except _REFUSED as error:
            failed += [_failed(draft.model.name, f"version {each.version}", error) for each in draft.versions]
            continue
        else:
            found = rows_of(draft, version.version)
            created += version.created
        rows |= {(row.model, row.number): row for row in found}
        done = {"done": number, "total": len(plan.drafts), "unit": "versions"}
        observe(Event(events.PROGRESS, "registering models", done))
    aliases, refused = _give_aliases(store, work, list(rows.values()), observe)
    return WrittenModels(sorted(rows.values()), sorted(aliases), [*failed, *refused], created)


def _register(store: Store, draft: Draft, runs: Mapping[str, int]) -> ModelVersion:
    """Hold the blobs of a version, and write it, unless it is there."""
    name, newest = draft.model.name, draft.versions[-1]
    if len(draft.files) > MAX_FILES:
        raise InvalidInputError(f"It has {len(draft.files):,} files; a version holds {MAX_FILES:,}.")
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


def _give_aliases(
    store: Store, work: RunPlan, versions: Sequence[MigratedVersion], observe: Observe
) -> tuple[list[MigratedAlias], list[Failed]]:
    if work.unchanged and work.previous is not None:
        return list(work.previous.aliases), []
    rows, todo = moves(work.scan.registry, work.previous, versions)
    here = {(row.model, row.number): row.version for row in versions}
    state = work.previous.number + 1 if work.previous else 1
    known = {(row.model, row.alias): row for row in work.previous.aliases} if work.previous else {}
    failed: list[Failed] = []
    for move in todo:
        version = None if move.number is None else here[move.model, move.number]
        try:
            note = _move(store, move, version, work.scan, state, observe)
        except OvertakenError:
            raise
        except _REFUSED as error:
            failed.append(_failed(move.model, f"alias {move.alias!r}", error))
            rows += [known[place] for place in [(move.model, move.alias)] if place in known]
            continue
        if move.number is not None:
            given = None if note else version
            rows.append(MigratedAlias(move.model, move.alias, move.number, given, note))
        elif note:
            events.logger.warning("the alias %r of %r: %s", move.alias, move.model, note)
    return rows, failed


def _move(
    store: Store, move: Move, version: str | None, scan: Scan, state: int, observe: Observe
) -> str | None:
    """Move an alias, unless somebody else moved it here -> why it was left alone, or None.

    Raises OvertakenError if another call of this migration has moved it since the folder was looked at: that
    call may know better.
    """
    migration = scan.migration
    told = f"MLflow's {move.why}" if move.number is None else f"MLflow's {move.why} of version {move.number}"
    action = "remove" if version is None else "promote"
    reason, own_id = f"migrated: {told}", request_id(migration, state)
    request = request_of(store, move.model, move.alias, action, reason, own_id, observe)
    current = current_promotion(store, move.model, move.alias)
    there = None if current is None else current.version
    note = left_alone(current, version, migration)
    if note is not None or there == version:
        return note
    chosen = None if version is None else read_version(store, move.model, version)
    try:
        if chosen is not None:
            require_in_use(store, chosen)
    except InvalidInputError as error:
        return str(error)

    def decide(current: Promotion | None) -> Promotion | None:
        if current is not None and (left_alone(current, version, migration) or current.version == version):
            return None
        if current is not None and is_of(current, migration) and current.at > scan.began:
            raise OvertakenError(migration)
        return event_of(request, current, chosen)

    publish = None if chosen is None else partial(publish_version, request, chosen)
    done = append_event(request, decide, before=publish)
    unless_deprecated(request, done)
    return left_alone(done, version, migration)


def _failed(model: str, what: str, error: MLTrackError) -> Failed:
    return Failed(f"model {model!r}, {what}", str(error))


def _ignore(event: Event) -> None:
    """Versions of the past are no news, but for the aliases."""
