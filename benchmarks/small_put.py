"""Client CPU of a small create-only PUT: the store beside bare obstore and boto3. Bar: at most 2x obstore."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable

import boto3
import obstore
from botocore.config import Config
from obstore.store import S3Store

from benchmarks.server import Target
from mltrack_tasks.stores import open_s3

ROUNDS, PUTS, SIZE = 7, 150, 2048
BAR = 2.0


def run(target: Target) -> bool:
    """Print CPU per PUT [ms] of each way, medians of interleaved rounds; True if the bar is met."""
    settings, keys = target.settings, target.settings.keys
    bare = S3Store(
        settings.bucket,
        endpoint=settings.endpoint_url,
        region=settings.region,
        access_key_id=keys.access_key or os.environ["AWS_ACCESS_KEY_ID"],
        secret_access_key=keys.secret_key or os.environ["AWS_SECRET_ACCESS_KEY"],
        checksum_algorithm="sha256",
        client_options={"allow_http": True},
    )
    client = boto3.client(
        "s3",
        endpoint_url=settings.endpoint_url,
        region_name=settings.region,
        aws_access_key_id=keys.access_key,
        aws_secret_access_key=keys.secret_key,
        config=Config(s3={"addressing_style": "path"}, request_checksum_calculation="when_required"),
    )
    store = open_s3(settings)
    ways: dict[str, Callable[[str, bytes], object]] = {
        "bare obstore": lambda key, body: obstore.put(
            bare, f"{settings.prefix}/bare/{key}", body, mode="create"
        ),
        "store.create": lambda key, body: store.create(f"trial/{key}", body),
        "boto3": lambda key, body: client.put_object(
            Bucket=settings.bucket, Key=f"{settings.prefix}/boto/{key}", Body=body, IfNoneMatch="*"
        ),
    }
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(ROUNDS + 1):
        for name, put in ways.items():
            cost = _cost(put, number)
            if number:  # the first round opens connections
                cpu[name].append(cost)
    medians = {name: statistics.median(costs) for name, costs in cpu.items()}
    base = medians["bare obstore"]
    print(f"small PUT ({SIZE} bytes, {ROUNDS} rounds of {PUTS}, server {target.server}): client CPU per PUT")
    for name, value in medians.items():
        print(f"  {name:14} {value * 1000:6.3f} ms   {value / base:5.2f}x")
    print(f"  bar: store.create at most {BAR}x bare obstore")
    return medians["store.create"] <= BAR * base


def _cost(put: Callable[[str, bytes], object], number: int) -> float:
    bodies = [os.urandom(SIZE) for _ in range(PUTS)]
    start = time.process_time()
    for index, body in enumerate(bodies):
        put(f"{number}-{index}", body)
    return (time.process_time() - start) / PUTS
