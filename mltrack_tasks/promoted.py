"""A version beside the one that it replaces, as markdown."""

from __future__ import annotations

import math
from typing import Any

from mltrack_tasks.artifacts import markdown, plain
from mltrack_tasks.chart import human_bytes
from mltrack_tasks.models import ModelVersion
from mltrack_tasks.promotions import Promotion

_SHOWN = 50
"""Lines of a table."""


def render_promotion(done: Promotion, version: ModelVersion, before: ModelVersion | None) -> None:
    """Show a promotion as the artifact ``mltrack-promotion``."""
    what = f"{plain(done.model)} {done.version} as {plain(done.alias)}"
    markdown("mltrack-promotion", compared(done, version, before), f"Promotion {done.number} of {what}")


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
