"""Collecting half of 100,000 and of 1,000,000 blobs: requests, memory and seconds; after a kill; and again.

The store is synthetic: its listings come page by page and its records are made when they are asked for, so
what is measured is the collection. Bars: bounded memory, and requests and CPU in proportion to the blobs; a
collection that is killed half-way is gone on with; a second one reads no record that the first one read.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.memory import Watch
from mltrack_tasks import layout
from mltrack_tasks.collecting.collect import GarbageReport, collect_garbage
from mltrack_tasks.digest import is_digest
from mltrack_tasks.errors import TransientError
from mltrack_tasks.stores.directory import DirectoryStore
from tests.syntheticstore import OF_RUN, PAGE, SyntheticStore

SIZES = (100_000, 1_000_000)
MEMORY_BAR = 100.0
"""[MB] above the imports, 40 of them the cache of the temporary table."""
AGAIN = ((10_000, 100), (100_000, 10))
"""Records, and blobs that each needs: a million of them together."""
AGAIN_BAR = 0.02
"""Reads of a second collection, per record."""
GROWTH_BARS = {"requests": 10.5, "cpu": 13.0}
"""For ten times the blobs. Requests can be counted; of CPU, other programs and a deeper table take some."""


class WastedStore(SyntheticStore):
    """Every second blob is needed by no run, and can be deleted. What is written lies in ``folder``."""

    def __init__(self, blobs: int, folder: Path, of_run: int = OF_RUN) -> None:
        super().__init__(blobs, of_run=of_run, inner=DirectoryStore(folder))
        self.deleted = bytearray(blobs)

    def delete(self, keys: Iterable[str]) -> None:
        batch = list(keys)
        for _ in range(0, len(batch), PAGE):
            self._count("delete")
        for key in batch:
            if blob := layout.parse_blob_key(key):
                self.deleted[self._number(blob[0])] = 1
        self.inner.delete(key for key in batch if not key.startswith(layout.BLOBS))

    def _number(self, digest: str) -> int:
        return int(digest[:15], 16) // self._step

    def _first(self, after: str) -> int:
        """The number of the first blob behind a key; the beginning of a digest comes before what has it."""
        if not after:
            return 0
        *_, folder, last = after.split("/")
        return (
            self._number(folder) + 1 if is_digest(folder) else -(-int(f"{last:0<15}"[:15], 16) // self._step)
        )

    def _blob_keys(self, first: int) -> Iterator[str]:
        numbers = (number for number in range(first, self.blobs) if not self.deleted[number])
        return (layout.blob_key(self.digest(number), "bin") for number in numbers)

    def _pin_keys(self, first: int) -> Iterator[str]:
        for number in range(first + first % 2, self.blobs, 2):
            yield layout.run_pin_key(self.digest(number), f"r{number // self.of_run:08d}")

    def _ref(self, number: int) -> dict[str, Any]:
        return super()._ref(number - number % 2)


def run() -> bool:
    """Print what a collection costs; True if memory is bounded, the rest linear, and a kill costs little."""
    print("collecting half of a synthetic store (no server): requests, peak of anonymous memory")
    found = [_measure(size) for size in SIZES]
    for size, each in zip(SIZES, found, strict=True):
        print(
            f"  {size:9,} blobs  {each['requests']:7,} requests ({each['by_verb']})  {each['peak']:6.1f} MB  "
            f"{each['cpu']:6.1f} s CPU  {each['seconds']:6.1f} s  {each['deleted']:,} deleted"
        )
    killed = _measure(SIZES[1], killed=True)
    print(
        f"  the last, killed half-way: {killed['before']:,} requests and {killed['peak_before']:.1f} MB "
        f"until then, {killed['deleted_before']:,} deleted; {killed['requests']:,} requests and "
        f"{killed['peak']:.1f} MB to go on, {killed['deleted']:,} deleted in the end"
    )
    small, large = found
    again = [_again(records, of_run) for records, of_run in AGAIN]
    print(
        f"  bar: at most {MEMORY_BAR:.0f} MB; for ten times the blobs at most {GROWTH_BARS} times as much; "
        f"at most {AGAIN_BAR} reads a record for a second look"
    )
    return (
        all(again)
        and max(small["peak"], large["peak"], killed["peak_before"], killed["peak"]) <= MEMORY_BAR
        and all(large[what] <= bar * small[what] for what, bar in GROWTH_BARS.items())
        and all(each["right"] for each in (*found, killed))
    )


def _again(records: int, of_run: int) -> bool:
    """Print what a dry run costs, and another one after it; True if that reads next to no record again."""
    found = _ask({"size": records * of_run, "of_run": of_run, "again": True})
    for name in ("first", "again"):
        each = found[name]
        print(
            f"  {records:9,} records with {of_run} blobs, dry run, {name}: {each['requests']:7,} requests "
            f"({each['by_verb']})  {each['peak']:6.1f} MB  {each['cpu']:6.1f} s CPU"
        )
    return bool(
        found["same"]
        and max(found["first"]["peak"], found["again"]["peak"]) <= MEMORY_BAR
        and found["again"]["gets"] <= AGAIN_BAR * records
    )


def _measure(size: int, *, killed: bool = False) -> dict[str, Any]:
    return _ask({"size": size, "killed": killed})


def _ask(given: dict[str, Any]) -> dict[str, Any]:
    """Measure in a process of its own."""
    answer = subprocess.run(
        [sys.executable, "-m", "benchmarks.collecting"],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode:
        raise SystemExit(answer.stderr)
    found: dict[str, Any] = json.loads(answer.stdout)
    return found


def _collect(store: WastedStore, *, dry_run: bool = False) -> GarbageReport:
    return collect_garbage(store, dry_run=dry_run, observe=lambda event: None)


def _counted(store: WastedStore, *, dry_run: bool = False) -> tuple[GarbageReport, dict[str, Any]]:
    """Collect -> the report, and what it cost."""
    store.requests.clear()
    began = time.process_time()
    with Watch() as watch:
        found = _collect(store, dry_run=dry_run)
    return found, {
        "requests": store.requests.total(),
        "gets": store.requests["get"],
        "by_verb": ", ".join(f"{count:,} {verb}" for verb, count in sorted(store.requests.items())),
        "peak": watch.peak,
        "cpu": time.process_time() - began,
        "seconds": watch.seconds,
    }


def _child() -> None:
    given = json.load(sys.stdin)
    with tempfile.TemporaryDirectory(prefix="mltrack-collecting-") as folder:
        # What is imported late is there before the baseline is taken.
        _collect(WastedStore(1_000, Path(folder, "small")))
        store = WastedStore(given["size"], Path(folder, "large"), given.get("of_run", OF_RUN))
        report = _twice(store) if given.get("again") else _once(store, killed=given["killed"])
    json.dump(report, sys.stdout)


def _twice(store: WastedStore) -> dict[str, Any]:
    (one, first), (other, again) = _counted(store, dry_run=True), _counted(store, dry_run=True)
    same = (one.blobs, one.records, one.pins) == (other.blobs, other.records, other.pins)
    return {"first": first, "again": again, "same": same and one.blobs == store.blobs // 2}


def _once(store: WastedStore, *, killed: bool) -> dict[str, Any]:
    report: dict[str, Any] = {"before": 0, "peak_before": 0.0, "deleted_before": 0}
    if killed:
        # Of some 16 for a thousand blobs, the first 11 or 12 of which plan.
        store.dies_after = store.blobs // 72
        with Watch() as watch, suppress(TransientError):
            _collect(store)
        report |= {"before": store.requests.total(), "peak_before": watch.peak}
        report["deleted_before"] = sum(store.deleted)
        store.dies_after = None
        # The dead collector's batches are closed after an hour; here they are taken away.
        store.inner.delete([stat.key for stat in store.inner.list(layout.GC_DELETING)])
    _, cost = _counted(store)
    right = all(store.deleted[1::2]) and not any(store.deleted[::2])
    return {**report, **cost, "deleted": sum(store.deleted), "right": right}


if __name__ == "__main__":
    _child()
