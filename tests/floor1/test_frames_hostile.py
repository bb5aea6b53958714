"""Parquet that is damaged, forged, newer, or written by others: a typed error, or the value."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mltrack_tasks import codecs
from mltrack_tasks.codecs import Description
from mltrack_tasks.errors import FormatError, IntegrityError, MLTrackError, TransientError
from tests.floor1.examples import column, frames, labelled, objects
from tests.floor1.strict import encoded

BODIES = [encoded(frame)[0] for frame in frames().values()]
TYPED = (IntegrityError, FormatError)


def spec_of(body: bytes) -> Any:
    return json.loads(pq.ParquetFile(io.BytesIO(body)).metadata.metadata[b"mltrack"])


def forged(body: bytes, spec: Any) -> bytes:
    """Write the columns of ``body`` again under another description."""
    table = pq.ParquetFile(io.BytesIO(body)).read().replace_schema_metadata(None)
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, table.schema) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({"mltrack": json.dumps(spec)})
    return sink.getvalue()


def actions(body: bytes) -> list[Callable[[], Any]]:
    return [
        lambda: codecs.decode("parquet", body, what="blob"),
        lambda: codecs.describe("parquet", io.BytesIO(body), what="blob"),
    ]


def read(body: bytes) -> None:
    """Decode and describe; only the typed errors may come out, and they name the blob."""
    for act in actions(body):
        try:
            act()
        except TYPED:
            with pytest.raises(TYPED, match=r"^blob"):
                act()


@given(st.sampled_from(BODIES), st.integers(0, 10**6), st.integers(0, 7))
def test_flipped_bits(body: bytes, place: int, bit: int) -> None:
    damaged = bytearray(body)
    damaged[place % len(body)] ^= 1 << bit
    read(bytes(damaged))


@given(st.sampled_from(BODIES), st.integers(0, 10**6))
def test_cut_files(body: bytes, length: int) -> None:
    for tail in (b"", body[-8:]):
        cut = body[: length % (len(body) - 8)] + tail
        with pytest.raises(IntegrityError):
            codecs.decode("parquet", cut, what="blob")


def test_every_page_is_verified() -> None:
    body = encoded(pd.DataFrame({"a": np.arange(1000)}))[0]
    chunk = pq.ParquetFile(io.BytesIO(body)).metadata.row_group(0).column(0)
    damaged = bytearray(body)
    damaged[chunk.dictionary_page_offset + chunk.total_compressed_size - 20] ^= 1
    with pytest.raises(IntegrityError, match=r"^blob.*CRC"):
        codecs.decode("parquet", bytes(damaged), what="blob")


LEAVES = st.one_of(st.none(), st.booleans(), st.integers(-3, 2**63), st.floats(), st.text(max_size=3))
ANYTHING = LEAVES | st.lists(LEAVES, max_size=2) | st.dictionaries(st.text(max_size=3), LEAVES)


def places(spec: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = spec.items() if isinstance(spec, dict) else enumerate(spec) if isinstance(spec, list) else ()
    return [path, *(place for key, item in items for place in places(item, (*path, key)))]


def replaced(spec: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    copy = dict(spec) if isinstance(spec, dict) else list(spec)
    copy[path[0]] = replaced(copy[path[0]], path[1:], value)
    return copy


@given(st.sampled_from(BODIES), st.data())
def test_forged_descriptions(body: bytes, data: st.DataObject) -> None:
    spec = spec_of(body)
    path = data.draw(st.sampled_from(places(spec)))
    read(forged(body, replaced(spec, path, data.draw(ANYTHING))))


@given(st.sampled_from(BODIES), st.sampled_from(BODIES))
def test_description_of_another_frame(body: bytes, other: bytes) -> None:
    read(forged(body, spec_of(other)))


def change(*path: Any, to: Any) -> Callable[[Any], Any]:
    return lambda spec: replaced(spec, path, to)


RANGE = {"kind": "range", "name": None, "start": 0, "stop": 10**15, "step": 1}
EMPTY = base64.b64encode(encoded(pd.DataFrame({"a": [1], "b": [2]}))[0]).decode()
FORGERIES: dict[str, tuple[pd.DataFrame, Callable[[Any], Any]]] = {
    "rows": (column([1, 2]), change("rows", to=3)),
    "rows of the index": (column([1, 2]), change("index", "stop", to=3)),
    "labels": (column([1]), change("columns", to=RANGE)),
    "fields": (column([1]), change("fields", to=[])),
    "kind": (column([1]), change("fields", 0, "kind", to="__class__")),
    "dtype": (column([1]), change("fields", 0, "dtype", to="O")),
    "narrow dtype": (column([1]), change("fields", 0, "dtype", to="int8")),
    "missing value": (column(objects("a", None)), change("fields", 0, "missing", to=None)),
    "unknown missing": (column(objects("a", None)), change("fields", 0, "missing", to="x")),
    "zone": (
        column(pd.date_range("2024", periods=1, tz=ZoneInfo("Europe/Berlin"))),
        change("fields", 0, "zone", "key", to="../../etc/passwd"),
    ),
    "category": (
        column(pd.Categorical(["a"], pd.Index(["a"], dtype=object))),
        change("fields", 0, "categories", "labels", to=["b"]),
    ),
    "codes": (
        labelled(pd.MultiIndex.from_tuples([("a", 1)])),
        change("columns", "codes", to=[[7], [0]]),
    ),
    "mixed labels": (
        column(pd.Categorical(["a", "b"], pd.Index(["a", "b"], dtype=object))),
        change("fields", 0, "categories", "labels", 0, to=False),
    ),
    "packed": (column(pd.Categorical([1])), change("fields", 0, "categories", "values", to=EMPTY)),
    "label": (labelled(pd.Index(["a"], dtype=object)), change("columns", "labels", to=[{"a": 1}])),
    "attrs": (column([1]), change("attrs", to={"$x": 1})),
    "flags": (labelled(["a", "a"]), change("flags", "allows_duplicate_labels", to=False)),
    "list as description": (column([1]), lambda spec: [spec]),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_forgeries_are_refused(name: str) -> None:
    frame, forge = FORGERIES[name]
    body, _ = encoded(frame)
    pd.testing.assert_frame_equal(codecs.decode("parquet", forged(body, spec_of(body)), what="x"), frame)
    with pytest.raises(IntegrityError, match=r"^blob"):
        codecs.decode("parquet", forged(body, forge(spec_of(body))), what="blob")


def test_newer_codec_asks_for_an_upgrade() -> None:
    body, _ = encoded(column([1]))
    newer = forged(body, change("codec", to=2)(spec_of(body)))
    for act in actions(newer):
        with pytest.raises(FormatError, match="mltrack-frame/2; upgrade mltrack_tasks"):
            act()


def test_unknown_zone_asks_for_tzdata() -> None:
    body, _ = encoded(column(pd.date_range("2024", periods=1, tz="Europe/Berlin")))
    spec = change("fields", 0, "zone", "key", to="Europe/Atlantis")(spec_of(body))
    with pytest.raises(FormatError, match=r"^blob.*Atlantis.*tzdata"):
        codecs.decode("parquet", forged(body, spec), what="blob")


def test_files_of_others_are_read_as_they_are() -> None:
    frame = pd.DataFrame({"a": [1, 2], "b": ["x", None]}, index=pd.Index([5, 6], name="k"))
    sink = io.BytesIO()
    frame.to_parquet(sink)
    pd.testing.assert_frame_equal(codecs.decode("parquet", sink.getvalue(), what="x"), frame)
    assert codecs.describe("parquet", sink) == Description(
        kind="dataframe",
        format="parquet",
        codec="parquet",
        shape=(2, 3),
        columns=("a", "b", "k"),
        dtypes=tuple(map(str, pq.read_schema(sink).types)),
        writer=f"pyarrow {pa.cpp_version}",
    )


def test_description_of_our_own_file() -> None:
    frame = pd.DataFrame({"a": [1], 7: ["x"]}, index=["r"])
    assert encoded(frame)[1] == Description(
        kind="dataframe",
        format="parquet",
        codec="mltrack-frame/1",
        shape=(1, 2),
        columns=("a", "7"),
        dtypes=("int64", str(frame[7].dtype)),
        writer=f"pyarrow {pa.cpp_version}",
    )


class Failing(io.BytesIO):
    """A store's stream that fails on the way."""

    def __init__(self, body: bytes, error: Exception) -> None:
        super().__init__(body)
        self.error = error

    def read(self, size: int | None = -1) -> bytes:
        raise self.error

    def write(self, data: Any) -> int:
        raise self.error


