"""Files that change, vanish or cannot be read while they are migrated: named, and never lost or made up."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from mltrack_tasks.errors import PartialTransferError
from mltrack_tasks.filetree import FILE, folders_above
from mltrack_tasks.migration import plan_restore
from mltrack_tasks.runs import get_run
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.guard import GuardedStore
from mltrack_tasks.stores.memory import MemoryStore
from mltrack_tasks.stores.observed import SteppedStore
from tests.floor2.localtrees import for_everybody, make, unprivileged
from tests.floor3.invariants import every_blob_hashes_to_its_key
from tests.floor3.migrationtrees import AT_ONCE, Tree, fill, kept, migrate, restored

T = TypeVar("T")

CONTENTS = {
    "r/small": b"1",
    "r/other": b"2",
    "r/packed": b"3" * 5_000,
    "r/own": b"4" * 40_000,
    "r/large": b"5" * 1_100_000,
    "s/small": b"6",
}


class Meanwhile(SteppedStore):
    """Does something, once, when the first key that begins with ``prefix`` is about to be created."""

    def __init__(self, inner: Store, prefix: str, act: Callable[[], object]) -> None:
        super().__init__(inner)
        self._prefix, self._act = prefix, act
        self._once = threading.Lock()

    def step(self, verb: str, key: str, size: int, call: Callable[[], T]) -> T:
        if verb == "create" and key.startswith(self._prefix) and self._once.acquire(blocking=False):
            self._act()
        return call()


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLTRACK_CACHE_DIR", str(tmp_path / "cache"))


def contents(tree: Tree) -> dict[str, str]:
    return {item[0]: item[-1] for item in tree if item[1] == "f"}


def is_named(path: str, named: set[str]) -> bool:
    """Whether an error names a file, or the run that it is of."""
    return not named.isdisjoint((path, *folders_above(path)))


MOMENTS = ["migrations/nightly/plans/", "data/", "runs/log/", "manifests/", "migrations/nightly/manifests/"]


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("path", sorted(CONTENTS))
@pytest.mark.parametrize("stored_before", [False, True])
def test_a_file_changes_at_some_moment(
    moment: str, path: str, stored_before: bool, store: Store, tmp_path: Path
) -> None:
    """What comes back is the file as it was, or as it is, or is missing and named; all else is there."""
    tree = fill(tmp_path / "tree", {name: b"old " + body for name, body in CONTENTS.items()})
    if stored_before:
        migrate(store, tree)
    older = contents(kept(tree)) if stored_before else {}
    before = contents(kept(fill(tree, CONTENTS)))
    named: set[str] = set()
    try:
        migrate(Meanwhile(store, moment, lambda: (tree / path).write_bytes(b"changed")), tree)
    except PartialTransferError as error:
        named = {failed for failed, _ in error.failed}
    assert not named or is_named(path, named)
    every_blob_hashes_to_its_key(store)
    back = contents(restored(store))
    assert all(back.get(name) == before[name] or is_named(name, named) for name in before)
    assert all(back.get(name) in (older[name], before[name]) for name in older)

    migrate(store, tree)
    assert restored(store) == kept(tree)
    assert contents(restored(store, run_ids=["r", "s"])) == contents(kept(tree))


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("path", sorted(CONTENTS))
def test_a_file_vanishes_at_some_moment(moment: str, path: str, store: Store, tmp_path: Path) -> None:
    tree = fill(tmp_path / "tree", CONTENTS)
    before = contents(kept(tree))
    named: set[str] = set()
    try:
        migrate(Meanwhile(store, moment, (tree / path).unlink), tree)
    except PartialTransferError as error:
        named = {failed for failed, _ in error.failed}
    back = contents(restored(store))
    assert back.items() <= before.items()
    assert before.keys() - back.keys() <= {name for name in before if is_named(name, named)}
    assert "s/small" in back or path == "s/small"
    migrate(store, tree)
    assert contents(restored(store, migration="nightly")) == contents(kept(tree))


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("path", sorted(CONTENTS))
def test_what_changes_is_not_deleted(moment: str, path: str, store: Store, tmp_path: Path) -> None:
    tree = fill(tmp_path / "tree", CONTENTS)
    before = contents(kept(tree))
    options: dict[str, Any] = {"delete_after_upload": True, "min_age": AT_ONCE}
    changing = Meanwhile(store, moment, lambda: (tree / path).write_bytes(b"changed"))
    try:
        report = migrate(changing, tree, **options)
    except PartialTransferError:
        assert contents(kept(tree)).keys() == before.keys()
    else:
        assert [kept_path for kept_path, _ in report.kept] == [path]
        assert list(contents(kept(tree))) == [path]
        assert contents(restored(store)) == before
    assert (tree / path).read_bytes() == b"changed"
    now = contents(kept(tree))

    report = migrate(store, tree, **options)
    assert not report.kept
    assert not contents(kept(tree))
    assert contents(restored(store)) == {**before, **now}


@pytest.mark.parametrize("moment", ["manifests/r", "migrations/nightly/manifests/"])
def test_another_call_finishes_meanwhile(moment: str, store: Store, tmp_path: Path) -> None:
    tree = fill(tmp_path / "tree", CONTENTS)
    whole = kept(tree)
    report = migrate(Meanwhile(store, moment, lambda: migrate(store, tree)), tree)
    assert report.number == 1
    assert restored(store) == whole
    assert get_run(store, "r").revision == 1


@pytest.mark.parametrize("moment", ["data/", "manifests/r", "migrations/nightly/manifests/"])
def test_another_call_finishes_another_state_meanwhile(moment: str, store: Store, tmp_path: Path) -> None:
    """The folder grew, and a second call saw it: what the first one saw does not take its place."""
    tree = fill(tmp_path / "tree", CONTENTS)
    with pytest.raises(PartialTransferError, match="Another call has finished"):
        migrate(Meanwhile(store, moment, lambda: migrate(store, fill(tree, {"r/new": b"n"}))), tree)
    migrate(store, tree)
    assert restored(store) == kept(tree)
    assert restored(store, run_ids=["r", "s"]) == kept(tree)


def _locked(root: Path, path: str, store: Store) -> list[str]:
    (root / path).chmod(0)
    try:
        migrate(store, root)
    except PartialTransferError as error:
        return [failed for failed, _ in error.failed]
    finally:
        (root / path).chmod(0o755)
    return []


def listed(store: Store) -> dict[str, str]:
    """What a restore would write: a folder that cannot be listed would come back as one."""
    portions = [portion for batch in plan_restore(store).batches for portion in batch.portions]
    return {entry.path: entry.digest for each in portions for entry in each.entries if entry.kind == FILE}


def _unreadable(path: str, again: bool) -> tuple[list[str], Tree, dict[str, str], Tree]:
    """Migrate what cannot be read, as somebody who is not root."""
    store = GuardedStore(MemoryStore(max_workers=2))
    with for_everybody() as folder:
        os.environ["MLTRACK_CACHE_DIR"] = str(folder / "cache")
        root = folder / "tree"
        root.mkdir()
        make(bytes(root), {})
        fill(root, CONTENTS)
        whole = kept(root)
        if again:
            migrate(store, root)
            fill(root, {"r/other": b"newer", "r/new": b"new"})
        failed = _locked(root, path, store)
        during = listed(store)
        migrate(store, root)
        assert restored(store) == kept(root)
        return failed, whole, during, kept(root)


@pytest.mark.parametrize("path", sorted(CONTENTS))
def test_a_file_that_cannot_be_read_is_named_and_the_rest_is_stored(path: str) -> None:
    failed, whole, during, _ = unprivileged(lambda: _unreadable(path, again=False))
    assert path in failed
    missing = set(contents(whole)) - set(during)
    assert missing == set(failed)


@pytest.mark.parametrize("path", [*sorted(CONTENTS), "r"])
def test_what_cannot_be_read_any_more_stays_as_it_was_stored(path: str) -> None:
    failed, whole, during, now = unprivileged(lambda: _unreadable(path, again=True))
    if path == "r":  # a folder that cannot be listed
        assert failed == ["r"]
        assert during == contents(whole)
    elif path == "r/large":  # found when it is sent: its run stays as it was, and what is new of it is named
        assert sorted(failed) == ["r/large", "r/new", "r/other"]
        assert during == contents(whole)
    else:
        assert failed == [path]
        assert during == {**contents(now), path: contents(whole)[path]}
