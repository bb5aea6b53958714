"""The SQL table ``runs``: what users write in DuckDB, types by one rule, and names that nobody expects."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mltrack_tasks.errors import IntegrityError
from mltrack_tasks.records import RunManifest
from mltrack_tasks.tables import runrows
from mltrack_tasks.tables.runparts import SCHEMA
from mltrack_tasks.tables.runtable import MAX_COLUMNS, MAX_NESTING, flatten, left_out, sql_table
from tests.floor0.run_examples import HOSTILE_NAMES, NAMES, contents, manifests, ref_of

NAN, INF = math.nan, math.inf
TEXT, WHOLE, NUMBER, TRUTH = pa.large_string(), pa.int64(), pa.float64(), pa.bool_()
GROUPS = ("params", "metrics", "tags", "values", "data", "inputs", "outputs")

some_runs = st.lists(manifests, max_size=6)


def run_of(number: int, **fields: Any) -> RunManifest:
    return RunManifest(run_id=f"r{number:05}", provenance={"at": "2024-01-16T00:00:00Z"}, **fields)


def table_of(*params: Mapping[str, Any]) -> pa.Table:
    """The table of one run for each of these params."""
    return sql_table(runrows.rows_of(run_of(number, params=each) for number, each in enumerate(params)))


def ask(runs: pa.Table, sql: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.register("runs", runs)
        return connection.execute(sql).fetchall()


RUNS = [
    run_of(
        1,
        project="churn",
        data={"train_data": ref_of(1), "metrics": ref_of(2)},
        values={"metrics": {"accuracy": 0.89, "f1": 0.91}},
        params={"max_depth": 10, "select": "x"},
        metrics={"accuracy": 0.95},
        tags={"author": "team"},
        started_at=datetime(2024, 1, 15, tzinfo=UTC),
    ),
    run_of(2, params={"max_depth": 3}, metrics={"accuracy": NAN}, values={"metrics": {"f1": 0.5}}),
    run_of(3, outputs={"predictions": ref_of(3)}),
]
TABLE = sql_table(runrows.rows_of(RUNS))


@pytest.mark.parametrize(
    ("sql", "answer"),
    [
        ("SELECT run_id, metrics.accuracy FROM runs WHERE params.max_depth > 5", [("r00001", 0.95)]),
        (
            "SELECT values.metrics.f1 FROM runs WHERE values.metrics.f1 IS NOT NULL ORDER BY 1",
            [(0.5,), (0.91,)],
        ),
        ("SELECT values.metrics FROM runs WHERE run_id = 'r00002'", [({"accuracy": None, "f1": 0.5},)]),
        ("SELECT values.metrics FROM runs WHERE run_id = 'r00003'", [(None,)]),
        ("SELECT data.train_data FROM runs WHERE project = 'churn'", [(str(ref_of(1)),)]),
        ("SELECT inputs FROM runs LIMIT 1", [({"(no inputs)": None},)]),
        ("SELECT outputs.predictions FROM runs WHERE outputs.predictions IS NOT NULL", [(str(ref_of(3)),)]),
        ("SELECT tags.author, params.\"select\" FROM runs WHERE tags.author = 'team'", [("team", "x")]),
        ("SELECT count(*) FROM runs WHERE isnan(metrics.accuracy)", [(1,)]),
        ("SELECT max(params.max_depth), typeof(any_value(params.max_depth)) FROM runs", [(10, "BIGINT")]),
        ("SELECT run_id FROM runs WHERE started_at < TIMESTAMPTZ '2024-01-16 00:00:00+00'", [("r00001",)]),
        (
            "SELECT r.size_bytes FROM (SELECT unnest(refs) AS r FROM runs) WHERE r.name = 'predictions'",
            [(10,)],
        ),
        ("SELECT project, count(*) FROM runs GROUP BY project ORDER BY 2 DESC", [(None, 2), ("churn", 1)]),
    ],
)
def test_what_users_ask(sql: str, answer: list[tuple[Any, ...]]) -> None:
    assert ask(TABLE, sql) == answer


def test_the_columns() -> None:
    plain = [name for name in SCHEMA.names if name not in ("entries", "refs", "manifest")]
    assert TABLE.column_names == [*plain, *GROUPS, "refs"]
    assert left_out(TABLE) == {}
    assert len(ask(TABLE, "SELECT * FROM runs")) == len(RUNS)


CASES: dict[str, tuple[list[Any], pa.DataType, list[Any]]] = {
    "bool": ([True, None, False], TRUTH, [True, None, False]),
    "int": ([1, -(2**63), 2**63 - 1], WHOLE, [1, -(2**63), 2**63 - 1]),
    "int and float": ([1, 0.5, NAN], NUMBER, [1.0, 0.5, NAN]),
    "int beyond 2**53 and float": ([2**53 + 1, 0.5], NUMBER, [2.0**53, 0.5]),
    "int beyond int64": ([1, 2**64 - 1], NUMBER, [1.0, 2.0**64]),
    "int beyond floats": ([10**400, -(10**400)], NUMBER, [INF, -INF]),
    "float": ([0.5, INF, None], NUMBER, [0.5, INF, None]),
    "str": (["x", "", None, "1"], TEXT, ["x", "", None, "1"]),
    "None": ([None, None], TEXT, [None, None]),
    "bool and int": ([True, 1], TEXT, ["true", "1"]),
    "str and others": (["x", 1, 0.5, NAN, 2**70], TEXT, ["x", "1", "0.5", '"NaN"', str(2**70)]),
    "list": ([[1], [], ["a", NAN, None]], TEXT, ["[1]", "[]", '["a","NaN",null]']),
    "dict": (
        [{"a": 1}, {"a": 0.5, "b": True}, {}, None],
        pa.struct({"a": NUMBER, "b": TRUTH}),
        [{"a": 1.0, "b": None}, {"a": 0.5, "b": True}, {"a": None, "b": None}, None],
    ),
    "dict in dict": (
        [{"a": {"b": "x"}}, {"a": None}, {"a": {}}],
        pa.struct({"a": pa.struct({"b": TEXT})}),
        [{"a": {"b": "x"}}, {"a": None}, {"a": {"b": None}}],
    ),
    "empty dicts": ([{}, None, {}], TEXT, ["{}", None, "{}"]),
    "dict and others": ([{"a": NAN}, 1, "{}"], TEXT, ['{"a":"NaN"}', "1", "{}"]),
    "escaped keys": ([{"$f": "nan"}, {"$$": 1}], pa.struct({"$$": WHOLE, "$f": TEXT}), None),
}


@pytest.mark.parametrize("case", CASES)
def test_types_follow_from_all_values(case: str) -> None:
    values, expected_type, expected = CASES[case]
    column = table_of({}, *({"p": value} for value in values), {})["params"].combine_chunks().field("p")
    assert column.type == expected_type
    if expected is not None:
        assert repr(column.to_pylist()) == repr([None, *expected, None])


# the same rules in plain Python: names -> values of runs


Leaf = tuple[str, list[Any]]


def plain(value: Any) -> Any:
    """JSON for people, by way of Python's own tokens."""
    named = {"NaN": "NaN", "Infinity": "Infinity", "-Infinity": "-Infinity"}
    return json.loads(json.dumps(value), parse_constant=named.__getitem__)


