"""Receipts over many nights: what the store has lost is sent again, and their number stays bounded."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest

from mltrack_tasks import canonical
from mltrack_tasks.errors import InvalidInputError, MLTrackError
from mltrack_tasks.migration import hashcache
from mltrack_tasks.migration.state import find_receipt, latest_manifest, read_manifest
from mltrack_tasks.migrations import MigrationManifest
from mltrack_tasks.registry import resolve_model
from mltrack_tasks.runs import get_run
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.guard import GuardedStore
from mltrack_tasks.stores.memory import MemoryStore
from mltrack_tasks.stores.observed import CountingStore, FaultyStore
from mltrack_tasks.trust.verify import verify_store
from tests.floor3.migrationtrees import AT_ONCE, NAME, fill, kept, migrate, quiet, restored, small_registry

FILES = {
    "a/small": b"1",
    "a/packed": b"2" * 5_000,
    "b/packed too": b"3" * 6_000,
    "b/own": b"4" * 40_000,
    "b/large": b"5" * 1_100_000,
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLTRACK_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(hashcache, "SETTLED", 0)


def newest(store: Store) -> MigrationManifest:
    manifest = latest_manifest(store, NAME)
    assert manifest is not None
    return manifest


def held(store: Store) -> list[str]:
    """Blobs and packs that the receipts of the newest state name."""
    receipts = [find_receipt(store, NAME, batch) for batch in newest(store).receipts]
    digests = {digest for receipt in receipts if receipt for digest in receipt.digests_held()}
    return [stat.key for stat in store.list("data/") if stat.key.split("/")[2] in digests]


@pytest.mark.parametrize("delete", [False, True])
def test_what_the_store_lost_is_sent_again_when_a_run_is_revised(
    delete: bool, store: Store, tmp_path: Path
) -> None:
    """Also where it lies in a pack that a run needs which has not changed."""
    tree = fill(tmp_path / "tree", FILES)
    migrate(store, tree)
    keys = held(store)
    assert len(keys) == 3  # a pack of two files, and two blobs
    store.delete(keys)
    fill(tree, {"b/new": b"n" * 7_000})
    if delete:
        (tree / "b/large").unlink()
    migrate(store, tree)
    assert restored(store) == kept(tree)
    for run in ("a", "b"):
        assert [item for item in restored(store, run_ids=[run]) if item[1] == "f"] == [
            item for item in kept(tree) if item[1] == "f" and item[0].startswith(f"{run}/")
        ]
    assert get_run(store, "a").revision == 2  # its file lies in another pack
    fill(tree, {"a/newer": b"n"})
    migrate(store, tree)
    assert restored(store) == kept(tree)


def test_what_is_lost_here_and_there_is_named_and_holds_up_nothing_else(store: Store, tmp_path: Path) -> None:
    tree = fill(tmp_path / "tree", FILES)
    migrate(store, tree, delete_after_upload=True, min_age=AT_ONCE)
    [key] = [key for key in held(store) if len(store.get(key)) == 40_000]
    store.delete([key])
    fill(tree, {"b/new": b"n" * 50_000, "c/new": b"c" * 50_000})
    assert migrate(store, tree).runs == ("c",)  # b is not whole here, and stays as it is
    with pytest.raises(MLTrackError, match=key.split("/")[2]):
        restored(store)
    assert [item[0] for item in restored(store, run_ids=["c"])] == ["c", "c/new"]
    lost = [finding.key for finding in verify_store(store, level="structure", observe=quiet).findings]
    assert lost == [key]


def test_a_lost_blob_of_a_model_is_sent_again(store: Store, tmp_path: Path) -> None:
    tree = small_registry(tmp_path / "tree")
    hidden = tree / "models"
    hidden.rename(tmp_path / "hidden")
    migrate(store, tree)
    (tmp_path / "hidden").rename(hidden)
    store.delete(held(store))
    migrate(store, tree)
    assert len(resolve_model(store, "churn", "champion").files) == 1
    assert restored(store) == kept(tree)
    text = (hidden / "churn/version-1/meta.yaml").read_text()
    store.delete([key for key in held(store) if len(store.get(key)) == 40_000])
    fill(hidden, {"churn/version-1/meta.yaml": f"{text}description: more\n".encode()})
    migrate(store, tree)
    assert restored(store) == kept(tree)


def test_a_call_that_died_while_it_sent_again_is_continued(tmp_path: Path) -> None:
    tree = fill(tmp_path / "tree", FILES)
    counted = CountingStore(MemoryStore(max_workers=2))
    migrate(GuardedStore(counted), tree)
    for step in range(8, 40, 4):
        bare = MemoryStore(max_workers=2)
        (tree / "b/new").unlink(missing_ok=True)
        migrate(GuardedStore(bare), tree)
        bare.delete(held(GuardedStore(bare)))
        fill(tree, {"b/new": b"n"})
        with suppress(MLTrackError):
            migrate(GuardedStore(FaultyStore(bare, step, "crash")), tree)
        migrate(GuardedStore(bare), tree)
        assert restored(bare) == kept(tree), step


def test_a_changed_run_asks_for_what_it_has_and_other_runs_for_nothing(store: Store, tmp_path: Path) -> None:
    files = {f"{run}/{n}": f"{run}{n}".encode() * 20_000 for run in "abcd" for n in range(3)}
    tree = fill(tmp_path / "tree", files)
    migrate(store, tree)
    fill(tree, {"a/new": b"n"})
    counted = CountingStore(store)
    migrate(counted, tree)
    assert len({key for verb, key in counted.log if verb == "head" and key.startswith("data/")}) <= 3


def test_receipts_of_many_nights_are_merged(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mltrack_tasks.migration.receiptlists.MAX_LISTED", 6)
    monkeypatch.setattr("mltrack_tasks.migration.receiptlists.FULL", 5)
    tree = fill(tmp_path / "tree", FILES)
    states = []
    for night in range(30):
        size = (5_000, 40_000)[night % 2]
        fill(tree, {f"n/{night}": f"{night:05}".encode() * (size // 5)})
        if night >= 10:
            (tree / f"n/{night - 10}").unlink()
        migrate(store, tree)
        states.append(kept(tree))
        assert len(newest(store).receipts) <= 6 + 16 // 5
    assert restored(store) == kept(tree)
    again = CountingStore(store)
    assert migrate(again, tree).unchanged
    assert again.calls == {"list": 2, "get_range": 1}
    assert verify_store(store, level="read", observe=quiet).ok
    receipts = [find_receipt(store, NAME, batch) for batch in newest(store).receipts]
    named = {digest for receipt in receipts if receipt for digest in receipt.places()}
    assert all(receipts)
    assert len(named) <= len(FILES) + 10 + 6  # what nobody has any more is not carried along
    first = read_manifest(store, NAME, 3)
    assert all(find_receipt(store, NAME, batch) for batch in first.receipts)  # an older state keeps its own


def test_merged_receipts_lose_no_file_that_was_deleted_here(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mltrack_tasks.migration.receiptlists.MAX_LISTED", 2)
    tree, whole = fill(tmp_path / "tree", FILES), fill(tmp_path / "whole", FILES)
    migrate(store, tree, delete_after_upload=True, min_age=AT_ONCE)
    for night in range(5):
        new = {f"n{night}/file": f"{night:05}".encode() * 9_000}
        fill(tree, new)
        fill(whole, new)
        migrate(store, tree)
    assert [(item[0], item[-1]) for item in restored(store)] == [(item[0], item[-1]) for item in kept(whole)]


def test_a_run_of_more_files_than_its_manifest_can_tell_of_is_refused_before_any_is_sent(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = {f"many/{number:03}": f"{number:05}".encode() * 1_000 for number in range(300)}
    tree = fill(tmp_path / "tree", {**many, "few/file": b"1"})
    with monkeypatch.context() as patch:
        patch.setattr("mltrack_tasks.migration.planning._BESIDE", 0)
        patch.setattr("mltrack_tasks.records.MAX_RECORD_SIZE", 100 * 168)
        with pytest.raises(InvalidInputError, match=r"'many' has \d+ different files .* places of 100\."):
            migrate(store, tree)
    assert not list(store.list(""))
    migrate(store, tree)  # what a row takes is no more than was counted
    places = get_run(store, "many").extra["migration"]["places"]
    assert len(canonical.dumps(places)) <= 168 * len(places)
