"""Restores: archived data made readable again, many at once, with the price before the deed."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial
from typing import NamedTuple

from mltrack_tasks import events, layout
from mltrack_tasks.archives import (
    DAYS,
    TIER,
    copies_price,
    duration_of,
    is_tiered,
    price_of,
    prices_of,
)
from mltrack_tasks.chart import human_bytes
from mltrack_tasks.content import resolve_ref
from mltrack_tasks.errors import (
    AccessError,
    ArchivedError,
    InvalidInputError,
    NotFoundError,
    PartialTransferError,
    TransientError,
)
from mltrack_tasks.events import Event, Observe, log_event
from mltrack_tasks.manifests import latest_revision, read_manifest
from mltrack_tasks.parallel import map_ordered
from mltrack_tasks.pricing.bills import Count
from mltrack_tasks.pricing.figures import dollars
from mltrack_tasks.pricing.prices import TIERS
from mltrack_tasks.refs import DataRef
from mltrack_tasks.stores.base import Stat, Store
from mltrack_tasks.stores.identity import s3_of
from mltrack_tasks.stores.s3_restore import restore_object
from mltrack_tasks.trust import needs

MAX_COST = 10.0
"""[dollars] that restoring may cost unless more is allowed."""
_MAX_DAYS = 365


@dataclass(frozen=True)
class RestoredData:
    """How the data that was asked for stands. Numbers count blobs; money is in dollars.

    ``readable`` can be read now, ``under_way`` is being restored since before, ``started`` since this call,
    ``archived`` lies in an archive and was left there (a dry run). ``missing`` names what is not there at
    all. ``cost`` is what starting the restores costs, ``copies_cost`` what the copies cost while they are
    there; ``takes`` how long it takes, by storage class.
    """

    location: str
    tier: str
    days: int
    dry_run: bool
    readable: int
    under_way: int
    started: int
    archived: int
    missing: tuple[str, ...]
    size_bytes: int
    cost: Decimal
    copies_cost: Decimal
    takes: tuple[tuple[str, str], ...]
    notes: tuple[str, ...] = ()

    @property
    def done(self) -> bool:
        """Whether all of it can be read now."""
        return not (self.under_way or self.started or self.archived or self.missing or self.notes)

    def __str__(self) -> str:
        parts = [f"{self.readable:,} readable"]
        parts += [f"{self.under_way:,} under way"] if self.under_way else []
        parts += [f"{self.started:,} started"] if self.started else []
        parts += [f"{self.archived:,} archived"] if self.archived else []
        parts += [f"{len(self.missing):,} missing"] if self.missing else []
        said = f"{self.location}: {', '.join(parts)}"
        if self.started or self.archived:
            takes = ", ".join(f"{name} {how_long}" for name, how_long in self.takes)
            said += (
                f" ({human_bytes(self.size_bytes)}; {self.tier}: {dollars(self.cost)} to restore, "
                f"{dollars(self.copies_cost)} for {self.days} days; {takes})"
            )
        return " ".join([said, *self.notes])


class _Wanted(NamedTuple):
    """What is asked for, by key."""

    keys: tuple[str, ...]
    notes: tuple[str, ...] = ()


def restore_data(
    store: Store,
    refs: DataRef | str | Sequence[DataRef | str] = (),
    *,
    run_id: str | None = None,
    days: int = DAYS,
    tier: str = TIER,
    max_cost: float = MAX_COST,
    dry_run: bool = False,
    observe: Observe = log_event,
) -> RestoredData:
    """Make archived data readable again: start the restores -> how all of it stands.

    Of ``refs``, or of all that a run needs (its files too, if it was migrated). What is readable, or under
    way, costs nothing and is told as such, so the same call again says how far it is. Restored copies stay
    for ``days`` (1 to 365); out of an archive tier of INTELLIGENT_TIERING an object comes back for good.
    ``tier`` is Standard, Bulk (slower, of GLACIER for nothing) or Expedited (minutes; not from DEEP_ARCHIVE).
    A run whose manifest is archived has that restored first; ``notes`` say so.

    The price is worked out first (``load_prices``): over ``max_cost`` [dollars], copies included, nothing is
    started and InvalidInputError says what it would be. ``dry_run`` starts nothing and only tells. Raises
    NotFoundError for a run or ref that is unknown, and PartialTransferError if S3 refused some: the same call
    goes on.
    """
    _check(days, tier, max_cost)
    wanted = _wanted(store, refs, run_id)
    found = list(map_ordered(partial(_look, store), wanted.keys, store.max_workers))
    archived = [stat for _, stat in found if stat is not None and stat.archived and not stat.restoring]
    report = replace(_told(store, found, archived, days, tier), dry_run=dry_run, notes=wanted.notes)
    price = report.cost + report.copies_cost
    if dry_run or not archived:
        return report
    if price > Decimal(str(max_cost)):
        raise InvalidInputError(
            f"Restoring {len(archived):,} blobs ({human_bytes(report.size_bytes)}) by {tier} would cost "
            f"{dollars(report.cost)}, and their copies {dollars(report.copies_cost)} for {days} days: more "
            f"than max_cost, {dollars(Decimal(str(max_cost)))}. Give a higher one, take Bulk or fewer days.",
            details={"cost": str(report.cost), "copies_cost": str(report.copies_cost)},
        )
    started = _start(store, archived, days, tier)
    observe(Event(events.RESTORE_STARTED, store.location, {"blobs": started, "bytes": report.size_bytes}))
    return replace(report, started=started, archived=0, under_way=report.under_way + len(archived) - started)


def await_restore(
    store: Store,
    refs: DataRef | str | Sequence[DataRef | str] = (),
    *,
    run_id: str | None = None,
    timeout_hours: float = 48,
    poll_minutes: float = 15,
    observe: Observe = log_event,
) -> RestoredData:
    """Wait until all of it can be read -> how it stands. Starts nothing.

    Asks every ``poll_minutes``, with a HEAD for each blob. Raises ArchivedError after ``timeout_hours``, or
    at once if something is archived that nobody restores, and NotFoundError if something is missing.
    """
    if not poll_minutes > 0 or not timeout_hours >= 0:
        raise InvalidInputError("poll_minutes is over 0, and timeout_hours 0 or more.")
    waited = 0.0
    while True:
        found = restore_data(store, refs, run_id=run_id, dry_run=True, observe=observe)
        if found.missing:
            raise NotFoundError(f"{found}: {', '.join(found.missing[:5])}.")
        if found.done:
            return found
        if found.archived:
            raise ArchivedError(f"{found}. Start the restores with restore_data.", how="restore_data")
        if waited >= timeout_hours * 60:
            raise ArchivedError(
                f"{found}, after {waited / 60:g} hours. Wait longer (timeout_hours).", restoring=True
            )
        details = {"done": found.readable, "total": found.readable + found.under_way, "unit": "blobs"}
        observe(Event(events.PROGRESS, "restoring", details))
        time.sleep(poll_minutes * 60)
        waited += poll_minutes


def _check(days: int, tier: str, max_cost: float) -> None:
    layout.check_choice(tier, TIERS, "The tier")
    if type(days) is not int or not 1 <= days <= _MAX_DAYS:
        raise InvalidInputError(f"days is {days!r:.40}: restored copies stay for 1 to {_MAX_DAYS} days.")
    if not max_cost >= 0:
        raise InvalidInputError(f"max_cost is {max_cost!r:.40}; it is dollars, 0 or more.")


def _wanted(store: Store, refs: DataRef | str | Sequence[DataRef | str], run_id: str | None) -> _Wanted:
    given = [refs] if isinstance(refs, (DataRef, str)) else list(refs)
    if bool(given) == (run_id is not None):
        raise InvalidInputError("Give either refs or run_id: what is to be restored.")
    if run_id is None:
        keys = [
            layout.blob_key(found.hash, found.format) for found in (resolve_ref(store, ref) for ref in given)
        ]
        return _Wanted(tuple(dict.fromkeys(keys)))
    latest = latest_revision(store, run_id)
    if latest == 0:
        raise NotFoundError(f"There is no run {run_id!r} in {store.location}.", details={"run_id": run_id})
    key = layout.manifest_key(run_id, latest)
    try:
        manifest = read_manifest(store, run_id, latest)
    except ArchivedError:
        note = "The manifest of the run is archived: call again when it is there."
        return _Wanted((key,), (note,))
    return _Wanted(tuple(_keys_of(store, needs.of_manifest(manifest, what=key))))


def _keys_of(store: Store, wanted: Iterable[needs.Need]) -> Iterator[str]:
    seen = set()
    for need in wanted:
        format = need.format
        if format is None:
            format = resolve_ref(store, need.digest).format
        key = layout.blob_key(need.digest, format)
        if key not in seen:
            seen.add(key)
            yield key


def _look(store: Store, key: str) -> tuple[str, Stat | None]:
    return key, store.head(key, checksum=True)


def _told(
    store: Store, found: Sequence[tuple[str, Stat | None]], archived: Sequence[Stat], days: int, tier: str
) -> RestoredData:
    prices, by_class = prices_of(store), _by_class(archived)
    under_way = sum(stat is not None and stat.archived and stat.restoring for _, stat in found)
    missing = tuple(key for key, stat in found if stat is None)
    return RestoredData(
        location=store.location,
        tier=tier,
        days=days,
        dry_run=True,
        readable=len(found) - len(missing) - under_way - len(archived),
        under_way=under_way,
        started=0,
        archived=len(archived),
        missing=missing,
        size_bytes=sum(count.size_bytes for count in by_class.values()),
        cost=sum((price_of(prices, name, count, tier) for name, count in by_class.items()), Decimal(0)),
        copies_cost=sum(
            (copies_price(prices, name, count.size_bytes, days) for name, count in by_class.items()),
            Decimal(0),
        ),
        takes=tuple((name, duration_of(name, tier)) for name in by_class),
    )


def _by_class(archived: Iterable[Stat]) -> dict[str, Count]:
    found: dict[str, Count] = {}
    for stat in archived:
        found.setdefault(stat.storage_class or "GLACIER", Count()).add(stat.size)
    return dict(sorted(found.items()))


def _start(store: Store, archived: Sequence[Stat], days: int, tier: str) -> int:
    """Start restores -> how many were not under way; a refusal of some does not keep the others."""
    answers = list(map_ordered(partial(_start_one, store, days, tier), archived, store.max_workers))
    failed = [
        (stat.key, each) for stat, each in zip(archived, answers, strict=True) if isinstance(each, Exception)
    ]
    if failed:
        done = [stat.key for stat, each in zip(archived, answers, strict=True) if isinstance(each, bool)]
        raise PartialTransferError(
            f"{len(failed):,} of {len(archived):,} restores in {store.location} could not be started; the "
            f"first: {failed[0][1]} Run the same call again.",
            done=done,
            failed=[f"{key}: {error}" for key, error in failed],
        )
    return sum(answer is True for answer in answers)


def _start_one(store: Store, days: int, tier: str, stat: Stat) -> bool | Exception:
    s3 = s3_of(store)
    if s3 is None:
        raise InvalidInputError(f"{store.location} archives nothing.")
    try:
        staying = None if is_tiered(stat.storage_class or "") else days
        return restore_object(s3, stat.key, days=staying, tier=tier)
    except (AccessError, TransientError) as error:
        return error
