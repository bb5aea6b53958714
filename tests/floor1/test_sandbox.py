"""SQL in the sandbox: what runs, what it gives, and that nothing else is reached."""

from __future__ import annotations

import datetime as dt
import os
import pickle
import secrets
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from mltrack_tasks.errors import InvalidInputError, NotFoundError
from mltrack_tasks.tables import sandbox
from mltrack_tasks.tables.admission import CLOCK_AND_DICE, tells
from mltrack_tasks.tables.results import frame_of
from mltrack_tasks.tables.sandbox import run_sql

ROOT = Path(__file__).parents[2]
TABLE = pa.table({"name": ["a", "b", "c"], "accuracy": [0.85, 0.91, 0.95], "n": [1, 2, 3]})
SECRET = f"secret-{secrets.token_hex(8)}"


def rows(sql: str, **tables: Any) -> list[dict[str, Any]]:
    return list(run_sql(sql, tables or {"s3object": TABLE}).to_pylist())


def frame(sql: str, **tables: Any) -> pd.DataFrame:
    return frame_of(run_sql(sql, tables or {"s3object": TABLE}))


# what runs


def test_the_guides_query_runs() -> None:
    found = rows("SELECT * FROM s3object WHERE accuracy > 0.9")
    assert [row["name"] for row in found] == ["b", "c"]


@pytest.mark.parametrize(
    ("sql", "first"),
    [
        ("FROM s3object", {"name": "a", "accuracy": 0.85, "n": 1}),
        ("TABLE S3Object;", {"name": "a", "accuracy": 0.85, "n": 1}),
        ('SELECT "s3object".n FROM "s3object"', {"n": 1}),
        ("VALUES (1), (2)", {"col0": 1}),
        ("SELECT sum(n) AS s FROM s3object GROUP BY n > 1 ORDER BY s", {"s": 1}),
        ("WITH a AS (FROM s3object), b AS (FROM a WHERE n > 2) SELECT n FROM b", {"n": 3}),
        ("WITH a AS MATERIALIZED (FROM s3object) SELECT max(n) AS m FROM a", {"m": 3}),
        (
            "WITH RECURSIVE t AS (SELECT 1 AS x UNION ALL SELECT x + 1 FROM t WHERE x < 9) "
            "SELECT max(x) AS m FROM t",
            {"m": 9},
        ),
        ("SELECT n FROM s3object WHERE n IN (SELECT max(n) FROM s3object)", {"n": 3}),
        ("SELECT l.n FROM s3object l JOIN s3object r ON l.n = r.n + 1 ORDER BY 1", {"n": 2}),
        (
            "SELECT n, (SELECT max(i.n) FROM s3object i WHERE i.n < o.n) AS p FROM s3object o "
            "ORDER BY n DESC",
            {"n": 3, "p": 2},
        ),
        ("SELECT n FROM s3object UNION SELECT 7 ORDER BY n DESC", {"n": 7}),
        ("SELECT n, lag(n) OVER (ORDER BY n) AS l FROM s3object QUALIFY l = 1", {"n": 2, "l": 1}),
        ("SELECT count(*) FILTER (n > 1) AS c FROM s3object", {"c": 2}),
        ("SELECT range AS r FROM range(3) ORDER BY 1 DESC", {"r": 2}),
        ("SELECT unnest([5, 6]) AS u", {"u": 5}),
        ("SELECT u FROM s3object, unnest([n]) AS t(u) ORDER BY u", {"u": 1}),
        ("""SELECT unnest(json_keys('{"k": 1}')) AS k""", {"k": "k"}),
        ("UNPIVOT s3object ON n INTO NAME what VALUE v", None),
        ("PIVOT s3object ON name IN ('a') USING sum(n)", None),
        ("SELECT v FROM (UNPIVOT s3object ON n INTO NAME what VALUE v) ORDER BY v", {"v": 1}),
        ("SELECT * FROM (PIVOT s3object ON name IN ('a') USING sum(n) GROUP BY n)", None),
        ("DESCRIBE s3object", None),
        ("DESCRIBE SELECT n FROM s3object", None),
        ("SUMMARIZE s3object", None),
        ("SELECT now() IS NOT NULL AND random() < 2 AND uuid() IS NOT NULL AS x", {"x": True}),
        ("SELECT extract(year FROM DATE '2024-01-15') AS y", {"y": 2024}),
        ("SELECT 'abc' SIMILAR TO 'a.*' AS s, 'ABC' ILIKE 'a%' AS i", {"s": True, "i": True}),
        ("SELECT list_transform([1, 2], lambda x: x + 1) AS l", {"l": [2, 3]}),
        ("SELECT {'a': n}.a AS x FROM s3object ORDER BY x", {"x": 1}),
        ("SELECT date_trunc('month', DATE '2024-01-15')::DATE AS m", {"m": dt.date(2024, 1, 1)}),
        ("SELECT COLUMNS('^n$') FROM s3object", {"n": 1}),
        ("SELECT 1 -- DROP VIEW s3object; SELECT getenv('HOME')", None),
    ],
)
def test_what_runs(sql: str, first: dict[str, Any] | None) -> None:
    if "lambda" in sql and duckdb.__version__ < "1.3":
        sql = sql.replace("lambda x:", "x ->")
    found = rows(sql)
    assert found
    if first is not None:
        assert found[0] == first


