"""Parts of the run catalogue: rows come back, equal rows have equal bytes, and forged parts are refused."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mltrack_tasks.errors import FormatError, IntegrityError
from mltrack_tasks.records import RunManifest
from mltrack_tasks.runfilter import run_filter
from mltrack_tasks.tables import runparts, runrows
from mltrack_tasks.tables.runparts import NUMBER, ROW_GROUP_ROWS, SCHEMA, decode_rows, encode_rows
from tests.floor0.run_examples import contents, manifests, ref_of

RUN = RunManifest(
    run_id="r",
    project="churn",
    data={"a": ref_of(1, 5), "b": ref_of(2, 5)},
    params={
        "bool": True,
        "int": 1,
        "float": 0.5,
        "str": "x",
        "list": [1],
        "dict": {"a": 1},
        "huge": 2**70,
        "none": None,
    },
    started_at=datetime(2024, 1, 15, tzinfo=UTC),
    provenance={"at": "2024-01-16T00:00:00Z", "actor": "ci"},
)
ROWS = runrows.rows_of([RUN, replace(RUN, run_id="s", project=None)])
BODY = encode_rows(ROWS)


@given(st.lists(manifests, max_size=5), st.integers(0, 5))
def test_rows_come_back(runs: list[RunManifest], cut: int) -> None:
    table = runrows.rows_of(runs)
    body = encode_rows(table)
    again = decode_rows(body, "the part")
    assert contents(again) == contents(table)
    assert again.schema.equals(SCHEMA, check_metadata=True)
    assert encode_rows(pa.concat_tables([table[:cut], table[cut:]])) == body
    assert encode_rows(again) == body


def test_bytes_do_not_depend_on_chunks() -> None:
    """Parquet's pages would end where chunks end; it takes some rows to see it."""
    table = runrows.rows_of(replace(RUN, run_id=f"r{number}") for number in range(5_000))
    pieces = [table[:777], table[777:3_001], table[3_001:]]
    assert encode_rows(pa.concat_tables(pieces)) == encode_rows(table)


def test_the_form_is_frozen() -> None:
    """Rows are read by other versions: a column that is added, removed or changed needs a new NUMBER."""
    entry = (
        "group: string not null, name: string not null, kind: string not null, whole: int64, number: double"
    )
    lists = (
        "list<element: string not null>",
        f"list<element: struct<{entry}, text: large_string> not null>",
        "list<element: struct<role: string not null, name: string not null, ref: string not null, "
        "size_bytes: int64> not null>",
    )
    texts = ("project", "model")
    origin = ("actor", "host", "flow_run_id", "flow", "deployment_id", "git_commit")
    expected = [
        *(("run_id", "string", False), ("revision", "int32", False)),
        *(("run_type", "string", False), ("status", "string", False)),
        *((name, "string", True) for name in texts),
        ("storage_modes", lists[0], False),
        *((name, "timestamp[us, tz=UTC]", True) for name in ("started_at", "ended_at", "stored_at")),
        *((name, "string", True) for name in origin),
        ("git_dirty", "bool", True),
        *(("entries", lists[1], False), ("refs", lists[2], False), ("manifest", "large_binary", False)),
    ]
    assert [(field.name, str(field.type), field.nullable) for field in SCHEMA] == expected
    assert NUMBER == 1


def test_a_part_can_be_read_in_part() -> None:
    wide = ROWS.take([0] * (ROW_GROUP_ROWS + 1))
    footer = pq.ParquetFile(io.BytesIO(encode_rows(wide))).metadata
    assert [footer.row_group(index).num_rows for index in range(footer.num_row_groups)] == [ROW_GROUP_ROWS, 1]
    assert footer.row_group(0).column(0).statistics.max == "r"
    columns = [name for name in SCHEMA.names if name != "manifest"]
    narrow = decode_rows(BODY, "the part", columns=columns)
    assert narrow == ROWS.select(columns)
    assert len(runrows.select(narrow, run_filter(project="churn", params={"int": 1}))) == 1


