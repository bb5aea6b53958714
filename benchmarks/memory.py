"""Memory and throughput of one 2 GiB file. Bar: 300 MB anonymous RSS above the imports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from benchmarks.server import Target
from mltrack_tasks.stores.s3_settings import Keys, S3Settings

SIZE = 2 * 1024**3
BAR = 300.0
"""[MB] of 10^6 bytes."""


def run(target: Target) -> bool:
    """Store and retrieve the file in a fresh process; print peak memory and MB/s; True if the bar is met."""
    with tempfile.TemporaryDirectory(prefix="mltrack-memory-") as folder:
        source = Path(folder, "source")
        _fill(source, int(os.environ.get("MLTRACK_BENCH_BYTES", SIZE)))
        given = json.dumps({"folder": folder, **_plain(target.settings)})
        answer = subprocess.run(
            [sys.executable, "-m", "benchmarks.memory"],
            input=given,
            capture_output=True,
            text=True,
            check=False,
        )
        if answer.returncode:
            raise SystemExit(answer.stderr)
        found = json.loads(answer.stdout)
    print(f"one file of {found['bytes'] / 1e6:,.0f} MB (server {target.server}): RSS above the imports")
    for verb in ("store", "store again", "retrieve"):
        peak, seconds = found[verb]
        print(f"  {verb:12} peak {peak:6.1f} MB   {found['bytes'] / seconds / 1e6:7.1f} MB/s")
    print(f"  bar: at most {BAR:.0f} MB")
    return all(found[verb][0] <= BAR for verb in ("store", "retrieve"))


def _child() -> None:
    given = json.load(sys.stdin)
    from mltrack_tasks import content
    from mltrack_tasks.stores import open_s3

    folder, keys = Path(given.pop("folder")), Keys(*given.pop("keys"))
    store = open_s3(S3Settings(keys=keys, **given))
    source, copy = folder / "source", folder / "copy"
    store.create("warm-up", b"1")  # clients and threads exist before the baseline is taken
    report: dict[str, object] = {"bytes": source.stat().st_size}
    with Watch() as watch:
        ref = content.store_file(store, source)
    report["store"] = watch.peak, watch.seconds
    with Watch() as watch:
        again = content.store_file(store, source)
    report["store again"] = watch.peak, watch.seconds
    with Watch() as watch:
        content.retrieve_file(store, ref, copy)
    report["retrieve"] = watch.peak, watch.seconds
    if not ref.created or again.created:
        raise SystemExit("the file was not created once")
    json.dump(report, sys.stdout)


class Watch:
    """Samples this process's anonymous RSS every 5 ms; ``peak`` is in MB above the start."""

    def __enter__(self) -> Watch:
        self._base = self._high = _anonymous()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._start = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.monotonic() - self._start
        self._stop.set()
        self._thread.join()
        self.peak = (self._high - self._base) / 1e6

    def _sample(self) -> None:
        while not self._stop.wait(0.005):
            self._high = max(self._high, _anonymous())


def _anonymous() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("this benchmark reads /proc/self/status, which only Linux has")


def _fill(path: Path, size: int) -> None:
    block = os.urandom(64 * 1024 * 1024)
    with path.open("wb") as file:
        while file.tell() < size:
            file.write(block[: size - file.tell()])
            block = block[1:] + block[:1]  # no two parts alike


def _plain(settings: S3Settings) -> dict[str, object]:
    keys = settings.keys
    return {
        "keys": [keys.access_key, keys.secret_key],
        "bucket": settings.bucket,
        "prefix": settings.prefix,
        "region": settings.region,
        "endpoint_url": settings.endpoint_url,
    }


if __name__ == "__main__":
    _child()
