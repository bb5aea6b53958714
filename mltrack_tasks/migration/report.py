"""What a migration did, or is going to do, in figures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mltrack_tasks.errors import MLTrackError, PartialTransferError
from mltrack_tasks.migration.deletion import Deleted
from mltrack_tasks.migration.estimate import Estimate, estimate
from mltrack_tasks.migration.finishing import Finished
from mltrack_tasks.migration.hashing import Failed
from mltrack_tasks.migration.planning import Plan
from mltrack_tasks.migration.runmanifests import Written
from mltrack_tasks.migration.uploading import Uploaded
from mltrack_tasks.migrations import MigrationManifest

_SHOWN = 5


@dataclass
class Outcome:
    """What became of a plan so far."""

    uploaded: list[Uploaded] = field(default_factory=list)
    written: list[Written] = field(default_factory=list)
    finished: Finished | None = None
    deleted: list[Deleted] = field(default_factory=list)


@dataclass(frozen=True)
class MigrationReport:
    """Figures of one migration. ``number`` is that of the finished state, None in a dry run."""

    migration: str
    local_path: str
    source: str
    number: int | None
    files: int
    size_bytes: int
    new_files: int
    """Files whose contents no earlier migration of this folder had sent, apart from those in manifests."""
    new_bytes: int
    created_blobs: int = 0
    created_bytes: int = 0
    runs: tuple[str, ...] = ()
    """Ids of the runs that were written or revised."""
    left_out: tuple[tuple[str, str], ...] = ()
    """What cannot be kept, such as sockets: (path, reason)."""
    failed: tuple[tuple[str, str], ...] = ()
    """What should have been stored and was not: (path, reason)."""
    deleted_files: int = 0
    deleted_bytes: int = 0
    kept: tuple[tuple[str, str], ...] = ()
    """What should have been deleted and was not: (path, reason)."""
    models: int = 0
    """Registered models of MLflow's in the folder ..."""
    model_versions: int = 0
    """... and all their versions ..."""
    model_aliases: int = 0
    """... and aliases, those that follow from stages too."""
    registered: tuple[tuple[str, int, str], ...] = ()
    """(model, number of MLflow's version, version here)."""
    not_registered: tuple[tuple[str, str], ...] = ()
    """Models and versions that are none here, such as those whose files are elsewhere: (which, reason)."""
    differences: tuple[tuple[str, str], ...] = ()
    """Aliases that do not stand for what they stand for in MLflow: (model@alias, reason)."""
    estimate: Estimate | None = None
    """Of a dry run: what the migration would take."""
    dry_run: bool = False
    unchanged: bool = False
    seconds: float = field(default=0.0, compare=False)

    def summary(self) -> str:
        """The figures in one line."""
        if self.unchanged and not self.deleted_files:
            return f"nothing new: {self.files:,} files, {self.size_bytes:,} bytes are stored as they are"
        new = f"{self.new_files:,} files of {self.new_bytes:,} bytes"
        sent = f"{new} to send" if self.dry_run else f"{new} new, {len(self.runs):,} runs written"
        rest = f", {self.deleted_files:,} files deleted here" if self.deleted_files else ""
        wrong = f", {len(self.failed):,} failed" if self.failed else ""
        ahead = f"; {self.estimate}" if self.estimate else ""
        return (
            f"{self.files:,} files, {self.size_bytes:,} bytes: {sent}{self._of_models()}{rest}{wrong}{ahead}"
        )

    def _of_models(self) -> str:
        """The registered models in a few words; nothing if there are none."""
        if not self.models:
            return ""
        whole = f", models: {self.models:,}, versions: {self.model_versions:,}"
        if self.dry_run:
            return f"{whole}, aliases: {self.model_aliases:,}"
        apart = f", {len(self.differences):,} aliases left alone" if self.differences else ""
        return f"{whole} ({len(self.registered):,} registered){apart}"

    def rows(self) -> list[dict[str, Any]]:
        """The figures as rows of a table."""
        return [
            {"": "files found", "number": self.files, "bytes": self.size_bytes},
            {"": "to send" if self.dry_run else "new", "number": self.new_files, "bytes": self.new_bytes},
            {"": "blobs created", "number": self.created_blobs, "bytes": self.created_bytes},
            {"": "runs written", "number": len(self.runs), "bytes": None},
            *(self._rows_of_models() if self.models else ()),
            {"": "left out", "number": len(self.left_out), "bytes": None},
            {"": "failed", "number": len(self.failed), "bytes": None},
            {"": "deleted here", "number": self.deleted_files, "bytes": self.deleted_bytes},
            {"": "not deleted", "number": len(self.kept), "bytes": None},
        ]

    def _rows_of_models(self) -> list[dict[str, Any]]:
        figures = {
            "registered models": self.models,
            "their versions": self.model_versions,
            "their aliases": self.model_aliases,
            **({} if self.dry_run else {"versions registered here": len(self.registered)}),
            "not registered": len(self.not_registered),
            "aliases that differ": len(self.differences),
        }
        return [{"": name, "number": number, "bytes": None} for name, number in figures.items()]


