"""Migrations to a real server that are killed, cancelled, refused, or have a bad network."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import re
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mltrack_tasks import plan
from mltrack_tasks.digest import sha256_hex
from mltrack_tasks.errors import IntegrityError, PartialTransferError
from mltrack_tasks.migration import download_from_s3, migrate_to_s3
from mltrack_tasks.stores import Store, open_s3
from mltrack_tasks.stores.s3_settings import S3Settings
from mltrack_tasks.testing import RawS3
from tests.floor2.localtrees import SECOND, seen
from tests.floor3 import invariants
from tests.real import migrating
from tests.real.migrating import NAME, TERMINATED
from tests.servers.faultproxy import Answer, Fault, FaultProxy, Record, Request

KILLS, WORKERS = 20, 4
DENIED = Answer(403, "AccessDenied")
Tree = list[tuple[Any, ...]]


@pytest.fixture(autouse=True)
def small_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLTRACK_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(plan, "BATCH_FILES", 25)


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine runs of files that go into manifests, packs and blobs of their own; one is hashed when sent."""
    root, randomness = tmp_path_factory.mktemp("source"), random.Random(5)
    for run in range(9):
        (root / f"run {run}" / "sub").mkdir(parents=True)
        for number, size in enumerate((0, 100, 4_000, 5_000, 9_000, 33_000, 40_000, 50_000)):
            file = root / f"run {run}" / ("sub" if number % 2 else ".") / f"file {number}"
            file.write_bytes(randomness.randbytes(size))
            os.utime(file, ns=(SECOND * 10**9, SECOND * 10**9 + number))
    (root / "large").write_bytes(randomness.randbytes(1_500_000))
    (root / "run 0" / "link").symlink_to("sub/file 1")
    return root


@pytest.fixture
def through(settings: S3Settings, proxy: FaultProxy) -> S3Settings:
    """The prefix of ``store``, through the proxy, with few requests at a time."""
    return replace(settings, endpoint_url=proxy.url, max_workers=WORKERS)


