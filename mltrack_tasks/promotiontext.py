"""Promotions and refusals as markdown: figures of two versions side by side, files, gates, lineage.

Names and texts come out of records and are hostile until escaped here: each is put on one line, shortened,
and shown as it is.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mltrack_tasks.artifacts import plain
from mltrack_tasks.chart import human_bytes
from mltrack_tasks.models import ModelFile, ModelVersion
from mltrack_tasks.promotions import Promotion

MAX_LINES = 50
"""Lines of a table; what is left out is counted below it."""
_NAME, _TEXT = 80, 500
"""Characters of a name or value in a cell, and of a sentence that somebody wrote."""
_LONG = re.compile(r"\S{40}(?=\S)")
"""Where a long word gets a place to be broken at: without, it runs out of its column and over the page."""
_DONE = {"promote": "Promoted", "rollback": "Rolled back"}


def compared(done: Promotion, version: ModelVersion, before: ModelVersion | None) -> str:
    """Tell of a promotion: who and why, then both versions side by side."""
    old = "nothing" if before is None else f"`{before.version}`"
    when = f"{done.at:%Y-%m-%d %H:%M} UTC"
    lines = [f"# {_cell(done.model)}: {_cell(done.alias)} is {version.version}", ""]
    lines += [f"{_DONE[done.action]} by {_cell(done.actor)} at {when} in place of {old}.", ""]
    if done.reason:
        lines += [f"Reason: {_cell(done.reason, _TEXT)}", ""]
    if done.approval:
        lines += [_approved(done.approval), ""]
    lines += _figures("Metrics", "metric", lambda each: each.metrics, version, before)
    lines += _figures("Params", "param", lambda each: each.params, version, before)
    lines += _gates(done.gates)
    lines += _files(version, before)
    lines += _lineage(version, before)
    return "\n".join(lines)


def refused(details: Mapping[str, Any], alias: str) -> str:
    """Tell what every gate said of a version that was not promoted: the details of a GateError."""
    reports = details["gates"]
    failed = sum(not report["passed"] for report in reports)
    lines = [f"# {_cell(details['model'])}: {details['version']} is not {_cell(alias)}", ""]
    lines += [f"{failed} of {len(reports)} gates refused it. The alias is as it was.", ""]
    return "\n".join([*lines, *_gates(reports)])


def _approved(approval: Mapping[str, Any]) -> str:
    comment = approval.get("comment")
    said = f": {_cell(comment, _TEXT)}" if comment else "."
    return f"Approved by {_cell(approval.get('by'))}{said}"


def _figures(
    title: str,
    word: str,
    values: Callable[[ModelVersion], Mapping[str, Any]],
    version: ModelVersion,
    before: ModelVersion | None,
) -> list[str]:
    new, old = values(version), values(before) if before else {}
    rows = []
    for name in sorted({*new, *old}):
        was, now = old.get(name), new.get(name)
        told = [_cell(name), *([_value(was)] if before else []), _value(now)]
        rows.append([*told, *([_change(was, now)] if before else [])])
    head = [word, before.version, version.version, "change"] if before else [word, version.version]
    return _section(title, head, rows, right=True)


def _gates(reports: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = [
        [_gate(report), "yes" if report["passed"] else "**no**", _cell(report.get("detail"), _TEXT)]
        for report in reports
    ]
    return _section("Gates", ["gate", "passed", "detail"], rows)


def _gate(report: Mapping[str, Any]) -> str:
    gate = report.get("gate")
    return _cell(gate.get("name") or gate.get("kind") if isinstance(gate, Mapping) else gate)


def _files(version: ModelVersion, before: ModelVersion | None) -> list[str]:
    new = {file.path: file for file in version.files}
    old = {file.path: file for file in before.files} if before else {}
    differing = sorted(path for path in {*new, *old} if _identity(new.get(path)) != _identity(old.get(path)))
    rows = [[*_file(old.get(path), new.get(path))] for path in differing]
    whole = f"{len(new):,} files, {human_bytes(version.size_bytes)}"
    if before is None:
        return ["## Files", "", f"{whole}.", ""]
    same = f"{len(new) - sum(path in new for path in differing):,} of them as before"
    lines = _section("Files", ["file", before.version, version.version, ""], rows)
    return [*(lines or ["## Files", ""]), f"{whole}, {same}.", ""]


def _identity(file: ModelFile | None) -> tuple[str, bool] | None:
    return None if file is None else (file.digest, file.executable)


def _file(was: ModelFile | None, now: ModelFile | None) -> list[str]:
    word = "new" if was is None else "gone" if now is None else "changed"
    shown = now or was
    assert shown is not None
    return [
        _cell(shown.shown_path),
        *("" if one is None else human_bytes(one.size_bytes) for one in (was, now)),
        word,
    ]


def _lineage(version: ModelVersion, before: ModelVersion | None) -> list[str]:
    both = [before, version] if before else [version]
    rows = [
        ["registered", *(_registered(each) for each in both)],
        ["runs", *(_listed(each.source_runs) for each in both)],
    ]
    for name in sorted({name for each in both for name in each.training_data}):
        refs = [each.training_data.get(name) for each in both]
        rows.append([f"data {_cell(name)}", *("" if ref is None else f"`{ref.hash[:12]}`" for ref in refs)])
    rows.append(["tree digest", *(f"`{each.tree_digest[:12]}`" for each in both)])
    return _section("Lineage", ["", *(each.version for each in both)], rows)


def _registered(version: ModelVersion) -> str:
    by = _cell(version.provenance.get("actor", "unknown"))
    return f"{version.registered_at:%Y-%m-%d %H:%M} UTC by {by}"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(_cell(name) for name in names[:3]) + more


def _section(
    title: str, head: Sequence[str], rows: Sequence[Sequence[str]], right: bool = False
) -> list[str]:
    """A heading and a table, or nothing without rows."""
    if not rows:
        return []
    kinds = ["---", *(["--:" if right else "---"] * (len(head) - 1))]
    lines = [f"## {title}", "", *(f"| {' | '.join(row)} |" for row in (head, kinds, *rows[:MAX_LINES])), ""]
    return [*lines, *([f"{len(rows) - MAX_LINES:,} more are left out.", ""] if len(rows) > MAX_LINES else [])]


def _cell(value: Any, length: int = _NAME) -> str:
    """Any value as text of one line, escaped, and without what would change the text around it."""
    text = " ".join(str(value).split())
    text = "".join(each if each.isprintable() else "\ufffd" for each in text)
    text = text if len(text) <= length else text[: length - 1] + "…"
    return plain(_LONG.sub("\\g<0>\u200b", text))


def _value(value: Any) -> str:
    if value is None:
        return ""
    return _cell(f"{value:.6g}" if isinstance(value, float) else value)


def _change(was: Any, now: Any) -> str:
    if was is None or now is None:
        return "" if was is now else "new" if was is None else "gone"
    numbers = [_number(was), _number(now)]
    if numbers[0] is None or numbers[1] is None:
        return "" if was == now and type(was) is type(now) else "changed"
    return f"{numbers[1] - numbers[0]:+.4g}" if numbers[0] != numbers[1] else "0"


def _number(value: Any) -> float | None:
    """A finite number as a float, else None; a whole number beyond the floats is none."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None