def written(table: pa.Table, footer: dict[str, str] | None = None) -> bytes:
    """Write a part past the code under test."""
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, table.schema) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata(
            {"mltrack": f'{{"codec":"mltrack-runs","number":{NUMBER}}}'} if footer is None else footer
        )
    return sink.getvalue()


def test_the_writer_of_forged_parts_writes_readable_ones() -> None:
    assert decode_rows(written(ROWS), "the part") == ROWS


@pytest.mark.parametrize("number", [NUMBER + 1, 99])
def test_a_newer_part_asks_for_an_upgrade(number: int) -> None:
    newer = ROWS.append_column("new", pa.array([1, 2]))
    footer = {"mltrack": f'{{"codec":"mltrack-runs","number":{number},"new":[1]}}'}
    with pytest.raises(FormatError, match=rf"^the part has rows of form {number}.*Upgrade"):
        decode_rows(written(newer, footer), "the part")


FOOTERS = ["", "1", "[]", "null", "{}", '{"number":1}', '{"codec":"mltrack-frame","number":1}'] + [
    f'{{"codec":"mltrack-runs","number":{number}}}' for number in ("0", "-1", "true", "1.0", "null", '"1"')
]


@pytest.mark.parametrize("footer", [{}, *({"mltrack": text} for text in FOOTERS)], ids=repr)
def test_a_footer_that_is_none_of_ours(footer: dict[str, str]) -> None:
    with pytest.raises(IntegrityError, match=r"^the part"):
        decode_rows(written(ROWS, footer), "the part")


@given(st.integers(0, len(BODY) - 1), st.integers(0, 7))
def test_flipped_bits(place: int, bit: int) -> None:
    damaged = bytearray(BODY)
    damaged[place] ^= 1 << bit
    try:
        decode_rows(bytes(damaged), "the part")
    except (IntegrityError, FormatError) as error:
        assert str(error).startswith("the part")  # noqa: PT017


@given(st.integers(0, len(BODY) - 9))
def test_cut_parts(length: int) -> None:
    for tail in (b"", BODY[-8:]):
        with pytest.raises(IntegrityError, match=r"^the part"):
            decode_rows(BODY[:length] + tail, "the part")


@pytest.mark.parametrize("body", [b"", b"PAR1", b"PAR1" * 20, b"{}"])
def test_no_parquet(body: bytes) -> None:
    with pytest.raises(IntegrityError, match=r"^the part cannot be read"):
        decode_rows(body, "the part")


def test_every_page_is_verified() -> None:
    chunk = pq.ParquetFile(io.BytesIO(BODY)).metadata.row_group(0).column(0)
    damaged = bytearray(BODY)
    damaged[chunk.data_page_offset + chunk.total_compressed_size - 45] ^= 1
    with pytest.raises(IntegrityError, match=r"^the part"):
        decode_rows(bytes(damaged), "the part")


def changed(name: str, values: Sequence[Any]) -> pa.Table:
    """ROWS with another column of the same type."""
    index = ROWS.column_names.index(name)
    field = ROWS.schema.field(name)
    return ROWS.set_column(index, field, pa.array(values, field.type))


def with_items(name: str, change: Callable[[list[dict[str, Any]]], None]) -> pa.Table:
    """ROWS whose first row has other entries or refs."""
    lists = ROWS[name].to_pylist()
    change(lists[0])
    return changed(name, lists)


def entry(kind: str, **cell: Any) -> pa.Table:
    """ROWS whose first entry is of another kind, or holds something else."""
    empty = {"whole": None, "number": None, "text": None}
    return with_items("entries", lambda entries: entries[0].update({"kind": kind, **empty, **cell}))


def swapped() -> pa.Table:
    return ROWS.select([1, 0, *range(2, ROWS.num_columns)])


