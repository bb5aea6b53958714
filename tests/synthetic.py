"""Runs made by arithmetic, written as a store's writers write them, without the data behind them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial

from mltrack_tasks.manifests import write_manifest
from mltrack_tasks.parallel import map_ordered
from mltrack_tasks.records import RunManifest
from mltrack_tasks.refs import DataRef
from mltrack_tasks.stores.base import Store

_START = datetime(2024, 1, 1, tzinfo=UTC)
PROJECTS = ("churn", "fraud", "pricing", "vision")


def make_run(number: int, project: str | None = None) -> RunManifest:
    """Make the manifest of run ``number``: 8 params, 6 metrics, 2 tags, an inlined dict, 3 refs."""
    return RunManifest(
        run_id=f"run_{number:06d}",
        run_type=("experiment", "production")[number % 2],
        storage_modes=("by_project",),
        project=PROJECTS[number % len(PROJECTS)] if project is None else project,
        model=f"model_{number % 7}",
        data={"train_data": make_ref(number % 50), "test_data": make_ref(1_000 + number % 50)},
        outputs={"predictions": make_ref(10_000 + number)},
        values={"metrics": {"accuracy": number % 1_000 / 1_000, "f1": number % 997 / 997}},
        params={"max_depth": number % 12, "rate": 0.1 / (1 + number % 5), "booster": "gbtree"}
        | {f"p{index}": index * number % 31 for index in range(5)},
        metrics={f"m{index}": (number * (index + 3) % 1_009) / 1_009 for index in range(5)}
        | {"loss": 1 / (1 + number)},
        tags={"author": "data-science-team", "version": f"1.{number % 10}"},
        started_at=_START + timedelta(minutes=number),
        ended_at=_START + timedelta(minutes=number + 3),
    )


def make_ref(number: int) -> DataRef:
    """Make a ref to a blob that nobody wrote."""
    digest = f"{number:064x}"
    return DataRef(digest, "parquet", 1_000 + number, f"data/{digest[:2]}/{digest}/data.parquet")


def write_runs(store: Store, manifests: Sequence[RunManifest], workers: int = 16) -> None:
    """Write manifests with log entries and views, as ``store_run`` does once the data is there."""
    write = partial(write_manifest, store, revise=False, observe=lambda event: None)
    for _ in map_ordered(write, manifests, workers):
        pass
