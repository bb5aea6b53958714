"""One pass over everything that a store is billed for -> a tally, and what each owner has of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal

from mltrack_tasks import events, layout
from mltrack_tasks.costs.owners import NOBODY, Owners, shares_of
from mltrack_tasks.errors import AccessError
from mltrack_tasks.events import Event, Observe
from mltrack_tasks.pricing.bills import SMALL, Count, billed_bytes
from mltrack_tasks.pricing.prices import Prices
from mltrack_tasks.pricing.tally import (
    BLOBS,
    CURRENT,
    DESCRIPTIONS,
    MARKER,
    OLDER,
    UPLOAD,
    Rates,
    Slot,
    Tally,
)
from mltrack_tasks.stores import s3_inventory
from mltrack_tasks.stores.base import Stat, Store
from mltrack_tasks.stores.identity import s3_of
from mltrack_tasks.stores.s3_inventory import Held

OTHER = "(other)"
"""Place of what no store has: however many folders somebody makes, they are one place."""

_FOLDERS = ("names", "manifests", "runs", "models", "migrations", "catalog", "gc", "audits")
_REPORT_EVERY = 10_000


@dataclass
class Share:
    """What one owner has of the bytes of a class that are billed, in parts of blobs."""

    size: Decimal = Decimal(0)
    own: Decimal = Decimal(0)
    standard: Decimal = Decimal(0)
    watched: Decimal = Decimal(0)

    def cost(self, rates: Rates, storage_class: str) -> Decimal:
        """What it costs in a month [dollars]."""
        watched = self.watched * rates.prices.of(storage_class).monitoring / 1000
        return self.own * rates.of_byte(storage_class) + self.standard * rates.of_byte("STANDARD") + watched


@dataclass
class Counted:
    """What the pass found. ``saved`` is by class what deduplication saves, ``notes`` what is to be known."""

    tally: Tally = field(default_factory=Tally)
    shares: dict[str, dict[str, Share]] = field(default_factory=dict)
    saved: dict[str, Count] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def count(store: Store, owners: Owners, prices: Prices, observe: Observe) -> Counted:
    """Count everything, and split each blob between those that need it."""
    counted, now = Counted(), datetime.now(UTC)
    needs = _Needs(owners)
    unknown: dict[str, int] = {}
    for number, (held, state) in enumerate(_everything(store, counted.notes), start=1):
        storage_class = held.storage_class
        if storage_class not in prices.classes:
            unknown[storage_class] = unknown.get(storage_class, 0) + 1
            storage_class = "STANDARD"
        place = _place(held.key)
        slot = Slot(place, state, storage_class, max(0, (now - held.since).days))
        counted.tally.add(slot, held.size)
        if place == BLOBS and state == CURRENT:
            _split(counted, needs.of(held.key), held.size, storage_class)
        if number % _REPORT_EVERY == 0:
            details = {"done": number, "total": None, "unit": "objects"}
            observe(Event(events.PROGRESS, "listing", details))
    counted.notes += [
        f"{number:,} objects of the storage class {name!r:.40}, which has no price, are counted as STANDARD."
        for name, number in sorted(unknown.items())
    ]
    return counted


class _Needs:
    """Who needs the blobs of a listing, read along with it: both come in the order of digests."""

    def __init__(self, owners: Owners) -> None:
        self._rows = owners.by_digest()
        self._next = next(self._rows, None)

    def of(self, key: str) -> dict[str, int]:
        place = layout.parse_blob_key(key)
        if place is None:
            return {}
        digest, format = place
        while self._next is not None and self._next[0] < digest:
            self._next = next(self._rows, None)
        if self._next is None or self._next[0] != digest:
            return {}
        return shares_of(self._next[1], format)


def _split(counted: Counted, holders: dict[str, int], size: int, storage_class: str) -> None:
    total = sum(holders.values())
    one = Count()
    one.add(size)
    own, standard = billed_bytes(one, storage_class)
    for owner, number in (holders or {NOBODY: 1}).items():
        part = Decimal(number) / (total or 1)
        share = counted.shares.setdefault(owner, {}).setdefault(storage_class, Share())
        share.size += part * size
        share.own += part * own
        share.standard += part * standard
        share.watched += part * (size >= SMALL)
    if total > 1:
        saved = counted.saved.setdefault(storage_class, Count())
        saved.merge(_times(one, total - 1))


def _times(one: Count, number: int) -> Count:
    return Count(number, one.size_bytes * number, one.small * number, one.small_bytes * number)


def _place(key: str) -> str:
    if layout.parse_blob_key(key) is not None:
        return BLOBS
    folder, slash, _ = key.partition("/")
    if not slash:
        return ""
    if f"{folder}/" == layout.BLOBS:
        return DESCRIPTIONS
    return folder if folder in _FOLDERS else OTHER


def _everything(store: Store, notes: list[str]) -> Iterator[tuple[Held, str]]:
    s3 = s3_of(store)
    if s3 is None:
        notes.append("This is no S3 store: these are the prices that its bytes would have there.")
        yield from ((_as_held(stat), CURRENT) for stat in store.list(""))
        return
    if s3_inventory.has_versions(s3):
        yield from ((held, _state(held)) for held in s3_inventory.versions(s3))
    else:
        notes.append("Older versions are not counted: listing them is refused (s3:ListBucketVersions).")
        yield from ((held, CURRENT) for held in s3_inventory.current_objects(s3))
    yield from _optional(s3_inventory.unfinished(s3), notes)


def _optional(uploads: Iterable[Held], notes: list[str]) -> Iterator[tuple[Held, str]]:
    try:
        for number, held in enumerate(uploads):
            if number == s3_inventory.MAX_UPLOADS:
                notes.append(f"Of over {number:,} unfinished uploads, the parts are not counted.")
            yield held, UPLOAD
    except AccessError:
        notes.append("Unfinished uploads are not counted: listing them is refused.")


def _state(held: Held) -> str:
    if held.marker:
        return MARKER
    return CURRENT if held.current else OLDER


def _as_held(stat: Stat) -> Held:
    return Held(stat.key, stat.size, stat.storage_class or "STANDARD", stat.modified)
