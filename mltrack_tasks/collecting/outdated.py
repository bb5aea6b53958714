"""What collections and audits left behind, and nobody looks at any more."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import groupby

from mltrack_tasks.collecting.keys import CLOCKS, PLAN_PARTS, PLANS, REMOVALS, UNPINNED
from mltrack_tasks.stores.base import Stat, Store
from mltrack_tasks.trust.journal import AUDITS, RESUMED_FOR, is_audit_key, last_finished, report_key

KEPT = timedelta(days=30)
"""How long plans can be applied, by the store's clock."""


def outdated(store: Store, now: datetime, grace: timedelta) -> Iterator[str]:
    """Keys of old plans, of what else collections left, and of old audits; ``now`` is the store's."""
    ages = dict.fromkeys((PLANS, PLAN_PARTS, CLOCKS, REMOVALS), KEPT) | {UNPINNED: max(KEPT, grace)}
    for folder, age in ages.items():
        for stat in store.list(folder):
            if now - stat.modified > age * 2:
                yield stat.key
    yield from _old_audits(store, now)


def _old_audits(store: Store, now: datetime) -> Iterator[str]:
    """Keys of the audits in which nothing was written for 60 days, whole.

    Not the newest finished one of each level and part: ``since="last"`` and ``heal_store`` refer to it.
    """
    for audit, keys in _audits(store, now, set(last_finished(store))):
        report = report_key(audit)
        yield from (key for key in keys if key == report)  # without it, nobody relies on the steps
        yield from (key for key in keys if key != report)


def _audits(store: Store, now: datetime, spared: set[str]) -> Iterator[tuple[str, list[str]]]:
    """Audits that may go, each with its keys."""
    known = (stat for stat in store.list(AUDITS) if is_audit_key(stat.key))
    for audit, group in groupby(known, key=_audit_of):
        stats = list(group)
        if audit not in spared and all(now - stat.modified > RESUMED_FOR * 2 for stat in stats):
            yield audit, [stat.key for stat in stats]


def _audit_of(stat: Stat) -> str:
    return stat.key.split("/")[1]
