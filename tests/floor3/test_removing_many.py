"""Runs by what they are, data by the beginning of its name, a migration: a plan first, then what it lists."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from mltrack_tasks import migrations
from mltrack_tasks.collecting import plans, removals
from mltrack_tasks.collecting.collect import collect_garbage
from mltrack_tasks.collecting.migrations import remove_migration
from mltrack_tasks.collecting.removals import remove_data, remove_runs
from mltrack_tasks.collecting.removing import remove_run
from mltrack_tasks.collecting.retaining import apply_retention
from mltrack_tasks.collecting.retention import RetentionPolicy
from mltrack_tasks.collecting.versions import remove_version
from mltrack_tasks.content import list_data, store_data
from mltrack_tasks.errors import ConflictError, IntegrityError, InvalidInputError, MLTrackError, NotFoundError
from mltrack_tasks.migration import migrate_to_s3
from mltrack_tasks.records import Record
from mltrack_tasks.registry import promote_model, register_model, remove_alias
from mltrack_tasks.runs import list_runs, store_run
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.guard import GuardedStore
from mltrack_tasks.stores.memory import MemoryStore
from mltrack_tasks.stores.observed import CountingStore, FaultyStore
from tests.floor3 import invariants
from tests.floor3.migrationtrees import quiet
from tests.floor3.test_collecting import World


def run(store: Store, run_id: str, project: str = "p", **more: Any) -> None:
    store_run(store, run_id, {"d": run_id.encode()}, project=project, observe=quiet, **more)


def ids(store: Store) -> list[str]:
    return sorted(run.run_id for run in list_runs(store, observe=quiet))


def fill(store: Store) -> None:
    for number in range(3):
        run(store, f"p{number}", started_at=datetime(2024, 1, 1 + number, tzinfo=UTC))
    run(store, "q", project="q")


def test_runs_of_a_project_are_named_and_then_removed(store: Store) -> None:
    fill(store)
    before = {stat.key for stat in store.list("")}
    found = remove_runs(store, project="p", until="2024-01-02", observe=quiet)
    assert (found.dry_run, found.matched, found.removed) == (True, ("p0", "p1"), ())
    assert ids(store) == ["p0", "p1", "p2", "q"]
    new = {stat.key for stat in store.list("")} - before
    assert {key for key in new if not key.startswith("gc/parts/")} == {f"gc/removals/{found.plan}.json"}
    run(store, "p00", started_at=datetime(2024, 1, 1, tzinfo=UTC))  # since then: nobody looked at it
    store_run(store, "p1", {"d": b"more"}, project="p", if_exists="revise", observe=quiet)
    done = remove_runs(store, plan=found.plan, dry_run=False, reason="old", observe=quiet)
    assert (done.removed, done.kept) == (("p0",), (("p1", "was revised since"),))
    assert ids(store) == ["p00", "p1", "p2", "q"]
    assert remove_runs(store, plan=found.plan, dry_run=False, observe=quiet).removed == ("p0",)
    assert json.loads(store.get("runs/removed/p0.json"))["content"]["reason"] == "old"
    assert remove_runs(store, project="q", dry_run=False, observe=quiet).removed == ("q",)
    invariants.check_finished(without_plans(store))


def test_a_run_that_was_stored_again_since_the_plan_stays() -> None:
    world = World()
    run(world.store, "same")
    found = remove_runs(world.store, project="p", observe=quiet)
    world.later(1)
    remove_run(world.store, "same", observe=quiet)
    store_run(world.store, "same", {"d": b"other"}, project="p", observe=quiet)
    done = remove_runs(world.store, plan=found.plan, dry_run=False, observe=quiet)
    assert (done.removed, done.kept) == ((), (("same", "was revised since"),))
    assert ids(world.store) == ["same"]
    again = remove_runs(world.store, project="p", dry_run=False, observe=quiet)
    assert (again.removed, ids(world.store)) == (("same",), [])


def test_a_removal_by_plan_that_was_stopped_anywhere_is_finished_by_the_same_call() -> None:
    """Also between two revisions of a run, when the newest one is not that of the plan any more."""
    for fail_at in range(1, 200):
        store = GuardedStore(MemoryStore())
        run(store, "r")
        store_run(store, "r", {"d": b"more"}, project="p", if_exists="revise", observe=quiet)
        found = remove_runs(store, project="p", observe=quiet)
        dying = FaultyStore(store, fail_at, "crash")
        try:
            remove_runs(dying, plan=found.plan, dry_run=False, observe=quiet)
        except MLTrackError:
            done = remove_runs(store, plan=found.plan, dry_run=False, observe=quiet)
            assert (done.removed, done.kept, ids(store)) == (("r",), (), [])
        else:
            assert fail_at > 10
            return


def without_plans(store: Store) -> Store:
    """Keys below gc/ and of removed runs are no matter of those who write."""
    keys = [stat.key for stat in store.list("")]
    store.delete(
        [key for key in keys if key.startswith(("gc/", "runs/removed/")) or key.endswith("~00000000")]
    )
    return store


def test_what_is_in_use_running_or_tagged_is_kept(store: Store) -> None:
    fill(store)
    run(store, "kept", tags={"mltrack.keep": True})
    run(store, "runs", status="running")
    made = register_model(store, "p1", "churn", "d", observe=quiet)
    promote_model(store, "churn", made.version, observe=quiet)
    remove_alias(store, "churn", "production", observe=quiet)
    found = remove_runs(store, project="p", dry_run=False, observe=quiet)
    assert found.removed == ("p0", "p2")
    assert [run_id for run_id, _ in found.kept] == ["kept", "p1", "runs"]
    assert all(why for _, why in found.kept)
    remove_version(store, "churn", made.version, though_promoted=True, dry_run=False, observe=quiet)
    assert remove_runs(store, project="p", dry_run=False, observe=quiet).removed == ("p1",)


def test_questions_that_cannot_be_meant(store: Store) -> None:
    fill(store)
    plan = remove_runs(store, project="p", observe=quiet).plan
    names = remove_data(store, "x", observe=quiet).plan
    for bad in (
        {},
        {"plan": plan},
        {"plan": plan, "project": "p", "dry_run": False},
        {"plan": "no digest", "dry_run": False},
        {"plan": names, "dry_run": False},
        {"tags": {}, "dry_run": False},  # a form that was left empty: no condition
        {"tags": {}, "params": {}, "metrics": {}, "until": date.max, "dry_run": False},
        {"since": "2024-01-02", "until": "2024-01-01"},
    ):
        with pytest.raises(InvalidInputError):
            remove_runs(store, **bad)  # type: ignore[arg-type]
    for begins in (None, "", 7):
        with pytest.raises(InvalidInputError):
            remove_data(store, begins)  # type: ignore[arg-type]
    with pytest.raises(NotFoundError):
        remove_runs(store, plan="0" * 64, dry_run=False)
    for revision in ("1", 0, True):
        with pytest.raises(InvalidInputError, match="revision is"):
            remove_run(store, "q", revision=revision, observe=quiet)  # type: ignore[arg-type]
    assert ids(store) == ["p0", "p1", "p2", "q"]


def test_an_empty_place_is_not_made_a_store(store: Store) -> None:
    for found in (remove_runs(store, project="p"), remove_data(store, "x", dry_run=False)):
        assert (found.plan, found.matched, found.removed) == ("", (), ())
    with pytest.raises(InvalidInputError, match="every name"):
        remove_data(store, "")
    for remove in (remove_runs, remove_data):
        with pytest.raises(NotFoundError, match="nothing was ever stored"):
            remove(store, plan="0" * 64, dry_run=False)  # type: ignore[operator]
    assert not list(store.list(""))


def test_a_plan_of_the_future_is_refused() -> None:
    """By it, a run that was stored again since would be as it was seen."""
    world = World()
    run(world.store, "r")
    found = remove_runs(world.store, project="p", observe=quiet)
    raw = Record.from_bytes(world.store.get(f"gc/removals/{found.plan}.json"), what="the plan")
    forged = Record({**raw.content, "at": "2099-01-01T00:00:00Z"}, {})
    world.store.create(f"gc/removals/{forged.content_digest}.json", forged.to_bytes())
    with pytest.raises(IntegrityError, match="put back, or the plan is forged"):
        remove_runs(world.store, plan=forged.content_digest, dry_run=False, observe=quiet)
    assert ids(world.store) == ["r"]


def test_names_may_begin_with_dots(store: Store) -> None:
    for name in (".hidden", "..x", "a.b"):
        store_data(store, name.encode(), name, observe=quiet)
    assert remove_data(store, "..", observe=quiet).matched == ("..x",)
    assert sorted(remove_data(store, ".", dry_run=False, observe=quiet).removed) == ["..x", ".hidden"]


def test_plans_of_other_stores_and_old_ones_are_refused() -> None:
    world, other = World(), World()
    fill(world.store)
    fill(other.store)
    plan = remove_runs(world.store, project="p", observe=quiet).plan
    for stat in world.bare.list("gc/"):
        other.bare.create(stat.key, world.bare.get(stat.key))
    with pytest.raises(ConflictError, match="another store"):
        remove_runs(other.store, plan=plan, dry_run=False, observe=quiet)
    world.later(31)
    with pytest.raises(NotFoundError, match="older"):
        remove_runs(world.store, plan=plan, dry_run=False, observe=quiet)
    world.later(60)
    world.collect()
    assert not list(world.bare.list("gc/removals/"))


@pytest.mark.parametrize("how", ["before", "after"])
def test_a_removal_of_runs_that_fails_anywhere_is_finished_by_its_plan(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plans, "PART_ROWS", 1)
    step, done = 0, False
    while not done:
        bare = MemoryStore()
        fill(GuardedStore(bare))
        plan = remove_runs(GuardedStore(bare), project="p", observe=quiet).plan
        step += 4
        try:
            remove_runs(GuardedStore(FaultyStore(bare, step, how)), plan=plan, dry_run=False, observe=quiet)  # type: ignore[arg-type]
            done = True
        except MLTrackError:
            remove_runs(GuardedStore(bare), plan=plan, dry_run=False, observe=quiet)
        assert ids(bare) == ["q"], step
    assert step > 30


def test_data_goes_by_the_beginning_of_its_name(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(removals, "_BATCH", 2)
    names = ("exp/1", "exp/2", "exp-3", "expo", "other", "ex", "Exp/4")
    for name in names:
        store_data(store, name.encode(), name, observe=quiet)
    store_data(store, b"twice", "exp/1", observe=quiet)
    found = remove_data(store, "exp/", observe=quiet)
    assert sorted(found.matched) == ["exp/1", "exp/2"]
    assert sorted({item.name for item in list_data(store)}) == sorted(names)
    store_data(store, b"since", "exp/2", observe=quiet)
    done = remove_data(store, plan=found.plan, dry_run=False, observe=quiet)
    assert sorted(done.removed) == ["exp/1", "exp/2"]
    assert {item.name for item in list_data(store)} == {*names} - {"exp/1"}
    assert remove_data(store, "ü", dry_run=False, observe=quiet).removed == ()
    assert sorted(remove_data(store, "ex", dry_run=False, observe=quiet).removed) == [
        "ex",
        "exp-3",
        "exp/2",
        "expo",
    ]


def test_names_are_listed_from_the_first_one_on() -> None:
    bare = MemoryStore()
    for number in range(50):
        store_data(GuardedStore(bare), number, f"n{number:02d}", observe=quiet)
    counting = CountingStore(bare)
    assert len(remove_data(GuardedStore(counting), "n4", observe=quiet).matched) == 10
    assert counting.requests < 10 + 20


def tree(root: Path) -> Path:
    (root / "sub").mkdir(parents=True)
    (root / "a").write_bytes(b"a" * 50_000)
    (root / "sub" / "b").write_bytes(b"b")
    return root


def test_a_migration_goes_and_its_runs_if_asked(store: Store, tmp_path: Path) -> None:
    report = migrate_to_s3(store, local_path=tree(tmp_path / "data"), observe=quiet)
    name = report.migration
    found = remove_migration(store, name, observe=quiet)
    assert (found.dry_run, found.number, found.files, found.deleted_locally) == (True, 1, 2, 0)
    assert found.runs == len(ids(store)) == 1
    with pytest.raises(ConflictError, match="decide again"):
        remove_migration(store, name, number=2, dry_run=False, observe=quiet)
    done = remove_migration(store, name, number=1, dry_run=False, observe=quiet)
    assert (done.removed_runs, len(ids(store))) == ((), 1)
    assert not list(store.list(migrations.MIGRATIONS))
    with pytest.raises(NotFoundError):
        remove_migration(store, name, observe=quiet)
    assert collect_garbage(store, observe=quiet).blobs == 0
    again = migrate_to_s3(store, local_path=tmp_path / "data", observe=quiet).migration
    assert len(remove_migration(store, again, with_runs=True, dry_run=False, observe=quiet).removed_runs) == 1
    assert ids(store) == []


def test_the_only_copy_of_what_was_deleted_locally_does_not_go_unsaid(store: Store, tmp_path: Path) -> None:
    name = migrate_to_s3(
        store,
        local_path=tree(tmp_path / "data"),
        delete_after_upload=True,
        min_age=timedelta(0),
        observe=quiet,
    ).migration
    assert remove_migration(store, name, observe=quiet).deleted_locally > 0
    with pytest.raises(ConflictError, match="only copy"):
        remove_migration(store, name, dry_run=False, observe=quiet)
    assert remove_migration(store, name, though_deleted_locally=True, dry_run=False, observe=quiet).records


@pytest.mark.parametrize("how", ["before", "crash"])
def test_a_removal_of_a_migration_that_fails_anywhere_never_stops_a_collection(
    how: str, tmp_path: Path
) -> None:
    folder = tree(tmp_path / "data")
    full = MemoryStore()
    name = migrate_to_s3(GuardedStore(full), local_path=folder, observe=quiet).migration
    step, done = 0, False
    while not done:
        bare = MemoryStore()
        for stat in full.list(""):
            bare.create(stat.key, full.get(stat.key))
        step += 1
        try:
            remove_migration(GuardedStore(FaultyStore(bare, step, how)), name, dry_run=False, observe=quiet)  # type: ignore[arg-type]
            done = True
        except MLTrackError:
            assert collect_garbage(GuardedStore(bare), observe=quiet).records, step
            if list(bare.list(migrations.folder_of(name))):
                remove_migration(GuardedStore(bare), name, dry_run=False, observe=quiet)
        assert not list(bare.list(migrations.folder_of(name)))
    assert step > 4


def test_a_replica_gives_up_nothing_by_its_own_records() -> None:
    world = World()
    fill(world.store)
    orphan = world.orphan(b"its record is still on its way")
    world.later(30)
    raw = json.loads(world.bare.get("format.json"))
    world.bare.delete(["format.json"])
    world.bare.create("format.json", json.dumps({**raw, "replica_of": "a" * 32}).encode())
    before = [stat.key for stat in world.bare.list("")]
    calls = (
        lambda: collect_garbage(world.store),
        lambda: collect_garbage(world.store, dry_run=False),
        lambda: remove_run(world.store, "q"),
        lambda: remove_runs(world.store, project="p"),
        lambda: remove_data(world.store, "n"),
        lambda: remove_version(world.store, "m", "v20240101_abcdef"),
        lambda: remove_migration(world.store, "m"),
        lambda: apply_retention(world.store, [RetentionPolicy(keep_last=1)]),
    )
    for call in calls:
        with pytest.raises(ConflictError, match="replica"):
            call()
    assert [stat.key for stat in world.bare.list("")] == before
    assert orphan in world.blobs()
    assert len(ids(world.store)) == 4  # it is read like any store
    world.bare.create("replica/ended.json", b"{}")
    world.store = GuardedStore(world.clocked)
    assert world.collect().blobs == 1  # by its own records from then on