def start(settings: S3Settings, root: Path, cache: Path) -> Any:
    """Start a migration in a process of its own."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pytest", "tests.real.migrating"])
    child = context.Process(target=migrating.run, args=(settings, str(root), str(cache)))
    child.start()
    return child


def restored(store: Store, to: Path) -> Tree:
    download_from_s3(store, to, observe=lambda event: None)
    return seen(to)


def contents(raw: RawS3) -> dict[str, Any]:
    """What is stored, but for when, where and by whom; the days of the log are left out."""
    return {
        re.sub(r"^runs/log/[^/]+/", "runs/log/", key): _without_origin(key, raw.get(key) or b"")
        for key in raw.list()
    }


def _without_origin(key: str, body: bytes) -> Any:
    if key.startswith(("manifests/", "migrations/")):
        record = json.loads(body)
        return {"format": record["format"], "content": record["content"]}
    return None if key == "format.json" else body


def accepted(records: Sequence[Record]) -> list[str]:
    """Keys that the server took, as often as it did."""
    puts = [record for record in records if record.method == "PUT"]
    return [record.path for record in puts if (record.backend_status or 0) // 100 == 2]


def test_killed_at_random_moments(
    fresh: Callable[..., S3Settings], client: Any, proxy: FaultProxy, root: Path, tmp_path: Path
) -> None:
    """What kill -9 interrupts the same call ends; nothing is sent twice, and all is as undisturbed."""
    randomness = random.Random(20)

    def attempt(settings: S3Settings, moment: int, cache: Path) -> bool:
        """Migrate in a process that is killed as its ``moment``-th request arrives -> whether that came."""
        born, child = threading.Event(), None

        def kill(request: Request) -> None:
            born.wait(60)
            os.kill(child.pid, signal.SIGKILL)  # type: ignore[union-attr]

        proxy.clear()
        if moment:
            proxy.script(Fault("custom", after=moment - 1, action=kill))
        child = start(settings, root, cache)
        born.set()
        child.join(120)
        assert child.exitcode in ((0, -signal.SIGKILL) if moment else (0,))
        return bool(child.exitcode)

    def prepare(number: int) -> tuple[S3Settings, RawS3, Path]:
        proxy.forget()
        settings = fresh(endpoint_url=proxy.url, max_workers=WORKERS)
        return settings, RawS3(client, settings.bucket, settings.prefix), tmp_path / f"cache {number}"

    settings, raw, cache = prepare(0)
    assert not attempt(settings, 0, cache)
    undisturbed, requests, puts = contents(raw), len(proxy.requests), len(accepted(proxy.requests))
    kills = rounds = 0
    while kills < KILLS:
        rounds += 1
        settings, raw, cache = prepare(rounds)
        before = kills
        while kills < KILLS and attempt(settings, randomness.randint(1, requests), cache):
            kills += 1
        assert not attempt(settings, 0, cache)
        sent = accepted(proxy.requests)
        assert len(sent) == len(set(sent))
        assert puts <= len(sent) <= puts + WORKERS * (kills - before)
        assert contents(raw) == undisturbed
    proxy.clear()
    assert restored(open_s3(settings), tmp_path / "back") == seen(root)


def test_a_bad_network(
    through: S3Settings, store: Store, raw: RawS3, proxy: FaultProxy, root: Path, tmp_path: Path
) -> None:
    """Of a hundred requests five are refused, reset, cut short or slow, there and back again."""
    randomness = random.Random(5)

    def now_and_then(request: Request) -> bool:
        return randomness.random() < 0.0125

    for kind in ("status503", "reset", "truncate", "delay"):
        proxy.script(Fault(kind, times=None, where=now_and_then, seconds=1.0))  # type: ignore[arg-type]
    shaky = open_s3(through)
    report = migrate_to_s3(shaky, root, name=NAME, observe=lambda event: None)
    assert not report.failed
    assert restored(shaky, tmp_path / "back") == seen(root)
    faults = [record.fault for record in proxy.requests if record.fault]
    assert len(faults) >= 3, len(proxy.requests)
    for key in invariants.blobs(store):
        assert sha256_hex(raw.get(key) or b"") == key.split("/")[2]
    assert restored(store, tmp_path / "again") == seen(root)


@pytest.mark.parametrize("after", [0, 7, 25, 40])
def test_a_bucket_that_denies_writing_halfway(
    through: S3Settings, proxy: FaultProxy, root: Path, tmp_path: Path, after: int
) -> None:
    there = seen(root)
    proxy.script(Fault("answer", method="PUT", after=after, times=None, answer=DENIED))
    with pytest.raises(PartialTransferError, match=r"(?s)Grant s3:PutObject.*goes on from here") as caught:
        migrate_to_s3(open_s3(through), root, name=NAME, delete_after_upload=True, observe=lambda event: None)
    done, failed = set(caught.value.done), {path for path, _ in caught.value.failed}
    assert done | failed == {item[0] for item in there if item[3] > 4096}
    assert not done & failed
    assert bool(done) is (after >= 25)
    assert len(accepted(proxy.requests)) <= after
    assert seen(root) == there
    proxy.clear()
    migrate_to_s3(open_s3(through), root, name=NAME, observe=lambda event: None)
    sent = accepted(proxy.requests)
    assert len(sent) == len(set(sent))
    assert restored(open_s3(through), tmp_path / "back") == there


def test_cancelled_it_sends_no_more(
    through: S3Settings, store: Store, proxy: FaultProxy, root: Path, tmp_path: Path
) -> None:
    """Though each answer takes 1.5 s, no request begins 5 s after the signal; the next call ends it."""
    begun: list[float] = []
    ended: list[float] = []
    child = None

    def slow(request: Request) -> bool:
        begun.append(time.monotonic())
        if len(begun) == 14:
            ended.append(begun[-1])
            os.kill(child.pid, signal.SIGTERM)  # type: ignore[union-attr]
        return len(begun) > 10

    proxy.script(Fault("delay", times=None, where=slow, seconds=1.5))
    child = start(through, root, tmp_path / "cache")
    child.join(120)
    assert child.exitcode == TERMINATED
    [signalled] = ended
    assert not [moment for moment in begun if moment > signalled + 5]
    proxy.clear()
    migrate_to_s3(store, root, name=NAME, observe=lambda event: None)
    assert restored(store, tmp_path / "back") == seen(root)


def test_deleted_here_it_comes_back(store: Store, raw: RawS3, root: Path, tmp_path: Path) -> None:
    """What the server's own checksums, or a second reading, prove; what was damaged meanwhile stays."""
    copy = tmp_path / "copy"
    there = restored_copy(store, root, copy)
    lost = "run 3/file 6"
    [single] = [key for key in invariants.blobs(store) if raw.get(key) == (root / lost).read_bytes()]
    body = raw.get(single) or b""
    raw.put(single, body[:-1] + bytes([body[-1] ^ 1]))
    report = migrate_to_s3(store, copy, name=NAME, delete_after_upload=True, observe=lambda event: None)
    assert [path for path, _ in report.kept] == [lost]
    assert [item[0] for item in seen(copy) if item[1] != "d"] == [lost]
    raw.put(single, body)
    migrate_to_s3(store, copy, name=NAME, delete_after_upload=True, observe=lambda event: None)
    assert seen(copy) == []
    assert restored(store, tmp_path / "back") == there


def restored_copy(store: Store, root: Path, copy: Path) -> Tree:
    """Migrate a tree, and bring it back as old as it was."""
    os.utime(root / "large", ns=(SECOND * 10**9, SECOND * 10**9))
    migrate_to_s3(store, root, name=NAME, observe=lambda event: None)
    return restored(store, copy)


@pytest.mark.parametrize("offset", [30, 2**40, 2**62, 2**70])
def test_a_member_outside_of_its_pack(
    store: Store, raw: RawS3, root: Path, tmp_path: Path, offset: int
) -> None:
    """Said by a forged receipt: an error that names it, whatever the server answers."""
    migrate_to_s3(store, root, name=NAME, observe=lambda event: None)
    for key in raw.list():
        if "/receipts/" in key:
            record = json.loads(raw.get(key) or b"")
            for pack in record["content"]["packs"]:
                pack["size_bytes"] = 2**80
                pack["members"] = [[digest, offset, size] for digest, _, size in pack["members"]]
            raw.put(key, json.dumps(record).encode())
    with pytest.raises(IntegrityError):
        download_from_s3(store, tmp_path / "back", observe=lambda event: None)