def test_several_tables_are_joined_by_name() -> None:
    other = pa.table({"n": [2, 3], "label": ["two", "three"]})
    found = rows(
        'SELECT label FROM s3object JOIN "My Labels" USING (n)', s3object=TABLE, **{"My Labels": other}
    )
    assert sorted(row["label"] for row in found) == ["three", "two"]


def test_a_table_with_the_name_of_a_catalogue_hides_it() -> None:
    try:
        assert rows("SELECT * FROM duckdb_tables", duckdb_tables=pa.table({"x": [1]})) == [{"x": 1}]
    except InvalidInputError as error:  # DuckDB before 1.3
        said = str(error)
    else:
        said = "already exists"
    assert "already exists" in said


# what comes back


def test_sums_of_integers_are_integers() -> None:
    table = run_sql(
        "SELECT sum(n) AS s, sum(n) FILTER (n > 9) AS none, avg(n) AS a FROM s3object", {"s3object": TABLE}
    )
    assert table.schema.types == [pa.int64(), pa.int64(), pa.float64()]
    assert table.to_pylist() == [{"s": 6, "none": None, "a": 2.0}]


def test_a_sum_beyond_64_bits_is_exact() -> None:
    big = pa.table({"n": [2**62] * 4})
    assert rows("SELECT sum(n) AS s FROM t", t=big) == [{"s": Decimal(2**64)}]
    assert frame("SELECT sum(n) AS s FROM t", t=big)["s"].tolist() == [2**64]


def test_a_decimal_stays_one() -> None:
    table = pa.table({"d": pa.array([Decimal(5)], pa.decimal128(38, 0))})
    assert rows("SELECT d FROM t", t=table) == [{"d": Decimal(5)}]


def test_equal_column_names_survive() -> None:
    found = frame("SELECT n, n, n + 1 AS n, name AS N FROM s3object ORDER BY 1")
    assert list(found.columns) == ["n", "n", "n", "N"]
    assert found.iloc[0].tolist() == [1, 1, 2, "a"]


def test_integers_with_nulls_stay_exact() -> None:
    found = frame(
        f"SELECT * FROM (VALUES ({2**62 + 1}, true, 1::UTINYINT), (NULL, NULL, NULL)) AS v(i, b, u)"
    )
    assert [str(each) for each in found.dtypes] == ["Int64", "boolean", "UInt8"]
    assert found["i"].tolist() == [2**62 + 1, pd.NA]


