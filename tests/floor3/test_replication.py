"""Replicas: equal when finished, whole at every moment, and nobody else's to write to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest

from mltrack_tasks import layout, modelkeys
from mltrack_tasks.collecting.collect import collect_garbage
from mltrack_tasks.collecting.versions import remove_version
from mltrack_tasks.content import retrieve_data, store_data
from mltrack_tasks.errors import (
    ConflictError,
    InvalidInputError,
    NotFoundError,
    PartialTransferError,
    TransientError,
)
from mltrack_tasks.registry import (
    deprecate_version,
    promote_model,
    register_model,
    resolve_model,
    rollback_model,
)
from mltrack_tasks.replication.progress import end_replication, replicated_as_of
from mltrack_tasks.replication.replicate import replicate_store
from mltrack_tasks.runs import get_run, store_run
from mltrack_tasks.stores.base import Stat, Store
from mltrack_tasks.stores.directory import DirectoryStore
from mltrack_tasks.stores.guard import GuardedStore
from mltrack_tasks.stores.memory import MemoryStore
from mltrack_tasks.stores.observed import CountingStore, FaultyStore
from mltrack_tasks.testing import RawObjects
from mltrack_tasks.trust.heal import heal_store
from mltrack_tasks.trust.verify import verify_store
from tests.floor3 import invariants
from tests.floor3.conftest import Place
from tests.floor3.limits import LARGE
from tests.floor3.migrationtrees import quiet
from tests.floor3.test_roots import fill

NOT_COPIED = ("format.json", "replica/", "catalog/", "audits/", "gc/", "migrations/tree/plans/")


@pytest.fixture
def source(memory_place: Place, tmp_path: Path) -> Place:
    fill(memory_place.store, tmp_path)
    return memory_place


def content(store: Store) -> dict[str, bytes]:
    """All that a replica is to have, by key."""
    keys = [stat.key for stat in store.list("") if not stat.key.startswith(NOT_COPIED)]
    return {key: store.get(key) for key in keys if "/plans/" not in key}


def fresh() -> GuardedStore:
    return GuardedStore(MemoryStore())


def replicated(source: Store) -> GuardedStore:
    target = fresh()
    assert replicate_store(source, target, observe=quiet).ok
    return target


def test_a_replica_has_what_its_source_has(source: Place) -> None:
    target = fresh()
    report = replicate_store(source.store, target, observe=quiet)

    assert content(target) == content(source.store)
    _check_whole(target)
    there = invariants.blobs(source.store)
    assert (report.missing_blobs, report.copied_blobs) == (len([*there]), len([*invariants.blobs(target)]))
    assert report.copied_bytes == sum(len(target.get(key)) for key in invariants.blobs(target))
    assert report.behind > timedelta(0)
    assert replicated_as_of(target) == report.as_of
    assert verify_store(target, level="read", observe=quiet).ok
    assert json.loads(target.get("format.json"))["replica_of"] == source.store.store_id


def test_what_is_there_is_not_copied_again(source: Place) -> None:
    target = replicated(source.store)
    counted = CountingStore(target.inner)
    again = replicate_store(source.store, GuardedStore(counted), observe=quiet)

    assert (again.missing_blobs, again.missing_records, again.behind) == (0, 0, timedelta(0))
    # The format, the check that the server keeps conditions, and the record of this replication.
    assert {(verb, key) for verb, key in counted.log if verb in ("create", "copy", "replace", "upload")} == {
        ("create", "format.json"),
        ("create", "replica/00000002.json"),
    }


def test_only_the_difference_is_read(source: Place) -> None:
    target = replicated(source.store)
    store_run(source.store, "r9", {"new": b"just this"}, storage_mode="flat")
    counted = CountingStore(source.store)
    report = replicate_store(counted, target, observe=quiet)
    assert report.copied_bytes == len(b"just this")
    read = [key for verb, key in counted.log if verb in ("get", "get_range")]
    assert sorted(key.split("/")[0] for key in read) == ["data", "manifests"]
    assert get_run(target, "r9").data_refs["new"].size_bytes == 9


def test_a_dry_run_writes_nothing(source: Place) -> None:
    target = fresh()
    report = replicate_store(source.store, target, dry_run=True, observe=quiet)
    assert list(target.list("")) == []
    assert report.missing_blobs > 0
    assert (report.copied_blobs, report.copied_records) == (0, 0)
    replicate_store(source.store, target, observe=quiet)
    before = content(target)
    store_data(source.store, b"more", "kept")
    report = replicate_store(source.store, target, dry_run=True, observe=quiet)
    assert (report.missing_blobs, content(target)) == (1, before)


def test_killed_at_any_step_it_goes_on(source: Place) -> None:
    """At no step does the replica show a record without what it needs; the same call again ends equal."""
    undisturbed = CountingStore(MemoryStore())
    replicate_store(source.store, GuardedStore(undisturbed), observe=quiet)
    bare, attempts = CountingStore(MemoryStore(max_workers=1)), 0
    while True:
        attempts += 1
        try:
            target = GuardedStore(FaultyStore(bare, 33 + attempts % 5, "crash"))
            replicate_store(source.store, target, observe=quiet)
            break
        except TransientError:
            _check_whole(bare.inner)
            assert attempts < 100
    assert content(bare.inner) == content(source.store)
    assert attempts > 4
    # Each attempt asks once whether the server keeps conditions, and may repeat the file it was at.
    assert _writes(bare) <= _writes(undisturbed) + 2 * attempts


@pytest.mark.parametrize("how", ["before", "after"])
def test_a_lost_answer_or_request_is_made_good(source: Place, how: str) -> None:
    for number in range(1, 400, 37):
        bare = MemoryStore(max_workers=1)
        for fail_at in (number, 0):
            with suppress(TransientError):
                replicate_store(source.store, GuardedStore(FaultyStore(bare, fail_at, how)), observe=quiet)  # type: ignore[arg-type]
        assert content(bare) == content(source.store), number


def test_what_is_written_meanwhile_is_whole_or_not_there(source: Place, tmp_path: Path) -> None:
    """A writer between any two listings: the replica never has a record without what it needs."""

    class Busy(CountingStore):
        def list(self, prefix: str, *, after: str = "") -> Iterator[Stat]:
            found = list(super().list(prefix, after=after))
            _write_everything(source.store, tmp_path, self.calls["list"])
            return iter(found)

    target = fresh()
    replicate_store(Busy(source.store), target, observe=quiet)
    _check_whole(target)
    assert replicate_store(source.store, target, observe=quiet).copied_records > 0
    assert content(target) == content(source.store)


def test_a_damaged_blob_is_never_copied_nor_what_needs_it(source: Place) -> None:
    damaged = get_run(source.store, "r1").data_refs["x"]
    store_run(source.store, "r2", {"x": b"second", "y": b"fine"}, storage_mode="flat")
    body = source.store.get(damaged.storage_path)
    source.raw.put(damaged.storage_path, body[:-1] + b"?")
    target = fresh()

    with pytest.raises(PartialTransferError, match="do not hash") as raised:
        replicate_store(source.store, target, observe=quiet)

    report = raised.value.details["report"]
    assert [*report.failed] == [damaged.storage_path]
    assert target.head(damaged.storage_path) is None
    assert target.head("manifests/r1~00000002.json") is None
    assert target.head("manifests/r2.json") is None
    assert target.head("manifests/r1.json") is not None
    assert report.held_back >= 2
    assert replicated_as_of(target) is None
    _check_whole(target)

    source.raw.put(damaged.storage_path, body)
    assert replicate_store(source.store, target, observe=quiet).ok
    assert content(target) == content(source.store)


def test_a_damaged_file_of_a_model_holds_back_its_aliases(source: Place) -> None:
    version = resolve_model(source.store, "churn", "production")
    [digest] = {file.digest for file in version.files if file.path == "weights"}
    source.raw.put(layout.blob_key(digest, "bin"), b"weightz")
    target = fresh()
    with pytest.raises(PartialTransferError):
        replicate_store(source.store, target, observe=quiet)
    assert not [stat.key for stat in target.list("models/registry/")]
    assert target.head(modelkeys.version_key("churn", version.version)) is None
    _check_whole(target)


def test_a_blob_that_the_source_lost_holds_back_what_needs_it(source: Place) -> None:
    lost = get_run(source.store, "r1").data_refs["x"]

    class Losing(CountingStore):
        def get(self, key: str) -> bytes:
            if key == lost.storage_path:
                source.store.delete([key])
            return super().get(key)

    target = fresh()
    with pytest.raises(PartialTransferError) as raised:
        replicate_store(Losing(source.store), target, observe=quiet)
    assert (raised.value.details["report"].failures, target.head("manifests/r1~00000002.json")) == (0, None)


def test_a_record_that_is_none_is_not_copied(source: Place) -> None:
    source.raw.put("manifests/r1.json", b'{"format":1,')
    target = fresh()
    with pytest.raises(PartialTransferError, match=r"manifests/r1\.json") as raised:
        replicate_store(source.store, target, observe=quiet)
    assert target.head("manifests/r1.json") is None
    assert target.head("manifests/r1~00000002.json") is None  # readers want all revisions
    assert [*raised.value.details["report"].failed] == ["manifests/r1.json"]
    # A migration's manifest says that all of its runs are there: it waits.
    assert not [stat.key for stat in target.list("migrations/") if "/manifests/" in stat.key]


def test_a_damaged_record_of_the_replica_is_replaced_and_another_is_not(source: Place) -> None:
    target = replicated(source.store)
    raw = RawObjects(target.inner.objects)  # type: ignore[attr-defined]
    raw.put("manifests/r1.json", b"cut off")
    assert replicate_store(source.store, target, observe=quiet).copied_records == 1
    assert content(target) == content(source.store)

    record = json.loads(target.get("manifests/r1.json"))
    record["content"]["project"] = "another"
    raw.put("manifests/r1.json", json.dumps(record).encode())
    with pytest.raises(PartialTransferError, match="another") as raised:
        replicate_store(source.store, target, observe=quiet)
    assert [*raised.value.details["report"].failed] == ["manifests/r1.json"]


def test_a_truncated_blob_of_the_replica_is_replaced(source: Place) -> None:
    target = replicated(source.store)
    key = get_run(source.store, "r1").data_refs["x"].storage_path
    RawObjects(target.inner.objects).put(key, b"sec")  # type: ignore[attr-defined]
    assert replicate_store(source.store, target, observe=quiet).copied_blobs == 1
    assert target.get(key) == b"second"


def test_a_deprecation_that_was_taken_back_goes_from_the_replica(source: Place, tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"another")
    version = register_model(source.store, None, "churn", tmp_path / "other").version
    deprecate_version(source.store, "churn", version)
    target = replicated(source.store)
    key = modelkeys.deprecation_key("churn", version)
    assert target.head(key) is not None
    source.raw.delete(key)
    replicate_store(source.store, target, observe=quiet)
    assert target.head(key) is None


def test_promotions_follow_in_order(source: Place, tmp_path: Path) -> None:
    target = replicated(source.store)
    (tmp_path / "other").write_bytes(b"another")
    version = register_model(source.store, None, "churn", tmp_path / "other").version
    promote_model(source.store, "churn", version)
    rollback_model(source.store, "churn")
    promote_model(source.store, "churn", version, "staging")
    counted = CountingStore(target.inner)
    replicate_store(source.store, GuardedStore(counted), observe=quiet)
    order = [key for verb, key in counted.log if verb == "create" and "_aliases" in key]
    folder = "models/registry/churn/_aliases"
    production = [key for key in order if "/production/" in key]
    assert production == [f"{folder}/production/0000000{number}.json" for number in (2, 3)]
    assert f"{folder}/staging/00000001.json" in order
    last = [key for verb, key in counted.log if verb == "create"][-1 - len(order) :]
    assert sorted(last) == sorted([*order, "replica/00000002.json"])


def test_removals_of_versions_are_known_to_the_replica(source: Place, tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"another")
    version = register_model(source.store, None, "churn", tmp_path / "other").version
    target = replicated(source.store)
    remove_version(source.store, "churn", version, dry_run=False, observe=quiet)
    report = replicate_store(source.store, target, observe=quiet)
    assert report.extra > 0
    folder = modelkeys.removals_folder("churn", version)
    assert [stat.key.rpartition(".")[2] for stat in target.list(folder)] == ["done", "json"]
    assert resolve_model(target, "churn", version).version == version


def test_nobody_else_writes_to_a_replica(source: Place, tmp_path: Path) -> None:
    target = replicated(source.store)
    version = resolve_model(target, "churn", "production").version
    before = content(target)
    (tmp_path / "file").write_bytes(b"file")
    for write in (
        lambda: store_data(target, b"more", "name"),
        lambda: store_run(target, "r7", {"x": b"x"}, project="p"),
        lambda: promote_model(target, "churn", version, "staging"),
        lambda: register_model(target, None, "churn", tmp_path / "file"),
        lambda: collect_garbage(target, observe=quiet),
        lambda: target.delete(["manifests/r1.json"]),
    ):
        with pytest.raises(ConflictError, match="is a replica"):
            write()
    assert content(target) == before
    assert retrieve_data(target, get_run(target, "r1").data_refs["x"]) == b"second"


def test_a_replica_is_verified_and_healed_from_its_source(source: Place) -> None:
    target = replicated(source.store)
    key = get_run(source.store, "r1").data_refs["x"].storage_path
    RawObjects(target.inner.objects).put(key, b"secund")  # type: ignore[attr-defined]
    found = verify_store(target, level="read", observe=quiet)
    assert [each.key for each in found.findings if each.wrong] == [key]
    done = heal_store(target, audit=found.audit, replicas=[source.store], observe=quiet)
    assert not done.lost
    assert target.get(key) == b"second"


def test_a_replica_becomes_a_store_of_its_own(source: Place) -> None:
    target = replicated(source.store)
    opened_before = GuardedStore(target.inner)
    end_replication(target, "the region is gone")
    end_replication(target, "again")
    store_data(target, b"written here", "name")
    store_data(opened_before, b"and here", "name")
    with pytest.raises(ConflictError, match="store of its own"):
        replicate_store(source.store, GuardedStore(target.inner), observe=quiet)
    with pytest.raises(InvalidInputError, match="no replica"):
        end_replication(source.store, "")


def test_only_an_empty_place_or_its_own_replica_is_a_target(source: Place) -> None:
    with pytest.raises(InvalidInputError, match="itself"):
        replicate_store(source.store, GuardedStore(source.store.inner), observe=quiet)  # type: ignore[attr-defined]
    with pytest.raises(NotFoundError, match="Nothing was ever stored"):
        replicate_store(fresh(), fresh(), observe=quiet)
    own = fresh()
    store_data(own, b"x", "x")
    with pytest.raises(ConflictError, match="a store of its own"):
        replicate_store(source.store, own, observe=quiet)
    other = fresh()
    store_data(other, b"x", "x")
    with pytest.raises(ConflictError, match="Choose an empty prefix"):
        replicate_store(source.store, replicated(other), observe=quiet)
    # A replica of a replica is one.
    chain = replicated(replicated(source.store))
    assert content(chain) == content(source.store)


def test_what_only_the_replica_has_stays_and_foreign_objects_stay_behind(source: Place) -> None:
    target = replicated(source.store)
    source.raw.delete("manifests/r1~00000002.json")
    source.raw.put("manifests/README.txt", b"foreign")
    source.raw.put("data/zz/x", b"foreign")
    source.raw.put("runs/by_project/p/", b"")
    counted = CountingStore(target)
    report = replicate_store(source.store, counted, observe=quiet)
    assert [key for verb, key in counted.log if verb == "create"] == ["replica/00000002.json"]
    assert (report.extra, report.copied_records, report.copied_blobs) == (1, 0, 0)
    assert target.head("manifests/r1~00000002.json") is not None
    assert target.head("manifests/README.txt") is None


@pytest.mark.usefixtures("small_parts")
def test_every_kind_of_store_replicates_to_every_other(place: Place, tmp_path: Path) -> None:
    store_run(place.store, "r1", {"large": LARGE, "frame": [1, 2]}, project="p")
    (tmp_path / "weights").write_bytes(LARGE)
    promote_model(place.store, "m", register_model(place.store, None, "m", tmp_path / "weights").version)
    for target in (fresh(), GuardedStore(DirectoryStore(tmp_path / "copy"))):
        assert replicate_store(place.store, target, observe=quiet).ok
        assert content(target).keys() == content(place.store).keys()
        _check_whole(target)
    back = GuardedStore(DirectoryStore(tmp_path / "back"))
    assert replicate_store(GuardedStore(DirectoryStore(tmp_path / "copy")), back, observe=quiet).ok
    assert content(back) == content(place.store)


def _writes(counted: CountingStore) -> int:
    return sum(counted.calls[verb] for verb in ("create", "copy", "replace", "part"))


def _write_everything(store: Store, folder: Path, number: int) -> None:
    store_run(store, f"busy {number}", {"x": b"busy %d" % number}, project="busy")
    store_data(store, b"named %d" % number, "busy")
    (folder / "weights").write_bytes(b"weights %d" % number)
    version = register_model(store, None, f"m{number % 3}", folder / "weights")
    promote_model(store, f"m{number % 3}", version.version)


def _check_whole(store: Store) -> None:
    found = invariants.snapshot(store)
    invariants.every_blob_hashes_to_its_key(found)
    invariants.every_ref_resolves(found)
    invariants.every_ref_is_pinned(found)
    invariants.every_version_is_whole(found)
    invariants.every_promotion_is_complete(found)
