"""Views: made again from the manifests that they derive from."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial

from mltrack_tasks import events, layout
from mltrack_tasks.errors import FormatError, IntegrityError, NotFoundError
from mltrack_tasks.events import Event, Observe, log_event
from mltrack_tasks.manifests import view_value
from mltrack_tasks.parallel import map_ordered
from mltrack_tasks.records import RunManifest
from mltrack_tasks.recordstore import ensure
from mltrack_tasks.runlog import newest_manifests, read_revisions
from mltrack_tasks.runs import get_run
from mltrack_tasks.stores.base import Stat, Store

MODES = layout.STORAGE_MODES[:-1]
"""The storage modes that have a view: all but flat."""
_BATCH = 100
"""Runs judged, and their entries deleted, at a time: few enough that the judgement is fresh."""


@dataclass(frozen=True)
class ViewReport:
    """What ``rebuild_views`` found and did; all but ``runs`` and ``pins_created`` count entries of views.

    ``kept`` are right, ``foreign`` were not written by this library, ``unjudged`` belong to runs whose
    manifest cannot be read: neither of the last two was touched.
    """

    runs: int
    created: int = 0
    deleted: int = 0
    kept: int = 0
    foreign: int = 0
    unjudged: int = 0
    pins_created: int = 0


@dataclass
class _Expected:
    """Keys that follow from the current manifests."""

    runs: int
    views: set[str]
    pins: set[str]


@dataclass
class _Found:
    """What is under the views: entries that are right, others by the run that they name, and foreign keys."""

    right: set[str]
    doubtful: dict[str, list[str]]
    foreign: int


def rebuild_views(store: Store, *, observe: Observe = log_event) -> ViewReport:
    """Make the views equal to what the current manifests say -> counts of what was done.

    Creates entries that are missing, deletes those that no current manifest justifies, and creates missing
    pins of the current manifests (it deletes no pin: that is garbage collection's business). Safe while runs
    are stored and revised. A second call finds nothing to do. Every manifest is read, and the views and pins
    are listed.
    """
    expected = _expected(store, observe)
    found = _find(store, expected.views)
    missing = sorted(expected.views - found.right)
    created = _create(store, missing)
    deleted, unjudged = _remove(store, found.doubtful)
    doubtful = sum(map(len, found.doubtful.values()))
    report = ViewReport(
        runs=expected.runs,
        created=created,
        deleted=deleted,
        kept=len(found.right) + len(missing) - created + doubtful - deleted - unjudged,
        foreign=found.foreign,
        unjudged=unjudged,
        pins_created=_create(store, _missing_pins(store, expected.pins)),
    )
    observe(Event(events.VIEWS_REBUILT, store.location, asdict(report)))
    return report


def _expected(store: Store, observe: Observe) -> _Expected:
    expected = _Expected(0, set(), set())
    for found in read_revisions(store, newest_manifests(store), observe):
        for manifest in found.manifests:
            try:
                views = set(entries_of(manifest))
            except IntegrityError as error:
                events.logger.warning("left out: %s", error)
                continue
            expected.views |= views
            expected.pins.update(layout.run_pin_key(ref.hash, manifest.run_id) for ref in manifest.all_refs)
            expected.runs += 1
    return expected


def entries_of(manifest: RunManifest) -> Iterator[str]:
    """Name the keys of the views that a manifest justifies; IntegrityError if it does not say."""
    for mode in manifest.storage_modes:
        if mode in MODES:
            yield layout.view_key(mode, view_value(manifest, mode), manifest.run_id)


def _find(store: Store, expected: Collection[str]) -> _Found:
    found = _Found(set(), {}, 0)
    for mode in MODES:
        for stat in store.list(f"runs/{mode}/"):
            if stat.key in expected:
                found.right.add(stat.key)
            elif (run_id := run_of_entry(mode, stat)) is None:
                found.foreign += 1
            else:
                found.doubtful.setdefault(run_id, []).append(stat.key)
    return found


def run_of_entry(mode: str, stat: Stat) -> str | None:
    """Which run an entry names, or None for what this library did not write, such as somebody's notes."""
    parts = stat.key.split("/")
    if stat.size != 0 or len(parts) != 4:
        return None
    try:
        value, run_id = map(layout.decode_segment, parts[2:])
        if mode == "by_date":
            layout.parse_day(value)
    except IntegrityError:
        return None
    return None if mode == "by_type" and value not in layout.RUN_TYPES else run_id


def _missing_pins(store: Store, expected: Collection[str]) -> list[str]:
    missing = set(expected)
    for stat in store.list(layout.PINS):
        missing.discard(stat.key)
    return sorted(missing)


def _create(store: Store, keys: Iterable[str]) -> int:
    """Make sure of empty objects -> how many were not there."""
    return sum(map_ordered(partial(ensure, store), keys, store.max_workers))


def _remove(store: Store, doubtful: Mapping[str, Sequence[str]]) -> tuple[int, int]:
    """Delete what its run does not justify at this moment -> (deleted, not judged)."""
    deleted, unjudged, runs = 0, 0, sorted(doubtful)
    for start in range(0, len(runs), _BATCH):
        doomed: dict[str, list[str]] = {}
        for run_id, right in _justified(store, runs[start : start + _BATCH]):
            if right is None:
                unjudged += len(doubtful[run_id])
            elif wrong := [key for key in doubtful[run_id] if key not in right]:
                doomed[run_id] = wrong
        deleted += _delete(store, doomed)
    return deleted, unjudged


def _delete(store: Store, doomed: Mapping[str, Sequence[str]]) -> int:
    """Delete entries by run -> how many stay deleted.

    Looks at each run again afterwards: a revision may have been stored since it was judged, whose writer
    found the entry there and relied on it.
    """
    if not doomed:
        return 0
    keys = [key for wrong in doomed.values() for key in wrong]
    store.delete(keys)
    needed = [
        key for run_id, right in _justified(store, doomed) if right for key in doomed[run_id] if key in right
    ]
    _create(store, needed)
    return len(keys) - len(needed)


def _justified(store: Store, runs: Iterable[str]) -> Iterator[tuple[str, frozenset[str] | None]]:
    """What each run justifies now: nothing if it does not exist, None if it cannot be read."""
    ids = list(runs)
    return zip(ids, map_ordered(partial(entries_of_run, store), ids, store.max_workers), strict=True)


def entries_of_run(store: Store, run_id: str) -> frozenset[str] | None:
    """Name what a run's current manifest justifies: nothing if there is none, None if it cannot be read."""
    try:
        return frozenset(entries_of(get_run(store, run_id)))
    except NotFoundError:
        return frozenset()
    except (IntegrityError, FormatError) as error:
        events.logger.warning("its views are left as they are: %s", error)
        return None
