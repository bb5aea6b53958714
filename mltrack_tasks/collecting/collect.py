"""Collecting garbage: a plan first, which deletes nothing; then what the plan lists."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from mltrack_tasks import events
from mltrack_tasks.collecting.batches import close_abandoned
from mltrack_tasks.collecting.clock import time_at
from mltrack_tasks.collecting.marks import Marks
from mltrack_tasks.collecting.outdated import KEPT, outdated
from mltrack_tasks.collecting.ownership import require_own, store_id_of
from mltrack_tasks.collecting.planning import make_plan
from mltrack_tasks.collecting.plans import LONGEST_GRACE, SHORTEST_GRACE, GarbagePlan, read_plan, require_past
from mltrack_tasks.collecting.sweeping import Swept, sweep
from mltrack_tasks.digest import is_digest
from mltrack_tasks.errors import ConflictError, InvalidInputError, NotFoundError
from mltrack_tasks.events import Event, Observe, log_event
from mltrack_tasks.stores.base import Store

GRACE = timedelta(days=7)


@dataclass(frozen=True)
class GarbageReport:
    """What a collection found, and deleted if it was not a dry run.

    ``plan`` is the digest to apply. Sizes are in bytes; ``by_format`` and ``by_age`` say how many of the
    planned ones are of which format and age. ``spared`` counts blobs of the plan that something needs by now,
    or that another collection is at. Blobs whose pin was removed go a grace period later.
    """

    plan: str
    dry_run: bool
    grace_days: float
    records: int
    blobs: int
    size_bytes: int
    pins: int
    by_format: Mapping[str, int] = field(default_factory=dict)
    by_age: Mapping[str, int] = field(default_factory=dict)
    deleted_blobs: int = 0
    deleted_bytes: int = 0
    deleted_pins: int = 0
    spared: int = 0

    def __str__(self) -> str:
        found = f"{self.blobs:,} blobs with {self.size_bytes:,} bytes and {self.pins:,} pins are not needed"
        if self.dry_run:
            return f"{found}; the plan is {self.plan}"
        return f"{found}; deleted {self.deleted_blobs:,} blobs with {self.deleted_bytes:,} bytes"


def collect_garbage(
    store: Store,
    *,
    grace: timedelta = GRACE,
    dry_run: bool = True,
    plan: str | None = None,
    full: bool = False,
    observe: Observe = log_event,
) -> GarbageReport:
    """Find the blobs that no record needs and no pin holds -> what they are; ``dry_run=False`` deletes them.

    Nothing younger than ``grace`` goes, by the store's clock (a day at least). Each collection keeps its
    plan in the store; ``plan=report.plan`` applies one that was made before, at most 30 days ago: what it
    lists, as far as nothing needs it by now. A pin that no record justifies goes first, and its blob with a
    collection that begins a grace period later. Safe beside writers, readers and other collections, and when
    it is stopped anywhere: the same call again goes on. A store to which nothing was ever written stays so.

    What each record needs is kept in the store, so that the next collections read new records only; each is
    read again after 30 days, or with ``full=True``.

    Raises FormatError, IntegrityError or ArchivedError, and deletes nothing, while any record cannot be
    understood: it may need anything. ConflictError in a replica: only its source knows what is needed.
    NotFoundError for an unknown plan, InvalidInputError for a grace period under a day or over a hundred
    years, TransientError if a batch of deletions took over five minutes.
    """
    if not isinstance(grace, timedelta) or not SHORTEST_GRACE <= grace <= LONGEST_GRACE:
        raise InvalidInputError(
            f"grace is {grace!r}; give a timedelta of a day or more, a hundred years at most."
        )
    if plan is not None and (dry_run or not is_digest(plan)):
        raise InvalidInputError(f"plan={plan!r} is to be applied: give a plan's digest, and dry_run=False.")
    direct = store.uncached()
    store_id = store_id_of(direct)
    require_own(direct)
    if store_id is None:
        if plan is not None:
            raise NotFoundError(
                f"There is no plan {plan} in {store.location}: nothing was ever stored there."
            )
        return _report(GarbagePlan("", _NEVER, grace), 0, None)
    now = time_at(direct)
    wanted = None if plan is None else _checked(read_plan(direct, plan), store_id, now)
    before = now - (grace if wanted is None else wanted.grace)
    with Marks(direct, before, now, observe, full=full) as marks:
        marks.look()
        found = wanted or make_plan(direct, store_id, now, grace, marks, observe)
        if not dry_run:
            close_abandoned(direct, now)
        swept = None if dry_run else sweep(direct, found, marks, observe)
        records = marks.records
    if swept is not None:
        direct.delete(outdated(direct, now, found.grace))
    report = _report(found, records, swept)
    details = {"plan": report.plan, "dry_run": dry_run, "blobs": report.blobs, "bytes": report.size_bytes}
    details |= {"deleted_blobs": report.deleted_blobs, "deleted_bytes": report.deleted_bytes}
    observe(Event(events.GARBAGE_COLLECTED, store.location, details))
    return report


_NEVER = datetime.fromisoformat("1970-01-01T00:00:00Z")


def _checked(plan: GarbagePlan, store_id: str, now: datetime) -> GarbagePlan:
    if plan.store_id != store_id:
        raise ConflictError(
            f"The plan is of the store {plan.store_id}, and this is {store_id}. Make another."
        )
    require_past(plan.before, now - plan.grace, f"The plan {plan.digest}")
    if now - plan.before > KEPT + plan.grace:
        raise NotFoundError(f"The plan {plan.digest} is older than {KEPT.days} days. Make another.")
    return plan


def _report(plan: GarbagePlan, records: int, swept: Swept | None) -> GarbageReport:
    done = swept or Swept()
    return GarbageReport(
        plan=plan.digest if plan.store_id else "",
        dry_run=swept is None,
        grace_days=plan.grace / timedelta(days=1),
        records=records,
        blobs=plan.blobs,
        size_bytes=plan.size_bytes,
        pins=plan.pins,
        by_format=plan.by_format,
        by_age=plan.by_age,
        deleted_blobs=done.blobs,
        deleted_bytes=done.size_bytes,
        deleted_pins=done.pins,
        spared=done.spared,
    )
