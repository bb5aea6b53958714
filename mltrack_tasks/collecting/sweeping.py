"""Sweeping: what a plan lists is deleted in rounds, each behind open batches that every writer looks for.

The order within a round is what makes it safe, beside writers and other collectors: open the batches, leave
to other collectors what they are at, list pins, read new records, look at what is there, delete, close. A
round that fails before it has sent a deletion closes its batches; one that fails later leaves them open, as
what it sent may still be on its way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from mltrack_tasks import events, provenance
from mltrack_tasks.collecting.batches import BATCH, OpenBatches
from mltrack_tasks.collecting.clock import Patience
from mltrack_tasks.collecting.keys import digest_of, unpinned_key
from mltrack_tasks.collecting.listing import Place, places_of
from mltrack_tasks.collecting.marks import Marks
from mltrack_tasks.collecting.planning import is_garbage, stale_pins
from mltrack_tasks.collecting.plans import DIGESTS, PINS, GarbagePlan, rows_of
from mltrack_tasks.events import Event, Observe
from mltrack_tasks.records import Record
from mltrack_tasks.recordstore import ensure
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.lastlook import last_look

ROUND = 10
"""Batches that are open at once: listing pins and looking for new records is done once for all of them."""

T = TypeVar("T")


@dataclass
class Swept:
    """What became of a plan."""

    blobs: int = 0
    size_bytes: int = 0
    pins: int = 0
    spared: int = 0
    """Digests of the plan that a record or pin holds by now, or another collector is at."""


@dataclass
class _Round:
    """The batches of one round, and whether a deletion was sent."""

    store: Store
    batches: OpenBatches
    patience: Patience
    deleting: bool = False

    def delete(self, keys: Sequence[str]) -> None:
        """Delete BATCH keys at a time, as long as the batches cannot have been closed by others."""
        for start in range(0, len(keys), BATCH):
            self.patience.require()
            self.deleting = True
            with last_look(self.patience.require):
                self.store.delete(keys[start : start + BATCH])


def sweep(store: Store, plan: GarbagePlan, marks: Marks, observe: Observe) -> Swept:
    """Delete what a plan lists and nothing needs or holds by now -> what that was.

    ``marks`` has looked at all records. What is gone already is passed over, so the same plan again goes on
    where a collector was stopped. First blobs, then pins: a blob that loses its pin now is younger garbage.
    """
    swept = Swept()
    for rows in rows_of(store, plan, DIGESTS):
        for digests in _cut(rows, ROUND * BATCH):
            _sweep_blobs(store, plan, marks, digests, swept)
            _tell(observe, swept.blobs, plan.blobs, "blobs")
    for rows in rows_of(store, plan, PINS):
        for pins in _cut(rows, ROUND * BATCH):
            _sweep_pins(store, plan, marks, pins, swept)
            _tell(observe, swept.pins, plan.pins, "pins")
    return swept


def _sweep_blobs(store: Store, plan: GarbagePlan, marks: Marks, digests: Sequence[str], swept: Swept) -> None:
    there = places_of(store, digests, pins=False)
    wanted = [digest for digest, place in there.items() if is_garbage(place, marks, plan.before)]
    swept.spared += len(there) - len(wanted)
    if not wanted:
        return

    def act(work: _Round) -> None:
        free = _without(wanted, work.batches.of_others())
        pinned = places_of(store, free, pins=True)
        marks.look()
        left = _without(free, pinned)
        found = places_of(store, left, pins=False)
        doomed = [place for place in found.values() if is_garbage(place, marks, plan.before)]
        swept.spared += len(wanted) - len(doomed)
        work.delete([stat.key for place in doomed for stat in place.sides])
        work.delete([stat.key for place in doomed for stat in place.blobs])
        _count(swept, doomed)

    _behind_batches(store, wanted, act)


def _sweep_pins(store: Store, plan: GarbagePlan, marks: Marks, pins: Sequence[str], swept: Swept) -> None:
    digests = sorted({digest for key in pins if (digest := digest_of(key))})
    listed = set(pins)
    if not digests:
        return

    def act(work: _Round) -> None:
        free = _without(digests, work.batches.of_others())
        marks.look()
        places = places_of(store, free, pins=True)
        stale = {
            digest: [key for key in stale_pins(place.pins, marks, plan.before) if key in listed]
            for digest, place in places.items()
        }
        doomed = [key for keys in stale.values() for key in keys]
        _say_unpinned(store, work.batches, [digest for digest, keys in stale.items() if keys])
        work.delete(doomed)
        swept.pins += len(doomed)

    _behind_batches(store, digests, act)


def _behind_batches(store: Store, digests: Sequence[str], act: Callable[[_Round], None]) -> None:
    """Do ``act`` while batches for ``digests`` are open."""
    patience = Patience()
    work = _Round(store, OpenBatches(store, digests), patience)
    try:
        act(work)
    except BaseException:
        if not work.deleting:
            work.batches.close()
        raise
    work.batches.close()


def _say_unpinned(store: Store, batches: OpenBatches, digests: list[str]) -> None:
    """Keep which blobs lose a pin, before they do: they stay for a grace period from now."""
    for number, part in enumerate(_cut(digests, BATCH)):
        name = batches.keys[number].rpartition("/")[2].removesuffix(".json")
        body = Record({"digests": list(part)}, provenance.current()).to_bytes()
        ensure(store, unpinned_key(name), body)


def _count(swept: Swept, doomed: Iterable[Place]) -> None:
    for place in doomed:
        swept.blobs += 1
        swept.size_bytes += place.size_bytes


def _without(digests: Iterable[str], others: Iterable[str]) -> list[str]:
    left_out = set(others)
    return [digest for digest in digests if digest not in left_out]


def _cut(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _tell(observe: Observe, done: int, total: int, unit: str) -> None:
    observe(Event(events.PROGRESS, "collecting garbage", {"done": done, "total": total, "unit": unit}))
