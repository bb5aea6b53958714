"""Folders of this machine into a store and back: the steps, and all of them as one call."""

from __future__ import annotations

from mltrack_tasks.migration.deletion import delete_local_batch
from mltrack_tasks.migration.download import (
    download_from_s3,
    finish_restore,
    plan_restore,
    report_restore,
    restore_batch,
)
from mltrack_tasks.migration.existing import find_existing
from mltrack_tasks.migration.finishing import finish_migration
from mltrack_tasks.migration.migrate import migrate_to_s3
from mltrack_tasks.migration.modelwriting import write_models
from mltrack_tasks.migration.planning import plan_migration
from mltrack_tasks.migration.report import report_migration
from mltrack_tasks.migration.runmanifests import write_manifests
from mltrack_tasks.migration.runplan import plan_manifests
from mltrack_tasks.migration.scan import scan_source
from mltrack_tasks.migration.uploading import upload_batch
from mltrack_tasks.migration.verification import verify_batch, verify_batches

__all__ = [
    "delete_local_batch",
    "download_from_s3",
    "find_existing",
    "finish_migration",
    "finish_restore",
    "migrate_to_s3",
    "plan_manifests",
    "plan_migration",
    "plan_restore",
    "report_migration",
    "report_restore",
    "restore_batch",
    "scan_source",
    "upload_batch",
    "verify_batch",
    "verify_batches",
    "write_manifests",
    "write_models",
]
