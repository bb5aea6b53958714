"""Plans of removals: which records are to go, kept in the store, so that what goes is what was shown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from mltrack_tasks.collecting.clock import time_at
from mltrack_tasks.collecting.keys import part_key, removal_plan_key
from mltrack_tasks.collecting.outdated import KEPT
from mltrack_tasks.collecting.ownership import store_id_of
from mltrack_tasks.collecting.plans import PartsWriter, require_past
from mltrack_tasks.digest import check_digest, is_digest
from mltrack_tasks.errors import ConflictError, IntegrityError, InvalidInputError, NotFoundError
from mltrack_tasks.fields import Fields, format_time, parse_time
from mltrack_tasks.provenance import current
from mltrack_tasks.records import Record
from mltrack_tasks.recordstore import ensure, read_record
from mltrack_tasks.stores.base import Store


@dataclass(frozen=True)
class RemovalReport:
    """What was asked for, and what was removed if it was not a dry run.

    ``matched`` names the runs, or the data names, that the plan lists; ``plan`` is the digest to apply.
    ``kept`` says of those that stay why.
    """

    plan: str
    dry_run: bool
    matched: tuple[str, ...]
    removed: tuple[str, ...] = ()
    kept: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        if self.dry_run:
            return f"{len(self.matched):,} would be removed; the plan is {self.plan}"
        return f"{len(self.removed):,} of {len(self.matched):,} were removed"


def keep_plan(store: Store, kind: str, rows: Iterable[str], now: datetime) -> str:
    """Write a plan of the keys of the records that are to go -> its digest.

    ``kind`` is runs or names, ``now`` the store's time before they were looked for.
    """
    writer = PartsWriter(store, kind, now)
    for row in rows:
        writer.add(row)
    parts = writer.finish()
    content = {
        "removes": kind,
        "store_id": store_id_of(store),
        "at": format_time(now),
        "count": writer.count,
        "parts": list(parts),
    }
    record = Record(content, current())
    ensure(store, removal_plan_key(record.content_digest), record.to_bytes())
    return record.content_digest


def planned(store: Store, kind: str, plan: str) -> tuple[datetime, Iterator[str]]:
    """Read a plan -> the store's time before it was made, and the keys that it lists, a part at a time.

    Raises NotFoundError if there is no such plan, or it is older than 30 days by the store's clock,
    ConflictError if it is another store's, InvalidInputError if it is of another kind.
    """
    key = removal_plan_key(check_digest(plan))
    what = f"{key} in {store.location}"
    try:
        record = read_record(store, key)
    except NotFoundError:
        raise NotFoundError(
            f"There is no plan {plan} in {store.location}. Make one with a dry run."
        ) from None
    fields = Fields(record.content, what)
    parts = fields.texts("parts") or ()
    if record.content_digest != plan or not all(map(is_digest, parts)):
        raise IntegrityError(f"{what} does not hold what its name says; make another plan.")
    if fields.text("store_id") != store_id_of(store):
        raise ConflictError(f"The plan {plan} is of another store. Make one here.")
    if fields.text("removes") != kind:
        raise InvalidInputError(f"The plan {plan} removes {fields.text('removes')}, not {kind}.")
    at = parse_time(record.content.get("at"), what)
    _require_young(store, plan, at)
    return at, (row for part in parts for row in _rows(store, kind, part))


def check_asked(plan: str | None, dry_run: bool, *, asked: bool) -> None:
    """Refuse to apply a plan in a dry run, or with conditions beside it, and to ask for everything."""
    if plan is not None and (dry_run or asked or not is_digest(plan)):
        raise InvalidInputError(
            f"plan={plan!r} is to be applied: give a plan's digest, dry_run=False, and no conditions."
        )
    if plan is None and not asked:
        raise InvalidInputError("Nothing says what is to be removed; give a condition, or a plan.")


def _require_young(store: Store, plan: str, at: datetime) -> None:
    now = time_at(store)
    require_past(at, now, f"The plan {plan}")
    if now - at > KEPT:
        raise NotFoundError(f"The plan {plan} is older than {KEPT.days} days. Make another.")


def _rows(store: Store, kind: str, part: str) -> Iterator[str]:
    key = part_key(part)
    record = read_record(store, key)
    rows = Fields(record.content, key).texts(kind)
    if record.content_digest != part or rows is None:
        raise IntegrityError(f"{key} in {store.location} does not hold what its name says.")
    yield from rows
