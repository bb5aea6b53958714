"""Registering: a tree of files becomes a version of a model, once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from mltrack_tasks import events, layout, modelkeys, provenance
from mltrack_tasks.blobs import read_blob
from mltrack_tasks.content import check_metadata, resolve_ref, writer_of
from mltrack_tasks.deletions import Writer, hold
from mltrack_tasks.errors import FormatError, IntegrityError, InvalidInputError, NotFoundError
from mltrack_tasks.events import Event, Observe, log_event
from mltrack_tasks.fields import checked_mapping, checked_text
from mltrack_tasks.mlflowdata.mlmodel import read_mlmodel
from mltrack_tasks.models import MAX_FILES, ModelFile, ModelVersion, check_files, tree_digest
from mltrack_tasks.records import Record, RunManifest
from mltrack_tasks.recordstore import ensure
from mltrack_tasks.refs import DataRef
from mltrack_tasks.registrations import Registration
from mltrack_tasks.registry.identity import claim_version, today, version_of_tree
from mltrack_tasks.registry.materialising import check_places, materialise
from mltrack_tasks.registry.modelsource import model_source
from mltrack_tasks.registry.reading import read_version, with_standing
from mltrack_tasks.registry.removals import TRIES, outlast_removal, removed_meanwhile, was_removed_since
from mltrack_tasks.registry.sourcefiles import ModelSource
from mltrack_tasks.registry.versionrecords import create_version, stored_version
from mltrack_tasks.run_inputs import checked_metrics, checked_values
from mltrack_tasks.stores.base import Store

MATERIALISED_UP_TO = 1024**3
"""[bytes] A version up to this size gets its folder at once; a larger one when promoted, or asked for."""
_DESCRIBING = ("MLmodel", "requirements.txt")
_ID_LIKE = "v20240115_a1b2c3"
_MAX_DESCRIPTION = 4 * 1024 * 1024
"""[bytes] of a file that describes a model; a larger one is kept and not looked into."""


def register_model(
    store: Store,
    run_id: str | RunManifest | None,
    model_name: str,
    model_path: str | Path | DataRef | Mapping[str, Any] = "model",
    *,
    description: str | None = None,
    tags: Mapping[str, Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
    params: Mapping[str, Any] | None = None,
    training_data: Mapping[str, DataRef | str] | None = None,
    materialize: bool | None = None,
    tracking_uri: str | None = None,
    observe: Observe = log_event,
) -> ModelVersion:
    """Register the files of a model as a version -> the version, with ``s3_location`` once it has a folder.

    ``model_path`` is the name of an output of the run in this store, an artifact path of the run in MLflow
    (``tracking_uri``), a ref, a mapping of paths to refs, or a local file or folder. With a run id, only a
    ``Path`` or what begins with ``/``, ``./``, ``../`` or ``~`` is local: a name that the run lacks is never
    taken for a folder that happens to lie here. Params, metrics, tags and inputs of the run, and what an
    ``MLmodel`` among the files says, go into the record; what is given here comes before them.
    ``materialize`` makes real files under their own names; None: up to 1 GiB.

    The same bytes registered again are the same version (``created=False``): its record stays, and the run
    and what was said this time are kept beside it. Raises NotFoundError if there is no such model, blob or
    local path, or if neither this store nor MLflow knows the run; InvalidInputError for links and for names
    and values that cannot be kept; SourceChangedError if a file changes meanwhile: then no version was made.
    """
    layout.encode_segment(model_name, what="The model")
    said = _Said(
        description=checked_text(description, "The description"),
        tags=checked_values(tags, "tags"),
        metadata=check_metadata(metadata),
        metrics=checked_metrics(metrics),
        params=checked_values(params, "params"),
        training_data=_resolved(store, training_data),
    )
    with model_source(store, run_id, model_path, tracking_uri=tracking_uri) as source:
        draft = _draft(store, model_name, source, said, observe)
    return write_version(store, draft, materialize=materialize, observe=observe)


def write_version(
    store: Store, draft: ModelVersion, *, materialize: bool | None, observe: Observe
) -> ModelVersion:
    """Write a version whose blobs are held -> what is stored: id, folder, record, in this order."""
    _require_readable(draft)
    name = claim_version(store, draft.model, draft.tree_digest)
    version = replace(draft, version=name)
    check_places(store, version.model, name, [file.path for file in version.files])
    stored = _written(store, version, materialize, observe)
    details = {
        "version": name,
        "created": stored.created,
        "files": len(version.files),
        "bytes": version.size_bytes,
        "model": version.model,
    }
    observe(Event(events.MODEL_REGISTERED, f"model.{version.model}", details))
    return replace(with_standing(store, stored), created=stored.created)


def _written(store: Store, version: ModelVersion, materialize: bool | None, observe: Observe) -> ModelVersion:
    """Write folder and record, again if the version was removed meanwhile -> what is stored."""
    for _ in range(TRIES):
        removals = outlast_removal(store, version.model, version.version)
        stored = stored_version(store, version)
        if materialize is None and stored is None:
            materialize = version.size_bytes <= MATERIALISED_UP_TO
        if materialize:
            materialise(store, version, observe=observe)
        if stored is None:
            stored = create_version(store, version)
        if not stored.created:
            _keep_registration(store, stored, version)
        if not was_removed_since(store, version.model, version.version, removals):
            return stored
    raise removed_meanwhile(store, version)


def _require_readable(draft: ModelVersion) -> None:
    """Refuse what a record could hold and nobody read back: the tree would have no other record, for ever."""
    what = f"What is said of the model {draft.model!r}"
    named = replace(draft, version=modelkeys.version_id(today(), draft.tree_digest))
    body = Record(named.to_content(), provenance.current()).to_bytes()
    try:
        ModelVersion.from_record(Record.from_bytes(body, what=what), what=what)
    except IntegrityError as error:
        raise InvalidInputError(f"A version cannot be made of this: {error}") from error


@dataclass(frozen=True)
class _Said:
    """What the caller says of a model, beside its files."""

    description: str | None
    tags: Mapping[str, Any]
    metadata: Mapping[str, Any]
    metrics: Mapping[str, Any]
    params: Mapping[str, Any]
    training_data: Mapping[str, DataRef]


def _draft(store: Store, model: str, source: ModelSource, said: _Said, observe: Observe) -> ModelVersion:
    """Write the blobs of all files, and put together what the record will say; the id is not known yet."""
    if len(source.files) > MAX_FILES:
        raise InvalidInputError(
            f"The model has {len(source.files):,} files; the limit is {MAX_FILES:,}. Put them into archives."
        )
    for file in source.files:
        store.check(f"{modelkeys.versions_folder(model)}{_ID_LIKE}/{file.path}")
    inherited = {name: ref for name, ref in source.training_data.items() if name not in said.training_data}
    likely = _digests_of_newest(store, model)
    writers: list[Writer] = [partial(file.write, likely) for file in source.files]
    writers += [writer_of(store, ref, name) for name, ref in said.training_data.items()]
    writers += [partial(_as_it_is, ref) for ref in inherited.values()]
    listed = partial(_listed, store, model, source)
    files = _files_of(source, hold(store, writers, partial(pin_key, model), observe=observe, listed=listed))
    return ModelVersion(
        model=model,
        version="",
        tree_digest=tree_digest(files),
        files=files,
        source_runs=source.source_runs,
        training_data={**inherited, **said.training_data},
        metrics={**source.metrics, **said.metrics},
        params={**source.params, **said.params},
        tags={**source.tags, **said.tags},
        metadata=said.metadata,
        mlflow=mlflow_of(store, files),
        description=said.description,
    )


def _files_of(source: ModelSource, refs: Sequence[DataRef]) -> tuple[ModelFile, ...]:
    return check_files(
        ModelFile(file.path, ref.hash, ref.format, ref.size_bytes, file.executable)
        for file, ref in zip(source.files, refs, strict=False)  # refs of training data come after
    )


def _digests_of_newest(store: Store, model: str) -> frozenset[str]:
    """Digests of the version that was written last. A hint which blobs may be there, and no more."""
    objects, _ = store.level(modelkeys.versions_folder(model))
    newest_first = sorted(objects, key=lambda stat: stat.modified, reverse=True)
    place = next(filter(None, (modelkeys.parse_version_key(stat.key) for stat in newest_first)), None)
    try:
        found = None if place is None else read_version(store, *place)
    except (NotFoundError, IntegrityError, FormatError):
        found = None
    return frozenset() if found is None else frozenset(file.digest for file in found.files)


def _listed(store: Store, model: str, source: ModelSource, refs: Sequence[DataRef]) -> set[str]:
    """Digests that the record of the very same tree lists, if it is there: collectors leave those alone.

    Each blob was looked at all the same, one HEAD for each: a record does not tell that nobody damaged or
    removed them, and registering again is how they are mended.
    """
    tree = tree_digest(_files_of(source, refs))
    version = version_of_tree(store, model, tree)
    try:
        found = None if version is None else read_version(store, model, version)
    except NotFoundError:
        return set()
    if found is None or found.tree_digest != tree:
        return set()
    return {*(file.digest for file in found.files), *(ref.hash for ref in found.training_data.values())}


def _resolved(store: Store, refs: Mapping[str, Any] | None) -> dict[str, DataRef]:
    """Admit refs to training data."""
    found = checked_mapping(refs, "training_data")
    for name in found:
        layout.encode_segment(name, what="The name of training data")
    return {name: resolve_ref(store, ref) for name, ref in found.items()}


def _as_it_is(ref: DataRef, observe: Observe) -> DataRef:
    """What a run of this store lists is its own business; a pin keeps it for the version too."""
    return replace(ref, created=False)


def mlflow_of(store: Store, files: Sequence[ModelFile]) -> dict[str, Any]:
    """Read what the files that describe an MLflow model say, or nothing if it is none."""
    bodies = {
        file.path: read_blob(store, file.digest, file.format, file.size_bytes)
        for file in files
        if file.path in _DESCRIBING and file.size_bytes <= _MAX_DESCRIPTION
    }
    try:
        return read_mlmodel(bodies, what="The MLmodel file")
    except IntegrityError as error:
        events.logger.warning("kept as files only: %s", error)
        return {}


def _keep_registration(store: Store, stored: ModelVersion, again: ModelVersion) -> None:
    """Keep what was said when the same bytes were registered again, unless it is what the record says."""
    content = Registration.content_of(again)
    first = stored.to_content()
    if all(first.get(key) == value for key, value in content.items()):
        return
    record = Record(content, provenance.of_run())
    key = modelkeys.registration_key(stored.model, stored.version, record.content_digest)
    ensure(store, key, record.to_bytes())


def pin_key(model: str, digest: str) -> str:
    """Key by which the versions of a model hold a blob."""
    return layout.model_pin_key(digest, model)
