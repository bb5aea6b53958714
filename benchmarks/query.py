"""A selective query of a sorted 200 MB table, beside download-then-pandas. Bar: under 5 % of the bytes."""

from __future__ import annotations

import io
import os
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import numpy as np
import pandas as pd
from botocore.config import Config

from benchmarks.server import Target
from mltrack_tasks.content import store_data
from mltrack_tasks.query import QueryResult, query_data
from mltrack_tasks.refs import DataRef
from mltrack_tasks.stores import open_s3
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.s3_settings import S3Settings

ROWS, COLUMNS, ROUNDS = 1_400_000, 20, 5
BAR = 0.05
"""Bytes read of bytes stored, for 2 of 20 columns and 1 % of the rows."""
QUERIES = {
    "2 columns, 1 % of rows": "SELECT t, c07 FROM s3object WHERE t >= '{start}' AND t < '{stop}'",
    "mean of 1 column, all rows": "SELECT avg(c07) AS mean FROM s3object",
    "all columns, all rows": "SELECT * FROM s3object",
    "a look at 10 rows": "SELECT * FROM s3object LIMIT 10",
}
SELECTIVE = next(iter(QUERIES))


def sorted_frame(rows: int) -> pd.DataFrame:
    """Make a table sorted by time, of numbers that hardly compress: 20 columns, 147 bytes a row."""
    numbers = np.random.default_rng(7).random((rows, COLUMNS - 1))
    frame = pd.DataFrame(numbers, columns=[f"c{number:02}" for number in range(1, COLUMNS)])
    frame.insert(0, "t", pd.date_range("2024-01-01", periods=rows, freq="s", unit="us"))
    return frame


def run(target: Target) -> bool:
    """Print bytes, requests and medians [s] of interleaved rounds; True if the bar is met."""
    store = open_s3(target.settings)
    frame = sorted_frame(int(os.environ.get("MLTRACK_BENCH_ROWS", ROWS)))
    ref = store_data(store, frame, "sorted")
    window = frame["t"].iloc[[len(frame) // 2, len(frame) // 2 + len(frame) // 100]].tolist()
    del frame
    ways = dict(_ways(store, ref, target.settings, window))
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    answers: dict[str, Any] = {}
    for number in range(ROUNDS + 1):
        for name, ask in ways.items():
            start = time.perf_counter()
            answers[name] = ask()
            if number:  # the first round opens connections
                seconds[name].append(time.perf_counter() - start)
    return _report(target, ref, answers, {name: statistics.median(each) for name, each in seconds.items()})


def _ways(
    store: Store, ref: DataRef, settings: S3Settings, window: list[pd.Timestamp]
) -> Iterator[tuple[str, Callable[[], Any]]]:
    start, stop = window
    for name, sql in QUERIES.items():
        yield name, lambda sql=sql: query_data(store, ref, sql.format(start=start, stop=stop))
    client = boto3.client(
        "s3",
        endpoint_url=settings.endpoint_url,
        region_name=settings.region,
        aws_access_key_id=settings.keys.access_key,
        aws_secret_access_key=settings.keys.secret_key,
        config=Config(s3={"addressing_style": "path"} if settings.endpoint_url else {}),
    )

    def download() -> pd.DataFrame:
        body = io.BytesIO()
        client.download_fileobj(settings.bucket, f"{settings.prefix}/{ref.storage_path}", body)
        whole = pd.read_parquet(body)
        return whole.loc[(whole["t"] >= start) & (whole["t"] < stop), ["t", "c07"]].reset_index(drop=True)

    yield "download, then pandas", download


def _report(target: Target, ref: DataRef, answers: dict[str, Any], medians: dict[str, float]) -> bool:
    plain = medians["download, then pandas"]
    size = f"{ref.size_bytes / 1e6:.0f} MB"
    print(f"queries of a sorted table of {size} (server {target.server}, {ROUNDS} rounds)")
    for name, answer in answers.items():
        cost = f"{'100.0':>6} %" + " " * 15
        if isinstance(answer, QueryResult):
            share = answer.bytes_read / answer.bytes_stored
            cost = f"{share:6.1%} of bytes, {answer.requests:2} reads"
        print(f"  {name:27} {cost} {medians[name]:7.3f} s   {medians[name] / plain:5.2f}x")
    chosen = answers[SELECTIVE]
    pd.testing.assert_frame_equal(chosen.frame, answers["download, then pandas"])
    print(f"  bar: {SELECTIVE} in under {BAR:.0%} of the bytes")
    return bool(chosen.bytes_read < BAR * chosen.bytes_stored)
