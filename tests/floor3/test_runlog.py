"""The run log: what is left out, what is kept, and a writer that slept for weeks."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from mltrack_tasks import compaction, layout, manifests
from mltrack_tasks.catalog import current_manifests, current_rows
from mltrack_tasks.compaction import compact_catalog
from mltrack_tasks.errors import ArchivedError
from mltrack_tasks.events import CATALOG_UNREADABLE, PROGRESS, Event
from mltrack_tasks.runlog import log_entries, newest_manifests
from mltrack_tasks.runs import list_runs, store_run
from mltrack_tasks.snapshots import commit, write_part
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.observed import SteppedStore
from tests.floor3.conftest import Place
from tests.synthetic import make_run, write_runs

STRANGE = (
    "runs/log/2024-01-01/",
    "runs/log/2024-01-01/a",
    "runs/log/2024-01-01/a~1",
    "runs/log/2024-01-01/a~00000000",
    "runs/log/2024-13-01/a~00000001",
    "runs/log/elsewhere/a~00000001",
    "runs/log/2024-01-01/b/a~00000001",
    "runs/log/2024-01-01/%61~00000001",
    "runs/log/2024-01-01/..~00000001",
    "manifests/a~00000001.json",
    "manifests/a~2.json",
    "manifests/b/a.json",
    "manifests/a",
    "manifests/%2e%2e.json",
)


def test_foreign_keys_are_left_out(place: Place) -> None:
    for key in STRANGE:
        place.raw.put(key, b"x")
    assert log_entries(place.store) == []
    assert newest_manifests(place.store) == []
    assert compact_catalog(place.store).runs == 0


@pytest.mark.parametrize("run_id", ["a", "a.json", "ü/~x", "~", "%41", "a~00000002"])
def test_keys_come_back(run_id: str, store: Store) -> None:
    for revision in (1, 2, 99_999_999):
        key = layout.log_key(datetime(2024, 2, 29, 23, 59, tzinfo=UTC), run_id, revision)
        assert layout.parse_log_key(key) == (run_id, revision)
        assert layout.parse_manifest_key(layout.manifest_key(run_id, revision)) == (run_id, revision)


def test_an_entry_without_a_manifest_is_kept_and_looked_at_again(store: Store) -> None:
    """Its writer may be at work; whenever the manifest comes, the run is found."""
    write_runs(store, [make_run(1)])
    late = make_run(2)
    store.create(layout.log_key(datetime.now(UTC) - timedelta(days=5), late.run_id, 1), b"")
    assert compact_catalog(store).missing == (late.run_id,)
    write_runs(store, [make_run(3)])
    assert compact_catalog(store).missing == (late.run_id,)
    assert [entry.run_id for entry in log_entries(store)] == [late.run_id]
    write_runs(store, [late])
    assert {run.run_id for run in list_runs(store)} == {make_run(number).run_id for number in (1, 2, 3)}


def test_an_abandoned_entry_goes_after_thirty_days(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    compact_catalog(store)
    store.create(layout.log_key(datetime.now(UTC), "dead", 1), b"")
    write_runs(store, [make_run(1)])
    compact_catalog(store)
    assert [entry.run_id for entry in log_entries(store)] == ["dead"]
    monkeypatch.setattr(compaction, "ABANDONED", timedelta(seconds=-1))
    write_runs(store, [make_run(2)])
    compact_catalog(store)
    assert log_entries(store) == []


def test_a_writer_that_slept_names_its_run_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its entry was taken for abandoned while it slept; its run is found all the same."""
    monkeypatch.setattr(manifests, "LONG_SLEEP", -1.0)

    class Slept(SteppedStore):
        def step(self, verb: str, key: str, size: int, call: Any) -> Any:
            if verb == "create" and key.startswith("manifests/"):
                self.inner.delete([entry.key for entry in log_entries(self.inner)])
            return call()

    compact_catalog(store)
    store_run(Slept(store), "r", storage_mode="flat")
    assert [run.run_id for run in list_runs(store)] == ["r"]


