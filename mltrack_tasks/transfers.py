"""What people see of a migration or a restore: one progress artifact for all its tasks, and reports."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from uuid import UUID

from mltrack_tasks import migrations
from mltrack_tasks.artifacts import create_progress, markdown, plain, show_progress, table
from mltrack_tasks.blocks import MLTrackStore
from mltrack_tasks.chart import human_bytes
from mltrack_tasks.errors import FormatError, InvalidInputError, MLTrackError
from mltrack_tasks.events import PROGRESS, Event, Observe
from mltrack_tasks.layout import manifest_key
from mltrack_tasks.migration.deletion import check_age
from mltrack_tasks.migration.download import RestorePlan, RestoreReport, report_restore
from mltrack_tasks.migration.planning import Plan
from mltrack_tasks.migration.report import MigrationReport, Outcome, figures_of, require_complete, stopped
from mltrack_tasks.migration.restoring import Restored
from mltrack_tasks.objectlinks import links
from mltrack_tasks.resolve import open_store
from mltrack_tasks.runlinks import footer
from mltrack_tasks.stores.files import checked_path
from mltrack_tasks.tasking import report, run_logger

__all__ = [
    "Outcome",
    "Share",
    "Transfer",
    "age_of",
    "check_target",
    "in_container",
    "render_migration",
    "render_restore",
    "shown_if_stopped",
]

SHOW_EVERY = 1.0
"""[s] between two states of the artifact."""
MOUNTS = Path("/proc/self/mounts")
LAYERED = ("overlay", "aufs", "fuse-overlayfs", "fuse.fuse-overlayfs")
_SHOWN = 200
"""Files that a report names."""


@dataclass(frozen=True)
class Share:
    """The part of a transfer that one task is to do, so that it can tell how far the whole is."""

    artifact: UUID | None
    what: str
    done: int
    """[bytes] before this part."""
    total: int
    """[bytes] of the whole."""
    began: float
    """[s since 1970]"""

    def observer(self, observe: Observe = report, clock: Callable[[], float] = time.time) -> Observe:
        """Make an observer that shows PROGRESS in the artifact, at most once a second."""
        shown = 0.0

        def take(event: Event) -> None:
            nonlocal shown
            if event.name != PROGRESS:
                observe(event)
            elif event.details["unit"] == "bytes" and clock() - shown >= SHOW_EVERY:
                shown = clock()
                show_progress(self.artifact, *self.state(self.done + event.details["done"], shown))

        return take

    def state(self, done: int, now: float) -> tuple[float, str]:
        """How far the whole is [%], and in words: bytes, rate and the time that is left."""
        seconds = max(now - self.began, 0.001)
        rate = done / seconds
        left = f", about {(self.total - done) / rate:,.0f} s left" if rate and done < self.total else ""
        words = f"{self.what}: {human_bytes(done)} of {human_bytes(self.total)}, {human_bytes(int(rate))}/s"
        return (100.0 * done / self.total if self.total else 100.0), words + left


class Transfer:
    """A transfer in several tasks, with one progress artifact."""

    def __init__(self, key: str, what: str, total: int) -> None:
        self._whole = Share(create_progress(key, _shown(what)), _shown(what), 0, total, time.time())
        self._done = 0

    def share(self, size: int) -> Share:
        """Take the next ``size`` bytes as the part of one task."""
        whole, before = self._whole, self._done
        self._done += size
        return Share(whole.artifact, whole.what, before, whole.total, whole.began)

    def finish(self) -> None:
        """Show that all is done."""
        show_progress(self._whole.artifact, *self._whole.state(self._whole.total, time.time()))


def age_of(minutes: float) -> timedelta:
    """Read an age in minutes; InvalidInputError for what is none, as nothing would be too young for it."""
    try:
        age = timedelta(minutes=minutes)
    except (ValueError, OverflowError) as error:
        raise InvalidInputError(f"min_age_minutes is {minutes!r}: {error}.") from error
    check_age(age)
    return age


def check_target(local_path: str, *, allow_container: bool) -> None:
    """Refuse to restore into a container's own file system: InvalidInputError, unless it is allowed."""
    if allow_container or not in_container():
        return
    folder = checked_path(local_path).absolute()
    while not folder.exists():
        folder = folder.parent
    if folder.stat().st_dev == Path("/").stat().st_dev:
        raise InvalidInputError(
            f"{local_path!r} lies in this container's own file system, which goes when the container ends. "
            "Mount a volume and give a path in it; allow_container=True writes there all the same."
        )


