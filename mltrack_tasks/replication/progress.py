"""How far a replica is: a numbered record of each replication that copied everything."""

from __future__ import annotations

import re
from datetime import datetime

from mltrack_tasks.errors import InvalidInputError, NotFoundError
from mltrack_tasks.fields import format_time, parse_time
from mltrack_tasks.recordstore import create_if_absent, create_record, read_record
from mltrack_tasks.replication.report import ReplicationReport
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.guard import REPLICA_ENDED, REPLICA_FOLDER, guard_of

KEPT = 100
"""Records of replications that are kept: the newest."""
_NUMBERED = re.compile(re.escape(REPLICA_FOLDER) + r"(?P<number>[0-9]{8})\.json")


def note_replication(replica: Store, source_id: str, report: ReplicationReport) -> None:
    """Write down as of when everything is in the replica; the oldest of many such records are deleted."""
    numbers = _numbers(replica)
    content = {
        **{"source": source_id, "as_of": format_time(report.as_of)},
        **{"blobs": report.copied_blobs, "bytes": report.copied_bytes, "records": report.copied_records},
    }
    number = max(numbers, default=0) + 1
    while not create_if_absent(replica, _key(number), content):
        number += 1  # of another call, which ended at the same time
    if old := [_key(each) for each in numbers if each <= number - KEPT]:
        replica.delete(old)


def replicated_as_of(store: Store) -> datetime | None:
    """As of when a replica has all that its source had, by the clock of whoever replicated; None: never."""
    numbers = _numbers(store)
    if not numbers:
        return None
    key = _key(max(numbers))
    return parse_time(read_record(store, key).content.get("as_of"), f"as_of of {key}")


def end_replication(store: Store, reason: str) -> None:
    """Make a replica a store of its own, for good: from now on everybody may write to it.

    For when its source is lost. ``replicate_store`` refuses it from then on. Does nothing if that was done
    before. Raises InvalidInputError if the store is no replica.
    """
    guard = guard_of(store)
    if guard.store_id is None:
        raise NotFoundError(f"Nothing was ever stored in {store.location}.")
    if guard.replica_of is None:
        if guard.replica_ended():
            return
        raise InvalidInputError(f"{store.location} is no replica.")
    if guard.replica_ended():
        return
    content = {"replica_of": guard.replica_of, "reason": reason}
    create_record(store, REPLICA_ENDED, content, what=f"The end of the replication to {store.location}")


def _numbers(store: Store) -> list[int]:
    matches = (_NUMBERED.fullmatch(stat.key) for stat in store.list(REPLICA_FOLDER))
    return [int(match["number"]) for match in matches if match]


def _key(number: int) -> str:
    return f"{REPLICA_FOLDER}{number:08d}.json"
