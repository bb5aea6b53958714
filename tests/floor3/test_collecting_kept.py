"""Kept marks: a later collection reads new records only, and finds what one that reads everything finds."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from mltrack_tasks import layout
from mltrack_tasks.collecting import keptmarks
from mltrack_tasks.collecting.keys import MARKS, digest_of, marks_key
from mltrack_tasks.collecting.marks import Marks
from mltrack_tasks.collecting.removing import remove_run
from mltrack_tasks.content import forget_data, retrieve_data, store_data
from mltrack_tasks.errors import ConflictError, NotFoundError, TransientError
from mltrack_tasks.migrations import parse_receipt_key
from mltrack_tasks.records import Record
from mltrack_tasks.runs import store_run
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.guard import GuardedStore
from mltrack_tasks.stores.observed import CountingStore, FaultyStore
from mltrack_tasks.testing import RawObjects
from tests.floor3.migrationtrees import quiet
from tests.floor3.test_collecting import World
from tests.floor3.test_roots import fill

Told = tuple[frozenset[str], frozenset[str]]


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture(autouse=True)
def few_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keptmarks, "FEWEST", 1)


def told(world: World, *, full: bool = False, through: Store | None = None) -> Told:
    """What a collection knows: the blobs that are needed, and the pins that are justified."""
    keys = [stat.key for stat in world.bare.list("")]
    digests = {digest for key in keys if (digest := digest_of(key))}
    with Marks(through or world.clocked, world.clocked.now, world.clocked.now, quiet, full=full) as marks:
        marks.look()
        pins = (key for key in keys if key.startswith(layout.PINS))
        return frozenset(filter(marks.needs, digests)), frozenset(filter(marks.justifies, pins))


def reads(world: World) -> list[str]:
    """The records that a collection reads, but for kept marks."""
    counted = CountingStore(world.clocked)
    told(world, through=counted)
    got = (key for verb, key in counted.log if verb.startswith("get"))
    return [key for key in got if not key.startswith((MARKS, "gc/unpinned/"))]


def test_records_of_every_kind_are_read_once(world: World, tmp_path: Path) -> None:
    fill(world.store, tmp_path)
    first = reads(world)
    assert len(first) > 15
    again = reads(world)
    assert all("/_aliases/" in key or key.startswith("migrations/") for key in again)
    assert not any(map(parse_receipt_key, again))
    store_data(world.store, b"new", "new")
    assert [key for key in reads(world) if key not in again] == [
        stat.key for stat in world.bare.list("names/new/")
    ]
    assert told(world) == told(world, full=True)


def test_whatever_was_done_since_the_kept_marks_say_what_the_records_say(
    world: World, tmp_path: Path
) -> None:
    """Among it: the same run under the same key with other data, as after a removal."""
    fill(world.store, tmp_path)
    draw = random.Random(7)
    acts: list[Callable[[], object]] = [
        lambda: store_run(
            world.store, f"run{draw.randrange(4)}", {"x": draw.randbytes(2)}, storage_mode="flat"
        ),
        lambda: store_run(
            world.store, "run0", {"x": draw.randbytes(2)}, storage_mode="flat", if_exists="revise"
        ),
        lambda: remove_run(world.store, f"run{draw.randrange(4)}", observe=quiet),
        lambda: store_data(world.store, draw.randbytes(1), draw.choice("ab")),
        lambda: forget_data(world.store, draw.choice("ab")),
        lambda: world.later(draw.randrange(12)),
        lambda: world.collect(),
    ]
    for _ in range(120):
        try:
            draw.choice(acts)()
        except (ConflictError, NotFoundError):
            continue  # there already, or not there
        assert told(world) == told(world, full=True)


def test_a_run_that_was_removed_and_stored_again_is_read_again(world: World) -> None:
    old = store_run(world.store, "r", {"x": b"old"}, storage_mode="flat").data["x"]
    world.collect()
    remove_run(world.store, "r", observe=quiet)
    new = store_run(world.store, "r", {"x": b"new"}, storage_mode="flat").data["x"]
    for stat in list(world.bare.list(layout.PINS)):
        world.bare.delete([stat.key])  # so that the record alone speaks for it
    world.later(8)
    world.collect()
    assert world.blobs() == {new.hash}
    assert retrieve_data(world.store, new) == b"new"
    with pytest.raises(NotFoundError):
        retrieve_data(world.store, old)


def spoil(world: World, change: Callable[[dict[str, object]], object]) -> None:
    for stat in list(world.bare.list(MARKS)):
        record = json.loads(world.bare.get(stat.key))
        change(record["content"])
        world.bare.delete([stat.key])
        world.bare.create(stat.key, json.dumps(record).encode())


def test_marks_that_are_damaged_or_forged_are_not_believed(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    names = [store_data(world.store, body, "n").hash for body in (b"a", b"b")]
    told(world)
    rows: list[object] = [[], [["AA==", ""]], [["!", "!"]], [1], [["A" * 22 + "==", "AAAA"]], {}, None]
    for wrong in rows:
        spoil(world, lambda content, wrong=wrong: content.update(marks=wrong))  # type: ignore[misc]
        assert told(world)[0] == set(names)
        assert "its records are read again: gc/marks/" in caplog.text
        caplog.clear()
    RawObjects(world.bare.objects).put(f"{MARKS}README", b"by somebody")
    assert told(world)[0] == set(names)


def test_a_part_that_says_what_its_name_says_may_be_wrong_inside(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """Written so, and not damaged since: still nothing but a warning."""
    digest = store_data(world.store, b"a", "n").hash
    made_by = keptmarks._made_by()
    for rows in (["AA==", ""], ["A" * 22 + "==", "AAAA"], 1, [1, 2, 3]):
        record = Record({"made_by": made_by, "marks": [rows]}, {"at": "2024-01-01T00:00:00Z"})
        world.clocked.create(marks_key(record.content_digest), record.to_bytes())
        assert told(world)[0] == {digest}
        assert "has a mark" in caplog.text
        caplog.clear()


def test_marks_of_another_version_and_old_ones_are_not_believed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_data(world.store, b"a", "n")
    assert len(reads(world)) == 1
    assert reads(world) == []
    with monkeypatch.context() as patch:
        patch.setattr(keptmarks, "library_version", lambda: "0.0.1")
        assert len(reads(world)) == 1
        patch.setattr(keptmarks, "library_version", lambda: keptmarks.UNKNOWN)
        assert [len(reads(world)), len(reads(world))] == [1, 1]
    world.later(30)
    assert reads(world) == []
    world.later(0.1)
    assert [len(reads(world)), len(reads(world))] == [1, 0]
    world.later(31)
    world.collect(dry_run=True)
    assert len(list(world.bare.list(MARKS))) == 1  # the one that this collection kept


def test_full_reads_everything_and_takes_the_place_of_what_was_kept(world: World) -> None:
    store_data(world.store, b"a", "n")
    told(world)
    before = [stat.key for stat in world.bare.list(MARKS)]
    counted = CountingStore(world.clocked)
    told(world, full=True, through=counted)
    assert [key for verb, key in counted.log if verb == "get_range"] == [
        stat.key for stat in world.bare.list("names/")
    ]
    assert [stat.key for stat in world.bare.list(MARKS)] == before  # at the same time, the same part
    world.later(1)
    told(world, full=True)
    after = [stat.key for stat in world.bare.list(MARKS)]
    assert len(after) == 1
    assert after != before
    assert reads(world) == []


def test_a_receipt_that_no_manifest_lists_holds_for_30_days_only(world: World, tmp_path: Path) -> None:
    fill(world.store, tmp_path)
    migrations = [stat.key for stat in world.bare.list("migrations/")]
    world.bare.delete([key for key in migrations if "/manifests/" in key or "/plans/" in key])
    aged = [key for key in migrations if parse_receipt_key(key)]
    assert told(world) == told(world, full=True)
    held = told(world)[0]
    for key in aged:
        record = json.loads(world.bare.get(key))
        record["provenance"]["at"] = "2020-01-01T00:00:00Z"
        etag = world.bare.head(key).etag  # type: ignore[union-attr]
        assert world.bare.replace(key, json.dumps(record).encode(), etag or "")
    assert told(world) == told(world, full=True)
    assert told(world)[0] < held


def test_what_a_killed_collection_read_is_not_read_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(40):
        store_data(world.store, number, "n")
    world.later(1)
    monkeypatch.setattr(keptmarks, "PART_NEEDS", 10)
    with pytest.raises(TransientError):
        told(world, through=GuardedStore(FaultyStore(world.clocked, 30, "crash")))
    assert 0 < len(reads(world)) < 40


def test_few_records_are_not_worth_an_object(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keptmarks, "FEWEST", 3)
    for number in range(2):
        store_data(world.store, number, "n")
    told(world)
    assert list(world.bare.list(MARKS)) == []
    store_data(world.store, 2, "n")
    told(world)
    assert len(list(world.bare.list(MARKS))) == 1


def test_the_same_object_is_told_by_all_that_is_listed(world: World) -> None:
    store_data(world.store, b"a", "n")
    [stat] = world.clocked.list("names/")
    others = [
        replace(stat, key="names/m/x.json"),
        replace(stat, etag="other"),
        replace(stat, size=stat.size + 1),
        replace(stat, modified=stat.modified + timedelta(milliseconds=1)),
    ]
    assert len({keptmarks.identity(each) for each in [stat, *others]}) == 5
    assert keptmarks.identity(replace(stat, etag=None)) is keptmarks.identity(None) is None
