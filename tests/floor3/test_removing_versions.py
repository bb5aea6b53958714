"""Versions that are removed: what goes, what forbids it, and whoever registers or promotes meanwhile."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mltrack_tasks import layout, modelkeys
from mltrack_tasks.collecting.versions import remove_version
from mltrack_tasks.errors import ConflictError, IntegrityError, MLTrackError, NotFoundError, TransientError
from mltrack_tasks.registry import (
    copy_model,
    deprecate_version,
    list_models,
    promote_model,
    register_model,
    remove_alias,
    resolve_model,
    rollback_model,
)
from mltrack_tasks.registry.removals import removals_of
from mltrack_tasks.runs import store_run
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.guard import GuardedStore
from mltrack_tasks.stores.memory import MemoryStore
from mltrack_tasks.stores.observed import FaultyStore
from mltrack_tasks.trust.verify import verify_store
from tests.floor3 import invariants
from tests.floor3.clocked import ClockedStore
from tests.floor3.conftest import Place
from tests.floor3.exploring import copied
from tests.floor3.interleaving import KilledError, play
from tests.floor3.migrationtrees import quiet
from tests.floor3.test_collecting import World
from tests.settings import GIVEN

HOUR = timedelta(hours=1)
SEEDS = 400 if GIVEN.get("MLTRACK_TEST_PROFILE") == "thorough" else 6
"""Orders of steps that are tried, the same each time."""


def made(store: Store, text: bytes = b"weights", **more: Any) -> str:
    """A version of two files, one of which lies in a folder; its blobs are a run's, too."""
    data = {"w": text, "c": b"code"}
    run = store_run(store, f"run of {text!r}", data, storage_mode="flat", observe=quiet)
    files = {"weights": run.data["w"], "code/one.py": run.data["c"]}
    return register_model(store, None, "churn", files, observe=quiet, **more).version


def left(store: Store) -> list[str]:
    """What there is of the model, but for ids, histories and removals, which stay for good."""
    kept = ("/_ids/", "/_by_digest/", "/_removed/", "/_aliases/")
    return [
        key for key in invariants.keys(store) if key.startswith("models/") and not any(k in key for k in kept)
    ]


def test_a_dry_run_tells_and_removes_nothing(place: Place) -> None:
    version = made(place.store)
    made(place.store, b"another")
    before = place.raw.list()
    found = remove_version(place.store, "churn", version)
    assert (found.dry_run, found.aliases, found.promoted) == (True, (), ())
    assert found.objects == 4  # the record, the mark, two files
    assert "4 objects" in str(found)
    assert place.raw.list() == before


def test_a_removed_version_is_gone_and_its_bytes_may_come_back(place: Place) -> None:
    version, other = made(place.store), made(place.store, b"others")
    deprecate_version(place.store, "churn", version, reason="old")
    made(place.store, tags={"said": "again"})
    place.raw.put(modelkeys.development_folder("churn", version) + "notes.txt", b"mine")
    done = remove_version(place.store, "churn", version, reason="personal data", dry_run=False)
    assert (done.dry_run, done.foreign) == (False, (f"models/development/churn/{version}/notes.txt",))
    assert list_models(place.store)[0].versions == (other,)
    with pytest.raises(NotFoundError):
        resolve_model(place.store, "churn", version)
    with pytest.raises(NotFoundError):
        remove_version(place.store, "churn", version)
    assert [key for key in left(place.store) if version in key] == list(done.foreign)
    place.store.delete(done.foreign)
    found = verify_store(place.store, keep=False, observe=quiet)
    assert (found.ok, found.counts.get("foreign_object", 0)) == (True, 0)
    assert made(place.store) == version
    again = resolve_model(place.store, "churn", version)
    assert (again.deprecated, again.s3_location is not None) == (None, True)
    promote_model(place.store, "churn", version)
    assert verify_store(place.store, keep=False, observe=quiet).ok


