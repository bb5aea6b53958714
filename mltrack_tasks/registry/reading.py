"""Versions as they stand: their records, and what came to be known of them since."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from mltrack_tasks import events, layout, modelkeys
from mltrack_tasks.errors import FormatError, IntegrityError, InvalidInputError, NotFoundError
from mltrack_tasks.fields import Fields
from mltrack_tasks.models import ModelVersion
from mltrack_tasks.parallel import map_ordered, run_all
from mltrack_tasks.promotions import Promotion
from mltrack_tasks.records import Record
from mltrack_tasks.recordstore import read_record
from mltrack_tasks.registrations import Registration, described_by
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
    found = None if event is None else read_promoted(store, event)
    if found is None:
        raise _no_alias(store, model, version_or_alias)
    return found


def read_promoted(store: Store, event: Promotion) -> ModelVersion | None:
    """Read the version that a promotion names, or None if it took the alias away.

    Raises IntegrityError if that version is another tree than the one that was promoted.
    """
    if event.version is None:
        return None
    found = read_version(store, event.model, event.version)
    if found.tree_digest != event.tree_digest:
        raise IntegrityError(
            f"The alias {event.alias!r} of {event.model!r} in {store.location} was given to the tree "
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


def described(store: Store, version: ModelVersion) -> ModelVersion:
    """Add what was said when the same bytes were registered again: one LIST, and a GET for each time.

    More source runs, and metrics, params and tags of names that the record lacks. What the record says
    stands; of what came later, what was said first does, by the clocks of those who said it. A registration
    that cannot be read is left out with a warning in the log.
    """
    return _described(store, version, _registration_keys(store, version))


def registrations_of(store: Store, version: ModelVersion) -> list[Record]:
    """Read the records of the later registrations of a version; those that cannot be read are left out."""
    return [record for record, _ in _registrations(store, version, _registration_keys(store, version))]


def with_standing(store: Store, version: ModelVersion) -> ModelVersion:
    """Add what the record does not say: as ``described``, where the files are, whether it is deprecated.

    Four requests at once, and then a GET for each later registration.
    """
    model, name = version.model, version.version
    asked: list[Callable[[], Any]] = [
        partial(store.head, modelkeys.promoted_key(model, name)),
        partial(store.head, modelkeys.materialized_key(model, name)),
        partial(deprecation_of, store, model, name),
        partial(_registration_keys, store, version),
    ]
    promoted, materialised, deprecated, registrations = run_all(asked, store.max_workers)
    folder = None
    if promoted is not None:
        folder = modelkeys.promoted_folder(model, name)
    elif materialised is not None:
        folder = modelkeys.development_folder(model, name)
    return replace(
        _described(store, version, registrations),
        s3_location=None if folder is None else location_of(store, folder),
        deprecated=deprecated,
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


def _registration_keys(store: Store, version: ModelVersion) -> list[str]:
    """Keys of the later registrations of a version."""
    folder = modelkeys.registrations_folder(version.model, version.version)
    return [stat.key for stat in store.list(folder)]


def _described(store: Store, version: ModelVersion, registrations: list[str]) -> ModelVersion:
    return described_by(version, [said for _, said in _registrations(store, version, registrations)])


def _registrations(
    store: Store, version: ModelVersion, keys: list[str]
) -> Iterator[tuple[Record, Registration]]:
    found = map_ordered(partial(_registration, store, version), keys, store.max_workers)
    return (each for each in found if each is not None)


def _registration(store: Store, version: ModelVersion, key: str) -> tuple[Record, Registration] | None:
    """Read a later registration; None with a warning if it cannot be read."""
    what = f"{key} in {store.location}"
    try:
        record = read_record(store, key)
        found = Registration.from_record(record, version, what=what)
        if modelkeys.registration_key(version.model, version.version, record.content_digest) != key:
            raise IntegrityError(f"{what} does not hold what its name says; it was not written by us.")
    except NotFoundError:
        return None
    except (IntegrityError, FormatError) as error:
        events.logger.warning("left out: %s", error)
        return None
    return record, found


def _latest(store: Store, model: str) -> ModelVersion:
    """The version that was registered last: of the newest day the one with the latest time in its record.

    Each record of that day is read, though a LIST tells when it was written: a copy of the bucket was written
    at another time, and in another order.
    """
    looks: list[Callable[[], Iterable[str]]] = [
        partial(version_ids, store, model),
        partial(deprecated_versions, store, model),
    ]
    listed, gone = run_all(looks, store.max_workers)
    usable = {*listed} - {*gone}
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
