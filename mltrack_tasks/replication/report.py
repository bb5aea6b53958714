"""What a replication found and did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from mltrack_tasks.chart import human_bytes
from mltrack_tasks.errors import PartialTransferError

SHOWN = 1_000
"""Failures that a report lists; all of them are counted."""


@dataclass(frozen=True)
class ReplicationReport:
    """What ``replicate_store`` found missing in the replica, and copied unless it was a dry run.

    ``as_of`` is when the listing began, by this machine's clock: what the source had by then is in the
    replica, if nothing ``failed``. ``behind`` is the age of the oldest object that was missing: how far the
    replica lagged when the call came, zero if nothing was missing. ``extra`` counts blobs and records that
    only the replica has, such as runs that were removed from the source; they stay. ``held_back`` counts
    records that were not copied because something that they need could not be.
    """

    source: str
    target: str
    dry_run: bool
    as_of: datetime
    behind: timedelta = timedelta(0)
    missing_blobs: int = 0
    missing_bytes: int = 0
    missing_records: int = 0
    copied_blobs: int = 0
    copied_bytes: int = 0
    copied_records: int = 0
    extra: int = 0
    failures: int = 0
    held_back: int = 0
    failed: Mapping[str, str] = field(default_factory=dict)
    """Key to reason, of the first ``SHOWN``."""

    @property
    def ok(self) -> bool:
        """Whether nothing failed and nothing was held back."""
        return not self.failures and not self.held_back

    def require_ok(self) -> None:
        """Raise PartialTransferError with what failed, if anything did."""
        if self.ok:
            return
        key, reason = next(iter(self.failed.items()), ("", "see the call before"))
        raise PartialTransferError(
            f"{self.failures:,} objects of {self.source} could not be copied to {self.target}, and "
            f"{self.held_back:,} records that need them, or follow them, were held back. The first: "
            f"{key}: {reason} Mend it (verify_store, heal_store) and run the same call again.",
            done=(self.copied_blobs, self.copied_records),
            failed=tuple(self.failed.items()),
        )

    def rows(self) -> list[dict[str, str]]:
        """The figures as table rows: what, number, size."""
        rows = [
            ("blobs that were missing", self.missing_blobs, human_bytes(self.missing_bytes)),
            ("records that were missing", self.missing_records, ""),
            ("blobs copied", self.copied_blobs, human_bytes(self.copied_bytes)),
            ("records copied", self.copied_records, ""),
            ("only in the replica", self.extra, ""),
            ("failed", self.failures, ""),
            ("held back", self.held_back, ""),
        ]
        return [{"what": what, "number": f"{number:,}", "size": size} for what, number, size in rows]

    def __str__(self) -> str:
        done = f"{self.copied_blobs:,} blobs and {self.copied_records:,} records copied"
        todo = f"{self.missing_blobs:,} blobs and {self.missing_records:,} records to copy"
        behind = f"the replica was {self.behind} behind" if self.behind else "the replica was up to date"
        bad = f"; {self.failures:,} failed, {self.held_back:,} held back" if not self.ok else ""
        return f"{self.source} to {self.target}: {todo if self.dry_run else done}; {behind}{bad}"


@dataclass
class Tally:
    """What is counted while it runs."""

    missing_blobs: int = 0
    missing_bytes: int = 0
    missing_records: int = 0
    copied_blobs: int = 0
    copied_bytes: int = 0
    copied_records: int = 0
    extra: int = 0
    failures: int = 0
    held_back: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    oldest: datetime | None = None
    """When the oldest object that was missing was written."""

    def missing(self, modified: datetime) -> None:
        """Take the age of something that is missing into account."""
        if self.oldest is None or modified < self.oldest:
            self.oldest = modified

    def fail(self, key: str, error: Exception) -> None:
        """Note why an object could not be copied."""
        self.failures += 1
        if len(self.failed) < SHOWN:
            self.failed[key] = str(error)

    def report(self, source: str, target: str, as_of: datetime, *, dry_run: bool) -> ReplicationReport:
        """The finished report."""
        figures = {name: value for name, value in vars(self).items() if name != "oldest"}
        now = datetime.now(UTC)
        behind = timedelta(0) if self.oldest is None else max(now - self.oldest, timedelta(0))
        return ReplicationReport(source, target, dry_run, as_of, behind, **figures)
