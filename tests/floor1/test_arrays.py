"""ndarrays: exact, one byte string per value in any memory order, and nothing is unpickled."""

from __future__ import annotations

import io
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mltrack_tasks import codecs
from mltrack_tasks.codecs import Description
from mltrack_tasks.codecs.arrays import CHUNK_BYTES
from mltrack_tasks.errors import FormatError, IntegrityError, InvalidInputError
from tests.floor1.strict import assert_same, encoded, roundtrip

PACKED = np.dtype([("a", "<i2"), ("b", [("c", ">f4", (2,)), ("d", "S3")])])

ARRAYS: dict[str, Any] = {
    "scalar": np.array(1.5),
    "empty": np.zeros((0, 3)),
    "shape (2, 3)": np.zeros((2, 3)),
    "shape (3, 2)": np.zeros((3, 2)),
    "i4": np.zeros(2, "i4"),
    "i8": np.zeros(2, "i8"),
    "big-endian": np.array([1, 2], ">i4"),
    "bool": np.array([True, False]),
    "halves": np.array([0.5, -0.0, np.nan], "f2"),
    "complex": np.array([1j, np.nan]),
    "text": np.array(["a", "über"]),
    "bytes": np.array([b"a", b"bc"]),
    "void": np.array([b"\x00a"], "V2"),
    "times": np.array(["2024-01-01", "NaT"], "M8[D]"),
    "25 seconds": np.array([1], "m8[25s]"),
    "packed records": np.array([(1, ([1, 2], b"x"))], PACKED),
    "many dimensions": np.arange(64).reshape((2,) * 6),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_comes_back_exactly_and_writable(name: str) -> None:
    back = roundtrip(ARRAYS[name])
    assert_same(ARRAYS[name], back)
    assert back.dtype.str == ARRAYS[name].dtype.str
    assert back.flags.writeable
    assert back.flags.owndata or back.base is None


def test_no_two_share_bytes() -> None:
    assert len({encoded(array)[0] for array in ARRAYS.values()}) == len(ARRAYS)


@given(
    hnp.arrays(
        st.one_of(hnp.scalar_dtypes(), hnp.array_dtypes(max_size=3)),
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
    )
)
def test_random_arrays_have_one_form(array: Any) -> None:
    try:
        body, _ = encoded(array)
    except InvalidInputError:
        with pytest.raises(InvalidInputError, match=re.escape(str(array.dtype))):
            encoded(array)
        return
    assert_same(array, roundtrip(array))
    wide = np.zeros((*array.shape, 2), array.dtype)
    wide[..., 1] = array
    orders = [np.array(array, order="F"), np.array(array, order="C"), wide[..., 1]]
    assert {encoded(other)[0] for other in orders} == {body}


def test_any_memory_order_streams_in_chunks() -> None:
    array = np.arange(7 * 600_001, dtype="i8").reshape(-1, 7)
    writes: list[bytes] = []

    class Sink(io.RawIOBase):
        def write(self, data: Any) -> int:
            writes.append(bytes(data))
            return len(data)

    codecs.encode(np.asfortranarray(array), Sink())
    assert b"".join(writes) == encoded(array)[0]
    assert len(writes) > 2
    assert max(map(len, writes)) <= CHUNK_BYTES


def test_numpy_writes_and_reads_the_same_bytes() -> None:
    for array in ARRAYS.values():
        sink = io.BytesIO()
        np.save(sink, array)
        body, _ = encoded(array)
        assert sink.getvalue() == body
        assert_same(np.load(io.BytesIO(body)), array)


def test_fortran_order_of_others_is_read() -> None:
    sink = io.BytesIO()
    np.save(sink, np.asfortranarray(np.arange(6).reshape(2, 3)))
    assert_same(codecs.decode("npy", sink.getvalue(), what="x"), np.arange(6).reshape(2, 3))


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_version_of_the_format_is_read(version: tuple[int, int]) -> None:
    sink = io.BytesIO()
    np.lib.format.write_array(sink, np.arange(3), version)
    assert_same(codecs.decode("npy", sink.getvalue(), what="x"), np.arange(3))
    description = codecs.describe("npy", sink)
    assert description.codec == f"npy/{version[0]}.{version[1]}"


REFUSED: dict[str, tuple[Any, str]] = {
    "objects": (np.array([None, 1], dtype=object), "dtype object.*pickled"),
    "records with objects": (np.array([(1, "a")], [("a", "i4"), ("b", "O")]), "pickled"),
    "padding": (np.zeros(1, np.dtype([("a", "i1"), ("b", "i8")], align=True)), "padding"),
    "overlap": (
        np.zeros(1, np.dtype({"names": ["a"], "formats": ["i1"], "itemsize": 4})),
        "padding",
    ),
    "inner padding": (
        np.zeros(1, [("r", np.dtype([("a", "i1"), ("b", "i8")], align=True))]),
        "field 'r': padding",
    ),
    "longdouble": (np.zeros(1, "longdouble"), "float128.*padding"),
    "variable text": (np.array(["a"], np.dtypes.StringDType()), "npy has no form"),
    "metadata": (np.zeros(1, np.dtype("i4", metadata={"a": 1})), "metadata"),
    "no bytes": (np.zeros(1, np.dtype([])), "no bytes"),
    "foreign field names": (np.zeros(1, [("日本", "i4")]), "latin-1"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_the_reason(name: str) -> None:
    array, message = REFUSED[name]
    with pytest.raises(InvalidInputError, match=f"^matrix.*{message}"):
        encoded(array, what="matrix")


def test_description() -> None:
    body, description = encoded(np.zeros((2, 3), "f4"))
    assert description == Description(
        kind="ndarray", format="npy", codec="npy/1.0", shape=(2, 3), dtypes=("float32",)
    )
    assert codecs.sniff(body[:8], body[-8:]) == "npy"


def npy(header: str, body: bytes = b"", version: int = 1) -> bytes:
    text = header.encode("latin1")
    size = len(text).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + size + text + body


HUGE = "{'descr': '<f8', 'fortran_order': False, 'shape': (1099511627776, 4096)}"
HOSTILE: dict[str, tuple[bytes, type[Exception]]] = {
    "huge shape": (npy(HUGE, b"x" * 8), IntegrityError),
    "beyond 64 bits": (npy(HUGE.replace("4096", str(2**70))), IntegrityError),
    "negative": (npy(HUGE.replace("4096", "-1")), IntegrityError),
    "bool as a size": (npy(HUGE.replace("4096", "True")), IntegrityError),
    "shape of text": (npy(HUGE.replace("(1099511627776, 4096)", "'ab'")), IntegrityError),
    "expression": (npy("__import__('os').getcwd()"), IntegrityError),
    "unknown dtype": (npy(HUGE.replace("<f8", "<q9")), IntegrityError),
    "not a dict": (npy("[]"), IntegrityError),
    "one key more": (npy(HUGE.replace("{", "{'x': 1, ")), IntegrityError),
    "deep": (npy("(" * 5000), IntegrityError),
    "objects": (npy(HUGE.replace("<f8", "|O")), FormatError),
    "version": (npy(HUGE, version=9), FormatError),
    "no bytes for an item": (npy(HUGE.replace("<f8", "|V0")), FormatError),
    "header beyond the end": (b"\x93NUMPY\x01\x00\xff\xff{}      ", IntegrityError),
    "nothing": (b"", IntegrityError),
    "two arrays": (encoded(np.zeros(1))[0] * 2, IntegrityError),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_bytes_are_refused(name: str) -> None:
    body, error = HOSTILE[name]
    with pytest.raises(error, match=r"^blob "):
        codecs.decode("npy", body, what="blob ")
    with pytest.raises(error, match=r"^blob "):
        codecs.describe("npy", io.BytesIO(body), what="blob ")


BODIES = [encoded(ARRAYS[name])[0] for name in ("scalar", "packed records", "text")]


@given(st.sampled_from(BODIES), st.integers(0, 200), st.binary(max_size=3))
def test_damaged_bytes_raise_typed_errors_or_decode(body: bytes, place: int, noise: bytes) -> None:
    damaged = body[:place] + noise + body[place + len(noise) :]
    try:
        assert isinstance(codecs.decode("npy", damaged, what="x"), np.ndarray)
    except (IntegrityError, FormatError):
        with pytest.raises((IntegrityError, FormatError)):
            codecs.decode("npy", damaged, what="x")


@given(st.sampled_from(BODIES), st.integers(0, 10**6))
def test_cut_bytes_are_refused(body: bytes, length: int) -> None:
    with pytest.raises(IntegrityError):
        codecs.decode("npy", body[: length % len(body)], what="x")