_WITHOUT_MANIFEST = ROWS.drop_columns(["manifest"])
_NULLABLE = ROWS.cast(pa.schema([field.with_nullable(True) for field in ROWS.schema]))
_UTF8 = pa.array([b"\xff", b"\xfe"]).view(pa.string())
FORGED: dict[str, pa.Table] = {
    "a column is missing": _WITHOUT_MANIFEST,
    "a column is added": ROWS.append_column("x", pa.array([1, 2])),
    "columns are swapped": swapped(),
    "null may stand anywhere": _NULLABLE,
    "another type": ROWS.set_column(1, "revision", pa.array([1, 1])),
    "no rows of ours": pa.table({"a": [1]}),
    "broken UTF-8": ROWS.set_column(0, ROWS.schema.field(0), _UTF8),
    "revision 0": changed("revision", [0, 1]),
    "a revision below": changed("revision", [1, -5]),
    "an unknown run type": changed("run_type", ["secret", "experiment"]),
    "a time before year 1": changed("started_at", [-(2**62), None]),
    "a time after year 9999": changed("stored_at", [2**62, None]),
    "an unknown group": with_items("entries", lambda entries: entries[0].update(group="secret")),
    "a name twice": with_items("entries", lambda entries: entries.append(entries[0])),
    "an unknown kind": entry("secret"),
    "a null with a text": entry("null", text="x"),
    "a null with a number": entry("null", number=0.5),
    "a bool without value": entry("bool"),
    "a bool that is 2": entry("bool", whole=2),
    "a bool that is text": entry("bool", text="true"),
    "an int without value": entry("int"),
    "an int twice": entry("int", whole=1, text="1"),
    "an int that is a float": entry("int", number=1.0),
    "a float without value": entry("float"),
    "a float with text": entry("float", number=1.0, text="1"),
    "a str without text": entry("str"),
    "a str with a number": entry("str", text="x", whole=1),
    "a list without text": entry("list"),
    "a dict without text": entry("dict", whole=1),
    "an unknown role": with_items("refs", lambda refs: refs[0].update(role="secret")),
    "a ref twice": with_items("refs", lambda refs: refs.append(refs[0])),
    "a ref that is a path": with_items("refs", lambda refs: refs[0].update(ref="../../etc/passwd")),
    "a ref with more behind it": with_items("refs", lambda refs: refs[0].update(ref=f"{ref_of(1)}\n")),
    "a ref of another format": with_items("refs", lambda refs: refs[0].update(ref=f"sha256:{'0' * 64}.exe")),
    "a negative size": with_items("refs", lambda refs: refs[0].update(size_bytes=-1)),
}


@pytest.mark.parametrize("forgery", FORGED)
def test_forged_parts(forgery: str) -> None:
    with pytest.raises(IntegrityError, match=r"^the part"):
        decode_rows(written(FORGED[forgery]), "the part")


def test_rows_that_would_fill_the_memory_are_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that are alike take some kilobytes, be it thousands or billions."""
    alike = ROWS.take([0] * 10_000)
    body = encode_rows(alike)
    assert len(decode_rows(body, "the part")) == len(alike)
    monkeypatch.setattr(runparts, "EXPANSION_FREE", 0)
    monkeypatch.setattr(runparts, "EXPANSION", 100)
    with pytest.raises(IntegrityError, match=r"^the part would take [0-9,]+ bytes of memory"):
        decode_rows(body, "the part")


@pytest.mark.parametrize(
    "text", ["", "x", "[]", '{"a":1', '{"$f":"nan"}', '{"$x":1}', '{"a":1,"a":2}', "1", "NaN"]
)
def test_a_text_that_is_not_of_its_kind_fails_where_it_is_read(text: str) -> None:
    forged = decode_rows(written(entry("dict", text=text)), "the part")
    name = forged["entries"][0][0]["name"].as_py()
    with pytest.raises(IntegrityError, match=name):
        runrows.select(forged, run_filter(params={name: 1}))


@pytest.mark.parametrize("text", ["", "x", "1.5", "1_000", "true", "[1]", "1" * 5_000])
def test_an_int_that_is_none(text: str) -> None:
    forged = decode_rows(written(entry("int", text=text)), "the part")
    name = forged["entries"][0][0]["name"].as_py()
    with pytest.raises(IntegrityError, match=name):
        runrows.select(forged, run_filter(params={name: 1}))
