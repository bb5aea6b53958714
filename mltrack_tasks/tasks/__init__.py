"""The catalogue of tasks: the plain functions of the library under Prefect, one each.

Every task takes ``store`` last: a block, a block's name, ``s3://bucket/prefix``, a directory, or None for
what the surroundings name (see ``resolve``). Tasks that store give refs: hand those from task to task, and
not the data behind them.
"""

from __future__ import annotations

from mltrack_tasks.tasks.admin import check_access
from mltrack_tasks.tasks.archives import await_restore, restore_data
from mltrack_tasks.tasks.arrivals import process_new_data
from mltrack_tasks.tasks.bucket import provision_bucket, undo_bucket_change
from mltrack_tasks.tasks.cleaning import apply_retention, collect_garbage, undo_collection
from mltrack_tasks.tasks.costs import estimate_costs
from mltrack_tasks.tasks.data import (
    forget_data,
    list_data,
    retrieve_data,
    retrieve_file,
    store_data,
    store_file,
)
from mltrack_tasks.tasks.migration import (
    delete_local_batch,
    find_existing,
    finish_migration,
    finish_restore,
    plan_manifests,
    plan_migration,
    plan_restore,
    restore_batch,
    scan_source,
    upload_batch,
    verify_batch,
    verify_batches,
    write_manifests,
    write_models,
)
from mltrack_tasks.tasks.registry import (
    copy_model,
    deprecate_version,
    download_model,
    list_models,
    load_model,
    model_at,
    model_history,
    promote_model,
    register_model,
    remove_alias,
    resolve_model,
    rollback_model,
    set_policy,
)
from mltrack_tasks.tasks.removing import (
    remove_data,
    remove_migration,
    remove_run,
    remove_runs,
    remove_version,
)
from mltrack_tasks.tasks.replication import end_replication, replicate_store
from mltrack_tasks.tasks.runs import find_runs_by_data, get_run, list_runs, rebuild_views, store_run
from mltrack_tasks.tasks.search import (
    compact_catalog,
    data_usage_stats,
    query_data,
    query_runs,
    trace_lineage,
)
from mltrack_tasks.tasks.trust import heal_store, verify_store

__all__ = [
    "apply_retention",
    "await_restore",
    "check_access",
    "collect_garbage",
    "compact_catalog",
    "copy_model",
    "data_usage_stats",
    "delete_local_batch",
    "deprecate_version",
    "download_model",
    "end_replication",
    "estimate_costs",
    "find_existing",
    "find_runs_by_data",
    "finish_migration",
    "finish_restore",
    "forget_data",
    "get_run",
    "heal_store",
    "list_data",
    "list_models",
    "list_runs",
    "load_model",
    "model_at",
    "model_history",
    "plan_manifests",
    "plan_migration",
    "plan_restore",
    "process_new_data",
    "promote_model",
    "provision_bucket",
    "query_data",
    "query_runs",
    "rebuild_views",
    "register_model",
    "remove_alias",
    "remove_data",
    "remove_migration",
    "remove_run",
    "remove_runs",
    "remove_version",
    "replicate_store",
    "resolve_model",
    "restore_batch",
    "restore_data",
    "retrieve_data",
    "retrieve_file",
    "rollback_model",
    "scan_source",
    "set_policy",
    "store_data",
    "store_file",
    "store_run",
    "trace_lineage",
    "undo_bucket_change",
    "undo_collection",
    "upload_batch",
    "verify_batch",
    "verify_batches",
    "verify_store",
    "write_manifests",
    "write_models",
]