def report_migration(
    plan: Plan, outcome: Outcome, *, dry_run: bool = False, seconds: float = 0.0
) -> MigrationReport:
    """Put together what a plan says and what became of it.

    Raises PartialTransferError if anything could not be stored as it is now; its ``done`` has the report.
    """
    return require_complete(figures_of(plan, outcome, dry_run=dry_run, seconds=seconds))


def require_complete(report: MigrationReport) -> MigrationReport:
    """Return a report, or raise PartialTransferError if anything failed."""
    if report.failed:
        raise _incomplete(report)
    return report


def figures_of(plan: Plan, outcome: Outcome, *, dry_run: bool, seconds: float) -> MigrationReport:
    """Count what a plan says and what became of it."""
    finished = outcome.finished
    number = finished.manifest.number if finished else None
    if number is None and plan.unchanged and plan.previous:
        number = plan.previous.number
    return MigrationReport(
        migration=plan.scan.migration,
        local_path=plan.scan.root,
        source=plan.scan.source,
        number=number,
        files=plan.files,
        size_bytes=plan.size_bytes,
        new_files=plan.new_files,
        new_bytes=plan.new_bytes,
        created_blobs=sum(batch.created_blobs for batch in outcome.uploaded),
        created_bytes=sum(batch.created_bytes for batch in outcome.uploaded),
        runs=tuple(run.run_id for batch in outcome.written for run in batch.runs),
        left_out=tuple(plan.scan.left_out),
        failed=finished.failed if finished else plan.failed,
        deleted_files=sum(batch.files for batch in outcome.deleted),
        deleted_bytes=sum(batch.size_bytes for batch in outcome.deleted),
        kept=tuple(kept for batch in outcome.deleted for kept in batch.kept),
        **_models_of(plan, finished.manifest if finished else plan.previous),
        estimate=estimate(plan) if dry_run else None,
        dry_run=dry_run,
        unchanged=plan.unchanged,
        seconds=seconds,
    )


def _models_of(plan: Plan, manifest: MigrationManifest | None) -> dict[str, Any]:
    """What there is of registered models, and what the last manifest says of them."""
    registry = plan.scan.registry
    names = {model.name for model in registry.models}
    versions = [row for row in manifest.versions if row.model in names] if manifest else []
    aliases = [row for row in manifest.aliases if row.model in names] if manifest else []
    known = {(row.model, row.number) for row in versions}
    absent = [
        (f"{model.name} {version.facts.version}", version.reason)
        for model in registry.models
        for version in model.versions
        if version.folder is None and (model.name, version.facts.version) not in known
    ]
    noted = [(f"{row.model} {row.number}", row.note) for row in versions if row.note]
    return {
        "models": len(registry.models),
        "model_versions": sum(len(model.versions) for model in registry.models),
        "model_aliases": sum(len(model.aliases()) for model in registry.models),
        "registered": tuple((row.model, row.number, row.version) for row in versions if row.version),
        "not_registered": (*registry.left_out, *noted, *absent),
        "differences": tuple((f"{row.model}@{row.alias}", row.note) for row in aliases if row.note),
    }


def stopped(plan: Plan, sent: int, error: MLTrackError) -> PartialTransferError:
    """The error for a migration that the store, or the disk, stopped after ``sent`` batches."""
    done = [entry.path for batch in plan.batches[:sent] for entry in batch.files]
    rest = [entry.path for batch in plan.batches[sent:] for entry in batch.files]
    return PartialTransferError(
        f"The migration of {plan.scan.root} stopped after {len(done):,} of {plan.new_files:,} files: {error} "
        "The same call again goes on from here.",
        done=done,
        failed=[Failed(path, "not sent yet") for path in rest],
        details={"migration": plan.scan.migration, "cause": str(error)},
    )


def _incomplete(report: MigrationReport) -> PartialTransferError:
    """The error for a migration that stored all but some files."""
    shown = "; ".join(f"{path!r}: {reason}" for path, reason in report.failed[:_SHOWN])
    more = f"; and {len(report.failed) - _SHOWN:,} more" if len(report.failed) > _SHOWN else ""
    return PartialTransferError(
        f"{len(report.failed):,} files of {report.local_path} were not stored as they are now: {shown}{more}."
        " Everything else is. Mend the cause and run the same call again.",
        done=[report],
        failed=report.failed,
        details={"migration": report.migration},
    )
