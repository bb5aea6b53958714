"""What provisioning found and did, for people: rows of a table, and markdown."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from mltrack_tasks.bucket.planning import Row
from mltrack_tasks.collecting.retention import RetentionPolicy

_SHOWN = 240
"""Characters of a document in a cell."""


@dataclass(frozen=True)
class BucketReport:
    """What each document says and should say, and the numbers of the changes that were made.

    ``plan`` names the changes: given to another call, that one makes these or none. ``hazards`` are rules of
    others that endanger the store; ``retention`` is for ``apply_retention``.
    """

    location: str
    bucket: str
    dry_run: bool
    created: bool
    plan: str
    documents: tuple[Row, ...]
    changes: tuple[int, ...] = ()
    hazards: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    retention: tuple[RetentionPolicy, ...] = field(default=())

    @property
    def drifted(self) -> tuple[str, ...]:
        """Documents in which ours is not as it was last applied: somebody changed it by hand."""
        return tuple(row.document for row in self.documents if row.drift)

    @property
    def to_change(self) -> tuple[str, ...]:
        """Documents that differ from the wish, or differed before this call."""
        return tuple(row.document for row in self.documents if row.state == "change")

    def row(self, document: str) -> Row:
        """The row of a document; KeyError if nothing was wished of it."""
        return {row.document: row for row in self.documents}[document]

    def rows(self) -> list[dict[str, str]]:
        """The documents as table rows: document, state, drift, why, before, after."""
        return [
            {
                "document": row.document,
                "state": row.state if self.dry_run or row.state != "change" else "changed",
                "drift": "DRIFT" if row.drift else "",
                "why": row.why,
                "before": shortened(row.before),
                "after": shortened(row.after),
            }
            for row in self.documents
        ]

    def __str__(self) -> str:
        changed = ", ".join(self.to_change) or "nothing"
        told = f"would change in {self.bucket}" if self.dry_run else f"changed in {self.bucket}"
        drift = f"; changed by hand since the last apply: {', '.join(self.drifted)}" if self.drifted else ""
        made = f"{'would create' if self.dry_run else 'created'} the bucket; " if self.created else ""
        return f"{made}{told}: {changed}{drift}"


def shortened(document: Any) -> str:
    """A document on one line, cut where it is long."""
    if document is None:
        return "-"
    text = document if isinstance(document, str) else json.dumps(document, ensure_ascii=False)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def pretty(document: Any) -> str:
    """A document on many lines, for a block of code; a policy's text is laid out too."""
    if document is None:
        return "(none)"
    if isinstance(document, str):
        try:
            document = json.loads(document)
        except ValueError:
            return str(document)
    return json.dumps(document, indent=2, ensure_ascii=False)
