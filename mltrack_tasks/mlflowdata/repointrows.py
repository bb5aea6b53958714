"""Addresses of artifacts in an MLflow database, for the folder where its artifacts lie now.

The same rules as for files: an address that ends in the place of its own run or model tells where the
artifacts lay, if they are in the tree; what else lay there follows it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from mltrack_tasks.errors import IntegrityError
from mltrack_tasks.mlflowdata.addresses import (
    ARTIFACTS,
    MAX_LENGTH,
    Bases,
    Segments,
    base_of,
    moved,
    read_address,
)
from mltrack_tasks.mlflowdata.repointing import VERSION_FIELDS
from mltrack_tasks.mlflowdata.treelayout import MODELS, TreeLayout

_OWNERS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("experiments", "artifact_location", ("experiment_id",)),
    ("runs", "artifact_uri", ("experiment_id", "run_uuid")),
    ("logged_models", "artifact_location", ("experiment_id", "model_id")),
)
"""Table, column of the address, and columns that say whose it is."""
_ROW = "_rowid_"
_MAX_VALUE = 64 << 20

Update = tuple[str, str, int, str]
"""Table, column, row, new address."""


def repoint_database(path: Path, found: TreeLayout, root: Path) -> int:
    """Re-point the addresses in a database that nobody else has open, in one transaction -> rows changed.

    A table that is absent, or no plain one, or that has triggers, is left as it is: MLflow's have none.
    ``found`` is the layout of the tree below ``root``, which is absolute. Raises IntegrityError if the file
    is no database or damaged; then nothing is changed.
    """
    try:
        uri = f"{path.absolute().as_uri()}?mode=rw"
        with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as connection:
            _restrict(connection)
            tables = _Tables(connection)
            updates = list(_updates(tables, found, root))
            if updates:
                connection.execute("BEGIN IMMEDIATE")
                for table, column, row, address in updates:
                    change = f'UPDATE "{table}" SET "{column}" = ? WHERE {_ROW} = ?'
                    connection.execute(change, (address, row))
                connection.execute("COMMIT")
    except sqlite3.Error as error:
        raise IntegrityError(f"{path} cannot be read and changed as a database: {error}.") from error
    return len({(table, row) for table, _, row, _ in updates})


def _restrict(connection: sqlite3.Connection) -> None:
    """Deny what a made-up schema could do: call functions, map the file, cascade, fill the memory."""
    for pragma in ("trusted_schema = OFF", "cell_size_check = ON", "mmap_size = 0", "foreign_keys = OFF"):
        connection.execute(f"PRAGMA {pragma}")
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_VALUE)
    connection.text_factory = lambda data: data.decode("utf-8", "surrogateescape")


class _Tables:
    """Ordinary tables without triggers."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        plain = "SELECT name FROM sqlite_master WHERE type = 'table' AND rootpage > 0"
        triggered = "SELECT lower(tbl_name) FROM sqlite_master WHERE type = 'trigger'"
        self._names = {name for (name,) in connection.execute(plain)}
        self._names -= {name for (name,) in connection.execute(triggered)}

    def rows(self, table: str, column: str, others: tuple[str, ...]) -> Iterator[tuple[Any, ...]]:
        """Read row number, address and other columns of rows whose address may be one."""
        if table not in self._names:
            return
        columns = self._connection.execute("SELECT name FROM pragma_table_info(?)", (table,))
        there = {name for (name,) in columns}
        if not there.issuperset((column, *others)):
            return
        chosen = ", ".join(f'"{name}"' for name in (column, *others))
        yield from self._connection.execute(
            f'SELECT {_ROW}, {chosen} FROM "{table}" '
            f'WHERE typeof("{column}") = \'text\' AND length("{column}") <= {MAX_LENGTH}'
        )


def _updates(tables: _Tables, found: TreeLayout, root: Path) -> Iterator[Update]:
    places, bases = _places(found), Bases()
    for table, column, keys in _OWNERS[1:]:
        for _, text, *ids in tables.rows(table, column, keys):
            place = _place(table, ids)
            base = base_of(read_address(text), place)
            if base is not None and place in places:
                bases.learn(base, places[place])
    for table, column, keys in _OWNERS:
        for row, text, *ids in tables.rows(table, column, keys):
            place = _place(table, ids)
            new = _moved(text, place, bases, places, root)
            if new is not None:
                yield table, column, row, new
    for column in VERSION_FIELDS:
        for row, text in tables.rows("model_versions", column, ()):
            new = bases.moved(text, root)
            if new is not None:
                yield "model_versions", column, row, new


def _place(table: str, ids: list[Any]) -> Segments:
    """Where in the store something of a table lies."""
    names = tuple(str(each) for each in ids)
    if table == "experiments":
        return names
    return (*names, ARTIFACTS) if table == "runs" else (names[0], MODELS, names[1], ARTIFACTS)


def _moved(
    text: object, place: Segments, bases: Bases, places: Mapping[Segments, set[str]], root: Path
) -> str | None:
    address = read_address(text)
    base = base_of(address, place)
    folder = bases.folder_of(base, places.get(place, ()))
    if address is None or folder is None:
        return None
    return moved(address, root, (folder, *place))


def _places(found: TreeLayout) -> dict[Segments, set[str]]:
    """Place of artifacts in a store -> the folders of the tree where a store has this place."""
    places: dict[Segments, set[str]] = {}
    owned = (folder for store in found.stores for folder in (*store.runs, *store.logged_models))
    for folder in (*found.bare_artifacts, *(f"{each}/{ARTIFACTS}" for each in owned)):
        segments = tuple(folder.split("/"))
        length = 4 if segments[-3:-2] == (MODELS,) else 3
        places.setdefault(segments[-length:], set()).add("/".join(segments[:-length]))
    return places
