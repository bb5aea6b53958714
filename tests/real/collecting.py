"""Writers and collectors in processes of their own, which are killed. Imports little: there are many."""

from __future__ import annotations

import random
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from mltrack_tasks import deletions, layout
from mltrack_tasks.collecting import batches, clock
from mltrack_tasks.collecting.collect import collect_garbage
from mltrack_tasks.content import forget_data, store_data
from mltrack_tasks.digest import sha256_hex
from mltrack_tasks.errors import NotFoundError, TransientError
from mltrack_tasks.events import Event
from mltrack_tasks.runs import store_run
from mltrack_tasks.stores import open_s3
from mltrack_tasks.stores.base import Stat, Store, WrapperStore
from mltrack_tasks.stores.s3_settings import S3Settings

DAY = 12.0
"""[s] that count as a day. Promises of time hold as long as a request takes much less than half a day."""
RECENT = 3 * DAY
"""[s] for which a content that was new once is used again: it is garbage by then, if nobody stored it."""
_ZERO = datetime.now(UTC) - timedelta(hours=1)
"""Times are counted from here: differences matter, and only within one process."""


class HastyStore(WrapperStore):
    """A store whose time runs faster, so that things are old soon."""

    def uncached(self) -> Store:
        return self

    def head(self, key: str, *, checksum: bool = False) -> Stat | None:
        stat = self.inner.head(key, checksum=checksum)
        return None if stat is None else _hasty(stat)

    def list(self, prefix: str, *, after: str = "") -> Iterator[Stat]:
        return map(_hasty, self.inner.list(prefix, after=after))


def _hasty(stat: Stat) -> Stat:
    return replace(stat, modified=_ZERO + (stat.modified - _ZERO) * (86_400 / DAY))


def hurry() -> None:
    """Let this process keep the promises of time as much faster."""
    deletions.STALE = DAY / 2
    clock.PATIENCE = DAY
    batches.ABANDONED = timedelta(days=3)


def writer(settings: S3Settings, number: int) -> None:
    """Two writers: each stores, forgets, and leaves unpinned blobs behind, of the same contents."""
    hurry()
    threads = [threading.Thread(target=_write, args=(settings, 2 * number + each)) for each in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()  # until the process is killed: pools cannot be used any more when it ends


def _write(settings: S3Settings, number: int) -> None:
    store, choose = open_s3(settings), random.Random(number)
    for turn in range(10**9):
        body = b"body %d" % int((time.time() - choose.random() * RECENT) * 60)
        act = choose.random()
        try:
            if act < 0.3:
                store.create(layout.blob_key(sha256_hex(body), "bin"), body)
            elif act < 0.6:
                store_data(store, body, f"writer {number}", observe=quiet)
            elif act < 0.7:
                run_id = f"{number}-{time.time_ns()}"
                store_run(store, run_id, {"d": body}, storage_mode="flat", observe=quiet)
            elif turn % 20 == 0:
                forget_data(store, f"writer {number}", observe=quiet)
            else:
                time.sleep(0.05)
        except (NotFoundError, TransientError):
            continue


def collector(settings: S3Settings, counts: Path) -> None:
    """Collect again and again; each deletion is counted in a file, as the process is going to be killed."""
    hurry()
    store = HastyStore(open_s3(settings))
    while True:
        try:
            found = collect_garbage(store, grace=timedelta(days=1), dry_run=False, observe=quiet)
        except TransientError as error:
            print(error, file=sys.stderr)
            continue
        with counts.open("a") as file:
            file.write(f"{found.deleted_blobs} {found.deleted_pins} {found.spared}\n")
        time.sleep(0.2)


def quiet(event: Event) -> None:
    """What happened is read from the store."""
