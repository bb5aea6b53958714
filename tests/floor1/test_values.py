"""JSON values and bytes, the choice of a format, estimates, sniffing, and the light import."""

from __future__ import annotations

import io
import math
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mltrack_tasks import codecs
from mltrack_tasks.errors import IntegrityError, InvalidInputError
from tests.floor1.strict import assert_same, encoded, roundtrip

SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text())
JSON = st.recursive(SCALARS, lambda v: st.lists(v) | st.dictionaries(st.text(), v), max_leaves=9)


@given(JSON)
def test_json_values_come_back_exactly(value: Any) -> None:
    try:
        body, description = encoded(value)
    except InvalidInputError:
        with pytest.raises(InvalidInputError, match="surrogate"):
            encoded(value)
        return
    assert description.format == "json"
    assert_same(value, roundtrip(value))
    assert encoded(roundtrip(value))[0] == body


@given(st.binary())
def test_bytes_come_back(value: bytes) -> None:
    assert encoded(value)[0] == value
    assert_same(value, roundtrip(value))


def test_different_values_differ() -> None:
    values = [{}, [], "", None, False, 0, 0.0, -0.0, math.nan, math.inf, "null", {"$f": "nan"}, "0"]
    bodies = [encoded(value)[0] for value in values]
    assert len(set(bodies)) == len(values)
    for value in values:
        assert_same(value, roundtrip(value))


def test_one_digest_may_have_two_formats() -> None:
    assert encoded({})[0] == encoded(b"{}")[0]
    assert encoded({})[1] != encoded(b"{}")[1]
    assert codecs.decode("json", b"{}", what="x") == {}
    assert codecs.decode("bin", b"{}", what="x") == b"{}"


class SubFrame(pd.DataFrame):
    """A frame that would come back as its base."""


class Tensor:
    """Some value of another library."""


class Table:
    """A table of another library."""

    def to_pandas(self) -> pd.DataFrame:
        return pd.DataFrame()


REFUSED: dict[str, tuple[Any, str]] = {
    "tuple": ((1, 2), "tuple.*list"),
    "set": ({1}, "set.*sorted"),
    "Series": (pd.Series([1]), "Series.*to_frame"),
    "Index": (pd.RangeIndex(2), "RangeIndex.*to_frame"),
    "arrow table": (pa.table({"a": [1]}), "Table.*to_pandas"),
    "other table": (Table(), "Table.*to_pandas"),
    "subclass of DataFrame": (SubFrame({"a": [1]}), r"SubFrame.*pd\.DataFrame\(x\)"),
    "masked": (np.ma.array([1, 2], mask=[True, False]), "MaskedArray.*filled"),
    "matrix": (np.zeros((1, 1)).view(np.matrix), "matrix.*np.asarray"),
    "records": (np.rec.array([(1,)]), "recarray.*np.asarray"),
    "numpy scalar": (np.float64(1.5), "float64.*item"),
    "numpy text": (np.str_("a"), "str_.*item"),
    "bytearray": (bytearray(b"a"), "bytearray.*bytes"),
    "memoryview": (memoryview(b"a"), "memoryview.*bytes"),
    "path": (Path("a"), "store_file"),
    "file": (io.BytesIO(), "store_file"),
    "Decimal": (Decimal(1), "store_file"),
    "model": (Tensor(), "Tensor.*save it to a file and use store_file"),
    "int key": ({1: "a"}, "key 1.*string keys"),
    "tuple inside": ({"a": [(1,)]}, r"\['a'\]\[0\] is a tuple"),
    "frame inside": ([pd.DataFrame()], r"\[0\] is a .*DataFrame"),
    "subclass of str": (type("Text", (str,), {})("a"), "Text"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_a_way_out(name: str) -> None:
    value, message = REFUSED[name]
    sink = io.BytesIO()
    with pytest.raises(InvalidInputError, match=f"^params.*{message}"):
        codecs.encode(value, sink, what="params")
    assert sink.getvalue() == b""


def test_mapped_arrays_are_refused(tmp_path: Path) -> None:
    mapped = np.memmap(tmp_path / "a", dtype="i1", shape=(2,), mode="w+")
    with pytest.raises(InvalidInputError, match=r"memmap.*np\.asarray"):
        codecs.format_of(mapped)
    assert codecs.format_of(np.asarray(mapped)) == "npy"


def test_format_of() -> None:
    values: list[Any] = [{}, [], "a", 1, 1.5, True, None]
    assert {codecs.format_of(value) for value in values} == {"json"}
    assert codecs.format_of(b"") == "bin"
    assert codecs.format_of(np.zeros(1)) == "npy"
    assert codecs.format_of(pd.DataFrame()) == "parquet"


def test_estimates_are_near() -> None:
    assert codecs.estimate_size(np.zeros(1000)) == 8000
    assert codecs.estimate_size(b"abc") == 3
    assert 8000 <= codecs.estimate_size(pd.DataFrame({"a": np.zeros(1000)})) < 9000
    texts = pd.DataFrame({"a": pd.Series(["x" * 1000] * 500, dtype=object)})
    assert 500_000 <= codecs.estimate_size(texts) < 600_000
    cells = pd.DataFrame({"a": [np.zeros(100) for _ in range(200)]})
    assert 160_000 <= codecs.estimate_size(cells) < 200_000
    assert 1_000_000 <= codecs.estimate_size([[i] * 10 for i in range(20_000)]) < 10_000_000
    assert codecs.estimate_size(pd.DataFrame()) < 1000


def test_sniff_looks_at_both_ends() -> None:
    body, _ = encoded(pd.DataFrame({"a": [1]}))
    assert codecs.sniff(body[:8], body[-8:]) == "parquet"
    assert codecs.sniff(body[:8], body[-9:-1]) == "bin"
    assert codecs.sniff(b"PAR1", b"PAR1") == "bin"
    assert codecs.sniff(b"", b"") == "bin"


def test_unknown_format_is_named() -> None:
    with pytest.raises(InvalidInputError, match="'csv'"):
        codecs.decode("csv", b"", what="x")
    with pytest.raises(InvalidInputError, match="'csv'"):
        codecs.describe("csv", io.BytesIO())


@pytest.mark.parametrize("body", [b"", b"{", b"NaN", b'{"a":1,"a":2}', b'{"$x":1}', b"\xff", b"[" * 9999])
def test_damaged_json_is_refused(body: bytes) -> None:
    with pytest.raises(IntegrityError, match="blob"):
        codecs.decode("json", body, what="blob")
    with pytest.raises(IntegrityError, match="blob"):
        codecs.describe("json", io.BytesIO(body), what="blob")


def test_import_is_light() -> None:
    code = (
        "import io, sys; from mltrack_tasks import codecs; codecs.encode({'a': 1}, io.BytesIO());"
        "codecs.format_of(b''); heavy = {'pandas', 'pyarrow', 'numpy'} & set(sys.modules);"
        "print(sorted(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
