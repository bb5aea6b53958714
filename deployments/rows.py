"""What a bootstrap did, one row for each thing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Literal

Result = Literal["created", "present", "changed", "kept", "left out", "would create", "would change"]


@dataclass(frozen=True)
class Row:
    """One thing: its kind, its name, what became of it, and what is worth knowing."""

    kind: str
    name: str
    result: Result
    detail: str = ""


def as_text(rows: Sequence[Row]) -> str:
    """Lay rows out as a table of plain text."""
    cells = [("what", "name", "result", "detail"), *map(astuple, rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(3)]
    lines = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]])
        for row in cells
    ]
    return "\n".join(line.rstrip() for line in lines)