def test_times_come_in_utc() -> None:
    berlin = pa.array([dt.datetime(2024, 7, 1, tzinfo=dt.UTC)], pa.timestamp("us", "Europe/Berlin"))
    found = frame("SELECT t, t::VARCHAR AS text, hour(t) AS h FROM t", t=pa.table({"t": berlin}))
    assert found.loc[0, "t"] == pd.Timestamp("2024-07-01", tz="UTC")
    assert str(found["t"].dt.tz) == "UTC"
    assert (found.loc[0, "text"], found.loc[0, "h"]) == ("2024-07-01 00:00:00+00", 0)


def test_intervals_are_timedeltas() -> None:
    found = frame(
        "SELECT * FROM (VALUES (INTERVAL '1 day 2 hours'), (NULL), (INTERVAL '-3 seconds'), "
        "(TIMESTAMP '2024-01-02' - TIMESTAMP '2024-01-01')) AS v(i)"
    )
    assert found["i"].dtype == "m8[us]"
    assert found["i"].tolist() == [pd.Timedelta("26h"), pd.NaT, pd.Timedelta("-3s"), pd.Timedelta("1D")]
    assert frame("SELECT i FROM (SELECT INTERVAL 1 DAY AS i) WHERE false")["i"].dtype == "m8[us]"


@pytest.mark.parametrize("interval", ["INTERVAL 1 MONTH", "INTERVAL 2000000000 DAYS"])
def test_intervals_that_are_no_timedeltas_are_objects(interval: str) -> None:
    [found] = frame(f"SELECT {interval} AS i")["i"].tolist()
    assert isinstance(found, pd.DateOffset)


def test_enums_are_their_words() -> None:
    assert frame("SELECT name::ENUM('a', 'b', 'c') AS e FROM s3object")["e"].tolist() == ["a", "b", "c"]


def test_no_rows_keep_their_types() -> None:
    found = frame("SELECT n, name, accuracy FROM s3object WHERE n > 99")
    assert found.shape == (0, 3)
    assert [found["n"].dtype, found["accuracy"].dtype] == [np.int64, np.float64]


# what does not run: errors


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELEC 1", 'Parser Error: syntax error at or near "SELEC"'),
        ("SELECT * FROM s3object WHERE", "Parser Error: syntax error at"),
        ("SELECT nothing FROM s3object", 'Binder Error: Referenced column "nothing" not found'),
        ("SELECT foo(n) FROM s3object", "Catalog Error: Scalar Function with name foo does not exist!"),
        ("SELECT name::INT FROM s3object", "Conversion Error: Could not convert string 'a' to INT32"),
        ("SELECT 9223372036854775807 + n FROM s3object", "Out of Range Error: Overflow"),
        ("SELECT $1", "Error: "),
    ],
)
def test_bad_sql_gets_duckdbs_message_and_no_stack(sql: str, message: str) -> None:
    with pytest.raises(InvalidInputError) as raised:
        rows(sql)
    assert message in str(raised.value)
    assert raised.value.__cause__ is None
    assert raised.value.__context__ is None
    shown = "".join(traceback.format_exception(raised.value))
    assert "During handling" not in shown
    assert "direct cause" not in shown
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)


@pytest.mark.parametrize("sql", [None, 1, b"SELECT 1", "SELECT '\ud800'", "SELECT 1\0", "SELECT\0 1"])
def test_what_is_no_sql(sql: Any) -> None:
    with pytest.raises(InvalidInputError, match="The SQL"):
        run_sql(sql, {"s3object": TABLE})


@pytest.mark.parametrize("name", ["", "a\nb", "\0", 1, None])
def test_names_that_no_table_can_have(name: Any) -> None:
    with pytest.raises(InvalidInputError, match="cannot be the name of a table"):
        run_sql("SELECT 1", {name: TABLE})
    with pytest.raises(InvalidInputError, match="differ only in case"):
        run_sql("SELECT 1", {"t": TABLE, "T": TABLE})


def test_too_little_memory_is_an_error_with_advice() -> None:
    sql = "SELECT list(range ORDER BY range) AS l FROM range(100000000)"
    with pytest.raises(InvalidInputError, match=r"more memory than there is.*aggregate.*nothing is spilled"):
        run_sql(sql, {}, memory_limit=50_000_000)


