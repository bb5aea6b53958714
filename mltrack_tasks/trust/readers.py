"""Readers: where the records of each kind lie, and how one of them is read for what it needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from functools import partial
from itertools import groupby
from typing import Any, NamedTuple, TypeAlias

from mltrack_tasks import layout, migrations, modelkeys
from mltrack_tasks.content import read_name
from mltrack_tasks.errors import ArchivedError, FormatError, IntegrityError, MLTrackError, NotFoundError
from mltrack_tasks.manifests import read_manifest
from mltrack_tasks.migration import state
from mltrack_tasks.migrations import MigrationManifest
from mltrack_tasks.models import ModelVersion
from mltrack_tasks.receipts import Receipt
from mltrack_tasks.recordstore import read_record
from mltrack_tasks.registry import aliases, reading
from mltrack_tasks.stores.base import Stat, Store
from mltrack_tasks.trust import needs
from mltrack_tasks.trust.needs import Need

RUN, NAME, MODEL, MIGRATION = "run", "name", "model", "migration"
IN_USE = timedelta(days=30)
"""How long plans and receipts of migrations hold what they name, if no manifest lists them."""
UNREADABLE = (ArchivedError, FormatError, IntegrityError)
"""What says that a record is there, and does not say what it needs."""

Found: TypeAlias = tuple[tuple[Need, ...], Any] | None
"""Needs and the parsed record; None for one that holds nothing any more."""


class Holder(NamedTuple):
    """A record, as people know it."""

    kind: str
    """``run``, ``name``, ``model`` or ``migration``."""
    name: str
    """A run id, data name, model with its version or alias, or migration."""
    key: str


class Reader(NamedTuple):
    """How one record is read."""

    holder: Holder
    read: Callable[[Store, Holder], Found]
    relied_on: bool = False
    """Whether another record says that it must be there."""
    stat: Stat | None = None
    """What was listed, of a record that needs the same blobs as long as it is that object. None where what it
    needs depends on the time, or on other records."""


def readers_of(store: Store, kind: str) -> Iterator[Reader]:
    """List the records of one kind. Foreign objects are passed over."""
    yield from {RUN: _runs, NAME: _names, MODEL: _models, MIGRATION: _migrations}[kind](store)


def _runs(store: Store) -> Iterator[Reader]:
    for stat in store.list(layout.MANIFESTS):
        if place := layout.parse_manifest_key(stat.key):
            yield Reader(Holder(RUN, place[0], stat.key), partial(_run, place), stat=stat)


def _run(place: tuple[str, int], store: Store, holder: Holder) -> Found:
    manifest = read_manifest(store, *place)
    return needs.of_manifest(manifest, what=_what(store, holder.key)), manifest


def _names(store: Store) -> Iterator[Reader]:
    for stat in store.list(layout.NAMES):
        if place := layout.parse_name_key(stat.key):
            yield Reader(Holder(NAME, place[0], stat.key), _name, stat=stat)


def _name(store: Store, holder: Holder) -> Found:
    item = read_name(store, holder.key)
    return needs.of_refs([item.ref]), item


def _models(store: Store) -> Iterator[Reader]:
    for model in reading.model_names(store):
        objects, _ = store.level(modelkeys.versions_folder(model))
        yield from _versions(model, objects)
        for stat in store.list(modelkeys.all_registrations_folder(model)):
            if version := modelkeys.parse_registration_key(stat.key, model):
                yield Reader(Holder(MODEL, f"{model} {version}", stat.key), _registration, stat=stat)
    for model in reading.promoted_names(store):
        objects, _ = store.level(modelkeys.registry_folder(model))
        yield from _versions(model, objects)
        for alias in aliases.alias_names(store, model):
            key = modelkeys.alias_folder(model, alias)
            yield Reader(Holder(MODEL, f"{model} {alias}", key), partial(_promotions, model, alias))


def _versions(model: str, objects: Iterable[Stat]) -> Iterator[Reader]:
    for stat in objects:
        place = modelkeys.parse_version_key(stat.key) or modelkeys.parse_promoted_key(stat.key)
        if place:
            yield Reader(Holder(MODEL, f"{model} {place[1]}", stat.key), partial(_version, place), stat=stat)


def _version(place: tuple[str, str], store: Store, holder: Holder) -> Found:
    what = _what(store, holder.key)
    version = ModelVersion.from_record(read_record(store, holder.key), what=what)
    if (version.model, version.version) != place:
        raise IntegrityError(f"{what} is that of {version.model!r} {version.version}; it was forged.")
    return needs.of_version(version), version


def _registration(store: Store, holder: Holder) -> Found:
    record = read_record(store, holder.key)
    return needs.of_registration(record, what=_what(store, holder.key)), record


def _promotions(model: str, alias: str, store: Store, holder: Holder) -> Found:
    """All events of an alias: they need versions, and no blob of their own."""
    return (), aliases.promotions_of(store, model, alias)


def _migrations(store: Store) -> Iterator[Reader]:
    """Manifests come before receipts in the order of keys, so that is known which of those they list."""
    for folder, stats in groupby(store.list(migrations.MIGRATIONS), key=_folder):
        try:
            migration = layout.decode_segment(folder)
        except IntegrityError:
            continue
        yield from _of_migration(store, migration, stats)


def _of_migration(store: Store, migration: str, stats: Iterator[Stat]) -> Iterator[Reader]:
    """Readers of one migration's records; a receipt that is listed and not there has one too."""
    listed: set[str] = set()
    there: set[str] = set()
    for stat in stats:
        key, holder = stat.key, Holder(MIGRATION, migration, stat.key)
        if place := migrations.parse_manifest_key(key):
            state_then = _state(store, place)
            listed |= set(() if isinstance(state_then, MLTrackError) else state_then.receipts)
            yield Reader(holder, partial(_migration, state_then))
        elif migrations.parse_plan_key(key):
            yield Reader(holder, _plan)
        elif batch := migrations.parse_receipt_key(key):
            there.add(batch)
            relied_on = batch in listed
            read = partial(_receipt, batch, relied_on)
            yield Reader(holder, read, relied_on, stat if relied_on else None)
    for batch in sorted(listed - there):
        holder = Holder(MIGRATION, migration, migrations.receipt_key(migration, batch))
        yield Reader(holder, partial(_receipt, batch, True), relied_on=True)


def _state(store: Store, place: tuple[str, int]) -> MigrationManifest | MLTrackError:
    try:
        return state.read_manifest(store, *place)
    except (*UNREADABLE, NotFoundError) as error:
        return error


def _migration(found: MigrationManifest | MLTrackError, store: Store, holder: Holder) -> Found:
    if isinstance(found, MLTrackError):
        raise found
    return needs.of_migration(found), found


def _plan(store: Store, holder: Holder) -> Found:
    record = read_record(store, holder.key)
    if state.is_older(record, IN_USE):
        return None
    return needs.of_plan(record, what=_what(store, holder.key)), record


def _receipt(batch: str, listed: bool, store: Store, holder: Holder) -> Found:
    record, what = read_record(store, holder.key), _what(store, holder.key)
    if not listed and state.is_older(record, IN_USE):
        return None
    receipt = Receipt.from_record(record, what=what)
    if receipt.batch != batch:
        raise IntegrityError(f"{what} is the receipt of another batch.")
    return needs.of_receipt(receipt), receipt


def _folder(stat: Stat) -> str:
    return stat.key.split("/")[1]


def _what(store: Store, key: str) -> str:
    return f"{key} in {store.location}"
