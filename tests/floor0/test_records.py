"""Records: what is written is read; what is forged is refused by the errors that say so, and no others."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mltrack_tasks import canonical, layout, provenance
from mltrack_tasks.errors import FormatError, IntegrityError, InvalidInputError
from mltrack_tasks.fields import format_time, parse_time
from mltrack_tasks.records import NamedData, Record, RunManifest
from mltrack_tasks.refs import DataRef, parse_ref
from tests.floor0.strategies import exact, plain_json, texts, values

DIGEST = "ab" * 32
REF = DataRef(
    hash=DIGEST,
    format="parquet",
    size_bytes=10,
    storage_path=layout.blob_key(DIGEST, "parquet"),
    name="train",
    shape=(3, 2),
    columns=("a", "b"),
    dtypes=("int64", "str"),
    metadata={"k": [1, float("inf")], "$f": "nan"},
)
RUN = RunManifest(
    run_id="r/1",
    storage_modes=("by_project", "by_date"),
    project="ü p",
    model="m",
    data={"train": REF},
    inputs={"in": REF},
    outputs={"out": REF},
    values={"note": {"a": 1}},
    params={"lr": 0.1, "n": float("nan")},
    metrics={"f1": 1},
    tags={"author": "team"},
    started_at=datetime(2024, 1, 15, 12, tzinfo=UTC),
    ended_at=datetime(2024, 1, 15, 13, 0, 0, 123456, tzinfo=UTC),
    extra={"from the future": {"x": [1]}},
)
NAMED = NamedData.content_of("data", REF)


def record_of(content: dict[str, Any]) -> dict[str, Any]:
    return {"format": 1, "content": content, "provenance": provenance.current()}


def read_run(raw: Any) -> RunManifest:
    record = Record.from_bytes(canonical.dumps(raw), what="the record")
    return RunManifest.from_record(record, revision=1, what="the record")


def read_named(raw: Any) -> NamedData:
    record = Record.from_bytes(canonical.dumps(raw), what="the record")
    return NamedData.from_record(record, what="the record")


def nodes(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON value."""
    yield path
    if isinstance(value, dict):
        for key, item in value.items():
            yield from nodes(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from nodes(item, (*path, index))


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    result = copy.deepcopy(value)
    place = result
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = new
    return result


def removed(value: Any, path: tuple[Any, ...]) -> Any:
    result = copy.deepcopy(value)
    place = result
    for step in path[:-1]:
        place = place[step]
    del place[path[-1]]
    return result


RUN_RECORD = record_of(RUN.to_content())
NAMED_RECORD = record_of(NAMED)
HOSTILE = st.sampled_from(
    [
        *("..", ".", "", "../x", "/etc", "a\nb", "\0", "x" * 300, "2024-13-45T00:00:00Z", DIGEST.upper()),
        *(-1, 2**70, 1.5, True, None, [], {}, [None], {"": 1}, {"..": {}}, {"$f": "nan"}, {"$x": 1}),
    ]
)


def test_a_run_comes_back_whole() -> None:
    again = read_run(RUN_RECORD)
    assert canonical.dumps(again.to_content()) == canonical.dumps(RUN.to_content())
    assert again.extra == RUN.extra
    assert again.data_refs == {"train": REF}
    assert again.all_refs == [REF]
    assert again.data["train"].metadata == REF.metadata
    assert again.started_at == RUN.started_at
    assert again.ended_at == RUN.ended_at


def test_named_data_comes_back_whole() -> None:
    assert read_named(NAMED_RECORD).ref == REF
    assert read_named(NAMED_RECORD).name == "data"


@pytest.mark.parametrize(("record", "read"), [(RUN_RECORD, read_run), (NAMED_RECORD, read_named)])
def test_every_field_forged_is_refused_or_harmless(record: Any, read: Any) -> None:
    @given(st.sampled_from(sorted(nodes(record), key=repr)), HOSTILE | plain_json)
    def check(path: tuple[Any, ...], new: Any) -> None:
        try:
            item = read(replaced(record, path, new))
        except (IntegrityError, FormatError):
            return
        check_harmless(item)

    check()


@pytest.mark.parametrize(("record", "read"), [(RUN_RECORD, read_run), (NAMED_RECORD, read_named)])
def test_every_field_missing_is_refused_or_harmless(record: Any, read: Any) -> None:
    for path in nodes(record):
        if path:
            try:
                item = read(removed(record, path))
            except (IntegrityError, FormatError):
                continue
            check_harmless(item)


JUNK: list[Any] = [
    *(
        None,
        True,
        0,
        -1,
        1.5,
        10**30,
        "",
        "..",
        "../x",
        "a/b",
        "a\nb",
        "x",
        "by_project",
        "parquet",
        "1" * 64,
    ),
    *([], {}, [None], [1], [-1], ["x"], [["x"]], {"": 1}, {"..": {}}, {"a": 1}, {"$x": 1}, {"$f": "nan"}),
]


@pytest.mark.parametrize(("record", "read"), [(RUN_RECORD, read_run), (NAMED_RECORD, read_named)])
def test_every_node_forged_in_every_way_is_refused_or_harmless(record: Any, read: Any) -> None:
    for path in nodes(record):
        for junk in JUNK:
            try:
                item = read(replaced(record, path, junk))
            except (IntegrityError, FormatError):
                continue
            check_harmless(item)


FORGED: dict[tuple[str, ...], tuple[Any, str]] = {
    ("format",): (True, "has no format number"),
    ("content", "run_id"): ("..", "cannot be a name"),
    ("content", "run_type"): ("secret", "'secret' is not a run type"),
    ("content", "storage_modes"): (["by_user"], "'by_user' is not a storage mode"),
    ("content", "project"): ("a\0b", "control character"),
    ("content", "model"): ("x" * 300, "limit is 200"),
    ("content", "status"): (None, "status should be a string"),
    ("content", "data", "train", "hash"): ("../../etc", "does not name a blob"),
    ("content", "data", "train", "format"): ("exe", "does not name a blob"),
    ("content", "data", "train", "size_bytes"): (True, "size_bytes should be a whole number"),
    ("content", "inputs", "in", "size_bytes"): (-1, "size_bytes should be a whole number, not negative"),
    ("content", "data", "train", "shape"): ([1.0], "shape should be a list of sizes"),
    ("content", "data", "train", "columns"): ("ab", "columns should be a list of strings"),
    ("content", "data", "train", "storage_path"): ("data/cd/x/data.parquet", "not the place of"),
    ("content", "data", "train", "metadata"): ({"$f": "nan"}, "metadata should be an object"),
    ("content", "outputs", ".."): ({}, "cannot be a name"),
    ("content", "inputs"): ([], "inputs should be an object"),
    ("content", "params"): ({"$x": 1}, r"reserved key '\$x'"),
    ("content", "started_at"): ("2024-01-15 10:00", "started_at is .*not a UTC time ending in Z"),
    ("content", "ended_at"): (0, "ended_at is 0, not a UTC time"),
}


@pytest.mark.parametrize("path", FORGED, ids=".".join)
def test_a_forged_field_is_named(path: tuple[str, ...]) -> None:
    value, reason = FORGED[path]
    with pytest.raises(IntegrityError, match=f"^the record.*{reason}"):
        read_run(replaced(RUN_RECORD, path, value))


def test_unknown_fields_do_not_displace_known_ones() -> None:
    known = replace(RUN, extra={}).to_content()
    forged = replace(RUN, extra=dict.fromkeys(known, "forged")).to_content()
    assert canonical.dumps(forged) == canonical.dumps(known)


def test_the_deepest_values_survive_in_a_run() -> None:
    deep: Any = math.nan
    for _ in range(canonical.MAX_DEPTH - 1):
        deep = {"k": deep}
    whole = replace(RUN, params={"d": deep}, data={"x": replace(REF, metadata={"d": deep})})
    again = read_run(record_of(whole.to_content()))
    assert exact(again.params) == exact(whole.params)
    assert exact(again.data["x"].metadata) == exact(whole.data["x"].metadata)


def check_harmless(item: RunManifest | NamedData) -> None:
    """What was read can be used and written as if it were ours."""
    refs = item.all_refs if isinstance(item, RunManifest) else [item.ref]
    for ref in refs:
        assert ref.storage_path == layout.blob_key(ref.hash, ref.format)
        assert type(ref.size_bytes) is int
        assert ref.size_bytes >= 0
        assert type(ref.name) is str
        for part, kind in ((ref.shape, int), (ref.columns, str), (ref.dtypes, str)):
            assert part is None or (type(part) is tuple and {type(one) for one in part} <= {kind})
        assert type(ref.metadata) is dict
        assert parse_ref(str(ref)) == (ref.hash, ref.format)
        canonical.dumps(ref.to_json())
    with suppress(IntegrityError):  # provenance is read only when it is asked for
        assert item.stored_at.utcoffset() == timedelta(0)
    if isinstance(item, NamedData):
        layout.name_folder(item.name)
        return
    canonical.dumps(item.to_content())
    assert item.run_type in layout.RUN_TYPES
    assert set(item.storage_modes) <= set(layout.STORAGE_MODES)
    assert type(item.status) is str
    for group in (item.values, item.params, item.metrics, item.tags):
        assert type(group) is dict
        canonical.dumps_value(group)
    layout.manifest_key(item.run_id)
    for name in [*item.data, *item.inputs, *item.outputs]:
        layout.encode_segment(name)
    for mode, value in (("by_project", item.project), ("by_model", item.model)):
        assert value is None or layout.view_key(mode, value, item.run_id)


@given(st.binary(max_size=80))
def test_bytes_that_are_no_record(body: bytes) -> None:
    with pytest.raises((IntegrityError, FormatError)):
        Record.from_bytes(body, what="the record")


@pytest.mark.parametrize("format", [0, 2, 99])
def test_another_format_asks_for_an_upgrade(format: int) -> None:
    with pytest.raises(FormatError, match="Upgrade mltrack_tasks"):
        read_run({**RUN_RECORD, "format": format, "content": "unknown"})


def test_a_record_of_any_size_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mltrack_tasks.records.MAX_RECORD_SIZE", 10)
    with pytest.raises(IntegrityError, match="no record is"):
        read_run(RUN_RECORD)


def test_records_survive_newer_writers_and_provenance_is_not_compared() -> None:
    newer = copy.deepcopy(RUN_RECORD)
    newer["content"]["new field"] = {"a": [1]}
    newer["provenance"] = {"at": "2020-01-01T00:00:00Z", "unknown": 1}
    newer["signature"] = "x"
    again = read_run(newer)
    assert again.to_content()["new field"] == {"a": [1]}
    one, other = (Record({"a": 1}, {"at": at}) for at in ("2020-01-01T00:00:00Z", "2021-01-01T00:00:00Z"))
    assert one.content_digest == other.content_digest
    assert one.to_bytes() != other.to_bytes()


@given(texts, values, values)
def test_metadata_is_exact(name: str, one: Any, other: Any) -> None:
    ref = DataRef(DIGEST, "bin", 1, layout.blob_key(DIGEST, "bin"), metadata={name: one, "o": [other]})
    raw = canonical.loads(canonical.dumps(ref.to_json()), what="it")
    assert exact(DataRef.from_json(raw, what="it").metadata) == exact(ref.metadata)


def test_refs_as_strings() -> None:
    assert str(REF) == f"sha256:{DIGEST}.parquet"
    assert parse_ref(str(REF)) == (DIGEST, "parquet")
    assert parse_ref(DIGEST) == parse_ref(f"sha256:{DIGEST}") == (DIGEST, None)
    for text in (
        "",
        "x",
        DIGEST[:-1],
        f"md5:{DIGEST}",
        f"{DIGEST}.",
        f"{DIGEST}.exe",
        f"{DIGEST}\n",
        f" {DIGEST}",
    ):
        with pytest.raises(InvalidInputError):
            parse_ref(text)


def test_name_and_created_are_outside_a_refs_equality() -> None:
    assert replace(REF, name="other", created=True) == REF
    assert hash(replace(REF, name="other", created=True)) == hash(REF)
    assert replace(REF, format="bin") != REF


def test_times() -> None:
    east = timezone(timedelta(hours=9))
    assert format_time(datetime(2024, 1, 1, 5, tzinfo=east)) == "2023-12-31T20:00:00Z"
    assert format_time(None) is None
    nanoseconds = pd.Timestamp("2024-01-15 12:00:00.123456789", tz="UTC")
    written = format_time(nanoseconds)
    assert written == "2024-01-15T12:00:00.123456Z"
    assert parse_time(written, "it") == datetime(2024, 1, 15, 12, 0, 0, 123456, tzinfo=UTC)
    for bad in (datetime(2024, 1, 1), pd.NaT, "2024-01-01", 1, datetime.min.replace(tzinfo=east)):
        with pytest.raises(InvalidInputError):
            format_time(bad)  # type: ignore[arg-type]


@given(st.datetimes(timezones=st.just(UTC)))
def test_times_come_back(moment: datetime) -> None:
    assert parse_time(format_time(moment), "it") == moment


@pytest.mark.parametrize(
    "text",
    [
        *("", "2024-01-01", "2024-01-01T00:00:00", "2024-01-01T00:00:00+00:00", "2024-02-30T00:00:00Z", 1),
        *("2024-01-01 00:00:00Z", "2024-01-01T00:00:00.1234567Z", "2024-01-01T25:00:00Z", None),
        "२०२४-01-01T00:00:00Z",
    ],
)
def test_times_that_we_did_not_write(text: object) -> None:
    with pytest.raises(IntegrityError, match="UTC time"):
        parse_time(text, "it")


def test_provenance_says_who_and_when() -> None:
    with provenance.within(flow_run="f"), provenance.within(task_run="t"):
        found = provenance.current()
    assert (found["flow_run"], found["task_run"]) == ("f", "t")
    assert {"at", "actor", "host", "versions"} <= set(found)
    assert "flow_run" not in provenance.current()
    canonical.dumps(found)
