"""What was wrong with migrations once: newer states, caches, damage, and files that could not be sent."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from mltrack_tasks import layout
from mltrack_tasks.content import store_file
from mltrack_tasks.digest import sha256_hex
from mltrack_tasks.errors import ConflictError, IntegrityError, PartialTransferError
from mltrack_tasks.events import MIGRATION_COMPLETED, Event
from mltrack_tasks.filetree import FILE
from mltrack_tasks.migrated import of_run
from mltrack_tasks.migration import (
    delete_local_batch,
    finish_migration,
    hashcache,
    plan_manifests,
    plan_migration,
    scan_source,
    upload_batch,
    write_manifests,
)
from mltrack_tasks.migration.finishing import Finished
from mltrack_tasks.migration.planning import Plan
from mltrack_tasks.migration.uploading import Uploaded
from mltrack_tasks.runs import get_run, list_runs, store_run
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.cache import CachedStore
from mltrack_tasks.stores.observed import CountingStore
from tests.floor3.invariants import every_blob_hashes_to_its_key
from tests.floor3.migrationtrees import AT_ONCE, NAME, Tree, fill, kept, migrate, quiet, restored
from tests.floor3.test_migration_faults import Disturbed, names, partial

OWN = b"o" * 40_000
"""A blob of its own, so that its batch has a record: the first that a call writes once it has planned."""
PLANS, MANIFESTS = f"migrations/{NAME}/plans/", f"migrations/{NAME}/manifests/"
DELETING = pytest.mark.parametrize("deleting", [False, True], ids=["", "deletes"])


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLTRACK_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(hashcache, "SETTLED", 0)


def planned(store: Store, tree: Path) -> Plan:
    """What a call is about to do."""
    return plan_migration(store, scan_source(tree, name=NAME, observe=quiet), observe=quiet)


def sent(store: Store, plan: Plan) -> list[Uploaded]:
    return [upload_batch(store, each, origin=plan.scan.origin, observe=quiet) for each in plan.batches]


def finished(store: Store, plan: Plan, uploaded: Sequence[Uploaded], *, deleting: bool = False) -> Finished:
    """Do what comes after the files were sent."""
    work, origin = plan_manifests(plan, uploaded), plan.scan.origin
    written = [write_manifests(store, runs, origin=origin, observe=quiet) for runs in work.batches]
    min_age = AT_ONCE if deleting else None
    return finish_migration(store, work, written, delete_older_than=min_age, observe=quiet)


def when_stored(act: Callable[[], object]) -> Callable[[Event], None]:
    """An observer that acts once everything is stored, before anything is deleted."""

    def observe(event: Event) -> None:
        if event.name == MIGRATION_COMPLETED:
            act()

    return observe


def deleted(store: Store, tree: Path) -> None:
    """Migrate a folder, and delete it."""
    migrate(store, tree, delete_after_upload=True, min_age=AT_ONCE)


def files_of(tree: Tree) -> list[tuple[object, ...]]:
    """Its files; folders go with the last file in them."""
    return [item for item in tree if item[1] == FILE]


@DELETING
def test_a_call_planned_before_another_finished_does_not_hide_what_that_one_deleted(
    deleting: bool, store: Store, tmp_path: Path
) -> None:
    tree = fill(tmp_path / "tree", {"a/x": OWN})
    states: list[Tree] = []

    def other() -> None:
        states.append(kept(fill(tree, {"r/small": b"precious"})))
        deleted(store, tree)

    with pytest.raises(PartialTransferError) as caught:
        migrate(Disturbed(store, "create", PLANS, other), tree, delete_after_upload=deleting, min_age=AT_ONCE)
    assert "Another call has finished" in caught.value.details["cause"]
    assert files_of(restored(store)) == files_of(states[0])
    assert files_of(kept(tree)) == []

    migrate(store, fill(tree, {"new/y": b"y"}), delete_after_upload=deleting, min_age=AT_ONCE)
    assert [item[0] for item in files_of(restored(store))] == ["a/x", "new/y", "r/small"]


@DELETING
def test_a_call_with_older_bytes_does_not_finish_while_another_deletes_the_newer(
    deleting: bool, store: Store, tmp_path: Path
) -> None:
    tree = fill(tmp_path / "tree", {"r/p": b"old" * 3_000, "r/q": b"q"})
    older = planned(store, tree)
    uploaded = sent(store, older)
    newer = kept(fill(tree, {"r/p": b"newest" * 3_000}))

    def finish_older() -> None:
        with pytest.raises(ConflictError, match="Another call has finished"):
            finished(store, older, uploaded, deleting=deleting)

    migrate(store, tree, delete_after_upload=True, min_age=AT_ONCE, observe=when_stored(finish_older))
    assert kept(tree) == []
    assert restored(store) == newer
    migrate(store, tree)
    assert restored(store) == newer


@pytest.mark.parametrize("listed_by", ["a call before", "a call beside"])
def test_what_an_older_state_lists_as_removed_is_not_deleted_under_a_newer(
    listed_by: str, store: Store, tmp_path: Path
) -> None:
    """A file has the bytes again that it had: the newest state does not know it like that."""
    tree = fill(tmp_path / "tree", {"r/p": b"old"})
    before = (tree / "r" / "p").stat()
    older = planned(store, tree)
    finished(store, older, sent(store, older), deleting=True)  # and then killed: nothing is deleted
    again = older if listed_by == "a call beside" else planned(store, tree)
    fill(tree, {"r/p": b"newest"})
    migrate(store, tree)
    fill(tree, {"r/p": b"old"})
    os.utime(tree / "r" / "p", ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(ConflictError, match="Another call has finished"):
        finished(store, again, sent(store, again), deleting=True)
    migrate(store, tree, delete_after_upload=True, min_age=AT_ONCE)
    assert restored(store)[-1][-1] == sha256_hex(b"old")


@pytest.mark.parametrize("known", [False, True], ids=["new", "revised"])
def test_a_run_that_was_revised_meanwhile_is_not_revised_back(
    known: bool, store: Store, tmp_path: Path
) -> None:
    tree = fill(tmp_path / "tree", {"r/a": b"1"})
    if known:
        migrate(store, tree)
        fill(tree, {"r/a": b"2"})
    older = planned(store, tree)
    migrate(store, fill(tree, {"r/b": b"newer"}))
    revision = get_run(store, "r").revision
    with pytest.raises(ConflictError, match="Another call has finished"):
        finished(store, older, [])
    run = get_run(store, "r")
    files = of_run(run, what="run r")
    assert files is not None
    assert (run.revision, [entry.path for entry in files.files]) == (revision, ["r", "r/a", "r/b"])
    assert migrate(store, tree).unchanged


def test_what_a_user_revised_is_not_revised_over(store: Store, tmp_path: Path) -> None:
    tree = fill(tmp_path / "tree", {"exp/a": b"1", "new/a": b"1"})
    migrate(store, tree)
    store_run(store, "exp", {"report": b"r"}, tags={"seen": "yes"}, if_exists="revise", storage_mode="flat")
    error = partial(lambda: migrate(store, fill(tree, {"exp/b": b"2", "new/b": b"2"})))
    assert names(error) == {"exp", "exp/b"}
    run = get_run(store, "exp")
    assert (run.revision, dict(run.tags), list(run.data)) == (2, {"seen": "yes"}, ["report"])
    assert get_run(store, "new").revision == 2


def test_a_pack_is_proven_by_the_store_and_not_by_a_cache(store: Store, tmp_path: Path) -> None:
    cached = CachedStore(store, tmp_path / "read", 10**9)
    tree = fill(tmp_path / "tree", {"r/a": b"a" * 20_000, "r/b": b"b" * 20_000})
    plan = planned(cached, tree)
    [doomed] = finished(cached, plan, sent(cached, plan), deleting=True).deletions
    before = (tree / "r" / "b").stat()
    fill(tree, {"r/b": b"changed"})
    first = delete_local_batch(cached, doomed, origin=plan.scan.origin, observe=quiet)
    assert [path for path, _ in first.kept] == ["r/b"]  # the pack has been read by now
    fill(tree, {"r/b": b"b" * 20_000})
    os.utime(tree / "r" / "b", ns=(before.st_atime_ns, before.st_mtime_ns))

    store.delete([stat.key for stat in store.list("data/") if stat.size == 40_000])
    [(path, reason)] = delete_local_batch(cached, doomed, origin=plan.scan.origin, observe=quiet).kept
    assert (path, "not proven to be stored" in reason) == ("r/b", True)
    assert (tree / "r" / "b").exists()


def test_a_deletion_made_twice_counts_the_same(store: Store, tmp_path: Path) -> None:
    plan = planned(store, fill(tmp_path / "tree", {"a/x": b"1", "b/x": b"2"}))
    [doomed] = finished(store, plan, sent(store, plan), deleting=True).deletions
    delete = [delete_local_batch(store, doomed, origin=plan.scan.origin, observe=quiet) for _ in range(2)]
    assert delete == [(2, 2, ())] * 2


def _damage_newest(store: Store) -> None:
    key = f"{MANIFESTS}00000002.json"
    stat = store.head(key)
    assert stat is not None
    assert stat.etag is not None
    assert store.replace(key, b"{", stat.etag)


def _put_junk(store: Store) -> None:
    assert store.create(f"{MANIFESTS}00030000.json", b"junk")


@pytest.mark.parametrize("damage", [_damage_newest, _put_junk], ids=["damaged", "junk"])
def test_a_newest_manifest_that_is_damaged_is_not_passed_over(
    damage: Callable[[Store], None], store: Store, tmp_path: Path
) -> None:
    """The one before it does not know what was deleted here since."""
    tree = fill(tmp_path / "tree", {"r/a": b"1", "r/b": b"2"})
    migrate(store, tree)
    deleted(store, fill(tree, {"t/c": b"3"}))
    damage(store)
    counting = CountingStore(store)
    with pytest.raises(IntegrityError, match="newest of the migration"):
        migrate(counting, tree)
    with pytest.raises(IntegrityError, match="newest of the migration"):
        restored(counting, migration=NAME)
    read = [key for verb, key in counting.log if verb in ("get", "get_range") and key.startswith(MANIFESTS)]
    assert len(read) == 2  # one each, whatever the numbers are


def test_a_run_whose_bytes_an_equal_file_was_to_send_is_not_written_without_them(
    store: Store, tmp_path: Path
) -> None:
    tree = fill(tmp_path / "tree", {"a/x": b"e" * 10_000, "b/x": b"e" * 10_000})
    changing = Disturbed(store, "create", PLANS, lambda: fill(tree, {"a/x": b"changed"}))
    error = partial(lambda: migrate(changing, tree))
    assert {"a/x", "b/x"} <= names(error)
    assert list_runs(store) == []
    assert files_of(restored(store)) == []
    migrate(store, tree)
    assert restored(store, run_ids=["a", "b"]) == kept(tree)


def test_a_damaged_blob_that_a_list_shows_is_sent_again(store: Store, tmp_path: Path) -> None:
    """It has the size that it should have, and a LIST says no more."""
    contents = {f"r/{number}": bytes([number]) * 40_000 for number in range(6)}
    migrate(store, fill(tmp_path / "other", contents), name="other")
    key = layout.blob_key(sha256_hex(contents["r/0"]), "bin")
    stat = store.head(key)
    assert stat is not None
    assert stat.etag is not None
    assert store.replace(key, b"damaged!" * 5_000, stat.etag)
    tree = fill(tmp_path / "tree", {f"q/{path[2:]}": body for path, body in contents.items()})
    assert migrate(store, tree).created_blobs == 1
    every_blob_hashes_to_its_key(store)
    assert restored(store, migration=NAME) == kept(tree)


def test_a_large_file_that_a_list_shows_is_pinned(store: Store, tmp_path: Path) -> None:
    """The record of its batch does not name it, so a collector sees nothing else that holds it."""
    large = b"l" * (2 << 20)
    tree = fill(tmp_path / "tree", {"r/large": large, **{f"r/{n}": bytes([n]) * 40_000 for n in range(6)}})
    ref = store_file(store, tree / "r" / "large")
    migrate(store, tree, dry_run=True)  # from here on its digest is known before it is sent
    pin = layout.migration_pin_key(ref.hash, NAME)
    counting = CountingStore(store)
    migrate(counting, tree)
    looks = [at for at, (verb, key) in enumerate(counting.log) if (verb, key) == ("list", layout.GC_DELETING)]
    told = next(at for at, (verb, key) in enumerate(counting.log) if verb == "create" and "/receipts/" in key)
    assert any(counting.log.index(("create", pin)) < look < told for look in looks)


@pytest.mark.parametrize("calls", [1, 2])
def test_receipts_that_were_lost_are_made_again(calls: int, store: Store, tmp_path: Path) -> None:
    """The folder is unchanged; what two calls sent becomes one batch, of another id."""
    tree = tmp_path / "tree"
    for number in range(calls):
        migrate(store, fill(tree, {f"r/{number}": bytes([number]) * 9_000}))
    store.delete([stat.key for stat in store.list(f"migrations/{NAME}/receipts/")])
    assert not migrate(store, tree).unchanged
    assert restored(store, migration=NAME) == kept(tree)