def test_the_failure_of_a_table_is_raised_as_it_is() -> None:
    class Failing(ds.FileSystemDataset):  # type: ignore[misc]
        failure: Exception | None = None

        def scanner(self, **options: Any) -> Any:
            self.failure = NotFoundError("gone")
            raise RuntimeError("what DuckDB sees")

    empty = Failing([], TABLE.schema, ds.ParquetFileFormat())
    with pytest.raises(NotFoundError, match="gone"):
        run_sql("SELECT n FROM t", {"t": empty})


ENDLESS = "SELECT count(*) FROM range(100000000) a, range(100000000) b WHERE (a.range * b.range) % 7 = 3"


def test_ctrl_c_interrupts() -> None:
    program = f"""
import os, signal, threading
from mltrack_tasks.tables.sandbox import run_sql
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background processes ignore it
run_sql("SELECT 1", {{}})
threading.Timer(3.0, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    run_sql({ENDLESS!r}, {{}})
except KeyboardInterrupt:
    print("interrupted")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "interrupted\n", "")


def test_an_exception_set_for_the_thread_interrupts() -> None:
    """As Prefect does when a task's time is up."""
    import ctypes

    class TimeIsUpError(Exception):
        pass

    caught: list[BaseException] = []

    def query() -> None:
        try:
            run_sql(ENDLESS, {})
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=query)
    thread.start()
    thread.join(1)
    assert thread.ident is not None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(TimeIsUpError))
    thread.join(60)
    assert [type(error) for error in caught] == [TimeIsUpError]


# what does not run: attacks

