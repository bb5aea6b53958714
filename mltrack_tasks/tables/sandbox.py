"""SQL over given tables, in a DuckDB that is locked in: it reaches nothing else.

Two walls. The connection has no file system, no extensions, no Python variables, no temporary files and a
locked configuration. And before it runs, the text must be one SELECT that names only the given tables and
functions that compute (``tables.admission``), since a locked DuckDB still tells its settings.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextvars import copy_context
from typing import Any, TypeVar

import pyarrow as pa

from mltrack_tasks.errors import InvalidInputError
from mltrack_tasks.tables.admission import CLOCK_AND_DICE, admit, fold, refuse
from mltrack_tasks.tables.pageroom import LESS_MEMORY

T = TypeVar("T")

_CONFIG = {
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "allow_persistent_secrets": "false",  # of the user's home
    "python_enable_replacements": "false",  # else a table's name may be a Python variable's
    "temp_directory": "",
}
_LOCKS = (
    "SET TimeZone = 'UTC'",
    "SET enable_progress_bar = false",  # it would be printed
    "SET disabled_filesystems = 'LocalFileSystem'",  # DuckDB 2.0 else allows `<folder>/:memory:`
    "SET lock_configuration = true",
)
_LOOK = 0.5
"""[s] between looks for an exception that another thread set for this one (Prefect's timeouts do)."""


def run_sql(sql: str, tables: Mapping[str, Any], *, memory_limit: int | None = None) -> Any:
    """Run one SELECT over Arrow tables or datasets, by their names -> Arrow table.

    Times come in UTC; HUGEINT (what SUM of integers gives) comes as int64 where every value fits, else as
    decimal; columns keep their names even if two are equal. Ctrl-C interrupts. ``memory_limit`` [bytes] is
    DuckDB's own, 80 % of the machine unless given; nothing is spilled to disk.

    Raises InvalidInputError: with DuckDB's message for SQL that is malformed or fails, with ours for SQL that
    wants what it may not. A table's own ``failure``, if it has one that is set, is raised instead.
    """
    _check_text(sql)
    _check_names(tables)
    duckdb = _duckdb()
    try:
        return _run(duckdb, sql, tables, memory_limit)
    except (duckdb.Error, InvalidInputError) as error:
        failure = _failure(duckdb, error, tables)
    raise failure  # from here it carries no stack of DuckDB's, and holds on to no connection


def _duckdb() -> Any:
    try:
        import duckdb
    except ImportError:
        raise InvalidInputError(
            'SQL needs DuckDB, which is not installed: pip install "mltrack_tasks[sql]".'
        ) from None
    return duckdb


def _run(duckdb: Any, sql: str, tables: Mapping[str, Any], memory_limit: int | None) -> Any:
    config = dict(_CONFIG) if memory_limit is None else {**_CONFIG, "memory_limit": f"{memory_limit}B"}
    con = duckdb.connect(":memory:", config=config)
    try:
        for name, table in tables.items():
            con.register(name, table)
        for lock in _LOCKS:
            con.execute(lock)
        _judge(con, sql, tables)
        return _interruptible(con, lambda: _fetch(con, sql))
    finally:
        con.close()


def _failure(duckdb: Any, error: Exception, tables: Mapping[str, Any]) -> BaseException:
    """What to raise for what DuckDB or the judge of the text said."""
    if not isinstance(error, duckdb.Error):
        return error.with_traceback(None)
    for table in tables.values():
        failure: BaseException | None = getattr(table, "failure", None)
        if failure is not None:
            return failure
    if isinstance(error, duckdb.OutOfMemoryException):
        first = str(error).partition("\n")[0]
        return InvalidInputError(f"The query needs more memory than there is: {first}. {LESS_MEMORY}")
    return InvalidInputError(str(error))


def _check_text(sql: object) -> None:
    if not isinstance(sql, str):
        raise InvalidInputError(f"The SQL must be a text, not {type(sql).__name__}: {sql!r:.80}.")
    try:
        sql.encode()
    except UnicodeEncodeError:
        raise InvalidInputError("The SQL holds a lone surrogate; remove it.") from None
    if "\0" in sql:
        raise InvalidInputError("The SQL holds a NUL character; remove it.")


def _check_names(tables: Mapping[str, Any]) -> None:
    for name in tables:
        if not isinstance(name, str) or not name or not name.isprintable():
            raise InvalidInputError(f"{name!r} cannot be the name of a table; use a plain word.")
    if len({fold(name) for name in tables}) < len(tables):
        raise InvalidInputError(
            f"The tables {', '.join(tables)} differ only in case; SQL takes them for one."
        )


def _judge(con: Any, sql: str, names: Collection[str]) -> None:
    kinds = [_kind(statement) for statement in con.extract_statements(sql)]  # its errors show the place
    if kinds != ["SELECT"]:
        raise refuse(f"it is {' and '.join(kinds) or 'empty'}")
    text = con.execute("SELECT json_serialize_sql(CAST(? AS VARCHAR))", [sql]).fetchall()[0][0]
    try:
        tree = json.loads(text)
    except RecursionError:
        raise refuse("it is nested too deeply") from None
    if tree["error"]:
        raise refuse(f"DuckDB says: {tree['error_message']}")
    admit(tree, names, _volatile())


def _kind(statement: Any) -> str:
    try:
        return str(statement.type.name)
    except ValueError:  # DuckDB 2.0 has more kinds than its Python module knows
        return "a statement of another kind"


@functools.cache
def _volatile() -> frozenset[str]:
    """Functions whose result depends on more than their arguments, as the installed DuckDB says."""
    con = _duckdb().connect(":memory:", config=_CONFIG)
    try:
        rows = con.execute(
            "SELECT DISTINCT lower(function_name) FROM duckdb_functions() "
            "WHERE has_side_effects OR stability <> 'CONSISTENT'"
        ).fetchall()
    finally:
        con.close()
    return frozenset(row[0] for row in rows) - CLOCK_AND_DICE


def _interruptible(con: Any, call: Callable[[], T]) -> T:
    """Run ``call`` in a thread, and interrupt it if this one is: DuckDB does not look for signals itself."""
    with ThreadPoolExecutor(1, thread_name_prefix="mltrack-sql") as pool:
        running = pool.submit(copy_context().run, call)
        try:
            while not wait([running], timeout=_LOOK).done:
                continue
        except BaseException:
            con.interrupt()
            raise
    return running.result()


def _fetch(con: Any, sql: str) -> Any:
    relation = con.sql(sql)
    kinds, names = [str(kind) for kind in relation.types], list(relation.columns)
    table = relation.to_arrow_table()
    columns = [
        _narrowed(column) if kind == "HUGEINT" else column
        for kind, column in zip(kinds, table.columns, strict=True)
    ]
    return pa.Table.from_arrays(columns, names=names)


def _narrowed(column: Any) -> Any:
    try:
        return column.cast(pa.int64())
    except pa.ArrowInvalid:
        return column
