"""Retention applied: the runs of a store that no policy keeps are removed, or only named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mltrack_tasks.collecting.clock import time_at
from mltrack_tasks.collecting.inuse import sources_in_use
from mltrack_tasks.collecting.ownership import require_own, store_id_of
from mltrack_tasks.collecting.removals import remove_each
from mltrack_tasks.collecting.retention import Decision, RetentionPolicy, check_policies, decide
from mltrack_tasks.events import Observe, log_event
from mltrack_tasks.runs import list_runs
from mltrack_tasks.stores.base import Store


@dataclass(frozen=True)
class RetentionReport:
    """What was decided for each run, and which were removed if it was not a dry run."""

    dry_run: bool
    decisions: tuple[Decision, ...]
    removed: tuple[str, ...] = ()

    @property
    def doomed(self) -> tuple[str, ...]:
        """Ids of the runs that nothing keeps."""
        return tuple(each.run_id for each in self.decisions if not each.keep)

    def __str__(self) -> str:
        said = f"{len(self.doomed):,} of {len(self.decisions):,} runs are kept by nothing"
        return said if self.dry_run else f"{said}; {len(self.removed):,} were removed"


def apply_retention(
    store: Store,
    policies: Sequence[RetentionPolicy],
    *,
    dry_run: bool = True,
    observe: Observe = log_event,
) -> RetentionReport:
    """Decide which runs the policies keep -> each with the reason; ``dry_run=False`` removes the others.

    The first policy that is about a run decides; a run without a policy is kept. Always kept: runs from
    which a version came that was ever promoted, runs that are not over, and runs tagged
    ``mltrack.keep``. Age counts from a run's start, by the store's clock. A run that is revised meanwhile
    stays. What only removed runs held goes with ``collect_garbage``. Raises FormatError or IntegrityError
    while a record of a promoted model cannot be understood, InvalidInputError
    without a policy, ConflictError in a replica.
    """
    check_policies(policies)
    require_own(store)
    if store_id_of(store) is None:
        return RetentionReport(dry_run, ())
    now = time_at(store)
    runs = list_runs(store, observe=observe)
    decisions = decide(runs, policies, now, sources_in_use(store)) if runs else []
    report = RetentionReport(dry_run, tuple(decisions))
    if dry_run:
        return report
    doomed = [each for each in decisions if not each.keep]
    places = [(each.run_id, each.revision) for each in doomed]
    reasons = [f"retention: {each.reason}" for each in doomed]
    answers = remove_each(store, places, reasons, observe, seen=now)
    removed = [each.run_id for each, why in zip(doomed, answers, strict=True) if why is None]
    return RetentionReport(False, report.decisions, tuple(removed))
