"""Records and refs: what is written is read back; what was forged is refused, by name."""

from __future__ import annotations

import copy
import json
import math
import pickle
from collections.abc import Callable, Iterator
from dataclasses import FrozenInstanceError, fields, replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mltrack_tasks import canonical, layout
from mltrack_tasks.canonical import MAX_DEPTH
from mltrack_tasks.errors import FormatError, IntegrityError, InvalidInputError
from mltrack_tasks.fields import format_time, parse_time
from mltrack_tasks.records import FORMAT, MAX_RECORD_SIZE, NamedData, Record, RunManifest
from mltrack_tasks.refs import DataRef, parse_ref

DIGEST = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
OTHER = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
PROVENANCE = {"at": "2024-01-15T12:00:00.250000Z", "actor": "a", "host": "h", "versions": {"python": "3.11"}}
FRAME = DataRef(
    hash=DIGEST,
    format="parquet",
    size_bytes=1234,
    storage_path=layout.blob_key(DIGEST, "parquet"),
    name="train data",
    shape=(3, 2),
    columns=("a", "$b", ""),
    dtypes=("int64", "object", "float64"),
    metadata={"$f": "nan", "nan": math.nan, "deep": [1, 1.0, True, None, {"$": -0.0}]},
)
PLAIN = DataRef(OTHER, "bin", 0, layout.blob_key(OTHER, "bin"))
RUN = RunManifest(
    run_id="exp/2024 ü~1",
    run_type="evaluation",
    status="failed",
    storage_modes=("by_project", "by_date", "by_model", "flat"),
    project="customer churn",
    model="m/1",
    data={"train": FRAME, "raw": PLAIN},
    inputs={"in": PLAIN},
    outputs={},
    values={"params": {"lr": 0.1, "$x": [math.inf]}},
    params={"n": 1, "f": 1.0, "b": True, "none": None},
    metrics={"loss": math.nan, "steps": 3, "auc": -math.inf},
    tags={"author": "x", "$": ""},
    started_at=datetime(2024, 1, 15, 10, 0, 0, 1, UTC),
    ended_at=datetime(2024, 1, 15, 10, 30, tzinfo=UTC),
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([DIGEST, OTHER, "", ".", "..", "../x", "a\nb", "2024-01-15T12:00:00Z", "bin", "$f"])
    | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["", "..", "$f", "$x", "a", "hash", "name"]), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip


def record(content: Any, provenance: Any = PROVENANCE) -> Record:
    """Make a record as it comes out of a bucket."""
    return Record.from_bytes(
        canonical.dumps({"format": 1, "content": content, "provenance": provenance}), what="x"
    )


def read_run(found: Record) -> RunManifest:
    return RunManifest.from_record(found, revision=1, what="manifests/x.json")


def read_named(found: Record) -> NamedData:
    return NamedData.from_record(found, what="names/x.json")


def text_of(value: Any) -> bytes:
    """A value's exact bytes: 1, 1.0 and True differ, NaN equals NaN."""
    return canonical.dumps_value(value)


# round trips


def test_a_run_comes_back_exactly() -> None:
    found = record(RUN.to_content())
    back = read_run(found)
    for field in fields(RunManifest):
        if field.compare and field.name != "values" and field.name not in ("data", "metrics"):
            assert getattr(back, field.name) == getattr(RUN, field.name), field.name
    assert back.data["train"].metadata["nan"] != back.data["train"].metadata["nan"]
    for name in ("values", "params", "metrics", "tags"):
        assert text_of(getattr(back, name)) == text_of(getattr(RUN, name)), name
    assert canonical.dumps(back.to_content()) == canonical.dumps(RUN.to_content())
    assert back.provenance == PROVENANCE
    assert back.stored_at == datetime(2024, 1, 15, 12, 0, 0, 250_000, UTC)


def test_the_smallest_run_comes_back() -> None:
    run = RunManifest("r", storage_modes=("flat",))
    assert read_run(record(run.to_content())) == run


