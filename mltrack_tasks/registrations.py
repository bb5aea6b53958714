"""Registrations: what was said of a version's bytes when they were registered again.

The record of a version never changes, so what comes later is kept beside it, and added when it is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from mltrack_tasks.errors import IntegrityError
from mltrack_tasks.fields import Fields, parse_time
from mltrack_tasks.models import ModelVersion
from mltrack_tasks.records import Record


@dataclass(frozen=True)
class Registration:
    """One later registration: which runs made the bytes again, and what was said of them."""

    at: datetime
    digest: str
    """Digest of the record's content: it settles the order of what was said at one moment."""
    source_runs: tuple[str, ...]
    metrics: Mapping[str, Any]
    params: Mapping[str, Any]
    tags: Mapping[str, Any]

    @staticmethod
    def content_of(version: ModelVersion) -> dict[str, Any]:
        """What a record says of a registration: all that a version's record says, but id and files."""
        return {key: value for key, value in version.to_content().items() if key not in ("files", "version")}

    @classmethod
    def from_record(cls, record: Record, version: ModelVersion, *, what: str) -> Registration:
        """Parse a registration of ``version``; IntegrityError if it is that of other bytes, or damaged."""
        fields = Fields(record.content, what)
        of = (fields.name("model"), fields.text("tree_digest"))
        if of != (version.model, version.tree_digest):
            raise IntegrityError(f"{what} is a registration of {of[0]!r} {of[1]:.80}, not of this version.")
        runs = (Fields({"run": run}, what).name("run") for run in fields.items("source_runs"))
        return cls(
            at=parse_time(record.provenance.get("at"), f"{what}: provenance.at"),
            digest=record.content_digest,
            source_runs=tuple(runs),
            metrics=fields.values("metrics"),
            params=fields.values("params"),
            tags=fields.values("tags"),
        )


def described_by(version: ModelVersion, later: Iterable[Registration]) -> ModelVersion:
    """Add what later registrations say where the record says nothing; of them, the first to say it counts."""
    runs, metrics, params, tags = {*version.source_runs}, version.metrics, version.params, version.tags
    for each in sorted(later, key=lambda each: (each.at, each.digest)):
        runs |= {*each.source_runs}
        metrics = {**each.metrics, **metrics}
        params = {**each.params, **params}
        tags = {**each.tags, **tags}
    return replace(version, source_runs=tuple(sorted(runs)), metrics=metrics, params=params, tags=tags)
