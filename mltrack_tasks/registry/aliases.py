"""Aliases: which version a name stands for, as its numbered promotions say."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

from mltrack_tasks import events, layout
from mltrack_tasks.errors import (
    ArchivedError,
    FormatError,
    IntegrityError,
    InvalidInputError,
    MLTrackError,
    NotFoundError,
)
from mltrack_tasks.modelkeys import alias_folder, aliases_folder, check_alias
from mltrack_tasks.parallel import map_ordered
from mltrack_tasks.promotions import Promotion
from mltrack_tasks.records import Record
from mltrack_tasks.registry.numbered import create_number, list_numbered, read_number, read_numbered
from mltrack_tasks.stores.base import Stat, Store

REMEMBERED = timedelta(days=7)
"""How long a request id is looked for among the promotions, by the store's clock and this machine's."""


def promotions_of(store: Store, model: str, alias: str) -> list[Promotion]:
    """Read all promotions of an alias, oldest first; none if there is no such alias."""
    return read_numbered(store, alias_folder(model, alias), partial(parse_event, model, alias))


def current_promotion(store: Store, model: str, alias: str) -> Promotion | None:
    """Read the promotion that is in force, or None if there never was one: one LIST and one GET."""
    return _last_of(store, model, alias, list_numbered(store, alias_folder(model, alias)))


def find_request(store: Store, model: str, alias: str, request_id: str) -> Promotion | None:
    """Find the promotion that a call of this request id wrote before, among those of the last days."""
    return find_among(store, model, alias, request_id, recent_numbers(store, model, alias)[0])


def recent_numbers(store: Store, model: str, alias: str) -> tuple[list[int], int]:
    """List the promotions of an alias -> numbers of those of the last days, newest first; number of all."""
    since = datetime.now(UTC) - REMEMBERED
    listed = list_numbered(store, alias_folder(model, alias))
    recent = [number for number, stat in enumerate(listed, start=1) if stat.modified >= since]
    return recent[::-1], len(listed)


def find_among(
    store: Store, model: str, alias: str, request_id: str, numbers: Iterable[int]
) -> Promotion | None:
    """Find the promotion of a request id among those of certain numbers."""
    read = partial(read_number, store, alias_folder(model, alias), partial(parse_event, model, alias))
    for event in map_ordered(read, numbers, store.max_workers):
        if event.request_id == request_id:
            return event
    return None


def append(store: Store, event: Promotion) -> Promotion | None:
    """Write the promotion under its number -> what is stored, or None if another has the number."""
    what = f"The alias {event.alias!r} of model {event.model!r}"
    folder = alias_folder(event.model, event.alias)
    written = create_number(store, folder, event.number, event.to_content(), what=what)
    if written is None:
        return None
    record, created = written
    return replace(event, provenance=record.provenance, created=created)


def alias_names(store: Store, model: str) -> list[str]:
    """Name the aliases that a model has or had; foreign folders are passed over."""
    return list(_names(store.level(aliases_folder(model))[1]))


def aliases_of(store: Store, model: str) -> dict[str, str]:
    """Read which version each alias of a model stands for; those that were removed are left out."""
    names = alias_names(store, model)
    found = map_ordered(partial(current_promotion, store, model), names, store.max_workers)
    return {event.alias: event.version for event in found if event and event.version}


def standing_aliases(store: Store, model: str) -> tuple[dict[str, str], dict[str, str]]:
    """As ``aliases_of``, and what is wrong with each alias that cannot be read -> (versions, faults)."""
    versions: dict[str, str] = {}
    faults: dict[str, str] = {}
    names, look = alias_names(store, model), partial(_looked_at, store, model)
    for name, found in zip(names, map_ordered(look, names, store.max_workers), strict=True):
        if isinstance(found, MLTrackError):
            events.logger.warning("left out: %s", found)
            faults[name] = str(found)
        elif found is not None and found.version is not None:
            versions[name] = found.version
    return versions, faults


def _looked_at(store: Store, model: str, alias: str) -> Promotion | MLTrackError | None:
    """The promotion that is in force, or why that is not known; what fails by itself is raised."""
    try:
        return current_promotion(store, model, alias)
    except (ArchivedError, FormatError, IntegrityError, NotFoundError) as error:
        return error


def _names(folders: list[str]) -> Iterator[str]:
    for segment in folders:
        try:
            yield check_alias(layout.decode_segment(segment))
        except (IntegrityError, InvalidInputError):
            continue


def _last_of(store: Store, model: str, alias: str, listed: list[Stat]) -> Promotion | None:
    if not listed:
        return None
    return read_number(store, alias_folder(model, alias), partial(parse_event, model, alias), len(listed))


def parse_event(model: str, alias: str, record: Record, number: int, what: str) -> Promotion:
    """Parse one promotion of an alias; IntegrityError if it is that of another place."""
    event = Promotion.from_record(record, what=what)
    if (event.model, event.alias, event.number) != (model, alias, number):
        raise IntegrityError(f"{what} is that of another place; it was not written there by this library.")
    return event