def test_named_data_comes_back() -> None:
    back = read_named(record(NamedData.content_of("train data", FRAME)))
    assert back.name == "train data"
    assert back.stored_at == datetime(2024, 1, 15, 12, 0, 0, 250_000, UTC)
    assert canonical.dumps(back.ref.to_json()) == canonical.dumps(FRAME.to_json())


def test_the_bytes_of_a_record_are_canonical() -> None:
    body = Record({"b": 1, "a": "ü"}, {"at": "x"}).to_bytes()
    assert body == '{"content":{"a":"ü","b":1},"format":1,"provenance":{"at":"x"}}'.encode()
    assert Record.from_bytes(body, what="x").to_bytes() == body


def test_the_content_digest_is_of_the_content_only() -> None:
    content = {"a": 1}
    one, other = Record(content, {"at": "x"}), Record(content, {"at": "y"})
    assert one.content_digest == other.content_digest
    assert one.content_digest != Record({"a": 1.0}, {}).content_digest


def test_content_says_nothing_of_time_bucket_or_luck() -> None:
    """So that records survive copying, and a call made again compares equal."""
    again = replace(RUN, created=True, revision=7, provenance={"at": "later"})
    assert canonical.dumps(again.to_content()) == canonical.dumps(RUN.to_content())
    assert "created" not in FRAME.to_json()
    assert not json.dumps(RUN.to_content()).count("s3://")


def test_unknown_fields_are_kept() -> None:
    newer = {**RUN.to_content(), "parent": {"run_id": "p", "n": [1.0]}, "a_new_list": []}
    back = read_run(record(newer))
    assert back.extra == {"parent": {"run_id": "p", "n": [1.0]}, "a_new_list": []}
    assert canonical.dumps(back.to_content()) == canonical.dumps(newer)


def test_unknown_fields_cannot_displace_known_ones() -> None:
    forged = replace(RUN, extra={"run_id": "other", "project": "other"})
    assert forged.to_content()["run_id"] == RUN.run_id
    assert forged.to_content()["project"] == RUN.project


def test_the_deepest_values_survive_in_a_record() -> None:
    deep: Any = math.nan
    for _ in range(MAX_DEPTH - 2):
        deep = {"k": deep}
    run = RunManifest(
        "r", storage_modes=("flat",), params={"deep": deep}, data={"x": replace(PLAIN, metadata={"d": deep})}
    )
    back = read_run(record(run.to_content()))
    assert text_of(back.params) == text_of(run.params)
    assert text_of(back.data["x"].metadata) == text_of(run.data["x"].metadata)


def test_a_run_holds_each_blob_once() -> None:
    assert RUN.all_refs == [FRAME, PLAIN]
    assert RUN.data_refs == {"train": FRAME, "raw": PLAIN}


# the form of a record


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"null", b"[]", b"1", b'"x"', b"{}", b'{"content":{},"provenance":{}}'),
        *(b'{"format":1}', b'{"format":1,"content":{}}', b'{"format":1,"content":[],"provenance":{}}'),
        *(b'{"format":1,"content":{},"provenance":null}', b'{"format":true,"content":{},"provenance":{}}'),
        *(b'{"format":1.0,"content":{},"provenance":{}}', b'{"format":"1","content":{},"provenance":{}}'),
        *(
            b'{"format":null,"content":{},"provenance":{}}',
            b'{"content":{"a":1,"a":2},"format":1,"provenance":{}}',
        ),
        b'{"content":{},"format":1,"format":1,"provenance":{}}',
    ],
    ids=ascii,
)
def test_what_is_no_record_is_an_integrity_error(body: bytes) -> None:
    with pytest.raises(IntegrityError, match=r"^manifests/x\.json is not "):
        Record.from_bytes(body, what="manifests/x.json")