STATEMENTS = [
    "DROP VIEW s3object",
    "CREATE TABLE t AS FROM s3object",
    "CREATE MACRO f() AS 1",
    "INSERT INTO s3object VALUES ('d', 1, 4)",
    "UPDATE s3object SET n = 1",
    "DELETE FROM s3object",
    "COPY s3object TO '{folder}/out.csv'",
    "COPY (SELECT 1) TO '{folder}/out.parquet' (FORMAT parquet)",
    "COPY s3object FROM '{secret}'",
    "EXPORT DATABASE '{folder}/out'",
    "IMPORT DATABASE '{folder}'",
    "ATTACH '{folder}/out.db'",
    "ATTACH ':memory:' AS other",
    "DETACH memory",
    "USE memory",
    "INSTALL httpfs",
    "LOAD httpfs",
    "FORCE INSTALL 'x.duckdb_extension'",
    "UPDATE EXTENSIONS",
    "SET enable_external_access = true",
    "SET threads = 1",
    "SET VARIABLE x = 1",
    "RESET enable_external_access",
    "PRAGMA database_list",
    "PRAGMA enable_profiling",
    "CALL duckdb_settings()",
    "CALL range(1)",
    "VACUUM",
    "CHECKPOINT",
    "ANALYZE",
    "EXPLAIN SELECT 1",
    "EXPLAIN ANALYZE SELECT 1",
    "PREPARE p AS SELECT 1",
    "EXECUTE p",
    "BEGIN",
    "COMMIT",
    "CREATE SECRET s (TYPE s3)",
    "COMMENT ON VIEW s3object IS 'x'",
    "SELECT 1; SELECT 2",
    "SELECT 1; DROP VIEW s3object",
    "SELECT 1; COPY (SELECT 1) TO '{folder}/out.csv'",
    "DROP VIEW s3object; SELECT 1",
    "PIVOT s3object ON name USING sum(n)",
    "",
    "-- nothing",
]
FILES = [
    "SELECT * FROM '{secret}'",
    'SELECT * FROM "{secret}"',
    "SELECT * FROM read_text('{secret}')",
    "SELECT * FROM read_blob('{secret}')",
    "SELECT * FROM read_csv('{secret}')",
    "SELECT * FROM read_csv_auto('{secret}')",
    "SELECT * FROM read_json('{secret}')",
    "SELECT * FROM read_json_objects('{secret}')",
    "SELECT * FROM read_ndjson('{secret}')",
    "SELECT * FROM read_parquet('{secret}')",
    "SELECT * FROM parquet_scan('{secret}')",
    "SELECT * FROM parquet_metadata('{secret}')",
    "SELECT * FROM parquet_schema('{secret}')",
    "SELECT * FROM sniff_csv('{secret}')",
    "SELECT * FROM glob('{folder}/*')",
    "SELECT * FROM read_text(':memory:')",
    "SELECT * FROM ':memory:'",
    "SELECT * FROM read_text('/proc/self/environ')",
    "SELECT * FROM read_text('https://example.com/')",
    "SELECT * FROM 's3://bucket/key.parquet'",
    "SELECT * FROM read_text(['{secret}'])",
    "FROM read_text('{secret}') SELECT content",
    "SELECT (SELECT content FROM read_text('{secret}'))",
    "WITH x AS (SELECT * FROM read_text('{secret}')) FROM x",
    "WITH x AS MATERIALIZED (SELECT * FROM read_text('{secret}')) SELECT 1",
    "SELECT * FROM s3object WHERE EXISTS (FROM read_text('{secret}'))",
    "SELECT * FROM s3object, LATERAL (SELECT * FROM read_text('{secret}'))",
    "SELECT * FROM s3object ORDER BY (SELECT content FROM read_text('{secret}'))",
    "SELECT * FROM s3object LIMIT (SELECT length(content) FROM read_text('{secret}'))",
    "SELECT max(n) FILTER ((SELECT content FROM read_text('{secret}')) = 'x') FROM s3object",
    "SELECT n FROM s3object UNION ALL SELECT content FROM read_text('{secret}')",
    "SELECT list_transform([1], lambda x: (SELECT content FROM read_text('{secret}')))",
    "SELECT * FROM range((SELECT length(content) FROM read_text('{secret}')))",
    "VALUES ((SELECT content FROM read_text('{secret}')))",
    "DESCRIBE SELECT * FROM read_text('{secret}')",
    "SUMMARIZE SELECT * FROM read_text('{secret}')",
    "DESCRIBE '{secret}'",
    "SELECT * FROM (DESCRIBE SELECT * FROM read_text('{secret}'))",
    "SELECT * FROM (PIVOT read_text('{secret}') ON size IN (1) USING max(content))",
    "SELECT * FROM (UNPIVOT (FROM read_text('{secret}')) ON content)",
    "SELECT * FROM query('SELECT content FROM read_text(''{secret}'')')",
    "SELECT * FROM query_table('s3object')",
    "SELECT * FROM json_execute_serialized_sql('{{}}')",
    "SELECT json_serialize_plan('SELECT * FROM read_text(''{secret}'')')",
    "SELECT * FROM secret_variable",
    "SELECT * FROM SECRET",
    "SELECT * FROM arrow_scan(1, 2, 3)",
    "SELECT * FROM pandas_scan(1)",
    "SELECT * FROM python_map_function(1)",
    "SELECT * FROM seq_scan('s3object')",
]
SETTINGS = [
    "SELECT getenv('MLTRACK_SANDBOX_SECRET')",
    "SELECT main.getenv('MLTRACK_SANDBOX_SECRET')",
    "SELECT current_setting('temp_directory')",
    "SELECT Current_Setting('home_directory')",
    "SELECT 'threads'.current_setting()",
    "SELECT system.main.current_setting('threads')",
    "SELECT list_transform(['threads'], lambda x: current_setting(x))",
    "SELECT n FROM s3object WHERE current_setting('threads') > 0",
    "SELECT getvariable('x')",
    "SELECT current_query()",
    "SELECT current_database()",
    "SELECT current_schemas(true)",
    "SELECT txid_current()",
    "SELECT pg_get_viewdef(1)",
    "SELECT nextval('s')",
    "SELECT setseed(0.5)",
    "SELECT write_log('x')",
    "SELECT stats(n) FROM s3object",
    "SELECT * FROM duckdb_settings()",
    "SELECT * FROM duckdb_settings",
    "SELECT * FROM duckdb_secrets()",
    "SELECT * FROM duckdb_extensions()",
    "SELECT * FROM duckdb_databases()",
    "SELECT * FROM duckdb_views()",
    "SELECT * FROM duckdb_memory()",
    "SELECT * FROM duckdb_variables()",
    "SELECT * FROM duckdb_logs",
    "SELECT * FROM duckdb_temporary_files()",
    "SELECT * FROM which_secret('s3://b/k', 's3')",
    "SELECT * FROM pg_settings",
    "SELECT * FROM pg_catalog.pg_settings",
    "SELECT * FROM pg_timezone_names()",
    "SELECT * FROM pragma_database_list",
    "SELECT * FROM pragma_database_size()",
    "SELECT * FROM pragma_user_agent()",
    "SELECT * FROM pragma_table_info('s3object')",
    "SELECT * FROM sqlite_master",
    "SELECT * FROM information_schema.tables",
    "SELECT * FROM system.information_schema.tables",
    "SELECT * FROM memory.main.s3object",
    "SELECT * FROM temp.s3object",
    "SELECT * FROM summary((FROM s3object))",
    "SELECT * FROM histogram_values(duckdb_settings, name)",
    "SELECT * FROM test_all_types()",
    "SHOW TABLES",
    "SHOW ALL TABLES",
    "SHOW DATABASES",
    "SHOW VARIABLES",
    "DESCRIBE",
    "DESCRIBE sqlite_master",
    "SUMMARIZE duckdb_settings",
    "SUMMARIZE pg_catalog.pg_settings",
    "FROM (SHOW TABLES)",
    "FROM (SUMMARIZE sqlite_master)",
    "WITH sqlite_master AS (FROM sqlite_master) FROM sqlite_master",
    "WITH sqlite_master AS MATERIALIZED (FROM sqlite_master) FROM sqlite_master",
    "WITH RECURSIVE sqlite_master AS (FROM sqlite_master UNION ALL FROM sqlite_master) FROM sqlite_master",
    "WITH RECURSIVE sqlite_master AS (FROM sqlite_master) FROM sqlite_master",
    "FROM sqlite_master, (WITH sqlite_master AS (SELECT 1) FROM sqlite_master)",
    "WITH a AS (FROM sqlite_master), sqlite_master AS (SELECT 1) FROM a",
    "WITH a AS (WITH sqlite_master AS (SELECT 1) FROM s3object) FROM sqlite_master",
    "SELECT (WITH sqlite_master AS (SELECT 1) SELECT 1) FROM sqlite_master",
    "SELECT __internal_decompress_string(1)",
]