def as_text(value: Any) -> Any:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(plain(value), ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def as_float(value: Any) -> Any:
    try:
        return None if value is None else float(value)
    except OverflowError:
        return INF if value > 0 else -INF


def model(values: Sequence[Any], depth: int = 0) -> tuple[Any, list[Any]]:
    """The type of a column and what it holds, for the value of each run (None: none)."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {dict} and any(values) and depth <= MAX_NESTING:
        names = sorted({name for value in values if value is not None for name in value})
        inner = {
            name: model([None if v is None else v.get(name) for v in values], depth + 1) for name in names
        }
        rows = [
            None if value is None else [inner[name][1][index] for name in names]
            for index, value in enumerate(values)
        ]
        return {name: inner[name][0] for name in names}, rows
    if kinds == {bool}:
        return TRUTH, list(values)
    if kinds == {int} and all(v is None or -(2**63) <= v < 2**63 for v in values):
        return WHOLE, list(values)
    if kinds and kinds <= {int, float}:
        return NUMBER, [as_float(value) for value in values]
    return TEXT, [as_text(value) for value in values]


def shown(column: pa.Array) -> tuple[Any, list[Any]]:
    """A column as ``model`` gives it; fields by place, for their names may have been changed."""
    if not pa.types.is_struct(column.type):
        return column.type, column.to_pylist()
    fields = [shown(child) for child in column.flatten()]
    rows = [
        [rows[index] for _, rows in fields] if column[index].is_valid else None
        for index in range(len(column))
    ]
    return [type for type, _ in fields], rows


def types_only(type: Any) -> Any:
    return [types_only(inner) for inner in type.values()] if isinstance(type, dict) else type


@given(some_runs)
def test_every_value_is_where_the_rules_put_it(runs: list[RunManifest]) -> None:
    table = sql_table(runrows.rows_of(runs))
    table.validate(full=True)
    for group in GROUPS:
        held = [getattr(run, group) for run in runs]
        if group in ("data", "inputs", "outputs"):
            held = [{name: str(ref) for name, ref in refs.items()} for refs in held]
        column = table[group].combine_chunks()
        if not any(held):
            assert column.type == pa.struct({f"(no {group})": TEXT})
            continue
        expected_type, expected = model(held)
        found_type, found = shown(column)
        assert found_type == types_only(expected_type)
        assert repr(found) == repr(expected)
    for name in ("run_id", "revision", "project", "git_commit", "refs"):
        assert table[name] == runrows.rows_of(runs)[name]


@given(some_runs, st.lists(st.integers(0, 4), max_size=3))
def test_it_does_not_matter_how_rows_were_split(runs: list[RunManifest], cuts: list[int]) -> None:
    whole = sql_table(runrows.newest([runrows.rows_of(runs)]))
    tables, rest = [], runs
    for cut in cuts:
        tables.append(runrows.newest([runrows.rows_of(rest[:cut])]))
        rest = rest[cut:]
    split = sql_table(runrows.newest([runrows.rows_of(rest), *reversed(tables)]))
    assert contents(split) == contents(whole)
    assert left_out(split) == left_out(whole)


@given(some_runs)
def test_duckdb_reads_any_table(runs: list[RunManifest]) -> None:
    table = sql_table(runrows.rows_of(runs))
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.register("runs", table)
        rows = connection.execute("SELECT run_id FROM (SELECT * FROM runs)").fetchall()
        assert [row[0] for row in rows] == [run.run_id for run in runs]
        for path, column in leaves(table["params"].combine_chunks(), "params"):
            found = connection.execute(f"SELECT {path} FROM runs").fetchall()
            assert repr([row[0] for row in found]) == repr(column.to_pylist())


def leaves(column: pa.Array, path: str) -> Iterator[tuple[str, pa.Array]]:
    """Every field that is no struct: how SQL names it, and what it holds."""
    if not pa.types.is_struct(column.type):
        yield path, column
        return
    for field, child in zip(column.type, column.flatten(), strict=True):
        yield from leaves(child, path + '."' + field.name.replace('"', '""') + '"')


@pytest.mark.parametrize("name", [*NAMES, *HOSTILE_NAMES], ids=lambda name: repr(name[:20]))
def test_every_name_can_be_asked_for(name: str) -> None:
    table = table_of({name: 5, "other": 1}, {name: 7})
    fields = [field.name for field in table.schema.field("params").type if field.name != "other"]
    quoted = fields[0].replace('"', '""')
    assert ask(table, f'SELECT params."{quoted}" FROM runs WHERE params."{quoted}" > 6') == [(7,)]
    assert fields == [{"": "_", "\0": "␀", "a\0b": "a␀b"}.get(name, name)]


def field_names(table: pa.Table, group: str = "params") -> list[str]:
    return [field.name for field in table.schema.field(group).type]


def test_names_that_differ_in_case_only() -> None:
    table = table_of({"Accuracy": 1}, {"accuracy": 2}, {"accuracy": 3}, {"ACCURACY": 4, "é": 5, "É": 6})
    assert sorted(field_names(table)) == ["ACCURACY_1", "Accuracy_2", "accuracy", "É", "é"]
    assert ask(table, "SELECT params.Accuracy FROM runs") == [(None,), (2,), (3,), (None,)]
    assert ask(table, "SELECT params.accuracy_2 FROM runs WHERE params.accuracy_2 IS NOT NULL") == [(1,)]


def test_a_name_that_another_would_get() -> None:
    table = table_of({"a": 1, "A": 2, "A_1": 3, "": 4, "_": 5})
    assert table["params"].to_pylist() == [{"_": 5, "A_1": 3, "A_2": 2, "__1": 4, "a": 1}]


def test_case_collides_inside_dicts_too() -> None:
    table = table_of({"d": {"X": 1}}, {"d": {"x": 2}})
    assert ask(table, "SELECT params.d.x, params.d.x_1 FROM runs") == [(None, 1), (2, None)]


@pytest.mark.parametrize("group", GROUPS)
def test_a_store_without_names_answers_and_tells(group: str) -> None:
    for empty in (sql_table(runrows.newest([])), sql_table(runrows.rows_of([run_of(1)]))):
        assert len(ask(empty, "SELECT * FROM runs")) == len(empty)
        with pytest.raises(
            duckdb.BinderException, match=rf'Could not find key "accuracy"(.|\n)*\(no {group}\)'
        ):
            ask(empty, f"SELECT {group}.accuracy FROM runs")


def test_width_is_bounded() -> None:
    many = {f"n{index:05}": index for index in range(MAX_COLUMNS + 500)}
    late = dict(list(many.items())[-10:])
    table = table_of(many, late)
    names = field_names(table)
    assert len(names) == MAX_COLUMNS
    assert set(late) < set(names)
    assert "n00000" in names
    assert left_out(table) == {"params": 500}
    assert len(ask(table, "SELECT * FROM runs")) == 2


def count_fields(type: Any) -> int:
    inner = [field.type for field in type if pa.types.is_struct(field.type)]
    return type.num_fields + sum(map(count_fields, inner))


def test_width_inside_dicts_is_bounded_and_shared() -> None:
    wide = {f"n{index:05}": index for index in range(2 * MAX_COLUMNS)}
    table = table_of(
        {"wide": wide, "small": {"f1": 0.5, "inner": {"x": 1}}, "plain": 1}, {"wide": {"n01999": 1}}
    )
    type = table.schema.field("params").type
    assert count_fields(type) == MAX_COLUMNS
    assert ask(table, "SELECT params.small.inner.x, params.plain, params.wide.n01999 FROM runs LIMIT 1") == [
        (1, 1, 1999)
    ]
    assert left_out(table) == {"params": MAX_COLUMNS + 6}


def test_dicts_without_room_stay_json() -> None:
    many = {f"n{index:05}": index for index in range(MAX_COLUMNS - 1)}
    table = table_of({**many, "d": {"a": 1}}, {"d": {"a": 2}})
    assert ask(table, "SELECT params.d FROM runs") == [('{"a":1}',), ('{"a":2}',)]
    assert left_out(table) == {}


def test_depth_is_bounded() -> None:
    deep: Any = {"x": 1}
    for _ in range(90):
        deep = {"k": deep}
    table = table_of({"k": deep})
    path = ".".join(["params"] + ["k"] * (MAX_NESTING + 1))
    ((found,),) = ask(table, f"SELECT {path} FROM runs")
    assert json.loads(found)["k"]["k"]


def test_a_text_that_is_not_of_its_kind() -> None:
    rows = runrows.rows_of([run_of(1, params={"a": {"b": 1}})])
    (entries,) = rows["entries"].to_pylist()
    entries[0]["text"] = "{"
    index = rows.column_names.index("entries")
    field = rows.schema.field(index)
    with pytest.raises(IntegrityError, match=r"^The run catalogue"):
        sql_table(rows.set_column(index, field, pa.array([entries], field.type)))


def test_flat_columns_for_frames() -> None:
    flat = flatten(TABLE)
    named = [name for name in flat.column_names if "." in name]
    assert named == [
        *("params.max_depth", "params.select", "metrics.accuracy", "tags.author"),
        *("values.metrics.accuracy", "values.metrics.f1", "data.metrics", "data.train_data"),
        "outputs.predictions",
    ]
    frame = flat.to_pandas()
    assert frame["values.metrics.f1"].tolist()[:2] == [0.91, 0.5]
    assert math.isnan(frame["values.metrics.f1"][2])
    assert frame["data.train_data"][0] == str(ref_of(1))


def test_flat_columns_of_an_answer() -> None:
    with duckdb.connect() as connection:
        connection.register("runs", TABLE)
        relation = connection.sql("SELECT run_id, values.metrics, inputs, 1 AS n FROM runs ORDER BY run_id")
        flat = flatten(
            relation.arrow().read_all() if hasattr(relation.arrow(), "read_all") else relation.arrow()
        )
    assert flat.column_names == ["run_id", "metrics.accuracy", "metrics.f1", "n"]
    assert flat["metrics.f1"].to_pylist() == [0.91, 0.5, None]


def test_flat_names_stay_distinct() -> None:
    table = table_of({"a": {"b": 1}, "a.b": 2})
    assert [name for name in flatten(table).column_names if "." in name] == ["params.a.b", "params.a.b_1"]
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2]), pa.array([3])], names=["x", "x", "x_1"])
    assert flatten(twice).column_names == ["x", "x_2", "x_1"]


def test_a_user_may_have_named_it_so() -> None:
    table = table_of({"(no params)": 5})
    assert flatten(table)["params.(no params)"].to_pylist() == [5]


def test_nothing_but_an_empty_group() -> None:
    empty = sql_table(runrows.rows_of([run_of(1), run_of(2)])).select(["metrics"])
    assert flatten(empty).to_pydict() == {"metrics.(no metrics)": [None, None]}


@given(some_runs)
def test_flat_columns_hold_the_same(runs: list[RunManifest]) -> None:
    table = sql_table(runrows.rows_of([replace(run, run_id=str(index)) for index, run in enumerate(runs)]))
    flat = flatten(table)
    assert len(set(flat.column_names)) == flat.num_columns
    assert not any(map(pa.types.is_struct, flat.schema.types))
    assert flat.num_rows == len(runs)
    found = [flat.column(index) for index in range(flat.num_columns)]
    expected = [
        column
        for name in table.column_names
        for path, column in leaves(table[name].combine_chunks(), name)
        if not path.endswith(f'"(no {name})"') or column.null_count < len(column)
    ]
    assert repr([column.to_pylist() for column in found]) == repr([column.to_pylist() for column in expected])
