"""A replication in a process of its own, which is killed. Imports little: there are many."""

from __future__ import annotations

from mltrack_tasks.errors import PartialTransferError
from mltrack_tasks.events import Event
from mltrack_tasks.replication.replicate import replicate_store
from mltrack_tasks.stores import open_s3
from mltrack_tasks.stores.s3_settings import S3Settings

INCOMPLETE = 3


def run(source: S3Settings, target: S3Settings) -> None:
    """Replicate; exits with INCOMPLETE where something could not be copied."""
    try:
        replicate_store(open_s3(source), open_s3(target), observe=_quiet)
    except PartialTransferError as error:
        raise SystemExit(INCOMPLETE) from error


def _quiet(event: Event) -> None:
    """What happened is read from the store."""
