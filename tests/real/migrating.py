"""A migration in a process of its own, which the tests end when they like. Imports little: there are many."""

from __future__ import annotations

import os
import signal
from types import FrameType

from mltrack_tasks import plan
from mltrack_tasks.events import Event
from mltrack_tasks.migration import migrate_to_s3
from mltrack_tasks.stores import open_s3
from mltrack_tasks.stores.s3_settings import S3Settings

NAME = "nightly"
TERMINATED = 143


def run(settings: S3Settings, root: str, cache: str) -> None:
    """Migrate in small batches. SIGTERM ends the main thread by an exception, as in a run of Prefect."""
    signal.signal(signal.SIGTERM, _end)
    os.environ["MLTRACK_CACHE_DIR"] = cache
    plan.BATCH_FILES = 25
    migrate_to_s3(open_s3(settings), root, name=NAME, observe=_quiet)


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(TERMINATED)


def _quiet(event: Event) -> None:
    """What happens on the way is seen at the proxy."""
