"""The catalogue of tasks: the plain functions of the library under Prefect, one each.

Every task takes ``store`` last: a block, a block's name, ``s3://bucket/prefix``, a directory, or None for
what the surroundings name (see ``resolve``). Tasks that store give refs: hand those from task to task, and
not the data behind them.
"""

from __future__ import annotations

from mltrack_tasks.tasks.admin import check_access
from mltrack_tasks.tasks.data import (
    forget_data,
    list_data,
    retrieve_data,
    retrieve_file,
    store_data,
    store_file,
)
from mltrack_tasks.tasks.runs import find_runs_by_data, get_run, list_runs, rebuild_views, store_run
from mltrack_tasks.tasks.search import (
    compact_catalog,
    data_usage_stats,
    query_data,
    query_runs,
    trace_lineage,
)

__all__ = [
    "check_access",
    "compact_catalog",
    "data_usage_stats",
    "find_runs_by_data",
    "forget_data",
    "get_run",
    "list_data",
    "list_runs",
    "query_data",
    "query_runs",
    "rebuild_views",
    "retrieve_data",
    "retrieve_file",
    "store_data",
    "store_file",
    "store_run",
    "trace_lineage",
]
