"""Retention: which runs to keep, decided from policies and what is known of the runs, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mltrack_tasks.errors import InvalidInputError
from mltrack_tasks.records import RunManifest
from mltrack_tasks.runfilter import run_time, same_value

KEEP_TAG = "mltrack.keep"
"""A run with this tag, unless its value is false, is never removed."""


MOST = 1_000_000
"""Of runs, days or weeks: more than any store has, and few enough to count days with."""
RunType = Literal["experiment", "production", "evaluation", "development", "analysis"]


class RetentionPolicy(BaseModel):
    """Which runs it is about, and which of them are kept: what any of its rules keeps.

    It is about the runs of the projects, run types and tags that it names (all of what it does not name). The
    numbers count within each project, by the start of a run, in UTC.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    projects: tuple[str, ...] | None = Field(
        default=None,
        min_length=1,
        max_length=1_000,
        description="Projects that it is about; all if none is named.",
    )
    run_types: tuple[RunType, ...] | None = Field(
        default=None, min_length=1, description="Run types that it is about; all if none is named."
    )
    tags: Mapping[str, Any] = Field(
        default_factory=dict, max_length=100, description="Tags that a run must have, with these values."
    )
    keep_last: int = Field(default=0, ge=0, le=MOST, description="The newest so many runs.")
    keep_daily: int = Field(
        default=0, ge=0, le=MOST, description="The newest run of each of the last so many days."
    )
    keep_weekly: int = Field(
        default=0, ge=0, le=MOST, description="The newest run of each of the last so many weeks."
    )
    keep_days: float = Field(
        default=0, ge=0, le=MOST, allow_inf_nan=False, description="All runs of the last so many days."
    )

    @model_validator(mode="after")
    def _keeps_something(self) -> RetentionPolicy:
        if not (self.keep_last or self.keep_daily or self.keep_weekly or self.keep_days):
            raise ValueError("a policy without any rule keeps nothing; say at least keep_days or keep_last")
        return self

    def is_about(self, run: RunManifest) -> bool:
        """Tell whether a run falls under the policy."""
        return (
            (self.projects is None or run.project in self.projects)
            and (self.run_types is None or run.run_type in self.run_types)
            and all(key in run.tags and same_value(run.tags[key], value) for key, value in self.tags.items())
        )


@dataclass(frozen=True)
class Decision:
    """Whether a run is kept, and why."""

    run_id: str
    revision: int
    keep: bool
    reason: str


def check_policies(policies: Sequence[RetentionPolicy]) -> None:
    """Raise InvalidInputError unless this is a list of policies, one at least."""
    if not policies:
        raise InvalidInputError("There is no policy; give at least one RetentionPolicy.")
    is_list = isinstance(policies, (list, tuple))
    if not is_list or not all(isinstance(policy, RetentionPolicy) for policy in policies):
        raise InvalidInputError(
            f"policies is {policies!r:.80}; give a list, such as [RetentionPolicy(keep_last=10)]."
        )


def decide(
    runs: Iterable[RunManifest],
    policies: Sequence[RetentionPolicy],
    now: datetime,
    in_use: Collection[str] = (),
) -> list[Decision]:
    """Decide for each run, in order, by the first policy that is about it; a run without a policy is kept.

    Always kept: runs in ``in_use``, runs that are running or scheduled, and runs tagged ``mltrack.keep``;
    and those of which no time can be read, as their record is damaged: it must not stop the rest.
    """
    check_policies(policies)
    listed = list(runs)
    kept: dict[str, str] = {}
    doomed: dict[str, str] = {}
    groups: dict[tuple[int, str | None], list[RunManifest]] = {}
    for run in listed:
        number = next((at for at, policy in enumerate(policies) if policy.is_about(run)), None)
        if number is None:
            kept[run.run_id] = "no policy is about it"
        elif run_time(run) is None:
            kept[run.run_id] = "its record does not tell when it was"
        else:
            groups.setdefault((number, run.project), []).append(run)
    for (number, _), group in groups.items():
        reasons = _kept_by(policies[number], sorted(group, key=_start, reverse=True), now)
        for run in group:
            said = reasons.get(run.run_id)
            (doomed if said is None else kept)[run.run_id] = said or f"policy {number + 1} does not keep it"
    for run in listed:
        if run.run_id in doomed and (why := immune(run, in_use)):
            kept[run.run_id] = why
    return [
        Decision(run.run_id, run.revision, run.run_id in kept, kept.get(run.run_id) or doomed[run.run_id])
        for run in listed
    ]


def _kept_by(policy: RetentionPolicy, newest_first: list[RunManifest], now: datetime) -> dict[str, str]:
    """What one policy keeps of the runs of one project, and by which rule."""
    kept: dict[str, str] = {}
    for run in newest_first if policy.keep_days else ():
        if now - _start(run) <= timedelta(days=policy.keep_days):
            kept[run.run_id] = f"is not older than {policy.keep_days:g} days"
    for run in newest_first[: policy.keep_last]:
        kept.setdefault(run.run_id, f"is among the last {policy.keep_last}")
    for run in _newest_of_each(newest_first, _day, policy.keep_daily):
        kept.setdefault(run.run_id, f"is the newest of its day, among {policy.keep_daily} days")
    for run in _newest_of_each(newest_first, _week, policy.keep_weekly):
        kept.setdefault(run.run_id, f"is the newest of its week, among {policy.keep_weekly} weeks")
    return kept


def _newest_of_each(
    newest_first: Iterable[RunManifest], period: Callable[[RunManifest], str], count: int
) -> Iterator[RunManifest]:
    """The newest run of each of the last ``count`` periods that have any."""
    seen: set[str] = set()
    for run in newest_first:
        if len(seen) < count and period(run) not in seen:
            seen.add(period(run))
            yield run


def immune(run: RunManifest, in_use: Collection[str]) -> str | None:
    """Say why a run is kept whatever policy or condition it meets, or None."""
    if run.run_id in in_use:
        return "a version of a model that was promoted came from it"
    if run.status in ("running", "scheduled"):
        return f"is {run.status}"
    if run.tags.get(KEEP_TAG, False) not in (False, "false"):
        return f"is tagged {KEEP_TAG}"
    return None


def _start(run: RunManifest) -> datetime:
    return run.started_at or run.stored_at


def _day(run: RunManifest) -> str:
    return _start(run).astimezone(UTC).date().isoformat()


def _week(run: RunManifest) -> str:
    year, week, _ = _start(run).astimezone(UTC).isocalendar()
    return f"{year}-{week:02d}"
