"""Aliases after a migration that did not finish, and after a move that was taken back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from mltrack_tasks.errors import MLTrackError, PartialTransferError, TransientError
from mltrack_tasks.migration import hashcache
from mltrack_tasks.migration.migrate import TRIES, retried
from mltrack_tasks.migration.state import latest_manifest
from mltrack_tasks.registry import deprecate_version, model_history, promote_model, resolve_model
from mltrack_tasks.registry.aliases import aliases_of
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.guard import GuardedStore
from mltrack_tasks.stores.memory import MemoryStore
from mltrack_tasks.stores.observed import CountingStore, FaultyStore, SteppedStore
from mltrack_tasks.trust.verify import verify_store
from tests.floor3.migrationtrees import AT_ONCE, NAME, fill, kept, migrate, quiet, restored, small_registry

T = TypeVar("T")
CHAMPION = "models/churn/aliases/champion"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLTRACK_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(hashcache, "SETTLED", 0)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return small_registry(tmp_path / "tree")


def versions(store: Store) -> dict[int, str]:
    """MLflow's numbers -> versions here."""
    manifest = latest_manifest(store, NAME)
    assert manifest is not None
    return {row.number: row.version for row in manifest.versions if row.version}


def fresh(tree: Path, before: bytes | None) -> MemoryStore:
    """A store with a finished migration, of when the champion was another, or there was none."""
    bare = MemoryStore(max_workers=2)
    point_at(tree, before)
    migrate(GuardedStore(bare), tree)
    return bare


def point_at(tree: Path, number: bytes | None) -> None:
    if number is None:
        (tree / CHAMPION).unlink(missing_ok=True)
    else:
        fill(tree, {CHAMPION: number})


@pytest.mark.parametrize("before", [None, b"1"])
def test_an_alias_of_a_call_that_died_follows_mlflow_back(before: bytes | None, tree: Path) -> None:
    """MLflow takes the change back before the next call, so the folder is as it was when all was well."""
    counted = CountingStore(GuardedStore(fresh(tree, before)))
    point_at(tree, b"2")
    migrate(counted, tree)
    first = [verb == "create" and "/manifests/00000002~" in key for verb, key in counted.log].index(True)
    moved = 0
    for step in range(first, len(counted.log) + 1):
        bare = fresh(tree, before)
        point_at(tree, b"2")
        try:
            migrate(GuardedStore(FaultyStore(bare, step, "crash")), tree)
        except MLTrackError:
            moved += len(model_history(bare, "churn", "champion")) if _has_events(bare) else 0
        point_at(tree, before)
        migrate(GuardedStore(bare), tree)
        wanted = {} if before is None else {"champion": versions(bare)[int(before)]}
        assert aliases_of(bare, "churn") == {"staging": versions(bare)[1], **wanted}, step
        again = CountingStore(GuardedStore(bare))
        assert migrate(again, tree).unchanged
        assert again.calls == {"list": 2, "get_range": 1}
    assert moved  # at one step at least the alias had been moved before the call died
    assert restored(bare) == kept(tree)
    assert verify_store(bare, level="structure", observe=quiet).ok


def _has_events(store: Store) -> bool:
    return any("/_aliases/champion/" in stat.key for stat in store.list("models/"))


class _Between(SteppedStore):
    """Does something once, just before a key is created."""

    def __init__(self, inner: Store, key: str, deed: Callable[[Store], object]) -> None:
        super().__init__(inner)
        self._key, self._deed = key, deed

    def step(self, verb: str, key: str, size: int, call: Callable[[], T]) -> T:
        if verb == "create" and key == self._key:
            self._key = ""
            self._deed(self.inner)
        return call()


def event_key(number: int) -> str:
    return f"models/registry/churn/_aliases/champion/{number:08d}.json"


