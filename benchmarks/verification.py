"""Verifying a store of 100,000 and of 1,000,000 blobs: requests, memory and seconds, also after a kill.

The store is synthetic: its listings come page by page and its records are made when they are asked for, so
what is measured is the audit. Bars: bounded memory, and requests and CPU in proportion to the blobs.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

from benchmarks.memory import Watch

SIZES = (100_000, 1_000_000)
BAD = 10_000
"""Every so many blobs one is missing, and one has the checksum of others."""
MEMORY_BAR = 30.0
"""[MB] above the imports, whatever the number of blobs."""
GROWTH_BARS = {"requests": 10.5, "cpu": 13.0}
"""For ten times the blobs. Requests can be counted; of CPU, other programs and a deeper table take some."""


def run() -> bool:
    """Print what each level costs; True if memory is bounded and the rest is linear."""
    print("verifying a synthetic store (no server): requests, peak of anonymous memory above the imports")
    met = True
    for level in ("structure", "attested"):
        found = [_measure(size, level) for size in SIZES]
        for size, each in zip(SIZES, found, strict=True):
            print(
                f"  {level:10} {size:9,} blobs  {each['requests']:9,} requests ({each['by_verb']})  "
                f"{each['peak']:6.1f} MB  {each['cpu']:6.1f} s CPU  {each['seconds']:6.1f} s  {each['found']}"
            )
        small, large = found
        met = met and max(small["peak"], large["peak"]) <= MEMORY_BAR
        met = met and all(large[what] <= bar * small[what] for what, bar in GROWTH_BARS.items())
    killed = _measure(SIZES[1], "attested", killed=True)
    print(
        f"  the last, killed half-way: {killed['before']:,} requests until then, {killed['requests']:,} to "
        f"go on; the same findings: {killed['same']}"
    )
    print(f"  bar: at most {MEMORY_BAR:.0f} MB; for ten times the blobs at most {GROWTH_BARS} times as much")
    return met and bool(killed["same"])


def _measure(size: int, level: str, *, killed: bool = False) -> dict[str, Any]:
    given = json.dumps({"size": size, "level": level, "killed": killed})
    answer = subprocess.run(
        [sys.executable, "-m", "benchmarks.verification"],
        input=given,
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode:
        raise SystemExit(answer.stderr)
    found: dict[str, Any] = json.loads(answer.stdout)
    return found


def _child() -> None:
    given = json.load(sys.stdin)
    from mltrack_tasks.errors import TransientError
    from mltrack_tasks.trust.verify import verify_store
    from tests.syntheticstore import SyntheticStore

    def verify(store: SyntheticStore) -> Any:
        return verify_store(store, level=given["level"], observe=lambda event: None)

    verify(SyntheticStore(1_000))  # what is imported late is there before the baseline is taken
    store = SyntheticStore(given["size"], bad=BAD)
    report: dict[str, Any] = {"before": 0}
    if given["killed"]:
        store.dies_after = given["size"] // 2
        try:
            verify(store)
        except TransientError:
            report["before"] = store.requests.total()
        store.dies_after = None
        store.requests.clear()
    began = time.process_time()
    with Watch() as watch:
        found = verify(store)
    bad = given["size"] // BAD
    expected = {"missing": bad, **({"wrong_checksum": bad} if given["level"] == "attested" else {})}
    report |= {
        "requests": store.requests.total(),
        "by_verb": ", ".join(f"{count:,} {verb}" for verb, count in sorted(store.requests.items())),
        "peak": watch.peak,
        "cpu": time.process_time() - began,
        "seconds": watch.seconds,
        "found": str(dict(found.counts)),
        "same": dict(found.counts) == expected and found.blobs.objects == given["size"] - bad,
    }
    json.dump(report, sys.stdout)


if __name__ == "__main__":
    _child()
