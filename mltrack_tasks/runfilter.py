"""What ``list_runs`` asks for: a filter over run manifests, checked once, as a value.

Equality is one rule everywhere: numbers are equal by value (``10`` and ``10.0`` are, and NaN equals NaN, so
that diverged runs can be found), all else only within its own type: ``True`` is not ``1`` and ``"10"`` is not
``10``.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from mltrack_tasks import canonical, layout
from mltrack_tasks.errors import IntegrityError, InvalidInputError
from mltrack_tasks.fields import checked_mapping, format_time, parse_time
from mltrack_tasks.records import RunManifest

_COMPARISON = re.compile(
    r"\s*(?P<operator>==|=|!=|<=|>=|<|>)\s*"
    r"(?P<number>(?P<whole>[+-]?[0-9]+)|[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
    r"|[+-]?inf|nan)\s*"
)
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_ORDER: Mapping[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True)
class Condition:
    """What one value of a run must be: ``group`` is params, metrics or tags; absent values never match.

    ``==`` follows the rule of this module. ``!=``, ``<``, ``<=``, ``>`` and ``>=`` hold for numbers only; a
    NaN differs from every other number and stands in no order to any.
    """

    group: str
    name: str
    operator: str
    value: Any

    def admits(self, found: Any) -> bool:
        """Tell whether the value that a run has under this name is one of those asked for."""
        if self.operator == "==":
            return same_value(found, self.value)
        if type(found) not in (int, float):
            return False
        if self.operator == "!=":
            return not same_value(found, self.value)
        return _ORDER[self.operator](found, self.value)


@dataclass(frozen=True)
class RunFilter:
    """Which runs are asked for: those that meet every field that is given. Made by ``run_filter``.

    ``since`` <= the run's time < ``until``, both in UTC.
    """

    project: str | None = None
    run_type: str | None = None
    model: str | None = None
    status: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    conditions: tuple[Condition, ...] = ()

    def matches(self, manifest: RunManifest) -> bool:
        """Tell whether a run is one of those asked for."""
        return (
            all(wanted == getattr(manifest, name) for name, wanted in self.exact.items())
            and self._in_time(manifest)
            and all(_meets(condition, manifest) for condition in self.conditions)
        )

    @property
    def exact(self) -> dict[str, str]:
        """The fields that must equal a text, by name."""
        named = {name: getattr(self, name) for name in ("project", "run_type", "model", "status")}
        return {name: wanted for name, wanted in named.items() if wanted is not None}

    def _in_time(self, manifest: RunManifest) -> bool:
        if self.since is None and self.until is None:
            return True
        moment = run_time(manifest)
        return moment is not None and (
            (self.since is None or self.since <= moment) and (self.until is None or moment < self.until)
        )


def run_filter(
    *,
    project: str | None = None,
    run_type: str | None = None,
    model: str | None = None,
    status: str | None = None,
    since: date | datetime | str | None = None,
    until: date | datetime | str | None = None,
    tags: Mapping[str, Any] | None = None,
    params: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
) -> RunFilter:
    """Check what is asked for -> RunFilter; InvalidInputError says which argument cannot be meant.

    ``since`` and ``until`` are dates, datetimes with a timezone, or ISO text of either. A date means its
    whole UTC day, so ``until`` a date includes it; a datetime as ``until`` is excluded. A run's time is its
    start, or when it was stored if it has none; a run whose time cannot be read is in no range.
    ``tags`` and ``params`` map names to the values that a run must have, ``metrics`` names to a number or a
    comparison such as ``"> 0.9"`` or ``"<= 1e-3"``.
    """
    for what, name in (("project", project), ("model", model)):
        if name is not None:
            layout.encode_segment(name, what=f"The {what}")
    if run_type is not None:
        layout.check_choice(run_type, layout.RUN_TYPES, "The run type")
    if status is not None:
        layout.check_choice(status, layout.STATUSES, "The status")
    start, end = _moment(since, "since", whole_day=False), _moment(until, "until", whole_day=True)
    if start is not None and end is not None and start >= end:
        raise InvalidInputError(f"since={since!r} is not before until={until!r}; no run can match.")
    conditions = (*_equal("tags", tags), *_equal("params", params), *_compared(metrics))
    return RunFilter(project, run_type, model, status, start, end, conditions)


def run_time(manifest: RunManifest) -> datetime | None:
    """When a run was: its start, else when it was stored; None if its record does not tell that either."""
    if manifest.started_at is not None:
        return manifest.started_at
    try:
        return manifest.stored_at
    except IntegrityError:
        return None  # provenance is not checked when a record is read; one odd record must not hide the rest


def same_value(one: Any, other: Any) -> bool:
    """Tell whether two JSON values are equal by the rule of this module, all the way down."""
    if type(one) in (int, float) and type(other) in (int, float):
        return bool(one == other) or (one != one and other != other)
    if type(one) is not type(other):
        return False
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same_value, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same_value(item, other[key]) for key, item in one.items())
    return bool(one == other)


def _meets(condition: Condition, manifest: RunManifest) -> bool:
    values: Mapping[str, Any] = getattr(manifest, condition.group)
    return condition.name in values and condition.admits(values[condition.name])


def _moment(given: Any, what: str, *, whole_day: bool) -> datetime | None:
    """Read a bound of time -> UTC; with ``whole_day`` a date stands for the end of its day."""
    value = _read_time(given, what) if isinstance(given, str) else given
    if value is None:
        return None
    if isinstance(value, datetime):
        try:
            return parse_time(format_time(value), what)
        except InvalidInputError as error:
            raise InvalidInputError(f"{what}: {error}") from error
    if not isinstance(value, date):
        raise InvalidInputError(
            f"{what} is {value!r}; give a date, a datetime with a timezone, or ISO text of either."
        )
    midnight = datetime.combine(value, time(), UTC)
    if not whole_day:
        return midnight
    return midnight + timedelta(days=1) if value < date.max else None


def _read_time(text: str, what: str) -> date:
    try:
        return date.fromisoformat(text) if _DAY.fullmatch(text) else datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidInputError(
            f'{what} is {text!r:.80}, not a time; write "2024-01-15" or "2024-01-15T12:00:00Z".'
        ) from error


def _equal(group: str, wanted: Mapping[str, Any] | None) -> list[Condition]:
    values = checked_mapping(wanted, group)
    canonical.escape(values, what=group)
    return [Condition(group, name, "==", value) for name, value in values.items()]


def _compared(wanted: Mapping[str, Any] | None) -> list[Condition]:
    values = checked_mapping(wanted, "metrics")
    conditions = [Condition("metrics", name, *_comparison(name, value)) for name, value in values.items()]
    canonical.escape(dict.fromkeys(values), what="metrics")
    return conditions


def _comparison(name: str, given: Any) -> tuple[str, int | float]:
    if type(given).__module__ == "numpy" and getattr(given, "ndim", None) == 0:
        given = given.item()
    if type(given) in (int, float):
        return "==", given
    match = _COMPARISON.fullmatch(given) if isinstance(given, str) else None
    if match is None:
        raise InvalidInputError(
            f"metrics[{name!r}] is {given!r:.80}; give a number, or a comparison with one such as "
            '"> 0.9" (<, <=, >, >=, ==, !=).'
        )
    sign, number = match["operator"], _number(match, name)
    if number != number and sign in _ORDER:
        raise InvalidInputError(f"metrics[{name!r}] is {given!r}; NaN has no order, so no run can match.")
    return ("==" if sign == "=" else sign), number


def _number(match: re.Match[str], name: str) -> int | float:
    text = match["number"]
    try:
        number = int(text) if match["whole"] else float(text)
    except ValueError as error:  # Python reads no integer above 4,300 digits
        raise InvalidInputError(
            f"metrics[{name!r}] has a number of {len(text)} digits; shorten it."
        ) from error
    if isinstance(number, float) and math.isinf(number) and not text.endswith("inf"):
        raise InvalidInputError(f"metrics[{name!r}] has {text:.80}, which is beyond a float's range.")
    return number
