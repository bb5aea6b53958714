"""Rows of the run catalogue: manifests come back exactly, the newest wins, and filters mean what they say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mltrack_tasks.errors import IntegrityError, InvalidInputError
from mltrack_tasks.records import RunManifest
from mltrack_tasks.runfilter import RunFilter, run_filter, run_time
from mltrack_tasks.tables import runrows
from mltrack_tasks.tables.runcells import cells_of, plain_text, values_of
from mltrack_tasks.tables.runparts import SCHEMA
from tests.floor0.run_examples import SPECIAL, contents, filters, identity, items, manifests, ref_of
from tests.floor0.strategies import exact

some_runs = st.lists(manifests, max_size=6)
RUN = RunManifest(
    run_id="r",
    project="churn",
    revision=3,
    data={"train_data": ref_of(1, 5)},
    params={"depth": 10},
    metrics={"accuracy": 0.5},
    started_at=datetime(2024, 1, 15, tzinfo=UTC),
    provenance={
        "at": "2024-01-16T00:00:00Z",
        "actor": "ci",
        "host": "h",
        "flow": "train",
        "code": {"commit": "c0ffee", "dirty": True},
    },
)


def shards(table: pa.Table, sizes: Sequence[int]) -> list[pa.Table]:
    """Cut a table at these sizes; what is left is the last piece."""
    pieces = []
    for size in sizes:
        pieces.append(table[:size])
        table = table[size:]
    return [*pieces, table]


def current(runs: Sequence[RunManifest]) -> list[RunManifest]:
    """The highest revision of each run, by project (none last) and run id, by plain Python."""
    by_id: dict[str, RunManifest] = {}
    for run in sorted(runs, key=lambda run: (-run.revision, identity(run)[0])):
        by_id.setdefault(run.run_id, run)
    return sorted(by_id.values(), key=lambda run: (run.project is None, run.project or "", run.run_id))


def test_what_a_row_says() -> None:
    (row,) = runrows.rows_of([RUN]).to_pylist()
    del row["manifest"]
    empty = {"whole": None, "number": None, "text": None}
    assert row == {
        **{"run_id": "r", "revision": 3, "run_type": "experiment", "status": "finished"},
        **{"project": "churn", "model": None, "storage_modes": ["by_project"]},
        **{"started_at": RUN.started_at, "ended_at": None, "stored_at": datetime(2024, 1, 16, tzinfo=UTC)},
        **{"actor": "ci", "host": "h", "flow_run_id": None, "flow": "train", "deployment_id": None},
        **{"git_commit": "c0ffee", "git_dirty": True},
        "entries": [
            {"group": "params", "name": "depth", "kind": "int", **empty, "whole": 10},
            {"group": "metrics", "name": "accuracy", "kind": "float", **empty, "number": 0.5},
        ],
        "refs": [{"role": "data", "name": "train_data", "ref": str(ref_of(1)), "size_bytes": 5}],
    }


@given(some_runs)
def test_manifests_come_back(runs: list[RunManifest]) -> None:
    table = runrows.rows_of(runs)
    table.validate(full=True)
    assert table.schema == SCHEMA
    again = runrows.manifests_of(table)
    assert [identity(run) for run in again] == [identity(run) for run in runs]


@given(manifests)
def test_rows_do_not_depend_on_the_order_of_names(run: RunManifest) -> None:
    turned = {group: dict(reversed(getattr(run, group).items())) for group in ("params", "data", "values")}
    assert contents(runrows.rows_of([replace(run, **turned)])) == contents(runrows.rows_of([run]))


@given(st.lists(items) | st.just(SPECIAL))
def test_values_come_back_from_cells(values: list[Any]) -> None:
    assert list(map(exact, values_of(cells_of(values), "it"))) == list(map(exact, values))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("x", "x"),
        ([1, "ü", None, True], '[1,"ü",null,true]'),
        ({"$f": {"a": 0.5}}, '{"$f":{"a":0.5}}'),
        ([float("nan"), {"a": [float("inf"), float("-inf")]}], '["NaN",{"a":["Infinity","-Infinity"]}]'),
        (float("nan"), '"NaN"'),
        (2**70, str(2**70)),
    ],
    ids=repr,
)
def test_json_for_people(value: Any, text: str) -> None:
    assert plain_text(value) == text


def test_what_no_record_can_hold_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"params\['a'\] is a tuple"):
        runrows.rows_of([replace(RUN, params={"a": (1,)})])


@pytest.mark.parametrize(
    "junk", [None, 5, "x", [], {}, {"commit": 5, "dirty": 1}, {"commit": ["x"], "dirty": "no"}]
)
def test_provenance_of_other_types_is_null(junk: Any) -> None:
    origin = {key: [junk] for key in ("at", "actor", "host", "flow", "flow_run_id", "deployment_id")}
    (row,) = runrows.rows_of([replace(RUN, provenance={**origin, "code": junk})]).to_pylist()
    assert {row[name] for name in (*origin, "git_commit", "git_dirty") if name != "at"} == {None}
    assert row["stored_at"] is None


def test_sizes_beyond_int64_are_null() -> None:
    (row,) = runrows.rows_of([replace(RUN, data={"x": ref_of(1, 2**63)})]).to_pylist()
    assert row["refs"][0]["size_bytes"] is None


@given(some_runs, st.lists(st.integers(0, 4), max_size=3), st.randoms(use_true_random=False))
def test_the_newest_revision_wins(runs: list[RunManifest], sizes: list[int], random: Any) -> None:
    mixed = runs * 2
    random.shuffle(mixed)
    found = runrows.newest(shards(runrows.rows_of(mixed), sizes))
    assert [identity(run) for run in runrows.manifests_of(found)] == [identity(run) for run in current(runs)]
    for same in ([runrows.rows_of(runs)], [found], [found, found]):
        assert contents(runrows.newest(same)) == contents(found)


def test_no_tables_are_no_rows() -> None:
    assert runrows.newest([]) == SCHEMA.empty_table() == runrows.rows_of([])
    assert runrows.manifests_of(runrows.newest([])) == []


@given(some_runs)
def test_revisions_and_rows_left_out(runs: list[RunManifest]) -> None:
    table = runrows.rows_of(runs)
    highest = runrows.revisions(table)
    assert highest == {run.run_id: max(r.revision for r in runs if r.run_id == run.run_id) for run in runs}
    for hidden in ({"r1", "unknown"}, set[str]()):
        left = [identity(run) for run in runs if run.run_id not in hidden]
        assert [identity(run) for run in runrows.manifests_of(runrows.without(table, hidden))] == left


@given(some_runs, filters, st.lists(st.integers(0, 3), max_size=2))
def test_select_keeps_what_matches(runs: list[RunManifest], wanted: RunFilter, sizes: list[int]) -> None:
    table = pa.concat_tables(shards(runrows.rows_of(runs), sizes)).drop_columns(["manifest"])
    expected = [index for index, run in enumerate(runs) if wanted.matches(run)]
    assert contents(runrows.select(table, wanted)) == contents(table.take(pa.array(expected, pa.int64())))


@given(st.lists(manifests, min_size=1, max_size=4), st.data())
def test_select_finds_what_is_there(runs: list[RunManifest], data: st.DataObject) -> None:
    """The filters of the other law seldom match; these are made of the runs' own values."""
    run = data.draw(st.sampled_from(runs))
    group = data.draw(st.sampled_from(["params", "tags", "metrics"]))
    held = getattr(run, group)
    if group == "metrics":
        held = {name: value for name, value in held.items() if type(value) in (int, float)}
    wanted = run_filter(run_type=run.run_type, project=run.project, **{group: held})
    found = runrows.manifests_of(runrows.select(runrows.rows_of(runs), wanted))
    assert [identity(one) for one in found] == [identity(one) for one in runs if wanted.matches(one)]
    assert identity(run) in [identity(one) for one in found]


