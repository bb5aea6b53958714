"""Values that must come back exactly, by name; the test modules take their tables from here."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa


def objects(*cells: Any) -> Any:
    return np.fromiter(cells, dtype=object, count=len(cells))


def column(values: Any, dtype: Any = None, name: Any = "x") -> pd.DataFrame:
    """One column; an object array stays one."""
    dtype = dtype or getattr(values, "dtype", None)
    return pd.DataFrame({name: pd.Series(values, dtype=dtype)})


def indexed(index: pd.Index) -> pd.DataFrame:
    return pd.DataFrame({"x": np.arange(len(index))}, index=index)


def labelled(columns: Any) -> pd.DataFrame:
    frame = pd.DataFrame(np.arange(2 * len(columns)).reshape(2, -1))
    frame.columns = columns
    return frame


def arrow(values: Any, exact: pa.DataType) -> pd.DataFrame:
    return column(pd.arrays.ArrowExtensionArray(pa.chunked_array([pa.array(values, exact)])))


EARLY, LATE = np.iinfo("i8").min + 1, np.iinfo("i8").max
STAMPS = np.array(["NaT", "1969-12-31T23:59:59", "2024-02-29T12:00:00"], dtype="M8[s]")
FIXED = timezone(timedelta(hours=-3, minutes=-30))


def numbers() -> dict[str, pd.DataFrame]:
    found = {}
    for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"):
        bounds = np.iinfo(name)
        found[name] = column(np.array([bounds.min, 0, bounds.max], dtype=name))
        nullable = name.replace("int", "Int").replace("uI", "UI")
        found[nullable] = column(pd.array([bounds.min, None, bounds.max], dtype=nullable))
    for name in ("float16", "float32", "float64"):
        special = [0.0, -0.0, np.nan, np.inf, -np.inf, np.finfo(name).tiny, np.finfo(name).max]
        found[name] = column(np.array(special, dtype=name))
    for name in ("Float32", "Float64"):
        found[name] = column(pd.array([1.5, None, -0.0], dtype=name))
    with_nan = pd.arrays.FloatingArray(np.array([np.nan, 1.0, 2.0]), np.array([False, True, False]))
    return found | {
        "Float64 with NaN and NA": column(with_nan),
        "bool": column(np.array([True, False])),
        "boolean": column(pd.array([True, None, False], dtype="boolean")),
        "big-endian": column(np.array([1, 256], dtype=">i4")),
    }


def texts() -> dict[str, pd.DataFrame]:
    cells = ["a", None, "", "\x00", "ü\U0001f600", "nan", "None"]
    dtypes = {
        "str": pd.StringDtype(na_value=np.nan),
        "str in python": pd.StringDtype("python", na_value=np.nan),
        "string[python]": pd.StringDtype("python"),
        "string[pyarrow]": pd.StringDtype("pyarrow"),
    }
    return {name: column(pd.array(cells, dtype=dtype)) for name, dtype in dtypes.items()}


def times() -> dict[str, pd.DataFrame]:
    found = {}
    for unit in ("s", "ms", "us", "ns"):
        found[f"datetime64[{unit}]"] = column(STAMPS.astype(f"M8[{unit}]"))
        found[f"timedelta64[{unit}]"] = column(np.array(["NaT", EARLY, 0, LATE], dtype=f"m8[{unit}]"))
        if unit != "s":
            found[f"bounds of {unit}"] = column(np.array([EARLY, LATE], dtype=f"M8[{unit}]"))
    zones = {
        "zoneinfo": ZoneInfo("Europe/Berlin"),
        "zoneinfo UTC": ZoneInfo("UTC"),
        "utc": UTC,
        "fixed": FIXED,
        "fixed with a name": timezone(timedelta(hours=1), "CET"),
        "fixed with seconds": timezone(timedelta(seconds=3601)),
    }
    for name, zone in zones.items():
        for unit in ("s", "ns"):
            stamps = pd.DatetimeIndex(STAMPS.astype(f"M8[{unit}]")).tz_localize("UTC").tz_convert(zone)
            found[f"{name} in {unit}"] = column(stamps.array)
    for freq in ("M", "2M", "Q-DEC", "W-SUN", "h", "Y", "ns"):
        found[f"period {freq}"] = column(pd.PeriodIndex(["2024-01", "NaT", "1950-06"], freq=freq).array)
    return found


def categoricals() -> dict[str, pd.DataFrame]:
    cats = {
        "str": pd.Categorical(["b", None, "a"]),
        "ordered": pd.Categorical(["b", None, "a"], ["a", "b"], ordered=True),
        "unused": pd.Categorical(["b", "b"], ["a", "b", "c"]),
        "order": pd.Categorical(["b", "a"], ["b", "a"]),
        "object": pd.Categorical(["b", "a"], pd.Index(["a", "b"], dtype=object)),
        "int": pd.Categorical([3, 1, None]),
        "int8": pd.Categorical.from_codes([0, 1], pd.Index([3, 4], dtype="int8")),
        "float": pd.Categorical([0.1, -0.0]),
        "range": pd.Categorical.from_codes([1, -1], pd.RangeIndex(3)),
        "bool": pd.Categorical([True, False]),
        "times": pd.Categorical(pd.date_range("2024-01-01", periods=3, tz="Europe/Berlin")),
        "dates": pd.Categorical(objects(date(2024, 1, 1), date(2023, 1, 1))),
        "intervals": pd.cut([1, 5, 9], [0, 4, 8, 12]),
        "overlapping": pd.Categorical([pd.Interval(0, 2), pd.Interval(1, 3)]),
        "periods": pd.Categorical(pd.period_range("2024-01", periods=2, freq="M")),
        "named": pd.Categorical.from_codes([0], pd.Index(["a"], name="n")),
        "none": pd.Categorical([None, None]),
        "Int64": pd.Categorical(pd.array([1, 2], dtype="Int64")),
        "arrow": pd.Categorical(pd.array(["b", "a"], dtype=pd.ArrowDtype(pa.string()))),
        "many": pd.Categorical.from_codes([0, 299], pd.Index([f"c{i}" for i in range(300)])),
    }
    return {f"category of {name}": column(cat) for name, cat in cats.items()}


def intervals() -> dict[str, pd.DataFrame]:
    made = {
        "int": pd.arrays.IntervalArray.from_breaks([0, 1, 4]),
        "float with missing": pd.arrays.IntervalArray.from_tuples([(0.0, 1.5), np.nan, (-np.inf, 0.0)]),
        "closed": pd.arrays.IntervalArray.from_breaks([0, 1], closed="neither"),
        "times": pd.interval_range(pd.Timestamp("2024", tz="Europe/Berlin"), periods=2, freq="D").array,
        "durations": pd.interval_range(pd.Timedelta(0), periods=2, freq="h").array,
    }
    return {f"interval of {name}": column(array) for name, array in made.items()}


def cells() -> dict[str, pd.DataFrame]:
    made: dict[str, tuple[Any, ...]] = {
        "str": ("a", "", "\x00"),
        "bytes": (b"a", b"", b"\xff\x00"),
        "bool": (True, False),
        "int": (-(2**63), 2**63 - 1),
        "uint": (0, 2**64 - 1),
        "float": (0.5, -0.0, np.inf),
        "date": (date(1, 1, 1), date(9999, 12, 31)),
        "time": (time(0), time(23, 59, 59, 999999)),
        "datetime": (datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999999)),
        "timedelta": (timedelta(microseconds=-1), timedelta(days=10**6)),
        "Decimal": (Decimal("1.50"), Decimal("-0.01")),
        "Decimal of any scale": (
            Decimal("1.5"),
            Decimal("1.50"),
            Decimal("-0"),
            Decimal("NaN"),
            Decimal("1E+5"),
        ),
        "wide Decimal": (Decimal("9" * 50 + ".25"), Decimal("0.01")),
        "list": ([1, 2], [], [None]),
        "list of float": ([1.0, np.nan, None, -0.0], []),
        "empty lists": ([], []),
        "mixed lists": ([1, "a"], [1.0, [True]]),
        "large numbers": ([2**70], [1]),
        "nested": ([[{"a": [b"x"]}]], [[]], [[{"a": []}]]),
        "dict": ({"a": 1, "b": {"c": "d"}}, {"b": {"c": None}, "a": None}),
        "dicts with other keys": ({"a": 1}, {"b": 1}, {}, {"$f": "nan", "": [np.nan]}),
        "deep": ([[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]],),
        "embeddings": (np.array([1, np.nan], "f4"), np.array([], "f4"), np.array([-0.0], "f4")),
        "strided": (np.arange(6)[::2], np.arange(3)),
        "masks": (np.array([True, False]), np.array([False])),
        "halves": (np.array([1.5], "f2"),),
    }
    markers = {"None": None, "nan": np.nan, "NaT": pd.NaT, "NA": pd.NA}
    found = {f"cells of {name}": column(objects(*values)) for name, values in made.items()}
    for marker, value in markers.items():
        found[f"only {marker}"] = column(objects(value, value))
        for name, values in made.items():
            found[f"cells of {name} and {marker}"] = column(objects(value, *values, value))
    return found


def arrows() -> dict[str, pd.DataFrame]:
    made: list[tuple[Any, pa.DataType]] = [
        (["a", None], pa.string()),
        (["a", None], pa.large_string()),
        ([b"a", None], pa.binary()),
        ([b"ab", None], pa.binary(2)),
        ([True, None], pa.bool_()),
        ([1, None], pa.int8()),
        ([2**64 - 1, None], pa.uint64()),
        ([1.5, None, float("nan"), -0.0], pa.float64()),
        ([1.5, None, float("nan")], pa.float32()),
        ([Decimal("1.50"), None], pa.decimal128(5, 2)),
        ([Decimal("1.50"), None], pa.decimal256(50, 2)),
        ([date(2024, 1, 1), None], pa.date32()),
        ([date(2024, 1, 1), None], pa.date64()),
        ([1, None], pa.time32("s")),
        ([1, None], pa.time64("ns")),
        ([1, None], pa.timestamp("s")),
        ([1, None], pa.timestamp("ns", "Europe/Berlin")),
        ([1, None], pa.timestamp("us", "+03:30")),
        ([1, None], pa.duration("s")),
        ([[1, None], None, []], pa.list_(pa.int64())),
        ([[1, None], None, []], pa.large_list(pa.int64())),
        ([[1, 2], None], pa.list_(pa.int8(), 2)),
        ([[1], None], pa.list_(pa.timestamp("s"))),
        ([[1], None], pa.list_(pa.field("inner", pa.int64()))),
        (
            [{"a": 1, "b": ["x"]}, None, {"a": None, "b": None}],
            pa.struct([("a", pa.int8()), ("b", pa.list_(pa.string()))]),
        ),
        ([[("k", 1)], None, []], pa.map_(pa.string(), pa.int64())),
        ([None, None], pa.null()),
    ]
    return {f"arrow {exact}": arrow(values, exact) for values, exact in made}


def indexes() -> dict[str, pd.DataFrame]:
    days = pd.date_range("2024-01-01", periods=3, freq="D")
    mixed = pd.MultiIndex.from_arrays([[1, 2, None], ["a", None, "b"]], names=["n", None])
    product = pd.MultiIndex.from_product([days, pd.CategoricalIndex(["b", "a"], ["a", "b", "c"])])
    words = pd.MultiIndex.from_arrays([[1, 2], pd.Index(["a", None], dtype=object)])
    made = {
        "range": pd.RangeIndex(3),
        "range by step": pd.RangeIndex(5, -1, -2, name="r"),
        "int": pd.Index([3, 1, 1]),
        "int8": pd.Index([3, 1], dtype="int8"),
        "float": pd.Index([0.5, np.nan, -0.0]),
        "bool": pd.Index([True, False]),
        "str": pd.Index(["b", "a"], name="s"),
        "object": pd.Index(["b", None], dtype=object),
        "dates": pd.Index([date(2024, 1, 1), None], dtype=object),
        "days": days,
        "days without freq": pd.DatetimeIndex(list(days)),
        "business": pd.date_range("2024-01-01", periods=3, freq="2B", tz="Europe/Berlin", name="t"),
        "durations": pd.timedelta_range("1h", periods=3, freq="h"),
        "periods": pd.period_range("2024-01", periods=3, freq="M"),
        "intervals": pd.interval_range(0, 3),
        "categories": pd.CategoricalIndex(["b", None], ["a", "b"], ordered=True),
        "Int64": pd.Index([1, None], dtype="Int64"),
        "arrow": pd.Index(pd.array(["a", None], dtype=pd.ArrowDtype(pa.string()))),
        "multi": mixed,
        "multi of a part": mixed[[1]],
        "multi product": product,
        "multi empty": product[:0],
        "multi of objects": words,
        "multi of missing objects": words[[1]],
        "multi of no objects": words[:0],
        "multi of intervals": pd.MultiIndex.from_arrays([pd.interval_range(0, 2), [True, False]]),
        "named as a column": pd.Index([1, 2], name="x"),
        "named by a number": pd.Index([1, 2], name=0),
        "named by a tuple": pd.Index([1, 2], name=("a", 1)),
        "empty days": days[:0],
    }
    return {f"index {name}": indexed(index) for name, index in made.items()}


def labels() -> dict[str, pd.DataFrame]:
    made = {
        "str": pd.Index(["b", "a"], name="n"),
        "object": pd.Index(["b", "a"], dtype=object),
        "numbers": pd.Index([3, 1]),
        "mixed": pd.Index(["1", 1, 1.5, None, np.nan, True], dtype=object),
        "tuples": pd.Index([("a", 1), "b"], dtype=object, tupleize_cols=False),
        "repeated": pd.Index(["a", "a", "a_2", "a"]),
        "odd": pd.Index(["", "a.b", "A", "a", "\x00", "__index_level_0__"]),
        "times": pd.date_range("2024", periods=2, freq="D"),
        "dates": pd.Index([date(2024, 1, 1), date(2025, 1, 1)], dtype=object),
        "multi": pd.MultiIndex.from_tuples([("a", 1), ("a", 2), ("b", 1)], names=["l", None]),
        "multi of missing": pd.MultiIndex.from_arrays([[1], pd.Index([None], dtype=object)]),
        "multi of all sorts": pd.MultiIndex.from_tuples([("a", "x"), ("a", 1), ("b", None)]),
        "categories": pd.CategoricalIndex(["b", "a"], ["a", "b", "c"]),
        "range": pd.RangeIndex(2, 6, 2),
    }
    return {f"labels {name}": labelled(index) for name, index in made.items()}


def others() -> dict[str, pd.DataFrame]:
    noted = column([1])
    noted.attrs = {"source": {"rows": [1, np.nan, None]}, "$f": "nan"}
    strict = column([1]).set_flags(allows_duplicate_labels=False)
    return {
        "empty": pd.DataFrame(),
        "rows only": pd.DataFrame(index=pd.RangeIndex(3)),
        "rows only, named": pd.DataFrame(index=pd.Index(["a", "b"])),
        "columns only": pd.DataFrame({"a": np.array([], "i4"), "b": pd.array([], dtype="Int8")}),
        "object without rows": column(objects()),
        "attrs": noted,
        "flags": strict,
        "index like a column": pd.DataFrame({"__index_level_0__": [1]}, index=[7]),
    }


def frames() -> dict[str, pd.DataFrame]:
    """Every frame of this module by name."""
    tables = (
        numbers,
        texts,
        times,
        categoricals,
        intervals,
        cells,
        arrows,
        indexes,
        labels,
        others,
    )
    found: dict[str, pd.DataFrame] = {}
    for table in tables:
        found |= table()
    return found