@pytest.mark.parametrize("number", [2, 3, 10**6, 0, -1])
def test_another_format_says_upgrade(number: int) -> None:
    body = canonical.dumps({"format": number, "whatever": ["a newer version", "writes"]})
    with pytest.raises(
        FormatError, match=rf"^names/x has format {number}; .* reads format 1\. Upgrade mltrack_tasks\.$"
    ):
        Record.from_bytes(body, what="names/x")


def test_the_format_of_this_version_is_one() -> None:
    assert FORMAT == 1
    assert json.loads(Record({}, {}).to_bytes())["format"] == 1


def test_a_record_of_any_size_is_not_read() -> None:
    with pytest.raises(IntegrityError, match="larger than"):
        Record.from_bytes(bytes(MAX_RECORD_SIZE + 1), what="x")


# hostile records


def nodes(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Name every node of a JSON value by its path."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield from nodes(item, (*path, key))


_GONE = object()


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """Replace or (``_GONE``) delete the node at ``path`` in a copy."""
    if not path:
        return None if new is _GONE else new
    whole = copy.deepcopy(value)
    holder = whole
    for key in path[:-1]:
        holder = holder[key]
    if new is _GONE:
        del holder[path[-1]]
    else:
        holder[path[-1]] = new
    return whole


WHOLE_RUN = json.loads(Record(RUN.to_content(), PROVENANCE).to_bytes())
WHOLE_NAMED = json.loads(Record(NamedData.content_of("train data", FRAME), PROVENANCE).to_bytes())
JUNK: list[Any] = [
    *(_GONE, None, True, 0, 1, -1, 1.5, 10**30, "", ".", "..", "../x", "a/b", "a\nb", "x", [], {}, [None]),
    *([1], [-1], ["x"], [["x"]], {"": 1}, {"..": {}}, {"a": 1}, {"$x": 1}, {"$f": "nan"}, {"$f": "x"}, OTHER),
    *("2024-02-30T00:00:00Z", "2024-01-15T10:00:00", "parquet", "by_project", 2),
]


def check_run(whole: Any) -> None:
    """What comes out of a forged record has its declared types, or is refused."""
    try:
        run = read_run(Record.from_bytes(canonical.dumps(whole), what="x"))
        stored_at: Any = run.stored_at
    except (IntegrityError, FormatError):
        return
    assert isinstance(stored_at, datetime)
    layout.manifest_key(run.run_id)
    assert run.run_type in layout.RUN_TYPES
    assert type(run.status) is str
    assert set(run.storage_modes) <= set(layout.STORAGE_MODES)
    for name in (run.project, run.model):
        assert name is None or layout.encode_segment(name)
    for group in (run.data, run.inputs, run.outputs):
        for name, ref in group.items():
            layout.encode_segment(name)
            check_ref(ref)
    for group in (run.values, run.params, run.metrics, run.tags):
        assert type(group) is dict
        text_of(group)
    for moment in (run.started_at, run.ended_at):
        assert moment is None or moment.tzinfo is UTC or moment.utcoffset() == timedelta(0)
    content = run.to_content()
    assert canonical.dumps(read_run(record(content)).to_content()) == canonical.dumps(content)


def check_named(whole: Any) -> None:
    try:
        item = read_named(Record.from_bytes(canonical.dumps(whole), what="x"))
    except (IntegrityError, FormatError):
        return
    layout.name_folder(item.name)
    assert isinstance(item.stored_at, datetime)
    check_ref(item.ref)


def check_ref(ref: DataRef) -> None:
    assert type(ref) is DataRef
    assert ref.storage_path == layout.blob_key(ref.hash, ref.format)
    assert type(ref.size_bytes) is int
    assert ref.size_bytes >= 0
    assert type(ref.name) is str
    for sizes in ref.shape or ():
        assert type(sizes) is int
    for texts in (ref.columns, ref.dtypes):
        assert texts is None or (type(texts) is tuple and all(type(text) is str for text in texts))
    assert type(ref.metadata) is dict
    text_of(ref.metadata)
    assert parse_ref(str(ref)) == (ref.hash, ref.format)


CASES: list[tuple[Any, Callable[[Any], None]]] = [(WHOLE_RUN, check_run), (WHOLE_NAMED, check_named)]


@pytest.mark.parametrize(("whole", "check"), CASES, ids=["run", "named"])
def test_every_node_may_be_missing_or_junk(whole: Any, check: Callable[[Any], None]) -> None:
    for path in nodes(whole):
        for junk in JUNK:
            check(changed(whole, path, junk))


@given(st.sampled_from(CASES), st.data())
def test_random_changes_are_read_or_refused(
    case: tuple[Any, Callable[[Any], None]], data: st.DataObject
) -> None:
    whole, check = case
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(list(nodes(whole))))
        whole = changed(whole, path, data.draw(JSON | st.just(_GONE)))
    check(whole)


