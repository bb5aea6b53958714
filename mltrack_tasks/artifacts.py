"""Artifacts: what a run shows people in Prefect beside its result.

An artifact tells of work and is never the work: outside a run none is made, and one that Prefect's API does
not take leaves a warning in the run's log and the result whole. All calls are synchronous, also inside async
flows, and belong in the thread of the task or flow.
"""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self
from uuid import UUID

import httpx  # what Prefect's client speaks through, and whose errors it raises
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from mltrack_tasks import events
from mltrack_tasks.chart import human_bytes
from mltrack_tasks.errors import InvalidInputError
from mltrack_tasks.events import Event, Observe
from mltrack_tasks.tasking import in_run, report, run_logger
from mltrack_tasks.usage_stats import Amount, UsageStats, usage_chart

MAX_ROWS = 1_000
"""Rows of a table: the UI loads all of them at once."""
SHOW_EVERY, LOG_EVERY = 1.0, 10.0
"""[s] at least between two states of a progress artifact, and between two lines of progress in the log."""

_KEY = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_PUNCTUATION = re.compile(r"([!-/:-@\[-`{-~])")
_USAGE_COLUMNS = ("project", "type", "month", "runs", "references", "referenced", "unique", "saved")


def table(key: str, rows: Sequence[Mapping[str, Any]], description: str | None = None) -> UUID | None:
    """Show rows as a table -> the artifact's id, or None if none was made.

    The UI takes the columns from the first row. At most MAX_ROWS are shown; then the description says so.
    Raises InvalidInputError for a bad key.
    """
    if len(rows) > MAX_ROWS:
        description = f"{description or ''} (the first {MAX_ROWS:,} of {len(rows):,} rows)".strip()
    shown = [dict(row) for row in rows[:MAX_ROWS]]
    return _make(create_table_artifact, key, table=shown, description=description)


def markdown(key: str, text: str, description: str | None = None) -> UUID | None:
    """Show markdown -> the artifact's id, or None if none was made. Names of users go through ``plain``.

    A fenced block of ``mermaid`` is drawn by Prefect's current UI, and shown as text by the older one.
    """
    return _make(create_markdown_artifact, key, markdown=text, description=description)


def image(key: str, svg: str, *, alt: str, text: str = "", description: str | None = None) -> UUID | None:
    """Show a picture, and markdown below it -> the artifact's id, or None if none was made.

    As markdown that holds the picture: an image artifact would also print its address, here the whole
    picture as text, across the page (docs/adr/0009-charts.md). ``alt`` says in words what it shows.
    """
    source = base64.b64encode(svg.encode()).decode("ascii")
    return markdown(key, f"![{plain(alt)}](data:image/svg+xml;base64,{source})\n\n{text}", description)


def plain(text: str) -> str:
    """Escape any text -> markdown that shows it as it is, on one line, also in a table's cell."""
    return _PUNCTUATION.sub(r"\\\1", " ".join(text.split()))


