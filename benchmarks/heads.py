"""Client CPU of a HEAD that asks for checksums, which an audit sends per blob: the store's beside boto3's.

Bar: at most 0.6 of boto3's.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from benchmarks.server import Target
from mltrack_tasks.stores.s3 import S3Store
from mltrack_tasks.stores.s3_answers import stat_of

ROUNDS, HEADS = 7, 200
BAR = 0.6


def run(target: Target) -> bool:
    """Print CPU per HEAD [ms] of each way, medians of interleaved rounds; True if the bar is met."""
    store = S3Store(target.settings)
    keys = [f"trial/{number:04d}" for number in range(HEADS)]
    for key in keys:
        store.create(key, key.encode())
    bucket, prefix = target.settings.bucket, target.settings.prefix
    ways: dict[str, Callable[[str], object]] = {
        "boto3 head_object": lambda key: stat_of(
            key, store.client.head_object(Bucket=bucket, Key=f"{prefix}/{key}", ChecksumMode="ENABLED")
        ),
        "store.head(checksum)": lambda key: store.head(key, checksum=True),
        "store.head": store.head,
    }
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(ROUNDS + 1):
        for name, head in ways.items():
            start = time.process_time()
            for key in keys:
                head(key)
            if number:  # the first round opens connections
                cpu[name].append((time.process_time() - start) / HEADS)
    medians = {name: statistics.median(costs) for name, costs in cpu.items()}
    base = medians["boto3 head_object"]
    print(f"HEAD ({ROUNDS} rounds of {HEADS}, one thread, server {target.server}): client CPU per HEAD")
    for name, value in medians.items():
        print(f"  {name:21} {value * 1000:6.3f} ms   {value / base:5.2f}x")
    print(f"  bar: store.head(checksum) at most {BAR}x boto3")
    return medians["store.head(checksum)"] <= BAR * base