@pytest.mark.parametrize("before", [None, b"1"])
def test_a_move_that_was_taken_back_is_nobodys(before: bytes | None, store: Store, tree: Path) -> None:
    """The version was deprecated while the alias was moved to it."""
    point_at(tree, before)
    migrate(store, tree)
    here = versions(store)
    point_at(tree, b"2")
    number = 2 if before else 1
    deprecate = lambda inner: deprecate_version(inner, "churn", here[2], observe=quiet)  # noqa: E731
    with pytest.raises(PartialTransferError, match="was deprecated while"):
        migrate(_Between(store, event_key(number), deprecate), tree)
    history = model_history(store, "churn", "champion")
    assert [event.version for event in history[number - 1 :]] == [here[2], here[1] if before else None]
    report = migrate(store, tree)
    assert "deprecated" in dict(report.differences)["churn@champion"]
    text = (tree / "models/churn/version-1/meta.yaml").read_text()
    run = "a" * 32
    fill(tree, {f"0/{run}/artifacts/three/weights": b"3" * 5_000})
    third = text.replace("version: 1", "version: 3").replace("/one", "/three").replace("Staging", "None")
    fill(tree, {"models/churn/version-3/meta.yaml": third.encode()})
    point_at(tree, b"3")
    assert not migrate(store, tree).differences
    assert aliases_of(store, "churn")["champion"] == versions(store)[3]


def test_a_persons_move_stays_one_when_a_later_one_is_taken_back(store: Store, tree: Path) -> None:
    migrate(store, tree)
    here = versions(store)
    promote_model(store, "churn", here[1], "champion", observe=quiet)
    promote_model(store, "churn", here[2], "champion", request_id="taken-back:2", observe=quiet)
    point_at(tree, b"1")
    report = migrate(store, tree)
    assert "moved it here (promote, number 3" in dict(report.differences)["churn@champion"]
    assert aliases_of(store, "churn")["champion"] == here[2]


def test_a_batch_is_tried_again_after_pauses(monkeypatch: pytest.MonkeyPatch, no_pauses: list[float]) -> None:
    monkeypatch.setattr("mltrack_tasks.migration.migrate.PAUSE", 2.0)
    tries: list[int] = []

    def call() -> None:
        tries.append(1)
        raise TransientError("not yet")

    with pytest.raises(TransientError):
        retried(call)
    assert (len(tries), no_pauses) == (TRIES, [2.0, 4.0])


DAMAGED = {
    "no YAML": b"\xff",
    "another number": b"version: 7\n",
    "a path as its run": b"version: 1\nrun_id: a/b\n",
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_version_hides_no_other(case: str, store: Store, tree: Path) -> None:
    meta = tree / "models/churn/version-1/meta.yaml"
    text = meta.read_bytes()
    meta.write_bytes(DAMAGED[case])
    fill(tree, {"models/churn/aliases/first": b"1"})
    report = migrate(store, tree)
    assert list(versions(store)) == [2]
    assert "churn 1" in dict(report.not_registered)
    assert "cannot be read" in dict(report.differences)["churn@first"]
    assert aliases_of(store, "churn") == {"champion": versions(store)[2]}
    assert restored(store) == kept(tree)
    assert migrate(store, tree).unchanged
    meta.write_bytes(text)
    migrate(store, tree)
    one, two = (versions(store)[number] for number in (1, 2))
    assert aliases_of(store, "churn") == {"champion": two, "first": one, "staging": one}


def test_a_version_that_is_damaged_later_stays_what_it_is_here(store: Store, tree: Path) -> None:
    first = migrate(store, tree, delete_after_upload=True, min_age=AT_ONCE)
    assert first.deleted_files
    meta = tree / "models/churn/version-2/meta.yaml"
    text = meta.read_bytes()
    meta.write_bytes(b"\xff")
    report = migrate(store, tree)
    assert (report.registered, [name for name, _ in report.not_registered]) == (first.registered, ["churn 2"])
    meta.write_bytes(text)
    again = migrate(store, tree)
    assert (again.registered, again.not_registered, again.differences) == (first.registered, (), ())
    assert len(model_history(store, "churn", "champion")) == 1


def test_a_model_of_too_many_files_is_refused_before_it_is_sent(
    store: Store, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mltrack_tasks.migration.registries.MAX_FILES", 3)
    many = {f"0/{'a' * 32}/artifacts/two/{number}": bytes([number]) * 6_000 for number in range(3)}
    fill(tree, many)
    counted = CountingStore(store)
    report = migrate(counted, tree)
    assert list(versions(store)) == [1]
    assert "4 files" in dict(report.not_registered)["churn 2"]
    sent = [key for verb, key in counted.log if verb == "create" and key.startswith("data/")]
    files = len(resolve_model(store, "churn", "staging").files)
    assert len(sent) <= files + 2  # the model's files, a pack of the others, and the list of all
