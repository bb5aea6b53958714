"""The SQL table ``runs``: rows of the catalogue with a column for every name that users gave.

``params``, ``metrics``, ``tags``, ``values``, ``data``, ``inputs`` and ``outputs`` are structs, so that one
writes ``SELECT run_id, metrics.accuracy FROM runs WHERE params.max_depth > 5``. The type of a field follows
from all values under its name, in whatever runs; None and an absent name are NULL:

=========================== ==========================================================
all values are              the field is
=========================== ==========================================================
bool                        BOOLEAN
int, within int64           BIGINT
int and float               DOUBLE; integers beyond 2**53 are rounded, as in SQL
str                         VARCHAR
dict, not all of them empty STRUCT, by the same rules
anything else               VARCHAR: strings as they are, all else as plain JSON
=========================== ==========================================================
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mltrack_tasks.tables.admission import fold
from mltrack_tasks.tables.runcells import (
    BOOL,
    DICT,
    FLOAT,
    INT,
    NULL,
    STR,
    cells_of,
    kind_codes,
    plain_text,
    text_cells,
    values_of,
)
from mltrack_tasks.tables.runparts import REF_ROLES, VALUE_GROUPS, flat

MAX_COLUMNS = 1_000
"""Names that a group gets fields for, those inside dicts included: 8 kB a name in 1,000 runs.

