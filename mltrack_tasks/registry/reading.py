"""Versions as they stand: their records, and what came to be known of them since."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial

from mltrack_tasks import events, layout, modelkeys
from mltrack_tasks.errors import FormatError, IntegrityError, InvalidInputError, NotFoundError
from mltrack_tasks.fields import Fields
from mltrack_tasks.models import ModelVersion
from mltrack_tasks.parallel import map_ordered
from mltrack_tasks.recordstore import read_record
from mltrack_tasks.registry.aliases import alias_names, current_promotion
from mltrack_tasks.stores.base import Store


def read_version(store: Store, model: str, version: str) -> ModelVersion:
    """Read the record of one version. IntegrityError if the record there is of another."""
    key = modelkeys.version_key(model, version)
    what = f"{key} in {store.location}"
    try:
        record = read_record(store, key)
    except NotFoundError:
        raise NotFoundError(
            f"There is no version {version!r} of model {model!r} in {store.location}.",
            details={"model": model, "version": version},
        ) from None
    found = ModelVersion.from_record(record, what=what)
    if (found.model, found.version) != (model, version):
        raise IntegrityError(f"{what} is that of {found.model!r} {found.version}; we did not write it there.")
    return found


def resolve(store: Store, model: str, version_or_alias: str) -> ModelVersion:
    """Read the version that a version id, an alias or ``latest`` stands for, as it stands now."""
    return with_standing(store, read_named(store, model, version_or_alias))


def read_named(store: Store, model: str, version_or_alias: str) -> ModelVersion:
    """Read the record of what a version id, an alias or ``latest`` stands for."""
    if modelkeys.is_version(version_or_alias):
        return read_version(store, model, version_or_alias)
    if version_or_alias == modelkeys.LATEST:
        return _latest(store, model)
    event = current_promotion(store, model, modelkeys.check_alias(version_or_alias))
    if event is None or event.version is None:
        raise _no_alias(store, model, version_or_alias)
    found = read_version(store, model, event.version)
    if found.tree_digest != event.tree_digest:
        raise IntegrityError(
            f"The alias {version_or_alias!r} of {model!r} in {store.location} was given to the tree "
            f"{event.tree_digest}, and {event.version} is another. One of the two records was forged."
        )
    return found


def version_ids(store: Store, model: str) -> list[str]:
    """Name the versions of a model that are registered, in the order of their ids."""
    stats, _ = store.level(modelkeys.versions_folder(model))
    places = filter(None, (modelkeys.parse_version_key(stat.key) for stat in stats))
    return [version for _, version in places]


def model_names(store: Store) -> list[str]:
    """Name the models of which something was registered; foreign folders are passed over."""
    return _model_names(store, modelkeys.VERSIONS)


def promoted_names(store: Store) -> list[str]:
    """Name the models of which something was promoted; foreign folders are passed over."""
    return _model_names(store, modelkeys.REGISTRY)


def deprecated_versions(store: Store, model: str) -> set[str]:
    """Name the versions of a model that were taken out of use: one LIST."""
    folder = modelkeys.deprecations_folder(model)
    names = (stat.key.removeprefix(folder).removesuffix(".json") for stat in store.list(folder))
    return {name for name in names if modelkeys.is_version(name)}


def deprecation_of(store: Store, model: str, version: str) -> str | None:
    """Why a version was taken out of use (``""``: no reason was given), or None if it was not."""
    key = modelkeys.deprecation_key(model, version)
    try:
        record = read_record(store, key)
    except NotFoundError:
        return None
    return Fields(record.content, f"{key} in {store.location}").optional_text("reason") or ""


def with_standing(store: Store, version: ModelVersion) -> ModelVersion:
    """Add what the record does not say: where the files are, later source runs, whether it is deprecated."""
    model, name = version.model, version.version
    runs = {*version.source_runs, *_later_runs(store, model, name)}
    return replace(
        version,
        s3_location=_location(store, model, name),
        deprecated=deprecation_of(store, model, name),
        source_runs=tuple(sorted(runs)),
    )


def location_of(store: Store, folder: str) -> str:
    """Where a folder of the store is, as other programs take it: ``s3://...`` or a path, without a slash."""
    return f"{store.location}/{folder.rstrip('/')}"


def _model_names(store: Store, root: str) -> list[str]:
    names = []
    for segment in store.level(root)[1]:
        try:
            names.append(layout.decode_segment(segment))
        except IntegrityError:
            continue
    return names


def _location(store: Store, model: str, version: str) -> str | None:
    if store.head(modelkeys.promoted_key(model, version)) is not None:
        return location_of(store, modelkeys.promoted_folder(model, version))
    if store.head(modelkeys.materialized_key(model, version)) is not None:
        return location_of(store, modelkeys.development_folder(model, version))
    return None


def _later_runs(store: Store, model: str, version: str) -> Iterable[str]:
    """Source runs of later registrations; a record that cannot be read is left out with a warning."""
    folder = modelkeys.registrations_folder(model, version)
    keys = [stat.key for stat in store.list(folder)]
    found = map_ordered(partial(_runs_in, store), keys, store.max_workers)
    return {run for runs in found for run in runs}


def _runs_in(store: Store, key: str) -> tuple[str, ...]:
    what = f"{key} in {store.location}"
    try:
        fields = Fields(read_record(store, key).content, what)
        runs = fields.texts("source_runs") or ()
        return tuple(Fields({"run": run}, what).name("run") for run in runs)
    except NotFoundError:
        return ()
    except (IntegrityError, FormatError) as error:
        events.logger.warning("left out: %s", error)
        return ()


def _latest(store: Store, model: str) -> ModelVersion:
    """The version that was registered last: of the newest day the one with the latest time in its record."""
    usable = set(version_ids(store, model)) - deprecated_versions(store, model)
    if not usable:
        raise NotFoundError(
            f"There is no version of model {model!r} in {store.location} that is in use.",
            details={"model": model},
        )
    newest = max(map(modelkeys.day_of, usable))
    of_that_day = sorted(version for version in usable if modelkeys.day_of(version) == newest)
    read = map_ordered(partial(read_version, store, model), of_that_day, store.max_workers)
    return max(read, key=lambda version: (version.registered_at, version.version))


def _no_alias(store: Store, model: str, alias: str) -> NotFoundError:
    known = [name for name in alias_names(store, model) if name != alias]
    hint = f" It has {', '.join(map(repr, known[:10]))}." if known else " It has no alias."
    return NotFoundError(
        f"The model {model!r} in {store.location} has no alias {alias!r} in use.{hint}",
        details={"model": model, "alias": alias},
    )


def require_in_use(store: Store, version: ModelVersion) -> None:
    """Raise InvalidInputError if a version was taken out of use."""
    reason = deprecation_of(store, version.model, version.version)
    if reason is not None:
        said = f" ({reason})" if reason else ""
        raise InvalidInputError(
            f"{version.version} of {version.model!r} is deprecated{said}; choose another version.",
            details={"model": version.model, "version": version.version},
        )
