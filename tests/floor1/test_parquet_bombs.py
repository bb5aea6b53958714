"""Few bytes of Parquet that stand for many: refused before they are unpacked, by who reads them."""

from __future__ import annotations

import io
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mltrack_tasks import codecs, memory
from mltrack_tasks.codecs import pages, parquet
from mltrack_tasks.codecs.thrift import Thrift
from mltrack_tasks.digest import MiB
from mltrack_tasks.errors import IntegrityError, InvalidInputError, MLTrackError
from mltrack_tasks.tables import pageroom, ranges
from mltrack_tasks.tables.ranges import dataset_of
from mltrack_tasks.tables.runparts import encode_rows
from mltrack_tasks.tables.sandbox import run_sql
from tests.floor1.examples import frames
from tests.floor1.strict import encoded
from tests.floor1.test_runparts import ROWS
from tests.settings import GIVEN

ROOM = 16 * MiB
Reader = Callable[[bytes], Any]


@pytest.fixture
def little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if so little memory were free."""
    for module in (parquet, ranges, pageroom):
        monkeypatch.setattr(module, "free_memory", lambda: ROOM)


def decoded(body: bytes) -> Any:
    return codecs.decode("parquet", body, what="the blob")


def described(body: bytes) -> Any:
    return codecs.describe("parquet", io.BytesIO(body), what="the blob")


def queried(body: bytes) -> Any:
    dataset = dataset_of(lambda start, size: body[start : start + size], len(body), what="the blob")
    try:
        return run_sql("SELECT count(a) AS n, max(a) AS most FROM s3object", {"s3object": dataset})
    finally:
        dataset.close()


def written(table: pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", **options)
    return sink.getvalue()


def repeated(value: Any, times: int, kind: Any) -> pa.Table:
    """A table of one value, which is there once and often meant."""
    indices = pa.array(np.zeros(times, dtype=np.int32))
    return pa.table({"a": pa.DictionaryArray.from_arrays(indices, pa.array([value], kind))})


def in_lists(table: pa.Table, rows: int) -> pa.Table:
    """The same values in lists."""
    offsets = np.linspace(0, len(table), rows + 1).astype(np.int32)
    return pa.table({"a": pa.ListArray.from_arrays(offsets, table["a"].chunk(0))})


BOMBS: dict[str, Callable[[], bytes]] = {
    "nulls": lambda: written(pa.table({"a": pa.nulls(2_000_000, pa.int64())}), row_group_size=2_000_000),
    "one number": lambda: written(repeated(7, 1_500_000, pa.int64()), store_schema=False),
    "wide nulls": lambda: written(pa.table({"a": pa.nulls(500, pa.binary(100_000))})),
    "one long text": lambda: written(repeated("x" * 1_000_000, 30, pa.string()), store_schema=False),
    "a page of zeros": lambda: written(
        pa.table({"a": pa.array([b"\0" * (20 * MiB)], pa.large_binary())}), use_dictionary=False
    ),
    "texts in lists": lambda: written(
        in_lists(repeated("x" * 1_000_000, 30, pa.string()), 3), store_schema=False
    ),
    "numbers in lists": lambda: written(in_lists(repeated(7, 1_500_000, pa.int64()), 3), store_schema=False),
}
STREAMED = {"nulls", "one number"}
"""What a query unpacks a batch at a time, and so may be of any length."""


@pytest.mark.parametrize("name", BOMBS)
def test_what_does_not_fit_is_refused_before_it_is_unpacked(name: str, little_room: None) -> None:
    body = BOMBS[name]()
    assert len(body) < ROOM // 500
    assert described(body).shape is not None
    before = pa.total_allocated_bytes()
    for read, error in ((decoded, IntegrityError), (queried, InvalidInputError)):
        if read is queried and name in STREAMED:
            assert read(body)["n"].to_pylist() in ([0], [1_500_000])
        else:
            with pytest.raises(
                error, match=r"^the blob .*takes [0-9,]+ bytes of memory, and [0-9,]+ are free"
            ):
                read(body)
    assert pa.total_allocated_bytes() - before < MiB


@pytest.mark.parametrize("name", ["one number", "one long text", "texts in lists"])
def test_with_more_memory_the_same_files_are_read(name: str) -> None:
    """Honest writers write them too."""
    body = BOMBS[name]()
    assert len(decoded(body)) == pq.ParquetFile(io.BytesIO(body)).metadata.num_rows
    assert queried(body).num_rows == 1


def test_a_dictionary_of_one_long_text_and_many_short_ones_is_read(little_room: None) -> None:
    """How often each repeats is counted: by the longest it would be 100 times the room."""
    values = ["x" * 1_000_000, "a", "b"]
    frame = pd.DataFrame({"a": [values[0], *(values[1 + n % 2] for n in range(10_000))]})
    body = encoded(frame)[0]
    pd.testing.assert_frame_equal(decoded(body), frame)
    assert queried(body)["n"].to_pylist() == [10_001]


def varint(number: int, length: int = 1) -> bytes:
    """A number as Thrift writes it, in at least so many bytes."""
    raw, out = number << 1, bytearray()
    while raw > 127 or len(out) + 1 < length:
        out.append(raw & 127 | 128)
        raw >>= 7
    return bytes([*out, raw])


def test_the_pages_are_believed_and_not_the_footer(little_room: None) -> None:
    body = BOMBS["a page of zeros"]()
    claimed = pq.ParquetFile(io.BytesIO(body)).metadata.row_group(0).column(0).total_uncompressed_size
    told = varint(claimed)
    lying = body.replace(told, varint(1_000, len(told)))
    assert pq.ParquetFile(io.BytesIO(lying)).metadata.row_group(0).column(0).total_uncompressed_size == 1_000
    for read in (decoded, queried):
        with pytest.raises(MLTrackError, match=r"^the blob .*takes [0-9,]+ bytes of memory"):
            read(lying)


def test_what_a_page_has_less_than_the_footer_says_is_damage(little_room: None) -> None:
    body = written(pa.table({"a": pa.nulls(900_000, pa.int64())}), row_group_size=900_000)
    told = varint(900_000)
    footer = len(body) - 8 - int.from_bytes(body[-8:-4], "little")
    # In the footer alone: older writers put all values on one page, which says the same number.
    lying = body[:footer] + body[footer:].replace(told, varint(950_000, len(told)))
    for read in (decoded, queried):
        with pytest.raises(IntegrityError, match=r"^the blob"):
            read(lying)


FOOTERS = {
    "columns": (60_000, 1),
    "chunks": (1, 60_000),
}


@pytest.mark.parametrize("kind", FOOTERS)
def test_a_footer_of_many_parts(kind: str, little_room: None) -> None:
    """A column chunk is 3 bytes there, and 690 in memory."""
    columns, chunks = FOOTERS[kind]
    column = b"\x15\x02\x25\x00\x18\x00\x00"
    footer = b"\x15\x04\x19\xfc" + count(columns + 1) + b"\x48\x01s\x15" + varint(columns) + b"\x00"
    footer += column * columns + b"\x16\x00\x19\x1c\x19\xfc" + count(chunks) + b"\x26\x00\x00" * chunks
    footer += b"\x16\x00\x16\x00\x00\x00"
    body = b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1"
    for read in (decoded, described, queried):
        with pytest.raises(IntegrityError, match=r"^the blob .*more parts than any that is written"):
            read(body)


def count(number: int) -> bytes:
    """A length as Thrift writes it: no sign."""
    return (
        varint(number // 2)
        if number % 2 == 0
        else bytes([varint(number // 2)[0] | 1]) + varint(number // 2)[1:]
    )


@pytest.mark.parametrize("compression", ["none", "snappy", "gzip", "zstd", "brotli", "lz4"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_pages_of_other_writers_are_understood(compression: str, version: str) -> None:
    size = 5_000
    texts = pa.array([None if n % 7 == 0 else f"text {n % 999}" for n in range(size)])
    table = pa.table(
        {
            "a": texts,
            "n": pa.array(range(size), pa.int32()),
            "l": pa.array([[n, None] * (n % 3) for n in range(size)], pa.list_(pa.float32())),
            "b": pa.array([n % 2 == 0 for n in range(size)]),
        }
    )
    sink = io.BytesIO()
    options: dict[str, Any] = {"compression": compression, "data_page_version": version}
    pq.write_table(table, sink, row_group_size=1_700, data_page_size=2_000, **options)
    assert decoded(sink.getvalue()).equals(pq.read_table(sink).to_pandas())
    assert queried(sink.getvalue())["n"].to_pylist() == [size - texts.null_count]


@given(st.sampled_from(list(frames().values())))
def test_a_frame_takes_about_what_it_weighs(frame: pd.DataFrame) -> None:
    """Never much more than its values, else honest frames were refused."""
    body = encoded(frame)[0]
    weights = [
        pages.weigh(chunk, memoryview(body)[chunk.start : chunk.start + chunk.length], chunk.rows)
        for chunk in pages.chunks_of(pq.ParquetFile(io.BytesIO(body)).metadata)
    ]
    values = int(frame.memory_usage(deep=True, index=True).sum())
    assert sum(weight.sure for weight in weights) <= 4 * values + 4 * len(body) + 4_096


@given(st.binary(max_size=60))
def test_headers_of_random_bytes_are_read_or_refused(body: bytes) -> None:
    try:
        assert Thrift(memoryview(body)).struct() is not None
        list(pages.pages_of(memoryview(body), 5))
    except ValueError:
        pass


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({}, 8 << 30),
        ({"proc/meminfo": "MemTotal: 9 kB\nMemAvailable:     1000 kB\n"}, 1_024_000),
        (
            {
                "proc/meminfo": "MemAvailable: 1000 kB",
                "cg/memory.max": "500000\n",
                "cg/memory.current": "300000",
                "cg/memory.stat": "anon 5\ninactive_file 1000\n",
            },
            201_000,
        ),
        ({"proc/meminfo": "MemAvailable: 1 kB", "cg/memory.max": "max", "cg/memory.current": "3"}, 1_024),
        ({"cg/memory/memory.limit_in_bytes": "90", "cg/memory/memory.usage_in_bytes": "100"}, 0),
    ],
    ids=["unknown", "machine", "container", "no limit", "older container"],
)
def test_free_memory(
    files: dict[str, str], free: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(memory, "_GROUP", tmp_path / "cg")
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert memory.free_memory() == free


def test_a_limit_on_addresses_counts() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + 64 * MiB, hard))
    try:
        assert memory.free_memory() <= 64 * MiB
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


FORGERS = """
import io, os, sys
from mltrack_tasks import codecs
from mltrack_tasks.errors import FormatError, IntegrityError
from mltrack_tasks.tables.runparts import decode_rows
body = open(sys.argv[1], "rb").read()
acts = [decode_rows] if sys.argv[2] == "part" else [
    lambda body, what: codecs.decode("parquet", body, what=what),
    lambda body, what: codecs.describe("parquet", io.BytesIO(body), what=what),
]
refused = 0
for place in range(len(body) - int.from_bytes(body[-8:-4], "little") - 8, len(body), int(sys.argv[3])):
    for bit in range(8) if sys.argv[3] == "1" else [3]:
        forged = bytearray(body)
        forged[place] ^= 1 << bit
        for act in acts:
            try:
                act(bytes(forged), "it")
            except (FormatError, IntegrityError):
                refused += 1
print(refused > 10, flush=True)
os._exit(0)
"""
STEP = 1 if GIVEN.get("MLTRACK_TEST_PROFILE") == "thorough" else 29
"""Bytes from one that is changed to the next; with 1 each of its bits is, which takes minutes."""


@pytest.mark.parametrize("kind", ["frame", "part"])
def test_no_damage_to_a_footer_ends_the_process(kind: str, tmp_path: Path) -> None:
    """pyarrow alone aborts on some, as it is asked what the footer says of a column chunk."""
    frame = pd.DataFrame({"a": [1, 2], "b": ["x", None], "c": [0.5, 1.5]})
    body = encoded(frame)[0] if kind == "frame" else encode_rows(ROWS)
    (tmp_path / "body").write_bytes(body)
    command = [sys.executable, "-c", FORGERS, str(tmp_path / "body"), kind, str(STEP)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "True\n")