Names that the most runs have come first; of dicts, those with the fewest names.
"""
MAX_NESTING = 5
"""Dicts within dicts that become structs; what is deeper is JSON text."""

_LEFT_OUT = b"mltrack.left_out"
_WHAT = "The run catalogue"
_PLACEHOLDER = re.compile(r"\(no (params|metrics|tags|values|data|inputs|outputs)\)")


def sql_table(rows: Any) -> Any:
    """Rows of the catalogue -> the table ``runs``, in their order. Depends on all rows together only.

    DuckDB does not tell ``accuracy`` from ``Accuracy``: of such names the one in lower case keeps its name,
    else the first, and others become ``Accuracy_1``, whatever the runs. It knows no empty name, which becomes
    ``_``, and no NUL, which becomes its symbol.
    A group without any name has one field that says so. At most MAX_COLUMNS names a group: see ``left_out``.
    IntegrityError if a cell holds what ``decode_rows`` does not look at: a text that is not of its kind.
    """
    groups: dict[str, Any] = {}
    lost: dict[str, int] = {}
    for group, named in (*_value_groups(rows["entries"]), *_ref_groups(rows["refs"])):
        room = _Room(MAX_COLUMNS)
        groups[group] = _struct(named, len(rows), room) if len(named.rows) else _placeholder(group, len(rows))
        lost |= {group: room.lost} if room.lost else {}
    plain = {name: rows[name] for name in rows.column_names if name not in ("entries", "refs", "manifest")}
    table = pa.table({**plain, **groups, "refs": rows["refs"]})
    return table.replace_schema_metadata({_LEFT_OUT: json.dumps(lost)})


def left_out(table: Any) -> dict[str, int]:
    """How many names ``sql_table`` left out for want of room, by group; empty if none."""
    counts: dict[str, int] = json.loads((table.schema.metadata or {}).get(_LEFT_OUT, b"{}"))
    return counts


def flatten(table: Any) -> Any:
    """Make columns of the fields of structs, at any depth: ``metrics.accuracy``, as MLflow's users know them.

    Groups without names disappear, unless nothing else was asked for. A name that is taken gets ``_1``, ...
    """
    while any(map(pa.types.is_struct, table.schema.types)):
        shown = [index for index in range(table.num_columns) if not _is_placeholder(table.column(index))]
        table = (table.select(shown) if shown else table).flatten()
    return table.rename_columns(_distinct(table.column_names))


@dataclass
class _Room:
    """Fields that may still be made, and names that found no room."""

    left: int
    lost: int = 0

    def take(self, ranked: Sequence[int]) -> Sequence[int]:
        chosen = ranked[: self.left]
        self.left -= len(chosen)
        self.lost += len(ranked) - len(chosen)
        return chosen


class _Named:
    """Values under names: row, name and cell of each."""

    def __init__(self, rows: Any, names: Any, cells: Any) -> None:
        coded = names.dictionary_encode()
        self.rows, self.cells, self.kinds = rows, cells, kind_codes(cells)
        self.whole = cells.field("whole").fill_null(0).to_numpy()
        self.number = cells.field("number").fill_null(0).to_numpy()
        self.in_text = cells.field("text").is_valid().to_numpy(zero_copy_only=False)
        self.names: list[str] = coded.dictionary.to_pylist()
        codes = coded.indices.to_numpy()
        uses = np.bincount(codes, minlength=len(self.names))
        ends = np.cumsum(uses)
        order = np.argsort(codes, kind="stable")
        self.places = [order[end - many : end] for many, end in zip(uses, ends, strict=True)]
        self.ranked = sorted(range(len(uses)), key=lambda code: (-uses[code], self.names[code]))

    def found_kinds(self, code: int) -> set[int]:
        """The kinds of the values under one name, NULL apart."""
        return set(np.unique(self.kinds[self.places[code]]).tolist()) - {NULL}

    def of_kind(self, code: int, kind: int) -> Any:
        """Where the values of a kind are under one name."""
        places = self.places[code]
        return places[self.kinds[places] == kind]


def _value_groups(column: Any) -> Iterable[tuple[str, _Named]]:
    rows, entries = flat(column)
    for group in VALUE_GROUPS:
        mask = pc.equal(entries.field("group"), group)
        part = entries.filter(mask)
        yield group, _Named(rows[mask.to_numpy(zero_copy_only=False)], part.field("name"), part)


def _ref_groups(column: Any) -> Iterable[tuple[str, _Named]]:
    rows, refs = flat(column)
    for role in REF_ROLES:
        mask = pc.equal(refs.field("role"), role)
        part = refs.filter(mask)
        cells = text_cells(part.field("ref"))
        yield role, _Named(rows[mask.to_numpy(zero_copy_only=False)], part.field("name"), cells)


def _struct(named: _Named, size: int, room: _Room, depth: int = 0, present: Any = None) -> Any:
    """Make one struct of ``size`` rows with a field for each name, in the order of the names."""
    chosen = room.take(named.ranked)
    inner = {code: _expand(named, code) for code in chosen if depth < MAX_NESTING and _all_dicts(named, code)}
    columns = {code: _column(named, code, size) for code in chosen if code not in inner}
    for code in sorted(inner, key=lambda code: (len(inner[code].names), named.names[code])):
        if inner[code].names and room.left:
            dicts = np.zeros(size, np.bool_)
            dicts[named.rows[named.of_kind(code, DICT)]] = True
            columns[code] = _struct(inner[code], size, room, depth + 1, dicts)
        else:
            columns[code] = _column(named, code, size)
    claims = sorted(chosen, key=lambda code: _claim(named.names[code]))
    speakable = [_speakable(named.names[code]) for code in claims]
    labels = dict(zip(claims, _distinct(speakable, fold), strict=True))
    ordered = sorted(chosen, key=lambda code: named.names[code])
    fields = [pa.field(labels[code], columns[code].type) for code in ordered]
    mask = None if present is None else pa.array(~present)
    return pa.StructArray.from_arrays([columns[code] for code in ordered], fields=fields, mask=mask)


def _all_dicts(named: _Named, code: int) -> bool:
    return named.found_kinds(code) == {DICT}


def _expand(named: _Named, code: int) -> _Named:
    """The values inside the dicts under one name, under their own names."""
    places = named.of_kind(code, DICT)
    dicts: list[dict[str, Any]] = values_of(named.cells.take(pa.array(places)), _WHAT)
    rows = np.repeat(named.rows[places], [len(each) for each in dicts])
    names = pa.array([name for each in dicts for name in each], pa.string())
    return _Named(rows, names, cells_of([value for each in dicts for value in each.values()]))


def _column(named: _Named, code: int, size: int) -> Any:
    """Make the column of one name, of the type that all its values have."""
    places = named.places[code]
    kinds = named.found_kinds(code)
    held = places[named.kinds[places] != NULL]
    rows = named.rows[held]
    if kinds == {BOOL}:
        return _scattered(named.whole[held] == 1, rows, size)
    if kinds == {INT} and not named.in_text[held].any():
        return _scattered(named.whole[held], rows, size)
    if kinds and kinds <= {INT, FLOAT}:
        return _scattered(_floats(named, held), rows, size)
    if kinds <= {STR}:
        texts = named.cells.field("text").take(pa.array(held))
    else:
        values = values_of(named.cells.take(pa.array(held)), _WHAT)
        texts = pa.array(map(plain_text, values), pa.large_string())
    return texts.take(_scattered(np.arange(len(held)), rows, size))


def _scattered(values: Any, rows: Any, size: int) -> Any:
    """Put values at their rows of a column that is NULL elsewhere."""
    column, missing = np.zeros(size, values.dtype), np.ones(size, np.bool_)
    column[rows], missing[rows] = values, False
    return pa.array(column, mask=missing, from_pandas=False)


def _floats(named: _Named, places: Any) -> Any:
    """Integers and floats as floats, rounded; beyond the range of a float, infinite."""
    kinds = named.kinds[places]
    floats = np.where(kinds == FLOAT, named.number[places], named.whole[places].astype(np.float64))
    huge = np.flatnonzero(named.in_text[places])
    for index, value in zip(huge, values_of(named.cells.take(pa.array(places[huge])), _WHAT), strict=True):
        try:
            floats[index] = float(value)
        except OverflowError:
            floats[index] = np.copysign(np.inf, 1 if value > 0 else -1)
    return floats


def _placeholder(group: str, size: int) -> Any:
    """A struct that tells, in DuckDB's own message, why a field asked for is not there."""
    return pa.StructArray.from_arrays([pa.nulls(size, pa.large_string())], names=[f"(no {group})"])


def _is_placeholder(column: Any) -> bool:
    type = column.type
    if not pa.types.is_struct(type) or type.num_fields != 1 or not _PLACEHOLDER.fullmatch(type.field(0).name):
        return False
    return bool(pc.all(pc.is_null(pc.struct_field(column, [0])), min_count=0).as_py())


def _speakable(name: str) -> str:
    return name.replace("\0", "\N{SYMBOL FOR NULL}") or "_"


def _claim(name: str) -> tuple[bool, str]:
    """Order of names that DuckDB takes for one: lower case first, and what must be called otherwise last."""
    return name != fold(name) or name != _speakable(name), name


def _distinct(names: Sequence[str], same: Callable[[str], str] = str) -> list[str]:
    """Make names differ: the first of equal ones stays, others get ``_1``, ``_2``, ... as DuckDB does it."""
    first = dict(reversed([(same(name), index) for index, name in enumerate(names)]))
    numbers: defaultdict[str, Iterator[int]] = defaultdict(lambda: count(1))
    labels = list(names)
    for index, name in enumerate(names):
        if first[same(name)] != index:
            free = (f"{name}_{number}" for number in numbers[same(name)])
            labels[index] = next(label for label in free if same(label) not in first)
    return labels
