"""Replicating a store: list both, copy what is missing, in the order in which writers write."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime

from mltrack_tasks import events
from mltrack_tasks.errors import InvalidInputError, NotFoundError, PartialTransferError
from mltrack_tasks.events import Event, Observe, log_event
from mltrack_tasks.replication.blobs import copy_blobs
from mltrack_tasks.replication.following import Following
from mltrack_tasks.replication.missing import Missing
from mltrack_tasks.replication.progress import note_replication
from mltrack_tasks.replication.report import ReplicationReport, Tally
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.guard import GuardedStore, for_replication, guard_of


def replicate_store(
    store: Store, target: Store, *, dry_run: bool = False, observe: Observe = log_event
) -> ReplicationReport:
    """Copy what ``target`` lacks of ``store`` -> what was missing, and copied.

    ``target`` is an empty place, which becomes a replica, or a replica of this store, which is brought up to
    date. Both are listed; blobs are copied by digest, each proven on its way, then records as they are, byte
    for byte, and promotions last, so whoever reads the replica meanwhile sees no record without what it
    needs. What only the replica has stays. What was copied is not copied again: after a kill the same call
    goes on. ``dry_run`` only lists.

    Reads everything past the cache; writes nothing to ``store``. The folders of models are filled by the
    target's server from its own blobs. Not copied: the catalogue, plans, audits and foreign objects.

    Raises PartialTransferError, with the report in ``details["report"]``, if something could not be copied:
    a blob or record that is damaged (it never arrives, nor does a record that needs it), archived, or another
    in the replica. Raises NotFoundError if ``store`` is empty, ConflictError if ``target`` is a store of its
    own, InvalidInputError if both are the same, AccessError or TransientError if one cannot be reached.
    """
    source_id = guard_of(store).store_id
    if source_id is None:
        raise NotFoundError(f"Nothing was ever stored in {store.location}: there is nothing to replicate.")
    replica = _replica(target, source_id, dry_run)
    as_of, tally = datetime.now(UTC), Tally()
    source = store.uncached()
    with closing(Missing(source, replica, tally)) as missing:
        missing.look(observe)
        if not dry_run:
            failed = copy_blobs(source, replica, missing.blobs, tally, observe)
            Following(source, replica, missing, tally, observe).copy(failed)
    report = tally.report(store.location, target.location, as_of, dry_run=dry_run)
    if not dry_run and report.ok:
        note_replication(replica, source_id, report)
    observe(Event(events.STORE_REPLICATED, target.location, _told(report)))
    _require_ok(report)
    return report


def _replica(target: Store, source_id: str, dry_run: bool) -> Store:
    """The target as it may be written to; made a replica unless this is a dry run."""
    guard = guard_of(target)
    if guard.store_id == source_id:
        raise InvalidInputError(
            f"{target.location} is the store itself, or a copy that bears its identity. Give another place."
        )
    if not dry_run or guard.store_id is not None:
        guard.begin_replica(source_id)
    guarded = target if _is_guarded(target, guard) else guard
    return for_replication(guarded.uncached())


def _is_guarded(store: Store, guard: GuardedStore) -> bool:
    return guard_of(store) is guard


def _told(report: ReplicationReport) -> dict[str, object]:
    return {
        **{"source": report.source, "dry_run": report.dry_run, "as_of": report.as_of.isoformat()},
        **{"behind_s": round(report.behind.total_seconds()), "failures": report.failures},
        **{"copied_blobs": report.copied_blobs, "copied_bytes": report.copied_bytes},
        **{"copied_records": report.copied_records, "held_back": report.held_back},
    }


def _require_ok(report: ReplicationReport) -> None:
    try:
        report.require_ok()
    except PartialTransferError as error:
        error.details["report"] = report
        raise
