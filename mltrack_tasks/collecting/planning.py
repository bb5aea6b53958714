"""Planning: what nothing needs, found in one pass over blobs, pins and records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import datetime, timedelta

from mltrack_tasks import events, layout
from mltrack_tasks.collecting.listing import Place, all_places
from mltrack_tasks.collecting.marks import Marks, is_pin
from mltrack_tasks.collecting.plans import DIGESTS, PINS, GarbagePlan, PartsWriter, write_plan
from mltrack_tasks.events import Event, Observe
from mltrack_tasks.stores.base import Stat, Store

_AGES = ((timedelta(days=30), "up to 30 days"), (timedelta(days=365), "up to a year"))
_OLDEST = "over a year"
_REPORT_EVERY = 10_000


def is_garbage(place: Place, marks: Marks, before: datetime) -> bool:
    """Tell whether nothing needs, and nothing holds, what lies under a digest, and it is all old enough.

    A description without a blob is left: its writer may be about to send that.
    """
    if not place.blobs or place.pins or marks.needs(place.digest) or marks.lost_a_pin(place.digest):
        return False
    return all(stat.modified < before for stat in place.objects)


def stale_pins(pins: Iterable[Stat], marks: Marks, before: datetime) -> list[str]:
    """Choose the pins without a record of their name that needs the blob, and older than ``before``.

    What this version would not have written in that place stays, and holds the blob.
    """
    old = (stat.key for stat in pins if stat.modified < before and stat.size == 0)
    return [key for key in old if is_pin(key) and not marks.justifies(key)]


def make_plan(
    store: Store, store_id: str, now: datetime, grace: timedelta, marks: Marks, observe: Observe
) -> GarbagePlan:
    """List what may be deleted -> the plan, which is kept in the store."""
    before = now - grace
    doomed, unpinned = PartsWriter(store, DIGESTS, before), PartsWriter(store, PINS, before)
    by_format, by_age = Counter[str](), Counter[str]()
    for number, place in enumerate(all_places(store), start=1):
        for pin in stale_pins(place.pins, marks, before):
            unpinned.add(pin)
        if is_garbage(place, marks, before):
            doomed.add(place.digest)
            for stat in place.blobs:
                by_format[stat.key.rpartition("/data.")[2]] += stat.size
            by_age[_age(now - max(stat.modified for stat in place.objects))] += place.size_bytes
        if number % _REPORT_EVERY == 0:
            details = {"done": number, "total": None, "unit": "blobs"}
            observe(Event(events.PROGRESS, "looking for garbage", details))
    plan = GarbagePlan(
        store_id=store_id,
        before=before,
        grace=grace,
        blobs=doomed.count,
        size_bytes=by_age.total(),
        pins=unpinned.count,
        by_format={name: by_format[name] for name in layout.FORMATS if name in by_format},
        by_age=dict(by_age),
        parts={DIGESTS: doomed.finish(), PINS: unpinned.finish()},
    )
    write_plan(store, plan)
    return plan


def _age(age: timedelta) -> str:
    return next((name for limit, name in _AGES if age <= limit), _OLDEST)