def test_what_is_in_use_or_may_be_gone_back_to_stays(store: Store) -> None:
    first, second = made(store), made(store, b"second")
    promote_model(store, "churn", first)
    promote_model(store, "churn", first, "staging")
    with pytest.raises(ConflictError, match="'production', 'staging'"):
        remove_version(store, "churn", first, though_promoted=True, dry_run=False)
    promote_model(store, "churn", second)
    remove_alias(store, "churn", "staging")
    found = remove_version(store, "churn", first)
    assert (found.aliases, found.promoted) == ((), ("production", "staging"))
    with pytest.raises(ConflictError, match="though_promoted"):
        remove_version(store, "churn", first, dry_run=False)
    assert resolve_model(store, "churn", first)
    done = remove_version(store, "churn", first, though_promoted=True, dry_run=False)
    assert done.objects == 7  # also the folder in the registry
    assert not [key for key in left(store) if first in key]
    assert verify_store(store, keep=False, observe=quiet).ok
    with pytest.raises(NotFoundError, match=first):
        rollback_model(store, "churn")
    assert resolve_model(store, "churn").version == second
    made(store)
    assert rollback_model(store, "churn").version == first


def test_an_alias_that_cannot_be_read_forbids_removal(place: Place) -> None:
    version = made(place.store)
    promote_model(place.store, "churn", version)
    remove_alias(place.store, "churn", "production")
    place.raw.put(modelkeys.numbered_key(modelkeys.alias_folder("churn", "production"), 2), b"{}")
    with pytest.raises(IntegrityError):
        remove_version(place.store, "churn", version, though_promoted=True, dry_run=False)
    assert resolve_model(place.store, "churn", version)


def test_its_blobs_go_with_collections_and_others_stay() -> None:
    world = World()
    kept = made(world.store, b"kept")
    body = register_model(world.store, None, "churn", _one(world.store), observe=quiet)
    remove_version(world.store, "churn", body.version, dry_run=False, observe=quiet)
    for _ in range(2):
        world.later(8)
        world.collect()
    assert body.files[0].digest not in world.blobs()
    assert {file.digest for file in resolve_model(world.store, "churn", kept).files} <= world.blobs()


def _one(store: Store) -> dict[str, Any]:
    """A file that nothing but a version holds."""
    from mltrack_tasks.content import forget_data, store_data

    ref = store_data(store, b"only the version's", "n", observe=quiet)
    forget_data(store, "n", observe=quiet)
    return {"only": ref}


@pytest.mark.parametrize("how", ["before", "after", "crash"])
def test_a_removal_that_fails_anywhere_is_finished_by_the_same_call(how: str) -> None:
    step, done = 0, False
    while not done:
        world = World()
        version = made(world.store)
        step += 2
        faulty = GuardedStore(FaultyStore(world.clocked, step, how))  # type: ignore[arg-type]
        try:
            remove_version(faulty, "churn", version, dry_run=False, observe=quiet)
            done = True
        except MLTrackError:
            invariants.check_always(world.bare)
        world.clocked.later(2 * HOUR)
        try:
            remove_version(world.store, "churn", version, dry_run=False, observe=quiet)
        except NotFoundError:
            assert not left(world.store), step
        assert not left(world.store), step
        assert made(world.store) == version, step
    assert step > 15


