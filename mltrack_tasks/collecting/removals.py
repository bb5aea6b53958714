"""Removing many records at once: runs by what they are, data by the beginning of its name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime
from functools import partial
from typing import Any

from mltrack_tasks import events, layout
from mltrack_tasks.collecting.clock import time_at
from mltrack_tasks.collecting.inuse import sources_in_use
from mltrack_tasks.collecting.ownership import require_own, store_id_of
from mltrack_tasks.collecting.removalplans import RemovalReport, check_asked, keep_plan, planned
from mltrack_tasks.collecting.removing import take_run
from mltrack_tasks.collecting.retention import immune
from mltrack_tasks.content import read_name
from mltrack_tasks.errors import ConflictError, IntegrityError, InvalidInputError, NotFoundError
from mltrack_tasks.events import Event, Observe, log_event
from mltrack_tasks.fields import checked_text
from mltrack_tasks.parallel import map_ordered
from mltrack_tasks.runfilter import RunFilter, run_filter
from mltrack_tasks.runs import list_runs
from mltrack_tasks.stores.base import Store

RUNS, NAMES = "runs", "names"
_BATCH = 1_000


def remove_runs(
    store: Store,
    *,
    project: str | None = None,
    run_type: str | None = None,
    model: str | None = None,
    status: str | None = None,
    since: date | datetime | str | None = None,
    until: date | datetime | str | None = None,
    tags: Mapping[str, Any] | None = None,
    params: Mapping[str, Any] | None = None,
    metrics: Mapping[str, float | str] | None = None,
    reason: str | None = None,
    plan: str | None = None,
    dry_run: bool = True,
    observe: Observe = log_event,
) -> RemovalReport:
    """Name the runs that match everything given -> a plan; ``dry_run=False`` removes them, as ``remove_run``.

    Conditions are those of ``list_runs``; one at least. Kept, with the reason: runs from which a version came
    that was ever promoted, runs that are not over, and runs tagged ``mltrack.keep`` (``remove_run`` removes
    those). ``plan=report.plan`` applies a plan that was made before, at most 30 days ago: the runs that it
    lists, but for those that were revised since. The same call again finishes what was stopped. Blobs go
    with ``collect_garbage``.

    Raises InvalidInputError without a condition, or with one beside a plan; NotFoundError for an unknown or
    old plan.
    """
    conditions: dict[str, Any] = {
        **{"project": project, "run_type": run_type, "model": model, "status": status},
        **{"since": since, "until": until, "tags": tags, "params": params, "metrics": metrics},
    }
    reason = checked_text(reason, "reason")
    check_asked(plan, dry_run, asked=run_filter(**conditions) != RunFilter())
    require_own(store)
    if store_id_of(store) is None:
        return _nothing(store, plan, dry_run)
    kept: list[tuple[str, str]] = []
    if plan is None:
        now = time_at(store)
        found = list_runs(store, **conditions, observe=observe)
        in_use = sources_in_use(store)
        doomed = []
        for run in sorted(found, key=lambda run: run.run_id):
            if why := immune(run, in_use):
                kept.append((run.run_id, why))
            else:
                doomed.append(layout.manifest_key(run.run_id, run.revision))
        plan = keep_plan(store, RUNS, doomed, now)
    at, keys = planned(store, RUNS, plan)
    places = [_run_of(key) for key in keys]
    matched = tuple(run_id for run_id, _ in places)
    if dry_run:
        return RemovalReport(plan, True, matched, kept=tuple(kept))
    removed = remove_each(store, places, [reason] * len(places), observe, seen=at)
    kept += [(run_id, why) for run_id, why in zip(matched, removed, strict=True) if why]
    gone = tuple(run_id for run_id, why in zip(matched, removed, strict=True) if why is None)
    return RemovalReport(plan, False, matched, gone, tuple(kept))


def remove_each(
    store: Store,
    places: Sequence[tuple[str, int]],
    reasons: Sequence[str | None],
    observe: Observe,
    *,
    seen: datetime | None = None,
) -> list[str | None]:
    """Remove runs, several at once, each if its newest revision is the one given -> why not, or None.

    ``seen`` is the store's time before that was found out: as for ``take_run``.
    """
    told: list[Event] = []
    act = partial(_remove, store, told.append, seen)
    answers: list[str | None] = []
    for answer in map_ordered(act, zip(places, reasons, strict=True), store.max_workers):
        answers.append(answer)
        while told:
            observe(told.pop(0))
        details = {"done": len(answers), "total": len(places), "unit": "runs"}
        observe(Event(events.PROGRESS, "removing runs", details))
    return answers


def remove_data(
    store: Store,
    starting_with: str | None = None,
    *,
    plan: str | None = None,
    dry_run: bool = True,
    observe: Observe = log_event,
) -> RemovalReport:
    """Name the data whose names begin so -> a plan; ``dry_run=False`` forgets them, as ``forget_data``.

    ``plan=report.plan`` applies a plan that was made before, at most 30 days ago: the records that it lists.
    What was stored under such a name since stays. The same call again finishes what was stopped. Blobs go
    with ``collect_garbage``; runs are not touched.

    Raises InvalidInputError for an empty beginning, NotFoundError for an unknown or old plan, FormatError
    (and removes nothing) if a newer version wrote one of the records.
    """
    check_asked(plan, dry_run, asked=starting_with is not None)
    begin = "" if starting_with is None else _start_of_keys(starting_with)
    require_own(store)
    if store_id_of(store) is None:
        return _nothing(store, plan, dry_run)
    if plan is None:
        now = time_at(store)
        keys = list(_keys_starting_with(store, begin))
        for _ in map_ordered(partial(_require_known_format, store), keys, store.max_workers):
            pass
        plan = keep_plan(store, NAMES, keys, now)
    keys = list(planned(store, NAMES, plan)[1])
    matched = tuple(dict.fromkeys(_name_of(key) for key in keys))
    if dry_run:
        return RemovalReport(plan, True, matched)
    for start in range(0, len(keys), _BATCH):
        store.delete(keys[start : start + _BATCH])
        done = min(start + _BATCH, len(keys))
        details = {"done": done, "total": len(keys), "unit": "records"}
        observe(Event(events.PROGRESS, "forgetting data", details))
    for name in matched:
        observe(Event(events.DATA_FORGOTTEN, name, {"plan": plan}))
    return RemovalReport(plan, False, matched, matched)


def _nothing(store: Store, plan: str | None, dry_run: bool) -> RemovalReport:
    """What there is to remove in a place to which nothing was ever written: it is not made a store."""
    if plan is not None:
        raise NotFoundError(f"There is no plan {plan} in {store.location}: nothing was ever stored there.")
    return RemovalReport("", dry_run, ())


def _remove(
    store: Store, observe: Observe, seen: datetime | None, wish: tuple[tuple[str, int], str | None]
) -> str | None:
    (run_id, revision), reason = wish
    try:
        take_run(store, run_id, reason=reason, revision=revision, observe=observe, seen=seen)
    except NotFoundError:
        return None  # removed before this call was made again, or by others
    except ConflictError as error:
        events.logger.warning("not removed: %s", error)
        return "was revised since"
    return None


def _run_of(key: str) -> tuple[str, int]:
    place = layout.parse_manifest_key(key)
    if place is None:
        raise IntegrityError(f"The plan lists {key!r:.80}, which is no manifest; make another plan.")
    return place


def _name_of(key: str) -> str:
    place = layout.parse_name_key(key)
    if place is None:
        raise IntegrityError(f"The plan lists {key!r:.80}, which is no record of a name; make another plan.")
    return place[0]


def _start_of_keys(beginning: str) -> str:
    """What the keys of the records begin with whose names begin so."""
    if not isinstance(beginning, str) or not beginning:
        raise InvalidInputError(
            f"starting_with={beginning!r} would be every name; give the beginning of some."
        )
    if beginning in (".", ".."):  # which begin names, and are none
        return layout.NAMES + beginning
    return layout.NAMES + layout.encode_segment(beginning, what="The beginning of the names")


def _keys_starting_with(store: Store, start: str) -> Iterator[str]:
    """Keys of the records of names that begin so; listed from the first of them on."""
    for stat in store.list(layout.NAMES, after=start):
        if not stat.key.startswith(start):
            return
        if layout.parse_name_key(stat.key):
            yield stat.key


def _require_known_format(store: Store, key: str) -> None:
    """Raise FormatError for a record of a newer version; a damaged one may go, and one that is gone too."""
    try:
        read_name(store, key)
    except (IntegrityError, NotFoundError) as error:
        events.logger.warning("goes as well: %s", error)