def test_a_damaged_manifest_hides_its_run_only(memory_place: Place) -> None:
    """Neither an older revision nor an old row stands in for what cannot be read; mended, it is back."""
    store, raw = memory_place.store, memory_place.raw
    for value in (1, 2):
        for run_id in ("a", "b"):
            store_run(store, run_id, metrics={"m": value}, storage_mode="flat", if_exists="revise")
        if value == 1:
            compact_catalog(store)
    key = layout.manifest_key("a", 2)
    intact = raw.get(key) or b""
    for damage in (b"{}", intact.replace(b'"format":1', b'"format":9'), intact.replace(b'"a"', b'"b"')):
        assert damage != intact
        raw.put(key, damage)
        assert [run.run_id for run in current_manifests(store)] == ["b"]
        report = compact_catalog(store)
        assert report.damaged == ("a",)
        assert [run.run_id for run in current_manifests(store)] == ["b"]
        assert compact_catalog(store, rebuild=True).damaged == ("a",)
        assert [run.run_id for run in current_manifests(store)] == ["b"]
    raw.put(key, intact)
    assert [(run.run_id, run.revision) for run in current_manifests(store)] == [("a", 2), ("b", 2)]
    compact_catalog(store)
    assert log_entries(store) == []
    assert [(run.run_id, run.revision) for run in current_manifests(store)] == [("a", 2), ("b", 2)]


def test_a_damaged_catalogue_is_passed_over_and_made_anew(memory_place: Place) -> None:
    store, raw = memory_place.store, memory_place.raw
    write_runs(store, [make_run(number) for number in range(5)])
    compact_catalog(store)
    expected = current_manifests(store)
    for place, damage in DAMAGE:
        (key,) = (key for key in raw.list() if key.startswith(f"catalog/{place}/"))
        intact = raw.get(key) or b""
        damaged = damage(intact)
        assert damaged != intact
        raw.delete(key)
        if damaged is not None:
            raw.put(key, damaged)
        seen: list[Event] = []
        assert current_manifests(store, observe=seen.append) == expected
        assert [event.name for event in seen if event.name != PROGRESS] == [CATALOG_UNREADABLE]
        report = compact_catalog(store)
        assert (report.snapshot, report.runs) == (2, 5)
        seen.clear()
        assert current_manifests(store, observe=seen.append) == expected
        assert seen == []
        for made in raw.list():
            if made.startswith("catalog/"):
                raw.delete(made)
        compact_catalog(store)


@pytest.mark.parametrize(
    "params",
    [b'{"n":' + b"9" * 4_290 + b"}", b'{"n":' + b"[" * 105 + b"]" * 105 + b"}"],
    ids=["long", "deep"],
)
def test_a_value_that_nobody_could_write_hides_its_run_only(params: bytes, memory_place: Place) -> None:
    store, raw = memory_place.store, memory_place.raw
    for run_id in ("a", "b"):
        store_run(store, run_id, storage_mode="flat")
    body = raw.get("manifests/a.json") or b""
    raw.put("manifests/a.json", body.replace(b'"params":{}', b'"params":' + params))
    assert [run.run_id for run in list_runs(store)] == ["b"]
    assert compact_catalog(store).damaged == ("a",)
    assert [run.run_id for run in list_runs(store)] == ["b"]


class Archiving(SteppedStore):
    """A store whose lifecycle rule has archived some objects."""

    archived: tuple[str, ...] = ()

    def step(self, verb: str, key: str, size: int, call: Callable[[], Any]) -> Any:
        if verb in ("get", "get_range") and key.startswith(self.archived):
            raise ArchivedError(f"{key} is archived in GLACIER.")
        return call()