class Progress:
    """An observer that shows how far an operation is: in a progress artifact and, seldom, in the run's log.

    ``with Progress("mltrack-usage") as observe: data_usage_stats(store, observe=observe)``. The artifact
    changes at most every SHOW_EVERY seconds and appears only if the work takes longer than that; the log gets
    a line every LOG_EVERY seconds and one at the end, also when the work fails. Events of other kinds go to
    ``observe`` at once. After a state that Prefect's API did not take, no further one is tried: each try may
    last as long as Prefect's client repeats it.
    """

    def __init__(
        self, key: str, *, observe: Observe = report, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._key, self._observe, self._clock = _checked(key), observe, clock
        self._shown = self._logged = clock()
        self._artifact: UUID | None = None
        self._refused = False
        self._unlogged: Event | None = None
        self._latest: Event | None = None

    def __call__(self, event: Event) -> None:
        """Take one event of an operation."""
        if event.name != events.PROGRESS:
            self._observe(event)
            return
        self._latest = self._unlogged = event
        now = self._clock()
        if now - self._shown >= SHOW_EVERY:
            self._shown = now
            self._show(event)
        if now - self._logged >= LOG_EVERY:
            self._logged = now
            self._log()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._artifact is not None and self._latest is not None:
            self._show(self._latest)
        self._log()

    def _log(self) -> None:
        if self._unlogged is not None:
            run_logger().info("%s", _told(self._unlogged))
            self._unlogged = None

    def _show(self, event: Event) -> None:
        if self._refused:
            return
        state = {"progress": _percentage(event), "description": plain(_told(event))}
        if self._artifact is None:
            made = _make(create_progress_artifact, self._key, **state)
        else:
            made = _send(update_progress_artifact, self._key, artifact_id=self._artifact, **state)
        self._artifact, self._refused = made or self._artifact, made is None


def create_progress(key: str, description: str) -> UUID | None:
    """Make a progress artifact at 0 % -> its id, or None if none was made."""
    return _make(create_progress_artifact, key, progress=0.0, description=description)


def show_progress(artifact: UUID | None, percent: float, description: str) -> None:
    """Show how far the work of a progress artifact is [%]; nothing happens without one."""
    if artifact is not None and in_run():
        state = {"progress": round(min(100.0, percent), 1), "description": description}
        _send(update_progress_artifact, str(artifact), artifact_id=artifact, **state)


def render_usage(stats: UsageStats) -> None:
    """Show what a store's use is: the table ``mltrack-usage`` and the picture ``mltrack-usage-chart``."""
    rows = [{column: row[column] for column in _USAGE_COLUMNS} for row in stats.rows()]
    where = plain(stats.location)
    table("mltrack-usage", rows, f"Data usage of {where} by project, run type and month (UTC)")
    image(
        "mltrack-usage-chart",
        usage_chart(stats),
        alt=f"Unique and saved bytes in {stats.location} by project and by month",
        text=_usage_text(stats),
        description=f"Data usage of {where}",
    )


def _usage_text(stats: UsageStats) -> str:
    """The figures of the whole store, and its largest blobs, as markdown."""
    amounts = {
        "referenced by runs and names": Amount(stats.total.blobs, stats.total.unique_bytes),
        "held by older revisions, forgotten names or writes in progress": stats.held,
        "unreferenced": stats.unreferenced,
        "missing": stats.missing,
        "of another size than their references say": stats.damaged,
    }
    lines = ["| blobs | number | size |", "|---|--:|--:|"]
    lines += [f"| {name} | {it.objects:,} | {human_bytes(it.size_bytes)} |" for name, it in amounts.items()]
    if stats.largest:
        lines += ["", "Largest blobs:", ""]
    for blob in stats.largest:
        known = "" if blob.name is None else f", {plain(blob.name)}"
        lines.append(f"- {human_bytes(blob.size_bytes)}, {blob.references:,} references{known}: `{blob.ref}`")
    return "\n".join(lines)


def _told(event: Event) -> str:
    done, total, unit = event.details["done"], event.details["total"], event.details["unit"]
    if unit == "bytes":
        return f"{event.subject}: {human_bytes(done)}" + (f" of {human_bytes(total)}" if total else "")
    return f"{event.subject}: {done:,}" + (f" of {total:,}" if total else "") + f" {unit}"


def _percentage(event: Event) -> float:
    """How far [%], in whole tenths; 0 where nobody knows how much there is."""
    done, total = event.details["done"], event.details["total"]
    return round(min(100.0, 100.0 * done / total), 1) if total else 0.0


def _checked(key: str) -> str:
    if isinstance(key, str) and _KEY.fullmatch(key):
        return key
    raise InvalidInputError(
        f"{key!r} is no key of an artifact; use lowercase letters, digits and single dashes between them."
    )


def _make(create: Callable[..., Any], key: str, **fields: Any) -> UUID | None:
    """Make an artifact under a key, if this is a run."""
    checked = _checked(key)
    return _send(create, checked, key=checked, **fields) if in_run() else None


def _send(call: Callable[..., Any], shown_as: str, /, **fields: Any) -> UUID | None:
    """Call Prefect's API; what it does not take, or cannot, is told in the run's log."""
    try:
        made: UUID = call(**fields, _sync=True)  # without _sync, a coroutine in async flows and tasks
    except httpx.HTTPError as error:
        run_logger().warning(
            "The artifact %r could not be shown: %s: %s. The work itself goes on.",
            shown_as,
            type(error).__name__,
            error,
        )
        return None
    return made
