"""Removing a migration: all that the store keeps of a folder, but for the runs and models that it made."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mltrack_tasks import events, migrations
from mltrack_tasks.collecting.ownership import require_own
from mltrack_tasks.collecting.removals import remove_each
from mltrack_tasks.errors import ConflictError, InvalidInputError, NotFoundError, TransientError
from mltrack_tasks.events import Event, Observe, log_event
from mltrack_tasks.fields import checked_text
from mltrack_tasks.migration import state
from mltrack_tasks.migrations import MigrationManifest
from mltrack_tasks.stores.base import Store
from mltrack_tasks.trust.knownkeys import is_known

_ROUNDS = 5
"""How often records are looked for that a migration at work added meanwhile."""


@dataclass(frozen=True)
class RemovedMigration:
    """What a removal took away, or with a dry run would.

    ``number`` is that of the newest finished state (0: there is none), ``files`` and ``size_bytes`` [bytes]
    are of it. ``deleted_locally`` counts entries that a migration removed from the folder: the store may have
    their only copy. ``runs`` are those that it made, ``removed_runs`` those that went.
    """

    migration: str
    number: int
    records: int
    files: int
    size_bytes: int
    deleted_locally: int
    runs: int
    removed_runs: tuple[str, ...] = ()
    dry_run: bool = True

    def __str__(self) -> str:
        done = "would go" if self.dry_run else "are gone"
        return (
            f"{self.records:,} records of the migration {self.migration!r} {done}: {self.files:,} files, "
            f"{self.size_bytes:,} bytes, {self.deleted_locally:,} entries that are no more in the folder; "
            f"{len(self.removed_runs):,} of {self.runs:,} runs"
        )


def remove_migration(
    store: Store,
    migration: str,
    *,
    with_runs: bool = False,
    though_deleted_locally: bool = False,
    number: int | None = None,
    reason: str | None = None,
    dry_run: bool = True,
    observe: Observe = log_event,
) -> RemovedMigration:
    """Say what removing a migration would take away; ``dry_run=False`` removes it -> what that was.

    Its manifests, receipts and plans go: the folder cannot be restored from here any more. The runs that it
    made stay, unless ``with_runs``; a run that was revised since stays in any case, and so do the versions of
    models. Blobs go with ``collect_garbage``, as far as nothing else needs them. The same call again
    finishes what was stopped. A migration that is at work meanwhile has to be run again.

    Raises ConflictError if a migration deleted files of the folder, of which this may be the only copy,
    unless ``though_deleted_locally``; and if ``number`` is given and is not that of the newest state.
    NotFoundError if there is no such migration, IntegrityError if its newest manifest cannot be read.
    """
    reason = checked_text(reason, "reason")
    if number is not None and type(number) is not int:
        raise InvalidInputError(f"number is {number!r}; give a whole number, or None for any state.")
    require_own(store)
    direct = store.uncached()
    keys = _keys(direct, migration)
    if not keys:
        raise NotFoundError(f"There is no migration {migration!r} in {store.location}.")
    newest = state.latest_manifest(direct, migration)
    found = _found(migration, len(keys), newest)
    if number is not None and number != found.number:
        raise ConflictError(
            f"The newest state of the migration {migration!r} is {found.number}, not {number}. Look at it "
            "and decide again."
        )
    if dry_run:
        return found
    if found.deleted_locally and not though_deleted_locally:
        raise ConflictError(
            f"The migration {migration!r} deleted {found.deleted_locally:,} entries of its folder; "
            f"{store.location} may have their only copy. Restore them first, or say "
            "though_deleted_locally=True."
        )
    gone: list[str] = []
    if with_runs and newest is not None:
        places = [(run.run_id, run.revision) for run in newest.runs]
        said = reason or f"the migration {migration} was removed"
        answers = remove_each(store, places, [said] * len(places), observe)
        gone = [run_id for (run_id, _), why in zip(places, answers, strict=True) if why is None]
    _delete(direct, migration, keys)
    done = replace(found, removed_runs=tuple(gone), dry_run=False)
    details = {"records": done.records, "runs": len(gone), "reason": reason}
    observe(Event(events.MIGRATION_REMOVED, migration, details))
    return done


def _found(migration: str, records: int, newest: MigrationManifest | None) -> RemovedMigration:
    if newest is None:
        return RemovedMigration(migration, 0, records, 0, 0, 0, 0)
    return RemovedMigration(
        migration,
        newest.number,
        records,
        newest.files,
        newest.size_bytes,
        sum(part.entries for part in newest.removed),
        len(newest.runs),
    )


def _delete(store: Store, migration: str, keys: list[str]) -> None:
    """Delete manifests, the newest first, then what they list, until nothing is left.

    A manifest whose receipts are gone would stop every collection; a receipt without one does not.
    """
    for _ in range(_ROUNDS):
        manifests = [key for key in keys if migrations.parse_manifest_key(key)]
        others = [key for key in keys if migrations.parse_manifest_key(key) is None]
        for key in sorted(manifests, reverse=True):
            store.delete([key])
        store.delete(others)
        if not (keys := _keys(store, migration)):
            return
    raise TransientError(
        f"The migration {migration!r} is being run while it is removed from {store.location}. Wait for its "
        "end, and run the same call again."
    )


def _keys(store: Store, migration: str) -> list[str]:
    """Keys of the records of a migration; foreign objects in its folder stay."""
    folder = migrations.folder_of(migration)
    return [stat.key for stat in store.list(folder) if is_known(stat.key)]