def test_what_is_archived_is_passed_over(store: Store) -> None:
    """An archived catalogue hides nothing; an archived manifest hides its run until it is restored."""
    write_runs(store, [make_run(number) for number in range(3)])
    compact_catalog(store)
    archiving = Archiving(store)
    for archived in ("catalog/parts/", "catalog/snapshots/", "catalog/"):
        archiving.archived = (archived,)
        assert len(list_runs(archiving)) == 3
    archiving.archived = ("manifests/run_000001", "catalog/")
    assert len(list_runs(archiving)) == 2
    assert compact_catalog(archiving).damaged == ("run_000001",)
    archiving.archived = ()
    assert len(list_runs(archiving)) == 3


def test_a_rebuild_across_an_ordinary_compaction_loses_nothing(memory_place: Place) -> None:
    """The ordinary one still has the old row of a run whose manifest the rebuild found damaged."""
    store, raw = memory_place.store, memory_place.raw
    write_runs(store, [make_run(1), make_run(2)])
    compact_catalog(store)
    key = layout.manifest_key("run_000001")
    intact = raw.get(key) or b""
    raw.put(key, b"{}")

    class Crossing(SteppedStore):
        begun = False

        def step(self, verb: str, key: str, size: int, call: Callable[[], Any]) -> Any:
            if key == "manifests/" and not self.begun:
                self.begun = True
                compact_catalog(self.inner, rebuild=True)
            return call()

    compact_catalog(Crossing(store))
    assert [run.run_id for run in list_runs(store)] == ["run_000002"]
    raw.put(key, intact)
    assert {run.run_id for run in list_runs(store)} == {"run_000001", "run_000002"}


def test_a_manifest_that_the_log_does_not_name_is_taken_up(store: Store) -> None:
    """Of a store that was restored, or copied with an older catalogue."""
    write_runs(store, [make_run(1)])
    compact_catalog(store)
    write_runs(store, [make_run(2)])
    store.delete([entry.key for entry in log_entries(store)])
    assert compact_catalog(store).added == 1
    assert len(list_runs(store)) == 2


def test_a_forged_row_is_read_from_its_manifest(memory_place: Place) -> None:
    store, raw = memory_place.store, memory_place.raw
    write_runs(store, [make_run(1), make_run(2)])
    rows = current_rows(store)
    bodies = rows["manifest"].to_pylist()
    forged = [bodies[0].replace(b'"format":1', b'"format":2'), bodies[1]]
    column = rows.schema.get_field_index("manifest")
    bad = rows.set_column(column, rows.schema.field(column), pa.array(forged, pa.large_binary()))
    assert commit(store, 1, [write_part(store, bad)])
    assert list_runs(store) == [make_run(2), make_run(1)]
    raw.delete("manifests/run_000001.json" if b"run_000001" in forged[0] else "manifests/run_000002.json")
    assert len(list_runs(store)) == 1


def test_numbers_beyond_eight_digits(store: Store) -> None:
    write_runs(store, [make_run(1)])
    assert commit(store, 99_999_999, [])
    for number in (100_000_000, 100_000_001):
        assert compact_catalog(store, rebuild=True).snapshot == number
    assert commit(store, 10**18 - 1, [])
    store.create(f"catalog/snapshots/{10**20:025d}.json", b"{}")  # not how a number is written: foreign
    assert compact_catalog(store).snapshot == 10**18
    assert len(list_runs(store)) == 1


DAMAGE: list[tuple[str, Callable[[bytes], bytes | None]]] = [
    ("parts", lambda body: body[:-1]),
    ("parts", lambda body: None),
    ("snapshots", lambda body: b"{}"),
    ("snapshots", lambda body: body.replace(b'"number":1', b'"number":2')),
    ("snapshots", lambda body: body.replace(b"catalog/parts/", b"../../manifests/")),
    ("snapshots", lambda body: body.replace(b'"rows":5', b'"rows":-5')),
    ("snapshots", lambda body: body.replace(b'"size_bytes":', b'"size_bytes":9' + b"0" * 12)),
]
