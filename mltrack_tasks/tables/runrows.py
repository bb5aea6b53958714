"""Rows: run manifests as an Arrow table of a fixed schema, and back.

A row holds what runs are searched by, and the manifest's record as it was written, so that it gives back its
manifest exactly. ``tables.runtable`` makes of rows what SQL users see.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mltrack_tasks.errors import IntegrityError
from mltrack_tasks.records import Record, RunManifest
from mltrack_tasks.runfilter import Condition, RunFilter
from mltrack_tasks.tables.runcells import cells_of, values_of
from mltrack_tasks.tables.runparts import (
    ENTRY,
    ORIGIN,
    REF,
    REF_ROLES,
    SCHEMA,
    TIME,
    VALUE_GROUPS,
    flat,
)

_FIELDS = (
    *("run_id", "revision", "run_type", "status", "project", "model", "storage_modes"),
    *("started_at", "ended_at"),
)
"""Columns that are fields of a manifest."""
_INT64_END = 2**63


def rows_of(manifests: Iterable[RunManifest]) -> Any:
    """Manifests -> table of SCHEMA, a row for each, in their order."""
    runs = list(manifests)
    columns: dict[str, Any] = {
        "manifest": [Record(run.to_content(), run.provenance).to_bytes() for run in runs],
        **{name: [getattr(run, name) for run in runs] for name in _FIELDS},
        "stored_at": [_stored_at(run) for run in runs],
        **{name: [_of_type(str, run.provenance, name) for run in runs] for name in ORIGIN},
        "git_commit": [_of_type(str, run.provenance.get("code"), "commit") for run in runs],
        "git_dirty": [_of_type(bool, run.provenance.get("code"), "dirty") for run in runs],
        "entries": _entries(runs),
        "refs": _refs(runs),
    }
    arrays = [pa.array(columns[field.name], field.type) for field in SCHEMA]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def manifests_of(table: Any) -> list[RunManifest]:
    """Rows -> the manifests that they were made of. IntegrityError if a row holds anything else."""
    columns = (table[name].to_pylist() for name in ("run_id", "revision", "manifest"))
    return [_manifest(*row) for row in zip(*columns, strict=True)]


def newest(tables: Sequence[Any]) -> Any:
    """Tables -> one with the highest revision of each run, by project and run id; no tables: no rows.

    The same rows give the same table, however they were spread over ``tables``.
    """
    rows = pa.concat_tables([SCHEMA.empty_table(), *tables])
    # Two records of one revision are forged; still, one of them wins whatever their order.
    order = _order(rows, run_id="ascending", revision="descending", manifest="ascending")
    codes = rows["run_id"].combine_chunks().take(order).dictionary_encode().indices.to_numpy()
    winners = order.take(pa.array(np.flatnonzero(np.diff(codes, prepend=-1))))
    keys = rows.select(["project", "run_id"]).take(winners)
    return rows.take(winners.take(_order(keys, project="ascending", run_id="ascending"))).combine_chunks()


def newest_first(table: Any) -> Any:
    """Order rows by the time of the run (its start, or when it was stored), latest first, then by run id.

    Rows without any time come last.
    """
    keys = pa.table({"time": _times(table), "run_id": table["run_id"]})
    return table.take(_order(keys, time="descending", run_id="ascending"))


def revisions(table: Any) -> dict[str, int]:
    """The highest revision of each run in the table, by run id."""
    found = zip(table["run_id"].to_pylist(), table["revision"].to_pylist(), strict=True)
    return dict(sorted(found, key=lambda row: row[1]))


def without(table: Any, run_ids: Collection[str]) -> Any:
    """Leave out the rows of some runs."""
    hidden = pc.is_in(table["run_id"], value_set=pa.array(sorted(run_ids), pa.string()))
    return table.filter(pc.invert(hidden)) if run_ids else table


def select(table: Any, wanted: RunFilter) -> Any:
    """Keep the rows whose manifests ``wanted`` matches, in their order. ``manifest`` is not looked at."""
    for name, value in wanted.exact.items():
        table = table.filter(pc.equal(table[name], value))
    if wanted.since is not None:
        table = table.filter(pc.greater_equal(_times(table), pa.scalar(wanted.since, TIME)))
    if wanted.until is not None:
        table = table.filter(pc.less(_times(table), pa.scalar(wanted.until, TIME)))
    for condition in wanted.conditions:
        table = table.filter(pa.array(_admitted(table, condition)))
    return table


def _admitted(table: Any, condition: Condition) -> Any:
    """Which rows meet a condition -> bool ndarray. Only the values of its name become Python's."""
    rows, entries = flat(table["entries"])
    names, groups = entries.field("name"), entries.field("group")
    named = pc.and_(pc.equal(names, condition.name), pc.equal(groups, condition.group))
    values = values_of(entries.filter(named), f"The catalogue's value of {condition.name!r:.80}")
    admitted = np.zeros(len(table), np.bool_)
    admitted[rows[named.to_numpy(zero_copy_only=False)]] = [condition.admits(value) for value in values]
    return admitted


def _times(table: Any) -> Any:
    return pc.coalesce(table["started_at"], table["stored_at"])


def _order(table: Any, **keys: str) -> Any:
    return pc.sort_indices(table, sort_keys=list(keys.items()))  # nulls last


def _manifest(run_id: str, revision: int, body: bytes) -> RunManifest:
    what = f"The catalogue's row of the run {run_id!r:.200}"
    manifest = RunManifest.from_record(Record.from_bytes(body, what=what), revision=revision, what=what)
    if manifest.run_id != run_id:
        raise IntegrityError(f"{what} holds the manifest of {manifest.run_id!r}; rebuild the catalogue.")
    return manifest


def _stored_at(run: RunManifest) -> datetime | None:
    try:
        return run.stored_at
    except IntegrityError:
        return None  # as in runfilter.run_time: one odd record must not hide the rest


def _of_type(wanted: type, facts: Any, key: str) -> Any:
    """Take one fact out of provenance, where anything may stand."""
    value = facts.get(key) if isinstance(facts, dict) else None
    return value if type(value) is wanted else None


def _entries(runs: Sequence[RunManifest]) -> Any:
    """The values of all runs, in cells, by group and name -> array of lists."""
    groups: list[str] = []
    names: list[str] = []
    values: list[Any] = []
    ends = [0]
    for run in runs:
        for group in VALUE_GROUPS:
            held = getattr(run, group)
            ordered = sorted(held)
            groups += [group] * len(ordered)
            names += ordered
            values += map(held.__getitem__, ordered)
        ends.append(len(names))
    return _lists(ends, ENTRY, [groups, names, *cells_of(values).flatten()])


def _refs(runs: Sequence[RunManifest]) -> Any:
    """The refs of all runs, by role and name -> array of lists."""
    found, ends = [], [0]
    for run in runs:
        for role in REF_ROLES:
            for name, ref in sorted(getattr(run, role).items()):
                size = ref.size_bytes if ref.size_bytes < _INT64_END else None
                found.append((role, name, str(ref), size))
        ends.append(len(found))
    return _lists(ends, REF, list(zip(*found, strict=True)) or [[]] * len(REF))


def _lists(ends: Sequence[int], type: Any, columns: Sequence[Any]) -> Any:
    """Cut the items that ``columns`` describe into one list per row."""
    arrays = [pa.array(column, field.type) for column, field in zip(columns, type, strict=True)]
    items = pa.StructArray.from_arrays(arrays, fields=list(type))
    lists = pa.list_(pa.field("element", type, nullable=False))
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), items, type=lists)