def test_who_registers_waits_for_a_removal_and_says_so_when_it_stays_open(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = made(store)
    key = modelkeys.removal_key("churn", version, 1)
    store.create(key, b'{"content":{"files":[]},"format":1,"provenance":{}}')
    monkeypatch.setattr("mltrack_tasks.registry.removals.TIMEOUT", 0.0)
    with pytest.raises(TransientError, match="remove_version again"):
        made(store)
    with pytest.raises(TransientError, match="remove_version again"):
        promote_model(store, "churn", version)
    monkeypatch.setattr("mltrack_tasks.registry.removals.TIMEOUT", 60.0)
    done = modelkeys.removal_done_key("churn", version, 1)
    monkeypatch.setattr("time.sleep", lambda seconds: store.create(done, b""))
    assert made(store) == version
    assert promote_model(store, "churn", version).created


ACTORS: dict[str, Callable[[Store, str], Any]] = {
    "registers": lambda store, version: made(GuardedStore(store)),
    "promotes": lambda store, version: promote_model(GuardedStore(store), "churn", version, observe=quiet),
    "copies": lambda store, version: _copies(store, version),
    "removes": lambda store, version: _removes(store, version),
}


def _copies(store: Store, version: str) -> Any:
    source = GuardedStore(MemoryStore())
    made(source)
    return copy_model(source, "churn", version, GuardedStore(store), observe=quiet)


def _removes(store: Store, version: str) -> Any:
    return remove_version(
        GuardedStore(store), "churn", version, though_promoted=True, dry_run=False, observe=quiet
    )


@pytest.mark.parametrize(
    "others",
    [("registers",), ("promotes",), ("copies",), ("registers", "promotes"), ("removes", "registers")],
)
def test_in_any_order_a_version_is_whole_or_gone(
    others: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    scene = ClockedStore(MemoryStore())
    version = made(GuardedStore(scene))
    ends = set()
    for seed in range(SEEDS):
        chance = random.Random(seed)
        store = copied(scene)
        names = ["remover", *others]
        actors = {name: _actor(ACTORS.get(name, _removes), version) for name in names}
        plan = [name for _ in range(300) for name in [chance.choice(names)] * chance.randint(1, 12)]
        killed = {"remover": chance.randint(1, 40)} if seed % 3 == 0 else {}
        if killed:
            monkeypatch.setattr("mltrack_tasks.registry.removals.TIMEOUT", 0.0)
        results = play(store, actors, plan, killed=killed)
        monkeypatch.undo()
        monkeypatch.setattr("time.sleep", lambda seconds: None)
        for name, result in results.items():
            if isinstance(result, Exception):
                assert isinstance(result, (KilledError, ConflictError, NotFoundError, TransientError)), (
                    seed,
                    name,
                    repr(result),
                )
        opened = GuardedStore(store)
        if killed:
            store.later(2 * HOUR)
            _finished(opened, version)
        check_whole(opened, version, seed)
        ends.add(resolve_or_none(opened, version) is None)
        made(opened)
        promote_model(opened, "churn", version, observe=quiet)
        check_whole(opened, version, seed)
    assert ends


def _actor(act: Callable[[Store, str], Any], version: str) -> Callable[[Store], Any]:
    return lambda store: act(store, version)


def _finished(store: Store, version: str) -> None:
    """Whoever finds a removal that was stopped calls again."""
    with suppress(NotFoundError, ConflictError):
        _removes(store, version)
    assert all(removals_of(store, "churn", version).values())


def resolve_or_none(store: Store, version: str) -> Any:
    try:
        return resolve_model(store, "churn", version)
    except NotFoundError:
        return None


def check_whole(store: Store, version: str, seed: int) -> None:
    """A version that is there has all its blobs and, where a mark says so, all its files; so has an alias."""
    keys = set(invariants.keys(store))
    found = resolve_or_none(store, version)
    standing = list_models(store)[0].aliases if list_models(store) else {}
    if found is None:
        assert not standing, seed
        assert modelkeys.materialized_key("churn", version) not in keys, seed
        return
    assert {layout.blob_key(file.digest, file.format) for file in found.files} <= keys, seed
    for mark, folder in (
        (modelkeys.materialized_key("churn", version), modelkeys.development_folder("churn", version)),
        (modelkeys.promoted_key("churn", version), modelkeys.promoted_folder("churn", version)),
    ):
        if mark in keys and (mark.startswith("models/development") or standing):
            assert {folder + file.path for file in found.files} <= keys, (seed, mark)
    if standing:
        assert modelkeys.promoted_key("churn", version) in keys, seed


def test_the_folder_of_a_run_that_is_local(tmp_path: Path, place: Place) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "w").write_bytes(b"1")
    version = register_model(place.store, None, "m", tmp_path / "m", observe=quiet).version
    assert remove_version(place.store, "m", version, dry_run=False, observe=quiet).objects == 3
    assert not left(place.store)
