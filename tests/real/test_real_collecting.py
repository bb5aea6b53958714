"""Eight writers and two collectors on a real server, killed at any moment: nothing that is needed goes."""

from __future__ import annotations

import multiprocessing
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mltrack_tasks.collecting.collect import collect_garbage
from mltrack_tasks.content import store_data
from mltrack_tasks.stores import Store
from mltrack_tasks.stores.s3_settings import S3Settings
from tests.floor3 import invariants
from tests.real import collecting
from tests.real.collecting import DAY, HastyStore, quiet
from tests.settings import PROFILE

ROUNDS = 3 if PROFILE == "thorough" else 1
WRITERS, COLLECTORS = 4, 2


@pytest.mark.timeout(300)
def test_writers_and_collectors_that_are_killed(store: Store, settings: S3Settings, tmp_path: Path) -> None:
    counts, choose = tmp_path / "counts", random.Random(12)
    counts.touch()
    store_data(store, b"first", "first", observe=quiet)
    context = multiprocessing.get_context("spawn")

    def begin(act: Callable[..., Any], *args: Any) -> Any:
        process = context.Process(target=act, args=(settings, *args))
        process.start()
        return process

    running = [begin(collecting.writer, number) for number in range(WRITERS)]
    running += [begin(collecting.collector, counts) for _ in range(COLLECTORS)]
    try:
        for number in range(ROUNDS):
            time.sleep(3 * DAY + choose.random() * DAY)
            for at in (choose.randrange(WRITERS), WRITERS + choose.randrange(COLLECTORS)):
                running[at].kill()  # -9
                running[at].join()
                dead_writer = at < WRITERS
                args = (WRITERS + number,) if dead_writer else (counts,)
                running[at] = begin(collecting.writer if dead_writer else collecting.collector, *args)
    finally:
        for process in running:
            process.kill()
            process.join()
    check(store)
    deleted = [int(line.split()[0]) for line in counts.read_text().splitlines()]
    print(f"{len(deleted)} collections deleted {sum(deleted)} blobs beside {2 * WRITERS} writers")
    assert sum(deleted) > 0
    collecting.hurry()
    time.sleep(3 * DAY)  # what was left open is abandoned
    collect_garbage(HastyStore(store), dry_run=False, observe=quiet)
    assert not list(store.list("gc/deleting/"))
    check(store)


def check(store: Store) -> None:
    """Every blob that a record lists is there, with its bytes."""
    found = invariants.snapshot(store)
    invariants.every_blob_hashes_to_its_key(found)
    invariants.every_ref_resolves(found)
    invariants.every_manifest_is_found(found)
