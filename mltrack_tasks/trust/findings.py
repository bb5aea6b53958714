"""Findings: what verification can find, as values, and what a whole audit came to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from mltrack_tasks.errors import IntegrityError
from mltrack_tasks.fields import Fields, is_list, is_size
from mltrack_tasks.usage_stats import Amount

LEVELS = ("structure", "attested", "read")

MISSING = "missing"
WRONG_SIZE = "wrong_size"
WRONG_CHECKSUM = "wrong_checksum"
CORRUPT = "corrupt"
UNREADABLE = "unreadable_record"
UNKNOWN_FORMAT = "unknown_format"
INCOMPLETE_MODEL = "incomplete_model"
DANGLING_ALIAS = "dangling_alias"
ORPHANED = "orphaned"
DANGLING_VIEW = "dangling_view"
MISSING_VIEW = "missing_view"
DANGLING_PIN = "dangling_pin"
MISSING_PIN = "missing_pin"
FOREIGN = "foreign_object"
UNFINISHED = "unfinished_upload"
ARCHIVED = "archived"
UNATTESTED = "unattested"
UNDESCRIBED = "undescribed"

WRONG = (
    *(MISSING, WRONG_SIZE, WRONG_CHECKSUM, CORRUPT),
    *(UNREADABLE, UNKNOWN_FORMAT, INCOMPLETE_MODEL, DANGLING_ALIAS),
)
"""Something that somebody relies on is not there, or is not what it says: the audit fails."""
NOTICES = (
    *(ORPHANED, DANGLING_VIEW, MISSING_VIEW, DANGLING_PIN, MISSING_PIN),
    *(FOREIGN, UNFINISHED, ARCHIVED, UNATTESTED, UNDESCRIBED),
)
"""What is left of a crash, waits for ``collect_garbage`` or ``rebuild_views``, or was not written by us."""
KINDS = (*WRONG, *NOTICES)
OF_BLOBS = (MISSING, WRONG_SIZE, WRONG_CHECKSUM, CORRUPT)
"""What ``heal_store`` can mend, given a source."""

NOTHING = Amount()
MAX_NAMED = 20
"""Records that one finding names; ``needs`` counts all."""
MAX_FINDINGS = 10_000
"""Findings that a report holds in memory; the records of the audit have all."""


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be.

    ``key`` is the object (or the prefix) in question, ``needed_by`` names the records that need it, such as
    ``run r1`` or ``model churn v20240115_a1b2c3``: the first MAX_NAMED of ``needs``.
    """

    kind: str
    key: str
    detail: str
    size_bytes: int | None = None
    needed_by: tuple[str, ...] = ()
    needs: int = 0

    @property
    def wrong(self) -> bool:
        """Whether it makes an audit fail; else it is a notice."""
        return self.kind in WRONG

    def to_json(self) -> list[Any]:
        """Map onto a row of plain JSON."""
        named = [_clean(name) for name in self.needed_by]
        return [self.kind, _clean(self.key), _clean(self.detail), self.size_bytes, named, self.needs]

    @classmethod
    def from_json(cls, row: list[Any]) -> Finding:
        """Read a row that ``Fields.rows`` has checked against ROW."""
        kind, key, detail, size, needed_by, needs = row
        return cls(kind, key, detail, size, tuple(map(str, needed_by)), needs)


ROW = (
    lambda value: value in KINDS,
    lambda value: isinstance(value, str),
    lambda value: isinstance(value, str),
    lambda value: value is None or is_size(value),
    is_list,
    is_size,
)
"""What the values of a finding's row are."""


@dataclass(frozen=True)
class VerifyReport:
    """What an audit found. Sizes in bytes.

    ``blobs`` are those that exist, ``checked`` the blobs (and files of models) that the level looked at one
    by one, ``unchanged`` those that an earlier audit attested and nobody has written since, ``unattested``
    those of which the store keeps no checksum to compare: only ``read`` can say more. ``counts`` has the
    number of findings of each kind; ``findings`` at most MAX_FINDINGS of them, what is wrong first.
    ``left_out`` says what could not be looked at. ``audit`` names the records under ``audits/``; empty if
    none were kept.
    """

    location: str
    level: str
    audit: str
    began: datetime
    part: str | None = None
    since: str | None = None
    records: int = 0
    blobs: Amount = NOTHING
    checked: Amount = NOTHING
    unchanged: Amount = NOTHING
    unattested: Amount = NOTHING
    counts: Mapping[str, int] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    left_out: tuple[str, ...] = ()
    resumed: bool = False

    @property
    def wrong(self) -> int:
        """Number of findings that make the audit fail."""
        return sum(count for kind, count in self.counts.items() if kind in WRONG)

    @property
    def notices(self) -> int:
        """Number of the other findings."""
        return sum(self.counts.values()) - self.wrong

    @property
    def ok(self) -> bool:
        """Whether all that was looked at is there and is what it says."""
        return self.wrong == 0

    def require_ok(self) -> None:
        """Raise IntegrityError if something is wrong: for a run that is to fail then."""
        if not self.ok:
            first = "; ".join(f"{each.kind} {each.key}" for each in self.findings[:3] if each.wrong)
            raise IntegrityError(
                f"{self.wrong:,} things are wrong in {self.location}: {first}. Run heal_store, with whatever "
                "may still have the bytes: a replica, the folder that was migrated.",
                details={"audit": self.audit, "counts": dict(self.counts)},
            )

    def __str__(self) -> str:
        part = f", part {self.part}" if self.part else ""
        told = ", ".join(f"{count:,} {kind}" for kind, count in self.counts.items() if count)
        return (
            f"{self.level}{part} of {self.location}: {self.records:,} records, {self.blobs.objects:,} blobs, "
            f"{self.checked.objects:,} looked at one by one; {told or 'nothing found'}"
        )

    def rows(self) -> list[dict[str, Any]]:
        """The findings as table rows."""
        return [
            {
                "finding": finding.kind,
                "key": finding.key,
                "detail": finding.detail,
                "needed by": ", ".join(finding.needed_by[:5])
                + (f" and {finding.needs - 5:,} more" if finding.needs > 5 else ""),
            }
            for finding in self.findings
        ]


def first_ones(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """At most MAX_FINDINGS findings, what is wrong first."""
    ordered = sorted(findings, key=lambda finding: (KINDS.index(finding.kind), finding.key))
    return tuple(ordered[:MAX_FINDINGS])


def counted(raw: Mapping[str, Any], what: str) -> dict[str, int]:
    """Read counts of findings out of a record, in the order of KINDS."""
    if not all(kind in KINDS and is_size(count) for kind, count in raw.items()):
        raise IntegrityError(f"{what} counts what is no finding.")
    return {kind: raw[kind] for kind in KINDS if kind in raw}


def amount_of(fields: Fields, key: str) -> Amount:
    """Read an amount out of a record: ``[objects, bytes]``."""
    sizes = fields.sizes(key) or ()
    return Amount(*sizes) if len(sizes) == 2 else Amount()


def _clean(text: str) -> str:
    """Text that any record can hold: a foreign key may be none."""
    return text.encode("utf-8", "replace").decode("utf-8")
