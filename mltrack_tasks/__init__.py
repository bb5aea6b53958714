"""Prefect tasks that make an S3 bucket a content-addressed, deduplicated store of data and runs.

Importing this package imports nothing heavy: each name is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mltrack_tasks.arrivals.report import ArrivalReport as ArrivalReport
    from mltrack_tasks.blocks import MLTrackStore as MLTrackStore
    from mltrack_tasks.bucket.report import BucketReport as BucketReport
    from mltrack_tasks.bucket.settings import BucketSettings as BucketSettings
    from mltrack_tasks.caching import BY_DIGEST as BY_DIGEST
    from mltrack_tasks.captured import CapturedRun as CapturedRun
    from mltrack_tasks.capturing import capture as capture
    from mltrack_tasks.capturing import current_capture as current_capture
    from mltrack_tasks.checking.report import AccessReport as AccessReport
    from mltrack_tasks.collecting.collect import GarbageReport as GarbageReport
    from mltrack_tasks.collecting.migrations import RemovedMigration as RemovedMigration
    from mltrack_tasks.collecting.removalplans import RemovalReport as RemovalReport
    from mltrack_tasks.collecting.removing import RemovedRun as RemovedRun
    from mltrack_tasks.collecting.retaining import RetentionReport as RetentionReport
    from mltrack_tasks.collecting.retention import RetentionPolicy as RetentionPolicy
    from mltrack_tasks.collecting.undoing import UndoneCollection as UndoneCollection
    from mltrack_tasks.collecting.versions import RemovedVersion as RemovedVersion
    from mltrack_tasks.compaction import CompactionReport as CompactionReport
    from mltrack_tasks.errors import AccessError as AccessError
    from mltrack_tasks.errors import ArchivedError as ArchivedError
    from mltrack_tasks.errors import ConflictError as ConflictError
    from mltrack_tasks.errors import FormatError as FormatError
    from mltrack_tasks.errors import GateError as GateError
    from mltrack_tasks.errors import IntegrityError as IntegrityError
    from mltrack_tasks.errors import InvalidInputError as InvalidInputError
    from mltrack_tasks.errors import MLTrackError as MLTrackError
    from mltrack_tasks.errors import NotFoundError as NotFoundError
    from mltrack_tasks.errors import PartialTransferError as PartialTransferError
    from mltrack_tasks.errors import SourceChangedError as SourceChangedError
    from mltrack_tasks.errors import TransientError as TransientError
    from mltrack_tasks.granting import iam_policy as iam_policy
    from mltrack_tasks.lineage_graph import Lineage as Lineage
    from mltrack_tasks.migration.download import RestoreReport as RestoreReport
    from mltrack_tasks.migration.planning import Plan as Plan
    from mltrack_tasks.migration.report import MigrationReport as MigrationReport
    from mltrack_tasks.models import ModelVersion as ModelVersion
    from mltrack_tasks.pricing.figures import CostEstimate as CostEstimate
    from mltrack_tasks.promotions import Promotion as Promotion
    from mltrack_tasks.query import QueryResult as QueryResult
    from mltrack_tasks.receipts import Receipt as Receipt
    from mltrack_tasks.records import NamedData as NamedData
    from mltrack_tasks.records import RunManifest as RunManifest
    from mltrack_tasks.refs import DataRef as DataRef
    from mltrack_tasks.registry.listing import ModelSummary as ModelSummary
    from mltrack_tasks.replication.report import ReplicationReport as ReplicationReport
    from mltrack_tasks.restores import RestoredData as RestoredData
    from mltrack_tasks.tasks import apply_retention as apply_retention
    from mltrack_tasks.tasks import await_restore as await_restore
    from mltrack_tasks.tasks import check_access as check_access
    from mltrack_tasks.tasks import collect_garbage as collect_garbage
    from mltrack_tasks.tasks import compact_catalog as compact_catalog
    from mltrack_tasks.tasks import copy_model as copy_model
    from mltrack_tasks.tasks import data_usage_stats as data_usage_stats
    from mltrack_tasks.tasks import delete_local_batch as delete_local_batch
    from mltrack_tasks.tasks import deprecate_version as deprecate_version
    from mltrack_tasks.tasks import download_model as download_model
    from mltrack_tasks.tasks import end_replication as end_replication
    from mltrack_tasks.tasks import estimate_costs as estimate_costs
    from mltrack_tasks.tasks import find_existing as find_existing
    from mltrack_tasks.tasks import find_runs_by_data as find_runs_by_data
    from mltrack_tasks.tasks import finish_migration as finish_migration
    from mltrack_tasks.tasks import finish_restore as finish_restore
    from mltrack_tasks.tasks import forget_data as forget_data
    from mltrack_tasks.tasks import get_run as get_run
    from mltrack_tasks.tasks import heal_store as heal_store
    from mltrack_tasks.tasks import list_data as list_data
    from mltrack_tasks.tasks import list_models as list_models
    from mltrack_tasks.tasks import list_runs as list_runs
    from mltrack_tasks.tasks import load_model as load_model
    from mltrack_tasks.tasks import model_at as model_at
    from mltrack_tasks.tasks import model_history as model_history
    from mltrack_tasks.tasks import plan_manifests as plan_manifests
    from mltrack_tasks.tasks import plan_migration as plan_migration
    from mltrack_tasks.tasks import plan_restore as plan_restore
    from mltrack_tasks.tasks import process_new_data as process_new_data
    from mltrack_tasks.tasks import promote_model as promote_model
    from mltrack_tasks.tasks import provision_bucket as provision_bucket
    from mltrack_tasks.tasks import query_data as query_data
    from mltrack_tasks.tasks import query_runs as query_runs
    from mltrack_tasks.tasks import rebuild_views as rebuild_views
    from mltrack_tasks.tasks import register_model as register_model
    from mltrack_tasks.tasks import remove_alias as remove_alias
    from mltrack_tasks.tasks import remove_data as remove_data
    from mltrack_tasks.tasks import remove_migration as remove_migration
    from mltrack_tasks.tasks import remove_run as remove_run
    from mltrack_tasks.tasks import remove_runs as remove_runs
    from mltrack_tasks.tasks import remove_version as remove_version
    from mltrack_tasks.tasks import replicate_store as replicate_store
    from mltrack_tasks.tasks import resolve_model as resolve_model
    from mltrack_tasks.tasks import restore_batch as restore_batch
    from mltrack_tasks.tasks import restore_data as restore_data
    from mltrack_tasks.tasks import retrieve_data as retrieve_data
    from mltrack_tasks.tasks import retrieve_file as retrieve_file
    from mltrack_tasks.tasks import rollback_model as rollback_model
    from mltrack_tasks.tasks import scan_source as scan_source
    from mltrack_tasks.tasks import set_policy as set_policy
    from mltrack_tasks.tasks import store_data as store_data
    from mltrack_tasks.tasks import store_file as store_file
    from mltrack_tasks.tasks import store_run as store_run
    from mltrack_tasks.tasks import trace_lineage as trace_lineage
    from mltrack_tasks.tasks import undo_bucket_change as undo_bucket_change
    from mltrack_tasks.tasks import undo_collection as undo_collection
    from mltrack_tasks.tasks import upload_batch as upload_batch
    from mltrack_tasks.tasks import verify_batch as verify_batch
    from mltrack_tasks.tasks import verify_batches as verify_batches
    from mltrack_tasks.tasks import verify_store as verify_store
    from mltrack_tasks.tasks import write_manifests as write_manifests
    from mltrack_tasks.tasks import write_models as write_models
    from mltrack_tasks.transactions import promotion_transaction as promotion_transaction
    from mltrack_tasks.trust.findings import Finding as Finding
    from mltrack_tasks.trust.findings import VerifyReport as VerifyReport
    from mltrack_tasks.trust.healing import HealReport as HealReport
    from mltrack_tasks.usage_stats import UsageStats as UsageStats
    from mltrack_tasks.views import ViewReport as ViewReport

_HOMES = {
    "checking.report": ("AccessReport",),
    "arrivals.report": ("ArrivalReport",),
    "blocks": ("MLTrackStore",),
    "bucket.report": ("BucketReport",),
    "bucket.settings": ("BucketSettings",),
    "caching": ("BY_DIGEST",),
    "captured": ("CapturedRun",),
    "capturing": ("capture", "current_capture"),
    "collecting.collect": ("GarbageReport",),
    "collecting.migrations": ("RemovedMigration",),
    "collecting.removalplans": ("RemovalReport",),
    "collecting.removing": ("RemovedRun",),
    "collecting.retaining": ("RetentionReport",),
    "collecting.retention": ("RetentionPolicy",),
    "collecting.undoing": ("UndoneCollection",),
    "collecting.versions": ("RemovedVersion",),
    "compaction": ("CompactionReport",),
    "errors": (
        *("AccessError", "ArchivedError", "ConflictError", "FormatError", "GateError"),
        *("IntegrityError", "InvalidInputError", "MLTrackError", "NotFoundError", "PartialTransferError"),
        *("SourceChangedError", "TransientError"),
    ),
    "granting": ("iam_policy",),
    "lineage_graph": ("Lineage",),
    "migration.download": ("RestoreReport",),
    "migration.planning": ("Plan",),
    "migration.report": ("MigrationReport",),
    "models": ("ModelVersion",),
    "pricing.figures": ("CostEstimate",),
    "promotions": ("Promotion",),
    "query": ("QueryResult",),
    "registry.listing": ("ModelSummary",),
    "receipts": ("Receipt",),
    "records": ("NamedData", "RunManifest"),
    "refs": ("DataRef",),
    "replication.report": ("ReplicationReport",),
    "restores": ("RestoredData",),
    "tasks": (
        *("delete_local_batch", "find_existing", "finish_migration", "finish_restore", "plan_manifests"),
        *("plan_migration", "plan_restore", "restore_batch", "scan_source", "upload_batch"),
        *("verify_batch", "verify_batches", "write_manifests", "write_models"),
        *("verify_store", "heal_store", "collect_garbage", "remove_run", "apply_retention"),
        *("undo_collection", "end_replication", "replicate_store", "estimate_costs"),
        *("restore_data", "await_restore"),
        *("remove_data", "remove_migration", "remove_runs", "remove_version"),
        *("provision_bucket", "undo_bucket_change", "process_new_data"),
        *("check_access", "compact_catalog", "data_usage_stats", "find_runs_by_data", "forget_data"),
        *("get_run", "list_data", "list_runs", "query_data", "query_runs", "rebuild_views"),
        *("copy_model", "deprecate_version", "download_model", "list_models", "load_model"),
        *("model_at", "model_history"),
        *("promote_model", "register_model", "remove_alias", "resolve_model", "rollback_model", "set_policy"),
        *("retrieve_data", "retrieve_file", "store_data", "store_file", "store_run", "trace_lineage"),
    ),
    "transactions": ("promotion_transaction",),
    "trust.findings": ("Finding", "VerifyReport"),
    "trust.healing": ("HealReport",),
    "usage_stats": ("UsageStats",),
    "views": ("ViewReport",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME_OF})