FORGED = {
    ("content", "run_id"): ("..", "cannot be a name"),
    ("content", "run_type"): ("secret", "'secret' is not a run type"),
    ("content", "storage_modes"): (["by_user"], "'by_user' is not a storage mode"),
    ("content", "project"): ("a\0b", "control character"),
    ("content", "model"): ("x" * 300, "limit is 200"),
    ("content", "status"): (None, "status should be a string"),
    ("content", "data", "train", "hash"): ("../../etc", "does not name a blob"),
    ("content", "data", "train", "format"): ("exe", "does not name a blob"),
    ("content", "data", "train", "size_bytes"): (True, "size_bytes should be a whole number"),
    ("content", "data", "train", "shape"): ([1.0], "shape should be a list of sizes"),
    ("content", "data", "train", "columns"): ("ab", "columns should be a list of strings"),
    ("content", "data", "train", "storage_path"): (f"data/ba/{OTHER}/data.parquet", "not the place of"),
    ("content", "data", "train", "metadata"): ({"$f": "nan"}, "metadata should be an object"),
    ("content", "outputs"): ({"x": {}}, r"outputs\['x'\]: hash should be a string, not None"),
    ("content", "outputs", ".."): ({}, "cannot be a name"),
    ("content", "inputs"): ([], "inputs should be an object"),
    ("content", "params"): ({"$x": 1}, r"reserved key '\$x'"),
    ("content", "started_at"): ("2024-01-15 10:00", "started_at is .*not a UTC time ending in Z"),
    ("content", "ended_at"): (0, "ended_at is 0, not a UTC time"),
}


@pytest.mark.parametrize(
    ("path", "forged"), FORGED.items(), ids=lambda part: ".".join(part) if "content" in part else ""
)
def test_a_forged_field_is_named(path: tuple[str, ...], forged: tuple[Any, str]) -> None:
    value, says = forged
    whole = changed(WHOLE_RUN, path, value)
    with pytest.raises(IntegrityError, match=says) as caught:
        read_run(Record.from_bytes(canonical.dumps(whole), what="x"))
    assert "manifests/x.json" in str(caught.value)


# refs