@given(some_runs)
def test_the_newest_come_first(runs: list[RunManifest]) -> None:
    found = runrows.manifests_of(runrows.newest_first(runrows.rows_of(runs)))

    def place(run: RunManifest) -> tuple[float, str]:
        moment = run_time(run)
        epoch = datetime(1970, 1, 1, tzinfo=UTC)
        return (float("inf") if moment is None else -(moment - epoch).total_seconds(), run.run_id)

    assert list(map(place, found)) == sorted(map(place, runs))


def test_a_row_with_another_manifest() -> None:
    one, other = runrows.rows_of([RUN]), runrows.rows_of([replace(RUN, run_id="other")])
    forged = one.set_column(one.column_names.index("run_id"), SCHEMA.field("run_id"), other["run_id"])
    with pytest.raises(IntegrityError, match="row of the run 'other' holds the manifest of 'r'"):
        runrows.manifests_of(forged)


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"\xff", b"[" * 5_000, b'{"content":{},"format":1,"provenance":{}}']
)
def test_a_row_without_a_manifest(body: bytes) -> None:
    table = runrows.rows_of([RUN])
    last = table.num_columns - 1
    forged = table.set_column(last, SCHEMA.field(last), pa.array([body], pa.large_binary()))
    with pytest.raises(IntegrityError, match="row of the run 'r'"):
        runrows.manifests_of(forged)
