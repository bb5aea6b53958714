"""Replications on a real server that are killed at random moments, of a source with a corrupt blob."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mltrack_tasks.content import store_data
from mltrack_tasks.replication.replicate import replicate_store
from mltrack_tasks.runs import store_run
from mltrack_tasks.stores import Store, open_s3
from mltrack_tasks.stores.s3_settings import S3Settings
from mltrack_tasks.testing import RawS3
from mltrack_tasks.trust.verify import verify_store
from tests.floor3.test_replication import _check_whole, content
from tests.floor3.test_roots import fill
from tests.real import replicating
from tests.real.collecting import quiet
from tests.real.replicating import INCOMPLETE
from tests.servers.faultproxy import Fault, FaultProxy, Request

KILLS = 6


@pytest.mark.timeout(300)
def test_killed_at_random_moments_and_resumed_ends_equal(
    fresh: Callable[..., S3Settings],
    settings: S3Settings,
    store: Store,
    raw: RawS3,
    proxy: FaultProxy,
    tmp_path: Path,
    client: Any,
) -> None:
    """Whole after each kill, without the corrupt blob and its record; equal once that is mended."""
    fill(store, tmp_path)
    ref = store_data(store, [{"id": number} for number in range(99)], "packed", compress="zstd")
    store_run(store, "of a corrupt blob", {"d": ref}, storage_mode="flat")
    body = raw.get(ref.storage_path) or b""
    raw.put(ref.storage_path, body[:-1] + bytes([body[-1] ^ 1]))
    randomness, child, born = random.Random(3), None, threading.Event()

    def kill(request: Request) -> None:
        born.wait(60)
        os.kill(child.pid, signal.SIGKILL)  # type: ignore[union-attr]

    def attempt(target: S3Settings, moment: int) -> int:
        nonlocal child
        proxy.clear()
        proxy.forget()
        born.clear()
        if moment:
            proxy.script(Fault("custom", after=moment - 1, action=kill))
        child = context.Process(target=replicating.run, args=(settings, target))
        child.start()
        born.set()
        child.join(120)
        return int(child.exitcode or 0)

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pytest", "tests.real.replicating"])
    through = {"endpoint_url": proxy.url, "max_workers": 4}
    assert attempt(fresh(**through), 0) == INCOMPLETE
    requests, killed, resumed = len(proxy.requests), 0, 0
    while killed < KILLS:
        target = fresh(**through)
        direct = open_s3(replace(target, endpoint_url=settings.endpoint_url))
        while killed < KILLS:
            # Somewhere on the whole way at first, then earlier: what is left gets less.
            moment = randomness.randint(requests // 4, requests) // (1 + resumed % 3)
            ended = attempt(target, max(moment, 1))
            _require_nothing_corrupt(direct, ref.hash)
            if ended != -signal.SIGKILL:
                assert ended == INCOMPLETE
                break
            killed, resumed = killed + 1, resumed + 1
            _check_whole(direct)
    assert attempt(target, 0) == INCOMPLETE
    _require_nothing_corrupt(direct, ref.hash)
    lacking = content(store).keys() - content(direct).keys()
    assert "manifests/of%20a%20corrupt%20blob.json" in lacking
    parts = (ref.hash, "packed", "corrupt", "migrations/")  # a migration follows all runs
    others = [key for key in lacking if not any(part in key for part in parts)]
    assert others == []
    raw.put(ref.storage_path, body)
    assert attempt(target, 0) == 0
    assert content(direct) == content(store)
    assert verify_store(direct, level="read", observe=quiet).ok
    assert replicate_store(store, direct, observe=quiet).missing_blobs == 0
    print(f"killed {killed} times within {requests} requests")


def _require_nothing_corrupt(replica: Store, digest: str) -> None:
    """Neither the corrupt blob, nor a record that names it."""
    for key, body in content(replica).items():
        assert not key.endswith((".zst", "corrupt%20blob.json")), key
        assert not key.startswith(("names/packed/", "manifests/of")), key
        assert key.startswith(("data/", "runs/")) or digest.encode() not in body, key
