"""A version beside the one that it replaces, as markdown, and the reports of gates that refused it."""

from __future__ import annotations

import math
from typing import Any

from mltrack_tasks.artifacts import markdown, plain
from mltrack_tasks.chart import human_bytes
from mltrack_tasks.models import ModelVersion
from mltrack_tasks.promotions import Promotion
from mltrack_tasks.registry.aliases import current_promotion
from mltrack_tasks.registry.reading import read_version
from mltrack_tasks.stores import Store
from mltrack_tasks.tasking import in_run, run_logger

_SHOWN = 50
"""Lines of a table."""


def show_promotion(store: Store, done: Promotion) -> None:
    """Show a promotion as the artifact ``mltrack-promotion``, and say so if it is no longer in force.

    The alias has moved by then: whatever cannot be read or shown leaves a warning, and the work whole.
    """
    if not in_run():
        return
    try:
        _show(store, done)
    except Exception as failed:  # a damaged record of the version before, Prefect's API, whatever it is
        run_logger().warning(
            "Promotion %d of %r to %r holds, but cannot be shown: %s: %s",
            *(done.number, done.model, done.alias, type(failed).__name__, failed),
        )


def _show(store: Store, done: Promotion) -> None:
    if not done.created:
        _say_if_superseded(store, done)
    if done.version is None:
        return
    version, before = read_version(store, done.model, done.version), None
    if done.previous is not None:
        before = read_version(store, done.model, done.previous)
    what = f"{plain(done.model)} {done.version} as {plain(done.alias)}"
    markdown("mltrack-promotion", compared(done, version, before), f"Promotion {done.number} of {what}")


def _say_if_superseded(store: Store, done: Promotion) -> None:
    now = current_promotion(store, done.model, done.alias)
    if now is not None and now.number != done.number:
        run_logger().warning(
            "An earlier try of this call made promotion %d, of %s. %r was moved since, and stands for %s; it "
            "is left there.",
            *(done.number, done.version or "nothing", done.alias, now.version or "nothing"),
        )


def compared(done: Promotion, version: ModelVersion, before: ModelVersion | None) -> str:
    """Tell of a promotion: figures of both versions side by side, files, gates, approval."""
    old = "nothing" if before is None else before.version
    lines = [f"# {plain(done.model)}: {plain(done.alias)} is {done.version}", ""]
    lines += [f"Promotion {done.number} by {plain(done.actor)}; before: {old}.", ""]
    if done.reason:
        lines += [f"Reason: {plain(done.reason)}", ""]
    lines += _figures("Metrics", version.metrics, {} if before is None else before.metrics, version, old)
    lines += _figures("Params", version.params, {} if before is None else before.params, version, old)
    lines += _files(version, before)
    if done.gates:
        lines += ["## Gates", "", "| gate | passed | detail |", "|---|---|---|"]
        lines += [
            f"| {_kind(one)} | {_yes(one['passed'])} | {plain(str(one['detail']))} |" for one in done.gates
        ]
        lines.append("")
    if done.approval:
        lines.append(f"Approved by {plain(str(done.approval.get('by')))}.")
    return "\n".join(lines)


def _figures(title: str, new: Any, old: Any, version: ModelVersion, before: str) -> list[str]:
    names = sorted({*new, *old})[:_SHOWN]
    if not names:
        return []
    lines = [f"## {title}", "", f"| | {before} | {version.version} | change |", "|---|--:|--:|--:|"]
    for name in names:
        was, is_now = old.get(name), new.get(name)
        lines.append(f"| {plain(name)} | {_told(was)} | {_told(is_now)} | {_change(was, is_now)} |")
    return [*lines, ""]


def _files(version: ModelVersion, before: ModelVersion | None) -> list[str]:
    old = {} if before is None else {file.path: file.digest for file in before.files}
    new = {file.path: file.digest for file in version.files}
    same = sum(old.get(path) == digest for path, digest in new.items())
    changed = sum(path in old and old[path] != digest for path, digest in new.items())
    added, removed = len(new.keys() - old.keys()), len(old.keys() - new.keys())
    size = human_bytes(version.size_bytes)
    told = f"{len(new)} files, {size}: {same} as before, {changed} changed, {added} new, {removed} gone."
    return ["## Files", "", told, "", f"Tree digest `{version.tree_digest}`", ""]


def _kind(report: Any) -> str:
    gate = report.get("gate")
    return plain(str(gate.get("name", gate.get("kind")) if isinstance(gate, dict) else gate))


def _yes(passed: bool) -> str:
    return "yes" if passed else "no"


def _told(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:g}" if isinstance(value, float) else plain(str(value)[:200])


def _change(was: Any, is_now: Any) -> str:
    if any(
        isinstance(v, bool) or not isinstance(v, (int, float)) or not math.isfinite(v) for v in (was, is_now)
    ):
        return ""
    return f"{is_now - was:+g}"
