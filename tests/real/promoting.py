"""Promotions in processes of their own, which race or are killed. Imports little: there are many."""

from __future__ import annotations

from typing import Any

from mltrack_tasks.events import Event
from mltrack_tasks.registry import promote_model
from mltrack_tasks.stores import open_s3
from mltrack_tasks.stores.s3_settings import S3Settings

MODEL = "churn"
_start: Any


def prepare(start: Any) -> None:
    """Keep the barrier that lets all processes go at once."""
    global _start
    _start = start


def promote(settings: S3Settings, version: str) -> None:
    promote_model(open_s3(settings), MODEL, version, observe=_quiet)


def promote_often(settings: S3Settings, version: str, times: int) -> list[tuple[int, str | None]]:
    """Promote one version, again and again, at the same moment as others -> what was appended."""
    store = open_s3(settings)
    _start.wait(120)
    done = [promote_model(store, MODEL, version, observe=_quiet) for _ in range(times)]
    return [(event.number, event.version) for event in done if event.created]


def _quiet(event: Event) -> None:
    """What happened is read from the store."""
