"""Rows of a database that any version of MLflow may have written, ordered so that one pass joins them.

Every value may be of any type, because SQLite lets it; who uses a row admits its values. Only ordinary tables
are read: a view or a virtual table may compute without end.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

from mltrack_tasks.errors import IntegrityError
from mltrack_tasks.mlflowdata import scalars

Row = tuple[Any, ...]


class Tables:
    """The ordinary tables of an open database."""

    def __init__(self, connection: sqlite3.Connection, name: str) -> None:
        self._connection = connection
        self._name = name
        self._columns: dict[str, frozenset[str]] = {}
        plain = "SELECT name FROM sqlite_master WHERE type = 'table' AND rootpage > 0"
        for (table,) in self._execute(plain):
            self._columns[table] = frozenset()

    def has(self, *tables: str) -> bool:
        """Tell whether all these tables are there."""
        return all(table in self._columns for table in tables)

    def rows(
        self, table: str, columns: Sequence[str], *, order: Sequence[str] = (), where: str = ""
    ) -> Iterator[Row]:
        """Read a table; a column that it lacks is None throughout, a table that is not there has no rows.

        The first column is the key: rows where it is no text or number are left out.
        """
        if table not in self._columns:
            return
        there = self._columns_of(table)
        if columns[0] not in there:
            raise IntegrityError(f"{self._name} has a table {table} without the column {columns[0]}.")
        chosen = ", ".join(f'"{column}"' if column in there else "NULL" for column in columns)
        kept = f"typeof(\"{columns[0]}\") IN ('text', 'integer')" + (f" AND {where}" if where else "")
        by = ", ".join(f'"{column}" COLLATE BINARY' for column in (columns[0], *order) if column in there)
        yield from self._execute(f'SELECT {chosen} FROM "{table}" WHERE {kept} ORDER BY {by}')

    def find(self, table: str, columns: Sequence[str], key: str, value: object) -> list[Row]:
        """Read the rows of a table that have a value in a column."""
        if table not in self._columns or key not in self._columns_of(table):
            return []
        there = self._columns_of(table)
        chosen = ", ".join(f'"{column}"' if column in there else "NULL" for column in columns)
        return list(self._execute(f'SELECT {chosen} FROM "{table}" WHERE "{key}" = ?', value))

    def _columns_of(self, table: str) -> frozenset[str]:
        if not self._columns[table]:
            names = self._execute("SELECT name FROM pragma_table_info(?)", table)
            self._columns[table] = frozenset(name for (name,) in names)
        return self._columns[table]

    def _execute(self, sql: str, *values: object) -> Iterator[Row]:
        try:
            # Not `yield from`: that closes the cursor of a reader that was given up, after the database.
            for row in self._connection.execute(sql, values):  # noqa: UP028
                yield row
        except sqlite3.Error as error:
            raise IntegrityError(f"{self._name} cannot be read as a database: {error}") from error


class Grouped:
    """Rows that are ordered by their first column, handed out key by key in one pass."""

    def __init__(self, rows: Iterator[Row], what: str) -> None:
        self._groups = groupby(rows, key=itemgetter(0))
        self._what = what
        self._next: tuple[Any, Iterator[Row]] | None = None
        self._advance()

    def take(self, key: str | int) -> list[Row]:
        """Rows of a key, without it. Keys are asked for in order; rows of those passed over are left out."""
        while self._next is not None and _before(self._next[0], key):
            self._advance()
        if self._next is None or self._next[0] != key:
            return []
        rows = [row[1:] for row in self._next[1]]
        self._advance()
        return rows

    def _advance(self) -> None:
        before = self._next
        self._next = next(self._groups, None)
        if before is not None and self._next is not None and not _before(before[0], self._next[0]):
            raise IntegrityError(f"{self._what}: rows are out of order; an index of the database is damaged.")


def by_first(rows: Iterable[Row]) -> dict[Any, list[Row]]:
    """First values of rows -> the rest of those that have it."""
    found: dict[Any, list[Row]] = {}
    for first, *rest in rows:
        found.setdefault(first, []).append(tuple(rest))
    return found


def _before(left: str | int, right: str | int) -> bool:
    """Compare as SQLite does: numbers go before texts, and texts by their bytes."""
    if isinstance(left, str) and isinstance(right, str):
        return left.encode("utf-8", "surrogateescape") < right.encode("utf-8", "surrogateescape")
    if isinstance(left, int) and isinstance(right, int):
        return left < right
    return isinstance(left, int)


def pairs(rows: Sequence[Row], what: str) -> dict[str, str]:
    """Rows of key and value -> mapping; a value that is not there is empty text."""
    return {
        scalars.text(key, what): "" if value is None else scalars.text(value, f"{what} {key!r}")
        for key, value in rows
    }
