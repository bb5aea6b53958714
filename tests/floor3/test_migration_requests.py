"""What a migration costs: requests that follow from the work, and nothing sent twice, whatever happened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest

from mltrack_tasks.errors import MLTrackError, PartialTransferError
from mltrack_tasks.migration import download_from_s3, hashcache
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.guard import GuardedStore
from mltrack_tasks.stores.memory import MemoryStore
from mltrack_tasks.stores.observed import CountingStore, FaultyStore, SteppedStore
from tests.floor3.invariants import without_days
from tests.floor3.migrationtrees import fill, kept, migrate, quiet, restored, stored

T = TypeVar("T")


class Accepted(SteppedStore):
    """Lists the keys that were really created, in their order."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.keys: list[str] = []

    def step(self, verb: str, key: str, size: int, call: Callable[[], T]) -> T:
        answer = call()
        if verb in ("create", "complete") and answer:
            self.keys.append(key)
        return answer


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLTRACK_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(hashcache, "SETTLED", 0)


def runs(root: Path, count: int, *, sizes: tuple[int, ...] = (10, 20, 30)) -> Path:
    """Folders of files, all of them different."""
    names = [f"run {number}/{size}" for number in range(count) for size in sizes]
    return fill(root, {name: name.encode().ljust(int(name.split("/")[1]), b"x") for name in names})


@pytest.mark.parametrize("count", [1, 40, 400])
def test_an_unchanged_folder_costs_three_requests(count: int, store: Store, tmp_path: Path) -> None:
    tree = runs(tmp_path / "tree", count, sizes=(10, 5_000))
    migrate(store, tree)
    counted = CountingStore(store)
    migrate(counted, tree)
    assert counted.calls == {"list": 2, "get_range": 1}


def test_a_run_of_small_files_costs_its_manifest_and_its_log_entry(store: Store, tmp_path: Path) -> None:
    few, many = CountingStore(store), CountingStore(GuardedStore(MemoryStore()))
    migrate(few, runs(tmp_path / "few", 10))
    migrate(many, runs(tmp_path / "many", 110))
    assert many.requests - few.requests <= 2 * 100 + 4  # the list of all files may take a second part
    assert few.requests <= 2 * 10 + 10


def test_small_files_beyond_manifests_go_many_at_a_time(store: Store, tmp_path: Path) -> None:
    counted = CountingStore(store)
    migrate(counted, runs(tmp_path / "tree", 10, sizes=tuple(range(5_000, 5_030))))
    assert counted.requests <= 2 * 10 + 20
    assert counted.sent.total() < 2_000_000


def test_a_file_of_its_own_costs_one_request(store: Store, tmp_path: Path) -> None:
    few, many = CountingStore(store), CountingStore(GuardedStore(MemoryStore()))
    migrate(few, runs(tmp_path / "few", 1, sizes=tuple(range(40_000, 40_050))))
    migrate(many, runs(tmp_path / "many", 1, sizes=tuple(range(40_000, 40_250))))
    assert many.requests - few.requests == 200


def test_what_the_store_has_is_not_sent_again(store: Store, tmp_path: Path) -> None:
    """Another folder with the same files: asked for by LIST, and nothing but records is written."""
    sizes = tuple(range(40_000, 40_100))
    migrate(store, runs(tmp_path / "one", 1, sizes=sizes))
    counted = CountingStore(store)
    report = migrate(counted, runs(tmp_path / "two", 1, sizes=sizes), name="other", run_id="another")
    assert report.created_blobs <= 1  # the list of the files, whose times differ
    assert counted.requests <= 30 + len(sizes)  # each is judged by what the store keeps of it
    assert counted.sent.total() < 100_000


def test_one_new_file_costs_no_more_in_a_large_folder(store: Store, tmp_path: Path) -> None:
    tree = runs(tmp_path / "tree", 300, sizes=(10, 5_000))
    migrate(store, tree)
    fill(tree, {"run 7/new": b"n"})
    counted = CountingStore(store)
    migrate(counted, tree)
    assert counted.requests <= 25
    assert counted.sent.total() < 300_000


