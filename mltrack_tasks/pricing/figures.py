"""What an estimate of costs says, as values: table rows, JSON, a chart."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from mltrack_tasks.chart import Bar, Chart, Panel, draw, human_bytes
from mltrack_tasks.pricing.bills import Count
from mltrack_tasks.pricing.whatif import WhatIf

MAX_BARS = 12
"""Bars of a panel; what comes after them is drawn as one."""


def dollars(amount: Decimal) -> str:
    """Write an amount of money: to the cent, and what is less than a cent to the hundredth of one."""
    size, sign = abs(amount), "-" if amount < 0 else ""
    if size and size < Decimal("0.0001"):
        return f"{'over' if sign else 'under'} {sign}$0.0001"
    unit = Decimal("0.0001") if 0 < size < Decimal("0.01") else Decimal("0.01")
    return f"{sign}${size.quantize(unit, ROUND_HALF_UP):,}"


@dataclass(frozen=True)
class CostLine:
    """What lies in one folder, state and storage class, and what it costs in a month [dollars]."""

    place: str
    state: str
    storage_class: str
    objects: int
    size_bytes: int
    billed_bytes: int
    """What is billed for, at the price of the class or of STANDARD: minima and overheads included."""
    monthly: Decimal


@dataclass(frozen=True)
class OwnerCost:
    """What one project (or what is not one) has of the blobs: its part of each that it needs."""

    owner: str
    size_bytes: int
    monthly: Decimal


@dataclass(frozen=True)
class CostEstimate:
    """What a store costs. All money is in dollars, at the list prices of ``region`` of the day ``as_of``.

    ``monthly`` is what storing it costs in a month, the sum of ``lines``. ``owners`` are the parts that
    projects have of what the blobs cost, the largest first; a blob that several need is split by the number
    of runs, data names and versions of models that need it. ``saved`` is what a copy for each of these would
    cost more.

    ``traffic`` is what the requests and reads that the call named cost in a month. ``jobs`` are what certain
    work costs once; ``early_deletion`` is what is left to pay of minimum stays if all were deleted today.
    """

    location: str
    region: str
    as_of: date
    monthly: Decimal
    lines: tuple[CostLine, ...]
    owners: tuple[OwnerCost, ...]
    saved: Decimal
    saved_bytes: int
    traffic: Decimal
    jobs: tuple[tuple[str, Decimal], ...]
    early_deletion: Decimal
    whatifs: tuple[WhatIf, ...]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        size = sum(line.size_bytes for line in self.lines)
        return (
            f"{self.location}: {dollars(self.monthly)} a month for {human_bytes(size)}; deduplication saves "
            f"{dollars(self.saved)}; prices of {self.region}, {self.as_of}"
        )

    def rows(self) -> list[dict[str, Any]]:
        """The lines as table rows, the most expensive first."""
        return [
            {
                "folder": line.place or "(top)",
                "state": line.state,
                "class": line.storage_class,
                "objects": line.objects,
                "size": human_bytes(line.size_bytes),
                "billed": human_bytes(line.billed_bytes),
                "a month": dollars(line.monthly),
            }
            for line in sorted(self.lines, key=lambda line: -line.monthly)
        ]

    def to_json(self) -> dict[str, Any]:
        """Map onto plain JSON; money is text, exact."""
        return {
            "location": self.location,
            "region": self.region,
            "as_of": self.as_of.isoformat(),
            "monthly": _text(self.monthly),
            "lines": [{**vars(line), "monthly": _text(line.monthly)} for line in self.lines],
            "owners": [{**vars(owner), "monthly": _text(owner.monthly)} for owner in self.owners],
            "saved": _text(self.saved),
            "saved_bytes": self.saved_bytes,
            "traffic": _text(self.traffic),
            "jobs": {name: _text(cost) for name, cost in self.jobs},
            "early_deletion": _text(self.early_deletion),
            "whatifs": [_whatif_json(each) for each in self.whatifs],
            "notes": list(self.notes),
        }


def whatif_rows(whatifs: tuple[WhatIf, ...]) -> list[dict[str, str]]:
    """What could be otherwise, as table rows."""
    return [
        {
            "what if": each.name,
            "a month": dollars(each.monthly),
            "saved": dollars(each.saved),
            "moving once": dollars(each.once),
            "pays after": "never" if each.months is None else f"{each.months:.1f} months",
            "reading it all": dollars(each.reading),
            "remarks": _remarks(each),
        }
        for each in whatifs
    ]


def cost_chart(found: CostEstimate) -> str:
    """Draw an estimate -> SVG: a month by storage class, by project, and what it could be."""
    by_class: dict[str, Decimal] = {}
    for line in found.lines:
        name = line.storage_class if line.state == "current" else f"{line.state}s"
        by_class[name] = by_class.get(name, Decimal(0)) + line.monthly
    figures = (
        (dollars(found.monthly), "a month"),
        (dollars(found.saved), "saved by deduplication"),
        (human_bytes(sum(line.size_bytes for line in found.lines)), "stored"),
    )
    panels = [
        Panel("By storage class and state", _bars(by_class)),
        Panel("By project", _bars({owner.owner: owner.monthly for owner in found.owners})),
        Panel("A month, if", _bars({each.name: each.monthly for each in found.whatifs})),
    ]
    return draw(
        Chart(
            title="Costs of storage",
            subtitle=f"{found.location}; prices of {found.region}, {found.as_of}",
            figures=figures,
            series=("dollars a month",),
            panels=tuple(panel for panel in panels if panel.bars),
        )
    )


def _bars(costs: dict[str, Decimal]) -> tuple[Bar, ...]:
    ordered = sorted(costs.items(), key=lambda item: -item[1])
    shown = ordered if len(ordered) <= MAX_BARS else ordered[: MAX_BARS - 1]
    rest = ordered[len(shown) :]
    if rest:
        shown = [*shown, (f"{len(rest):,} others", sum((cost for _, cost in rest), Decimal(0)))]
    return tuple(Bar(name, (max(0, int(cost * 1_000_000)),), dollars(cost)) for name, cost in shown)


def _remarks(each: WhatIf) -> str:
    parts = [f"{each.moved.objects:,} objects move ({human_bytes(each.moved.size_bytes)})"]
    if each.archived:
        parts.append(f"{each.archived:,} of them cannot be read before they are restored")
    if each.removed.objects:
        parts.append(f"{each.removed.objects:,} go away ({human_bytes(each.removed.size_bytes)})")
    return "; ".join(parts)


def _whatif_json(each: WhatIf) -> dict[str, Any]:
    return {
        "name": each.name,
        **{name: _text(getattr(each, name)) for name in ("monthly", "saved", "once", "reading")},
        "months": None if each.months is None else _text(each.months),
        "moved": _count_json(each.moved),
        "removed": _count_json(each.removed),
        "archived": each.archived,
    }


def _count_json(count: Count) -> dict[str, int]:
    return {"objects": count.objects, "size_bytes": count.size_bytes}


def _text(amount: Decimal) -> str:
    return f"{amount:.10f}"