def test_created_and_name_stand_outside_equality() -> None:
    twin = replace(FRAME, name="other", created=True)
    assert twin == FRAME
    assert hash(twin) == hash(FRAME)
    assert len({twin, FRAME, PLAIN}) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"hash": OTHER},
        {"format": "bin"},
        {"size_bytes": 1},
        {"storage_path": "x"},
        {"shape": (2, 3)},
        {"columns": ("a",)},
        {"dtypes": None},
        {"metadata": {"a": 2}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_all_else_is_part_of_equality(change: dict[str, Any]) -> None:
    assert replace(replace(FRAME, metadata={"a": 1}), **change) != replace(FRAME, metadata={"a": 1})


def test_a_ref_is_hashable_whatever_its_metadata() -> None:
    assert hash(FRAME) == hash(replace(FRAME, metadata={"a": [1, {"b": []}]}))
    assert {FRAME: 1}[replace(FRAME, name="x")] == 1


def test_a_ref_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        FRAME.hash = OTHER  # type: ignore[misc]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_refs_and_runs_travel_between_processes(protocol: int) -> None:
    ref, run = pickle.loads(pickle.dumps((replace(FRAME, created=True), RUN), protocol))
    assert ref == FRAME or text_of(ref.to_json()) == text_of(FRAME.to_json())
    assert ref.created is True
    assert canonical.dumps(run.to_content()) == canonical.dumps(RUN.to_content())


@pytest.mark.parametrize("format", layout.FORMATS)
def test_the_text_of_a_ref_leads_back(format: str) -> None:
    ref = replace(PLAIN, format=format)
    assert str(ref) == f"sha256:{OTHER}.{format}"
    assert parse_ref(str(ref)) == (OTHER, format)
    assert parse_ref(str(ref).removeprefix("sha256:")) == (OTHER, format)
    assert parse_ref(f"sha256:{OTHER}") == parse_ref(OTHER) == (OTHER, None)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "x",
            "sha256:",
            OTHER[:-1],
            OTHER + "0",
            OTHER.upper(),
            OTHER + "\n",
            " " + OTHER,
            "md5:" + OTHER,
        ),
        *(f"sha256:{OTHER}{end}" for end in (".", ".bin\n", ".JSON", ".bin.json", "/../x", ".exe")),
        *(layout.blob_key(OTHER, "bin"), "s3://b/" + layout.blob_key(OTHER, "bin")),
    ],
    ids=ascii,
)
def test_other_texts_are_not_refs(text: str) -> None:
    with pytest.raises(InvalidInputError, match=r"is not a ref: expected|is unknown; choose one of"):
        parse_ref(text)


# times


@given(st.datetimes(datetime(2, 1, 1), datetime(9998, 12, 31)), st.integers(-1439, 1439))
def test_a_time_comes_back_as_the_same_moment(moment: datetime, minutes: int) -> None:
    local = moment.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    text = format_time(local)
    assert text is not None
    assert text.endswith("Z")
    assert parse_time(text, "x") == local
    assert format_time(parse_time(text, "x")) == text


@pytest.mark.parametrize("moment", [datetime(2024, 1, 1), "2024-01-01T00:00:00Z", 0], ids=repr)
def test_a_time_without_a_zone_is_refused(moment: Any) -> None:
    with pytest.raises(InvalidInputError, match="not a datetime with a timezone"):
        format_time(moment)


@pytest.mark.parametrize(
    "moment",
    [
        datetime.min.replace(tzinfo=timezone(timedelta(hours=1))),
        datetime.max.replace(tzinfo=timezone(-timedelta(hours=1))),
    ],
    ids=["before year 1", "after year 9999"],
)
def test_a_time_that_utc_cannot_hold_is_refused(moment: datetime) -> None:
    with pytest.raises(InvalidInputError, match="outside the years 1 to 9999"):
        format_time(moment)


@pytest.mark.parametrize(
    "text",
    [
        *("", "2024-01-15", "2024-01-15T10:00:00", "2024-01-15T10:00:00+00:00", "2024-01-15 10:00:00Z"),
        *("2024-02-30T00:00:00Z", "2024-01-15T24:01:00Z", "2024-01-15T10:00:60Z", None, 0),
        *(
            "2024-01-15T10:00:00.0000001Z",
            "2024-01-15T10:00:00Z\n",
            "0000-01-01T00:00:00Z",
            "٢٠٢٤-01-15T10:00:00Z",
            "20240115T100000Z",
        ),
    ],
    ids=ascii,
)
def test_other_texts_are_not_times(text: Any) -> None:
    with pytest.raises(IntegrityError, match=r"^provenance\.at is .*not a UTC time ending in Z"):
        parse_time(text, "provenance.at")
