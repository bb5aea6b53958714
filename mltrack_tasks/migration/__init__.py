"""Folders of this machine into a store and back."""

from __future__ import annotations

from mltrack_tasks.migration.download import download_from_s3
from mltrack_tasks.migration.migrate import migrate_to_s3

__all__ = ["download_from_s3", "migrate_to_s3"]