def test_a_restore_fetches_each_pack_once(store: Store, tmp_path: Path) -> None:
    migrate(store, runs(tmp_path / "tree", 10, sizes=tuple(range(5_000, 5_030))))
    counted = CountingStore(store)
    download_from_s3(counted, tmp_path / "back", observe=quiet)
    fetched = Counter(key for verb, key in counted.log if verb in ("get", "get_range"))
    assert max(count for key, count in fetched.items() if key.startswith("data/")) == 1
    assert counted.requests <= 20


MIXED: dict[str, Any] = {
    "a/small": b"1",
    "a/packed": b"2" * 5_000,
    "a/twice": b"2" * 5_000,
    "b/own": b"3" * 40_000,
    "b/own too": b"4" * 40_000,
    "b/deep/large": b"5" * 1_100_000,
    "beside": b"6" * 10,
}


def calls_of(tree: Path) -> int:
    counted = FaultyStore(MemoryStore(max_workers=2), 0)
    migrate(GuardedStore(counted), tree)
    return counted.count


@pytest.mark.parametrize("how", ["crash", "after", "before"])
def test_a_call_after_a_crash_sends_nothing_twice(how: Any, tmp_path: Path, no_pauses: list[float]) -> None:
    tree = fill(tmp_path / "tree", MIXED)
    whole = Accepted(MemoryStore(max_workers=2))
    migrate(GuardedStore(whole), tree)
    for step in range(1, calls_of(tree) + 1):
        accepted = Accepted(MemoryStore(max_workers=2))
        try:
            migrate(GuardedStore(FaultyStore(accepted, step, how)), tree)
        except MLTrackError:
            assert how != "after" or step < 10  # before the first batch, nothing is tried again
        migrate(GuardedStore(accepted), tree)
        assert without_days(accepted.keys) == without_days(whole.keys), step
        assert len(accepted.keys) == len(whole.keys), step
        assert restored(accepted) == kept(tree)


def test_many_crashes_come_to_the_same(tmp_path: Path, no_pauses: list[float]) -> None:
    tree = fill(tmp_path / "tree", MIXED)
    whole, accepted = Accepted(MemoryStore(max_workers=2)), Accepted(MemoryStore(max_workers=2))
    migrate(GuardedStore(whole), tree)
    for step in (3, 3, 5, 9, 12, 14, 12, 14, 16, 12, 18, 20):
        with suppress(MLTrackError):  # each call needs fewer requests than the one before
            migrate(GuardedStore(FaultyStore(accepted, step, "crash")), tree)
    migrate(GuardedStore(accepted), tree)
    assert without_days(accepted.keys) == without_days(whole.keys)
    assert len(accepted.keys) == len(whole.keys)


def test_the_batches_sent_before_a_crash_are_not_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_pauses: list[float]
) -> None:
    monkeypatch.setattr("mltrack_tasks.plan.BATCH_FILES", 10)
    tree = runs(tmp_path / "tree", 1, sizes=tuple(range(40_000, 40_100)))
    bare = MemoryStore(max_workers=2)
    with pytest.raises(MLTrackError):
        migrate(GuardedStore(FaultyStore(bare, 120, "crash")), tree)
    sent = {key for key in stored(bare) if key.startswith("data/")}
    assert len(sent) > 50
    counted = CountingStore(GuardedStore(bare))
    migrate(counted, tree)
    again = {key for verb, key in counted.log if verb == "create"} & sent
    assert len(again) <= 10


def test_a_store_that_fails_once_is_asked_again(store: Store, tmp_path: Path, no_pauses: list[float]) -> None:
    tree = fill(tmp_path / "tree", MIXED)
    migrate(FaultyStore(store, calls_of(tree) // 2), tree)
    assert no_pauses
    assert restored(store) == kept(tree)


def test_a_store_that_fails_for_good_is_named_with_what_is_left(
    store: Store, tmp_path: Path, no_pauses: list[float]
) -> None:
    tree = fill(tmp_path / "tree", MIXED)
    with pytest.raises(PartialTransferError, match="goes on from here") as caught:
        migrate(FaultyStore(store, 12, "crash"), tree, delete_after_upload=True)
    assert kept(tree) == kept(fill(tmp_path / "tree", {}))
    assert caught.value.failed
