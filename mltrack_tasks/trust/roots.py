"""Roots: one reading of every record of a store, and of the blobs that each of them needs.

Whoever asks what is in use asks this: verification, collection and the account of usage differ only in what
they do about a record that cannot be read.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import Any, NamedTuple

from mltrack_tasks import events
from mltrack_tasks.errors import IntegrityError, MLTrackError, NotFoundError
from mltrack_tasks.events import Event, Observe
from mltrack_tasks.parallel import map_ordered
from mltrack_tasks.stores.base import Stat, Store
from mltrack_tasks.trust.needs import Need
from mltrack_tasks.trust.readers import MIGRATION, MODEL, NAME, RUN, UNREADABLE, Holder, Reader, readers_of

KINDS = (RUN, NAME, MODEL, MIGRATION)
_REPORT_EVERY = 1_000


class Root(NamedTuple):
    """One record, and what it needs."""

    holder: Holder
    needs: tuple[Need, ...]
    record: Any
    """The record as it was parsed: RunManifest, NamedData, ModelVersion, Promotion, MigrationManifest, ..."""
    stat: Stat | None = None
    """As of ``Reader``: what was listed, where needs follow from that object alone."""


class Unreadable(NamedTuple):
    """A record that cannot be read: what it needs is not known."""

    holder: Holder
    error: MLTrackError
    """ArchivedError, FormatError or IntegrityError."""


def refuse(found: Unreadable) -> None:
    """Raise the error of a record that cannot be read: for whoever deletes what no record needs."""
    raise found.error


def name_in_log(found: Unreadable) -> None:
    """Leave a record that cannot be read out, with a warning in the log."""
    events.logger.warning("left out: %s", found.error)


def roots(
    store: Store,
    unreadable: Callable[[Unreadable], None],
    *,
    kinds: Collection[str] = KINDS,
    skip: Callable[[Reader], bool] = lambda reader: False,
    observe: Observe = events.log_event,
) -> Iterator[Root]:
    """Read every record that can hold a blob -> each with its needs, as a stream.

    In this order: all revisions of all manifests; named data; models (versions registered and promoted,
    later registrations, and promotions, which need no blob); migrations (all manifests, the receipts that
    these list, and other receipts and plans of the last 30 days). Each folder is listed when its turn comes,
    and a record that is gone by the time it is read is passed over. ``kinds`` takes some of these;
    ``skip`` leaves a record unread. Memory does not grow with the store.

    ``unreadable`` is told of each record that cannot be read, and of each that another record relies on and
    that is missing: ``refuse`` raises, ``name_in_log`` and ``list.append`` go on.
    """
    places = (reader for kind in KINDS if kind in kinds for reader in readers_of(store, kind))
    wanted = (reader for reader in places if not skip(reader))
    answers = map_ordered(partial(_read, store), wanted, store.max_workers)
    for number, answer in enumerate(answers, start=1):
        if isinstance(answer, Unreadable):
            unreadable(answer)
        elif answer is not None:
            yield answer
        if number % _REPORT_EVERY == 0:
            details = {"done": number, "total": None, "unit": "records"}
            observe(Event(events.PROGRESS, "reading records", details))


def _read(store: Store, reader: Reader) -> Root | Unreadable | None:
    try:
        found = reader.read(store, reader.holder)
    except NotFoundError:
        if not reader.relied_on:
            return None
        said = f"{reader.holder.key} is not in {store.location}, and another record relies on it."
        return Unreadable(reader.holder, IntegrityError(said))
    except UNREADABLE as error:
        return Unreadable(reader.holder, error)
    return None if found is None else Root(reader.holder, *found, reader.stat)