@pytest.mark.parametrize("error", [TransientError("SlowDown"), OSError(5, "Input/output error")])
def test_failures_of_the_stream_keep_their_type(error: Exception) -> None:
    body, _ = encoded(column([1]))
    with pytest.raises(type(error)) as read_error:
        codecs.describe("parquet", Failing(body, error))
    assert not isinstance(read_error.value, IntegrityError)
    with pytest.raises(type(error)) as write_error:
        codecs.encode(column([1]), Failing(b"", error))
    assert isinstance(write_error.value, OSError | MLTrackError)


@pytest.mark.parametrize("codec", [-7, 3, 5, 7, 35])
def test_a_codec_that_nobody_knows_ends_no_process(codec: int) -> None:
    """pyarrow ends the process if it is asked for the name of such a codec."""
    body = encoded(pd.DataFrame({"a": ["x", "y"] * 10}))[0]
    field = bytes([0x15, 6 << 1])  # an i32 that is 6, as ZSTD is; some other fields look the same
    start = len(body) - 8 - int.from_bytes(body[-8:-4], "little")
    places = [at for at in range(start, len(body)) if body[at : at + 2] == field]
    assert places
    for at in places:
        damaged = bytearray(body)
        damaged[at + 1] = codec << 1 if codec >= 0 else -2 * codec - 1
        read(bytes(damaged))
