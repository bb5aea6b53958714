"""MLflow's registered models on a real server: migrated by processes that are killed, and promoted once."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mltrack_tasks.digest import sha256_hex
from mltrack_tasks.registry import model_history, resolve_model
from mltrack_tasks.stores import open_s3
from mltrack_tasks.stores.observed import CountingStore
from mltrack_tasks.stores.s3_settings import S3Settings
from mltrack_tasks.testing import RawS3
from tests.floor3.migrationtrees import kept, migrate, restored, small_registry
from tests.real.test_real_migration import WORKERS, start
from tests.servers.faultproxy import Fault, FaultProxy, Request

KILLS = 8


def test_killed_at_random_moments_each_alias_is_given_once(
    fresh: Callable[..., S3Settings], client: Any, proxy: FaultProxy, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setenv("MLTRACK_CACHE_DIR", str(tmp_path / "cache"))
    tree, randomness = small_registry(tmp_path / "tree"), random.Random(7)

    def attempt(settings: S3Settings, moment: int) -> int:
        born, child = threading.Event(), None

        def kill(request: Request) -> None:
            born.wait(60)
            os.kill(child.pid, signal.SIGKILL)  # type: ignore[union-attr]

        proxy.clear()
        if moment:
            proxy.script(Fault("custom", after=moment - 1, action=kill))
        child = start(settings, tree, tmp_path / "cache of children")
        born.set()
        child.join(120)
        assert child.exitcode in (0, -signal.SIGKILL)
        return int(child.exitcode or 0)

    settings = fresh(endpoint_url=proxy.url, max_workers=WORKERS)
    assert attempt(settings, 0) == 0
    requests = len(proxy.requests)
    killed = 0
    while killed < KILLS:
        settings = fresh(endpoint_url=proxy.url, max_workers=WORKERS)
        while killed < KILLS and attempt(settings, randomness.randint(requests // 3, requests)):
            killed += 1
        assert attempt(settings, 0) == 0
        _check(settings, client)
    proxy.clear()
    counted = CountingStore(open_s3(settings))
    assert migrate(counted, tree).unchanged
    assert counted.requests == 3
    assert restored(counted) == kept(tree)


def _check(settings: S3Settings, client: Any) -> None:
    """Both aliases have one event, and stand for folders that hold the very files."""
    store, raw = open_s3(settings), RawS3(client, settings.bucket, settings.prefix)
    for alias, number in (("champion", "2"), ("staging", "1")):
        assert len(model_history(store, "churn", alias)) == 1
        version = resolve_model(store, "churn", alias)
        assert version.tags["mlflow.version"] == number
        assert version.source_runs == ("a" * 32,) or not version.source_runs
        for file in version.files:
            body = raw.get(f"models/registry/churn/{version.version}/{file.path}")
            assert sha256_hex(body or b"") == file.digest