@pytest.fixture
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with secrets, which is the working folder; and a secret in the environment."""
    folder = tmp_path / "here"
    folder.mkdir()
    for name in ("secret.txt", "secret.csv", "secret.json", ":memory:", "secret"):
        (folder / name).write_text(f"{SECRET}\n")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MLTRACK_SANDBOX_SECRET", SECRET)
    monkeypatch.setenv("HOME", str(folder))
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("sql", [*STATEMENTS, *FILES, *SETTINGS])
def test_attacks_are_refused_and_nothing_happens(sql: str, surroundings: Path) -> None:
    secret = surroundings / "secret.csv"
    secret_variable = pa.table({"x": [SECRET]})
    before = contents(surroundings)
    # DuckDB's own for what is no SQL at all, and for what it does while it takes a text apart
    said = r"is refused: .*Allowed is one SELECT|^Parser Error|^Permission Error"
    with pytest.raises(InvalidInputError, match=said) as raised:
        run_sql(sql.format(folder=surroundings, secret=secret), {"s3object": TABLE})
    assert SECRET not in str(raised.value)
    assert contents(surroundings) == before
    assert secret_variable.num_rows == 1


@pytest.fixture
def locked(surroundings: Path) -> Iterator[Any]:
    """The first wall alone: the connection as it is locked, without a look at the text."""
    con = duckdb.connect(":memory:", config=sandbox._CONFIG)
    con.register("s3object", TABLE)
    for lock in sandbox._LOCKS:
        con.execute(lock)
    yield con
    con.close()


@pytest.mark.parametrize("sql", [sql for sql in (*STATEMENTS, *FILES) if " " in sql])
def test_the_first_wall_holds_alone(sql: str, locked: Any, surroundings: Path) -> None:
    before, text = contents(surroundings), sql.format(folder=surroundings, secret=surroundings / "secret.csv")
    try:
        result = locked.execute(text)
        shown = str(result and result.fetchall())
    except (duckdb.Error, AttributeError) as error:  # AttributeError: nothing to fetch, nothing was done
        shown = str(error)
    assert SECRET not in shown
    assert contents(surroundings) == before


def test_no_admitted_function_tells_where_it_runs(locked: Any, surroundings: Path) -> None:
    """Every function that this DuckDB has and that is admitted, called without and with a telling word."""
    names = locked.execute(
        "SELECT DISTINCT function_name FROM duckdb_functions() WHERE function_type IN "
        "('scalar', 'macro', 'aggregate') AND regexp_full_match(function_name, '[A-Za-z_0-9]+')"
    ).fetchall()
    admitted = sorted({name.lower() for (name,) in names if not tells(name.lower())} - sandbox._volatile())
    words = [str(surroundings / "secret.csv"), "MLTRACK_SANDBOX_SECRET", "temp_directory", "home_directory"]
    telling = (SECRET, str(surroundings.parent), os.environ.get("USER", SECRET))
    answered = 0
    for call in [f"{name}({word})" for name in admitted for word in ("", *map(repr, words))]:
        try:
            shown = str(locked.execute(f"SELECT ({call})::VARCHAR").fetchall())
        except duckdb.Error:
            continue
        answered += 1
        echo = shown.replace(str(surroundings), "")
        assert not [word for word in telling if word in echo], call
    assert answered > 200


def test_functions_of_the_clock_are_known_to_this_duckdb() -> None:
    con = duckdb.connect(":memory:")
    known = {row[0] for row in con.execute("SELECT function_name FROM duckdb_functions()").fetchall()}
    con.close()
    assert {"now", "today", "random", "uuid"} <= CLOCK_AND_DICE & known


def test_each_query_has_a_database_of_its_own() -> None:
    assert rows("SELECT 1 AS x FROM a", a=TABLE)[0] == {"x": 1}
    with pytest.raises(InvalidInputError, match="reads from a"):
        rows("SELECT 1 AS x FROM a", b=TABLE)


def test_without_duckdb_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(InvalidInputError, match=r'pip install "mltrack_tasks\[sql\]"'):
        rows("SELECT 1")


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT " + "(" * 20_000 + "1" + ")" * 20_000,
        "SELECT " + "abs(" * 900 + "1" + ")" * 900,
        "SELECT " + "+".join(["1"] * 20_000),
        "SELECT * FROM " + "(SELECT * FROM " * 2_000 + "s3object" + ")" * 2_000,
        "SELECT " + "[" * 3_000 + "]" * 3_000,
    ],
    ids=["brackets", "calls", "sum", "queries", "lists"],
)
def test_deep_nesting_gives_an_answer_or_an_error(sql: str) -> None:
    with suppress(InvalidInputError):
        assert len(rows(sql)) in (1, 3)


def test_signals_are_left_as_they_were() -> None:
    before = signal.getsignal(signal.SIGINT)
    rows("SELECT 1")
    assert signal.getsignal(signal.SIGINT) is before


def test_only_ascii_letters_are_folded() -> None:
    """DuckDB does not take the Kelvin sign for a k: a WITH clause of that name covers no view of DuckDB's."""
    sql = 'WITH "duc\u212adb_views" AS (SELECT 1) SELECT * FROM duckdb_views'
    with pytest.raises(InvalidInputError, match="reads from"):
        run_sql(sql, {"t": pa.table({"a": [1]})})
