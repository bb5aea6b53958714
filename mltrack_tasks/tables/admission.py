"""What SQL may say: one SELECT over the tables that it was given, and functions that only compute.

Judged by the tree that DuckDB itself makes of the text (``json_serialize_sql``): whatever is not known to be
harmless in FROM is refused there, as are functions that tell of the process around the query.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from mltrack_tasks.errors import InvalidInputError

TABLE_FUNCTIONS = frozenset(
    {"generate_series", "json_each", "json_tree", "range", "repeat", "repeat_row", "unnest"}
)
"""The functions allowed in FROM. Others read files, settings and catalogues, or run SQL out of a text."""

CLOCK_AND_DICE = frozenset(
    {
        *("current_date", "current_localtime", "current_localtimestamp", "get_current_time"),
        *("get_current_timestamp", "now", "today", "transaction_timestamp"),
        *("gen_random_uuid", "random", "uuid", "uuidv4", "uuidv7"),
    }
)
"""Functions that depend on more than their arguments, and yet tell nothing about where they run."""

_TELLING = re.compile(
    r"__internal_.*|combine|create_sort_key|current_(?!date|time|localtime).*|duckdb_.*|finalize|get_block_size"
    r"|getenv|getvariable|.*_privilege|histogram_values|in_search_path|index_key|inet_.*"
    r"|json_(de)?serialize_.*|json_execute_.*|.*_description|.*_duckdb_log_.*|pg_.*|pragma_.*|.*_scan"
    r"|query(_table)?|read_.*|session_user|.*setting.*|sleep.*|sniff_.*|stats|to_aggregate_state|txid_.*|user"
    r"|vector_type|which_secret|write_.*"
)
"""Functions that read settings, catalogues or the environment, wait, or take raw memory of DuckDB's."""

_QUERY_NODES = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"})
_TABLE_NODES = frozenset(
    {"BASE_TABLE", "EMPTY", "EXPRESSION_LIST", "JOIN", "PIVOT", "SHOW_REF", "SUBQUERY", "TABLE_FUNCTION"}
)


def admit(tree: Any, tables: Collection[str], refused: Collection[str]) -> None:
    """Admit a serialised statement that reads only ``tables``, or raise InvalidInputError.

    ``refused`` are functions that this DuckDB calls volatile, beside those that are refused by name.
    """
    statements = tree["statements"]
    if len(statements) != 1:
        raise refuse(f"it holds {len(statements)} statements")
    names = frozenset(fold(name) for name in tables)
    try:
        _Judge(names, frozenset(refused)).look(statements[0], frozenset())
    except RecursionError:
        raise refuse("it is nested too deeply") from None


def tells(function: str) -> bool:
    """Whether a function is refused by its name."""
    return _TELLING.fullmatch(function) is not None


@dataclass(frozen=True)
class _Judge:
    """Walks a tree. ``scope`` holds the names of the WITH clauses that can be seen from where it is."""

    tables: frozenset[str]
    refused: frozenset[str]

    def look(self, node: Any, scope: frozenset[str]) -> None:
        if isinstance(node, list):
            for item in node:
                self.look(item, scope)
        elif isinstance(node, Mapping):
            self._judge(node, scope)
            self._look_inside(node, scope)

    def _judge(self, node: Mapping[str, Any], scope: frozenset[str]) -> None:
        kind = node.get("type")
        if "function_name" in node:
            self._judge_function(node["function_name"])
        if "cte_map" in node and kind not in _QUERY_NODES:
            raise refuse(f"it has a part of the kind {kind}")
        if "sample" in node and "alias" in node and kind not in _TABLE_NODES:
            raise refuse(f"it reads from a {kind}")
        if kind == "TABLE_FUNCTION":
            self._judge_source(node["function"]["function_name"])
        elif "table_name" in node and (kind != "SHOW_REF" or node.get("query") is None):
            self._judge_table(node, scope)

    def _judge_function(self, name: str) -> None:
        if tells(fold(name)) or fold(name) in self.refused:
            raise refuse(f"the function {name} is not allowed: it does not only compute")

    def _judge_source(self, name: str) -> None:
        if fold(name) not in TABLE_FUNCTIONS:
            raise refuse(f"it reads from {name}(...)")

    def _judge_table(self, node: Mapping[str, Any], scope: frozenset[str]) -> None:
        path = node.get("qualified_name", {}).get("path", [node["table_name"]])
        name = _unquoted(node["table_name"]) if node["type"] == "SHOW_REF" else node["table_name"]
        qualified = node.get("schema_name") or node.get("catalog_name") or len(path) > 1
        if qualified or fold(name) not in self.tables | scope:
            raise refuse(f"it reads from {'.'.join(path) or name}", self.tables)

    def _look_inside(self, node: Mapping[str, Any], scope: frozenset[str]) -> None:
        """Walk down. A WITH clause sees those before it; only the recursive half of one sees itself."""
        inner = scope
        if "cte_map" in node:
            for entry in node["cte_map"]["map"]:
                self.look(entry["value"], inner)
                inner |= {fold(entry["key"])}
        for key, value in node.items():
            if key != "cte_map":
                recursive = node.get("type") == "RECURSIVE_CTE_NODE" and key == "right"
                self.look(value, inner | {fold(node["cte_name"])} if recursive else inner)


def _unquoted(name: str) -> str:
    """What stands between quotes, as DuckDB before 1.2 names the table of DESCRIBE."""
    return name[1:-1].replace('""', '"') if name[:1] == name[-1:] == '"' else name


def refuse(why: str, tables: Collection[str] = ()) -> InvalidInputError:
    """The error for SQL that wants what it may not."""
    given = f" ({', '.join(sorted(tables))})" if tables else ""
    return InvalidInputError(
        f"The SQL is refused: {why}. Allowed is one SELECT (also FROM, WITH, VALUES, DESCRIBE, SUMMARIZE, "
        f"UNPIVOT, PIVOT with its values IN (...)) over the tables given{given}, with functions that "
        f"compute, and in FROM {', '.join(sorted(TABLE_FUNCTIONS))}. Files, addresses, settings and "
        "extensions are out of reach."
    )


def fold(name: str) -> str:
    """Fold a name as DuckDB does: ASCII letters only. Python would also take the Kelvin sign for a k."""
    return name.translate(_LOWER)


_LOWER = str.maketrans({chr(code): chr(code + 32) for code in range(ord("A"), ord("Z") + 1)})
