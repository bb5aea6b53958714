"""What is known of a store's use, as values: counts and sizes [bytes], as table rows, as JSON, as a chart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mltrack_tasks.chart import Bar, Chart, Panel, draw, human_bytes

NO_PROJECT = "(none)"
"""How rows and charts show the runs without a project."""
NO_MONTH = "(unknown)"
"""Month of a run that says neither when it began nor, in any form that we know, when it was stored."""
NAMED_DATA = "(named data)"
"""How charts show what was stored outside runs."""
MAX_BARS = 12
"""Bars of a panel; what comes after them is drawn as one."""


@dataclass(frozen=True)
class Amount:
    """A number of objects and their size together [bytes]."""

    objects: int = 0
    size_bytes: int = 0


@dataclass(frozen=True)
class Usage:
    """What a set of runs (and data names) refers to.

    ``references`` counts the entries of ``data``, ``inputs`` and ``outputs`` in the current revisions (and
    the records of named data); one blob under two names is two references. ``referenced_bytes`` is what they
    would take if each had a copy of its own, ``blobs`` and ``unique_bytes`` count each distinct blob once.
    All sizes are in bytes. ``blobs`` of several sets do not add up: what they share counts in each.
    """

    runs: int = 0
    references: int = 0
    referenced_bytes: int = 0
    blobs: int = 0
    unique_bytes: int = 0

    @property
    def saved_bytes(self) -> int:
        """What deduplication saves within this set [bytes]: referenced less unique."""
        return self.referenced_bytes - self.unique_bytes

    def to_json(self) -> dict[str, int]:
        """Map onto plain JSON, ``saved_bytes`` included."""
        return {**asdict(self), "saved_bytes": self.saved_bytes}


@dataclass(frozen=True)
class GroupUsage:
    """The runs of one project, run type and month.

    ``month`` is the UTC month (``yyyy-mm``) of a run's start; of storing it, where it has no start;
    NO_MONTH where its record tells neither.
    """

    project: str | None
    run_type: str
    month: str
    usage: Usage


@dataclass(frozen=True)
class LargeBlob:
    """One of the largest blobs, and a name it is known by: in a run, or (``run_id`` None) a data name."""

    ref: str
    size_bytes: int
    references: int
    name: str | None = None
    run_id: str | None = None


@dataclass(frozen=True)
class UsageStats:
    """What ``data_usage_stats`` found, all sizes in bytes.

    ``groups`` are ordered by project, run type and month; ``projects`` (and ``run_types``) with the largest
    first, ``months`` by time. ``total`` covers all runs and all named data, ``named`` the named data alone.

    ``stored`` are the blobs that exist. Each of them is either referenced, or ``held`` only by a pin (of an
    older revision, a name that was forgotten, a write in progress), or ``unreferenced``: garbage collection
    may delete it once its grace period is over. ``missing`` are blobs with references that do not exist,
    ``damaged`` those of another size than a reference says. ``side_objects`` describe blobs (metadata.json,
    multipart.json); ``foreign`` are other objects under ``data/``, not written by this library. The size of a
    blob is what is stored; of a missing one, the largest that a reference says.
    """

    location: str
    groups: tuple[GroupUsage, ...]
    projects: tuple[tuple[str | None, Usage], ...]
    run_types: tuple[tuple[str, Usage], ...]
    months: tuple[tuple[str, Usage], ...]
    total: Usage
    named: Usage
    stored: Amount
    held: Amount
    unreferenced: Amount
    missing: Amount
    damaged: Amount
    side_objects: Amount
    foreign: Amount
    largest: tuple[LargeBlob, ...]

    def rows(self) -> list[dict[str, Any]]:
        """The groups as table rows; sizes for people and, in the columns ``..._bytes``, exact."""
        return [
            {
                "project": NO_PROJECT if group.project is None else group.project,
                "type": group.run_type,
                "month": group.month,
                "runs": group.usage.runs,
                "references": group.usage.references,
                "referenced": human_bytes(group.usage.referenced_bytes),
                "unique": human_bytes(group.usage.unique_bytes),
                "saved": human_bytes(group.usage.saved_bytes),
                "blobs": group.usage.blobs,
                "referenced_bytes": group.usage.referenced_bytes,
                "unique_bytes": group.usage.unique_bytes,
                "saved_bytes": group.usage.saved_bytes,
            }
            for group in self.groups
        ]

    def to_json(self) -> dict[str, Any]:
        """Map onto plain JSON; a run without a project has ``project`` null."""
        amounts = ("stored", "held", "unreferenced", "missing", "damaged", "side_objects", "foreign")
        return {
            "location": self.location,
            "groups": [
                {"project": g.project, "run_type": g.run_type, "month": g.month, **g.usage.to_json()}
                for g in self.groups
            ],
            "projects": [{"project": name, **usage.to_json()} for name, usage in self.projects],
            "run_types": [{"run_type": name, **usage.to_json()} for name, usage in self.run_types],
            "months": [{"month": name, **usage.to_json()} for name, usage in self.months],
            "total": self.total.to_json(),
            "named": self.named.to_json(),
            **{name: asdict(getattr(self, name)) for name in amounts},
            "largest": [asdict(blob) for blob in self.largest],
        }


def usage_chart(stats: UsageStats) -> str:
    """Draw the store's use -> SVG: the projects that take most, and the months, unique beside saved bytes.

    At most MAX_BARS of each; the smallest projects and the earliest months are drawn as one bar, in which
    blobs that they share count once for each.
    """
    total = stats.total
    figures = (
        (human_bytes(stats.stored.size_bytes), f"stored, {stats.stored.objects:,} blobs"),
        (human_bytes(total.saved_bytes), "saved by deduplication"),
        (human_bytes(stats.unreferenced.size_bytes), f"unreferenced, {stats.unreferenced.objects:,} blobs"),
        (f"{total.runs:,}", f"runs, {total.references:,} references"),
    )
    absent = stats.missing.objects + stats.damaged.objects
    projects = [(NO_PROJECT if name is None else name, usage) for name, usage in stats.projects]
    if stats.named.references:
        projects.append((NAMED_DATA, stats.named))
        projects.sort(key=lambda item: -item[1].unique_bytes)
    return draw(
        Chart(
            title="Data usage",
            subtitle=(f"{absent:,} blobs are missing or damaged. " if absent else "") + stats.location,
            figures=figures,
            series=("unique", "saved by deduplication"),
            panels=(
                Panel("By project, largest first", _bars(projects, "others")),
                Panel("By month, latest first", _bars(stats.months[::-1], "earlier")),
            ),
        )
    )


def _bars(items: Sequence[tuple[str, Usage]], rest: str) -> tuple[Bar, ...]:
    if len(items) <= MAX_BARS:
        return tuple(_bar(name, usage.unique_bytes, usage.saved_bytes) for name, usage in items)
    shown, folded = items[: MAX_BARS - 1], [usage for _, usage in items[MAX_BARS - 1 :]]
    unique, saved = sum(each.unique_bytes for each in folded), sum(each.saved_bytes for each in folded)
    return (*_bars(shown, rest), _bar(f"{len(folded):,} {rest}", unique, saved))


def _bar(label: str, unique: int, saved: int) -> Bar:
    note = human_bytes(unique) + (f" + {human_bytes(saved)} saved" if saved else "")
    return Bar(label, (unique, saved), note)