def in_container() -> bool:
    """Whether the root of this process's file system is a container's: layers over an image."""
    try:
        lines = MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False  # not Linux: what runs in containers elsewhere runs in a Linux of its own
    mounts = [line.split(" ") for line in lines]
    kinds = [kind for _, point, kind, *_ in mounts if point == "/"]
    return bool(kinds) and kinds[-1] in LAYERED


def render_migration(
    plan: Plan, outcome: Outcome, *, dry_run: bool, began: float, store: MLTrackStore | str | None = None
) -> MigrationReport:
    """Show a migration's figures as the artifacts ``mltrack-migration`` and ``mltrack-migration-report``.

    ``began`` is what ``time.monotonic()`` said; the report ends with links to the records in ``store``.
    Raises PartialTransferError, when they are shown, if something could not be stored as it is now.
    """
    done = figures_of(plan, outcome, dry_run=dry_run, seconds=time.monotonic() - began)
    keys = _records(outcome)
    _show(done, done.summary(), links(open_store(store), keys, "Records") if keys else "")
    return require_complete(done)


@contextmanager
def shown_if_stopped(plan: Plan, outcome: Outcome) -> Iterator[None]:
    """Show a migration that the store, or the disk, stops in the middle: what failed, and what is to come.

    Raises PartialTransferError instead of what stopped it, but for errors of the call itself.
    """
    try:
        yield
    except (FormatError, InvalidInputError):
        raise
    except MLTrackError as error:
        ended = stopped(plan, len(outcome.uploaded), error)
        figures = figures_of(plan, outcome, dry_run=False, seconds=0.0)
        _show(replace(figures, failed=tuple(ended.failed)), str(ended))
        raise ended from error


def render_restore(
    plan: RestorePlan, batches: Iterable[Restored], local_path: str, *, seconds: float
) -> RestoreReport:
    """Show a restore's figures as the artifact ``mltrack-restore``."""
    done = report_restore(plan, batches, local_path, seconds=seconds)
    table("mltrack-restore", done.rows(), f"Restored to {_shown(done.local_path)}")
    run_logger().info(
        "%s: %s files written, %s there already", done.local_path, done.written_files, done.present
    )
    return done


def _records(outcome: Outcome) -> list[str]:
    """Keys of what a migration has written for people to look at: its manifest, and those of its runs."""
    if outcome.finished is None:
        return []
    done = outcome.finished.manifest
    runs = [manifest_key(run.run_id, run.revision) for part in outcome.written for run in part.runs]
    return [migrations.manifest_key(done.migration, done.number), *runs]


def _show(done: MigrationReport, summary: str, records: str = "") -> None:
    where = f"{_shown(done.local_path)} as {_shown(done.migration)}"
    table("mltrack-migration", done.rows(), f"{'Plan for' if done.dry_run else 'Migration of'} {where}")
    told = _told(done, summary) + records + footer()
    markdown("mltrack-migration-report", told, f"Migration of {where}")
    run_logger().info("%s: %s", done.migration, summary)


def _told(done: MigrationReport, summary: str) -> str:
    title = f"# {'Plan' if done.dry_run else 'Migration'} of {_shown(done.local_path)}"
    lines = [title, "", _shown(summary), ""]
    named = (
        *(("Failed", done.failed), ("Left out", done.left_out), ("Not deleted", done.kept)),
        *(("Not registered", done.not_registered), ("Aliases that differ", done.differences)),
    )
    for title, items in named:
        if items:
            lines += [f"## {title}", "", "| path | reason |", "|---|---|"]
            lines += [f"| {_shown(path)} | {_shown(reason)} |" for path, reason in items[:_SHOWN]]
            if len(items) > _SHOWN:
                lines.append(f"| and {len(items) - _SHOWN:,} more | |")
            lines.append("")
    return "\n".join(lines)


def _shown(text: str) -> str:
    """Escape a text that may name files: of a name that is not UTF-8, bytes are shown by their numbers."""
    return plain(text.encode("utf-8", "backslashreplace").decode())
