"""Plans: records that say what a collection may delete, so that nothing is deleted that nobody could see."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from mltrack_tasks import layout
from mltrack_tasks.collecting.keys import part_key, plan_key
from mltrack_tasks.digest import is_digest
from mltrack_tasks.errors import IntegrityError, NotFoundError
from mltrack_tasks.fields import Fields, format_time, is_size, parse_time
from mltrack_tasks.provenance import current
from mltrack_tasks.records import Record
from mltrack_tasks.recordstore import ensure, read_record
from mltrack_tasks.stores.base import Store

PART_ROWS = 10_000
"""Digests, or pins, of one part of a plan: 0.7 MB of them."""
DIGESTS, PINS = "digests", "pins"
SHORTEST_GRACE = timedelta(days=1)
"""Writers rely on it that what they have just written is left alone for so long before it is pinned."""
LONGEST_GRACE = timedelta(days=36_500)
"""More than any store is old, and few enough days to count with."""
_CLOCKS = timedelta(hours=1)
"""By which the clocks of one store's servers may differ, and far less than the shortest grace period."""


@dataclass(frozen=True)
class GarbagePlan:
    """What no record needed and no pin held when it was made, and was older than the grace period.

    ``before``: by the store's clock, what may be deleted is older. Sizes are in bytes; ``by_format`` and
    ``by_age`` say how many bytes of it are of which format, and of which age.
    """

    store_id: str
    before: datetime
    grace: timedelta
    blobs: int = 0
    size_bytes: int = 0
    pins: int = 0
    by_format: Mapping[str, int] = field(default_factory=dict)
    by_age: Mapping[str, int] = field(default_factory=dict)
    parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Of ``digests`` and of ``pins``: the digests of the parts that list them."""

    @property
    def digest(self) -> str:
        """What names the plan."""
        return Record(self.to_content(), {}).content_digest

    def to_content(self) -> dict[str, Any]:
        """Map onto the record's content."""
        return {
            "store_id": self.store_id,
            "before": format_time(self.before),
            "grace_s": int(self.grace.total_seconds()),
            "blobs": self.blobs,
            "size_bytes": self.size_bytes,
            "pins": self.pins,
            "by_format": dict(self.by_format),
            "by_age": dict(self.by_age),
            "parts": {kind: list(self.parts.get(kind, ())) for kind in (DIGESTS, PINS)},
        }

    @classmethod
    def from_record(cls, record: Record, what: str) -> GarbagePlan:
        """Parse a plan's record."""
        fields = Fields(record.content, what)
        parts = Fields(fields.objects("parts"), f"{what}: parts")
        return cls(
            store_id=fields.text("store_id"),
            before=parse_time(record.content.get("before"), f"{what}: before"),
            grace=_grace(fields, what),
            blobs=fields.size("blobs"),
            size_bytes=fields.size("size_bytes"),
            pins=fields.size("pins"),
            by_format=_sizes(fields, "by_format", what),
            by_age=_sizes(fields, "by_age", what),
            parts={kind: _digests(parts, kind, what) for kind in (DIGESTS, PINS)},
        )


def write_plan(store: Store, plan: GarbagePlan) -> None:
    """Keep a plan; its parts are there already."""
    ensure(store, plan_key(plan.digest), Record(plan.to_content(), current()).to_bytes())


def read_plan(store: Store, digest: str) -> GarbagePlan:
    """Read a plan. NotFoundError if there is none, IntegrityError if it is not what its name says."""
    key = plan_key(digest)
    what = f"{key} in {store.location}"
    try:
        record = read_record(store, key)
    except NotFoundError as error:
        raise NotFoundError(
            f"There is no plan {digest} in {store.location}. Make one with collect_garbage(dry_run=True); "
            "they are kept for 30 days.",
            details=error.details,
        ) from error
    plan = GarbagePlan.from_record(record, what)
    if record.content_digest != digest:
        raise IntegrityError(f"{what} does not hold what its name says; make another plan.")
    return plan


class PartsWriter:
    """Writes rows of one kind in parts of PART_ROWS, while they come."""

    def __init__(self, store: Store, kind: str, before: datetime) -> None:
        self._store, self._kind, self._before = store, kind, before
        self._rows: list[str] = []
        self.parts: list[str] = []
        self.count = 0

    def add(self, row: str) -> None:
        """Take one row."""
        self._rows.append(row)
        self.count += 1
        if len(self._rows) == PART_ROWS:
            self._flush()

    def finish(self) -> tuple[str, ...]:
        """Write what is left -> the digests of all parts."""
        if self._rows:
            self._flush()
        return tuple(self.parts)

    def _flush(self) -> None:
        record = Record({"before": format_time(self._before), self._kind: self._rows}, current())
        ensure(self._store, part_key(record.content_digest), record.to_bytes())
        self.parts.append(record.content_digest)
        self._rows = []


def rows_of(store: Store, plan: GarbagePlan, kind: str) -> Iterator[list[str]]:
    """Read the rows of a plan, a part at a time; IntegrityError for a part that is not what its name says."""
    for part in plan.parts.get(kind, ()):
        key = part_key(part)
        record = read_record(store, key)
        rows = Fields(record.content, key).texts(kind)
        if record.content_digest != part or rows is None or not all(_is_row(row, kind) for row in rows):
            raise IntegrityError(f"{key} in {store.location} does not hold what its name says.")
        yield list(rows)


def _is_row(row: str, kind: str) -> bool:
    return is_digest(row) if kind == DIGESTS else row.startswith(layout.PINS)


def require_past(at: datetime, now: datetime, what: str) -> None:
    """Raise IntegrityError for a plan of the future, by which the youngest things would be old."""
    if at - now > _CLOCKS:
        raise IntegrityError(
            f"{what} is about what was there at {format_time(at)}, and by the store's clock nothing after "
            f"{format_time(now)} can be: the clock was put back, or the plan is forged. Make another."
        )


def _grace(fields: Fields, what: str) -> timedelta:
    seconds = fields.size("grace_s")
    if not SHORTEST_GRACE.total_seconds() <= seconds <= LONGEST_GRACE.total_seconds():
        raise IntegrityError(f"{what}: grace_s is {seconds}, which is no grace period; make another plan.")
    return timedelta(seconds=seconds)


def _sizes(fields: Fields, key: str, what: str) -> dict[str, int]:
    found = fields.objects(key)
    if not all(map(is_size, found.values())):
        raise IntegrityError(f"{what}: {key} should hold sizes.")
    return found


def _digests(fields: Fields, key: str, what: str) -> tuple[str, ...]:
    found = fields.texts(key) or ()
    if not all(map(is_digest, found)):
        raise IntegrityError(f"{what}: parts should be digests.")
    return found
