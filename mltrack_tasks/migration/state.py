"""What a store holds of a migration: its newest manifest, the tree that it lists, and where files lie."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial

from mltrack_tasks import events, migrations
from mltrack_tasks.errors import ConflictError, IntegrityError, NotFoundError
from mltrack_tasks.filetree import (
    FOLDER,
    Entry,
    folders_above,
    in_order,
)
from mltrack_tasks.migrations import MigrationManifest
from mltrack_tasks.parallel import map_ordered
from mltrack_tasks.receipts import Place, Receipt
from mltrack_tasks.records import Record
from mltrack_tasks.recordstore import read_record
from mltrack_tasks.stores.base import Store


class OvertakenError(ConflictError):
    """Another call has finished a state of the same migration since this one was planned."""

    def __init__(self, migration: str) -> None:
        super().__init__(
            f"Another call has finished a state of the migration {migration!r} since this one was planned, "
            "and it may be newer. Run the same call again: what was sent is not sent again."
        )


def latest_number(store: Store, migration: str) -> int:
    """Highest number of a migration's manifests; 0 if there is none."""
    places = map(migrations.parse_manifest_key, _keys(store, migrations.manifests_folder(migration)))
    return max((place[1] for place in places if place is not None), default=0)


def latest_manifest(store: Store, migration: str) -> MigrationManifest | None:
    """Read the newest manifest of a migration, or None if there is none.

    Raises IntegrityError if it is damaged. It is not passed over: it alone may list what was deleted locally.
    """
    return read_standing(store, migration)[0]


def read_standing(store: Store, migration: str) -> tuple[MigrationManifest | None, tuple[str, ...]]:
    """Read the newest manifest, as ``latest_manifest`` -> (it, keys of what calls left unfinished).

    Those are records of aliases about to be moved that neither this manifest names nor an older one covers.
    """
    keys = list(_keys(store, migrations.manifests_folder(migration)))
    number = max((place[1] for place in map(migrations.parse_manifest_key, keys) if place), default=0)
    newest = _read_newest(store, migration, number) if number else None
    done = newest.moves if newest else ()
    said = [(key, place) for key in keys if (place := migrations.parse_moves_key(key))]
    return newest, tuple(key for key, place in said if place[1] >= number and place[2] not in done)


def _read_newest(store: Store, migration: str, number: int) -> MigrationManifest:
    try:
        return read_manifest(store, migration, number)
    except IntegrityError as error:
        raise IntegrityError(
            f"{error} It is the newest of the migration {migration!r}. Restore it from a copy or an older "
            "object version; if there is none, remove it: then the state before it counts."
        ) from error


def read_manifest(store: Store, migration: str, number: int) -> MigrationManifest:
    """Read one manifest of a migration. IntegrityError if the record there is of another."""
    key = migrations.manifest_key(migration, number)
    what = f"{key} in {store.location}"
    manifest = MigrationManifest.from_record(read_record(store, key), what=what)
    if (manifest.migration, manifest.number) != (migration, number):
        raise IntegrityError(
            f"{what} is that of another migration; it was not written there by this library."
        )
    return manifest


def list_migrations(store: Store) -> list[str]:
    """Name the migrations that have a manifest, in order."""
    places = map(migrations.parse_manifest_key, _keys(store, migrations.MIGRATIONS))
    return sorted({place[0] for place in places if place is not None})


def merged(newer: Iterable[Entry], older: Iterable[Entry]) -> list[Entry]:
    """Lay one tree over another: where both have a path, or one has a file above it, the newer one counts."""
    kept = {entry.path: entry for entry in newer}
    leaves = {entry.path for entry in kept.values() if entry.kind != FOLDER}
    for entry in older:
        if leaves.isdisjoint(folders_above(entry.path)):
            kept.setdefault(entry.path, entry)
    return in_order(kept.values())


def read_receipts(store: Store, migration: str, batches: Sequence[str]) -> list[Receipt]:
    """Read receipts in parallel. One that is missing is passed over: what it named is asked for again."""
    answers = map_ordered(partial(find_receipt, store, migration), batches, store.max_workers)
    found = {batch: receipt for batch, receipt in zip(batches, answers, strict=True) if receipt is not None}
    if missing := [batch for batch in batches if batch not in found]:
        events.logger.warning("receipts of %r are missing: %s", migration, ", ".join(missing))
    return list(found.values())


def has_receipts(store: Store, migration: str, batches: Collection[str]) -> bool:
    """Whether all these receipts are there, by one LIST."""
    keys = _keys(store, migrations.receipts_folder(migration))
    return set(batches) <= {batch for key in keys if (batch := migrations.parse_receipt_key(key))}


def places_in(receipts: Iterable[Receipt]) -> dict[str, Place]:
    """Where files lie, by their digests."""
    places: dict[str, Place] = {}
    for receipt in receipts:
        for digest, place in receipt.places().items():
            known = places.get(digest)
            if known is None or (known.offset is not None and place.offset is None):
                places[digest] = place
    return places


def find_receipt(
    store: Store, migration: str, batch: str, *, max_age: timedelta | None = None
) -> Receipt | None:
    """Read a batch's receipt, or None if there is none, or it is older than ``max_age``.

    None, with a warning in the log, for a damaged one too: what it named is asked for again.
    """
    key = migrations.receipt_key(migration, batch)
    what = f"{key} in {store.location}"
    try:
        record = read_record(store, key)
        if max_age is not None and is_older(record, max_age):
            return None
        receipt = Receipt.from_record(record, what=what)
        if receipt.batch != batch:
            raise IntegrityError(f"{what} is the receipt of another batch.")
    except NotFoundError:
        return None
    except IntegrityError as error:
        events.logger.warning("left out: %s", error)
        return None
    return receipt


def is_older(record: Record, age: timedelta) -> bool:
    """Whether a record was written longer ago than this, by its writer's clock."""
    return datetime.now(UTC) - record.stored_at > age


def _keys(store: Store, prefix: str) -> Iterable[str]:
    return (stat.key for stat in store.list(prefix))
