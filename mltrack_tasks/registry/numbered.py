"""Numbered records: a folder of ``00000001.json`` onwards, each created once, the highest in force."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from mltrack_tasks.errors import ConflictError, IntegrityError
from mltrack_tasks.modelkeys import numbered_key, parse_numbered_key
from mltrack_tasks.parallel import map_ordered
from mltrack_tasks.records import Record
from mltrack_tasks.recordstore import create_record, read_record
from mltrack_tasks.stores.base import Stat, Store

T = TypeVar("T")


def list_numbered(store: Store, folder: str) -> list[Stat]:
    """List the numbered records of a folder, 1 first; foreign objects are passed over.

    Raises IntegrityError where a number is missing: an older state must not come back into force because
    somebody deleted a record.
    """
    found = [
        (number, stat) for stat in store.list(folder) if (number := parse_numbered_key(stat.key, folder))
    ]
    for expected, (number, _) in enumerate(found, start=1):
        if number != expected:
            raise IntegrityError(
                f"{folder} in {store.location} has the record {number} and not {expected}: something "
                "deleted or forged one. Restore it from an object version or a replica, or remove what "
                "follows the gap.",
                details={"folder": folder, "missing": expected},
            )
    return [stat for _, stat in found]


def read_numbered(store: Store, folder: str, parse: Callable[[Record, int, str], T]) -> list[T]:
    """Read all numbered records of a folder, 1 first; ``parse`` takes record, number and what it is."""
    count = len(list_numbered(store, folder))
    read = partial(read_number, store, folder, parse)
    return list(map_ordered(read, range(1, count + 1), store.max_workers))


def read_number(store: Store, folder: str, parse: Callable[[Record, int, str], T], number: int) -> T:
    """Read one numbered record."""
    key = numbered_key(folder, number)
    return parse(read_record(store, key), number, f"{key} in {store.location}")


def create_number(
    store: Store, folder: str, number: int, content: Mapping[str, Any], *, what: str
) -> tuple[Record, bool] | None:
    """Create the record ``number`` -> (what is there, whether this call wrote it); None if another took it.

    Equal content was ours: a lost answer.
    """
    try:
        return create_record(store, numbered_key(folder, number), content, what=what)
    except ConflictError:
        return None
