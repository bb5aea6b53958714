"""Files that cannot be read or change, stores that refuse, disks that fill up: told, and nothing is lost."""

from __future__ import annotations

import os
import resource
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest

from mltrack_tasks import migration
from mltrack_tasks.digest import sha256_hex
from mltrack_tasks.errors import AccessError, InvalidInputError, MLTrackError, PartialTransferError
from mltrack_tasks.events import Event
from mltrack_tasks.migration import download_from_s3, hashcache
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.directory import DirectoryStore
from mltrack_tasks.stores.guard import GuardedStore
from mltrack_tasks.stores.memory import MemoryStore
from mltrack_tasks.stores.observed import SteppedStore
from tests.floor2.localtrees import for_everybody, in_child, unprivileged
from tests.floor3 import invariants
from tests.floor3.migrationtrees import AT_ONCE, fill, kept, migrate, quiet, restored, stored
from tests.settings import some

T = TypeVar("T")

INSIDE, PACKED, SINGLE, LARGE = b"i" * 100, b"p" * 10_000, b"s" * 50_000, bytes(range(256)) * 6_000
"""In a manifest, in a pack, a blob of its own, and one that is hashed only while it is sent."""
BODIES = {"inside": INSIDE, "packed": PACKED, "single": SINGLE, "large": LARGE}
CONTENTS = {
    **{f"run/{name}": body for name, body in BODIES.items()},
    **{f"other/{name}": body[::-1] + b"o" for name, body in BODIES.items()},
    "loose": b"l" * 30_000,
}
SIZES = pytest.mark.parametrize("size", BODIES)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLTRACK_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(hashcache, "SETTLED", 0)


@pytest.fixture(scope="session", autouse=True)
def imported(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Import all that is needed, while we may: who is not root may not be able to read the interpreter's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLTRACK_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        store = GuardedStore(DirectoryStore(tmp_path_factory.mktemp("store")))
        migrate(store, fill(tmp_path_factory.mktemp("tree"), {"run/x": b"x"}))
        assert restored(store)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return fill(tmp_path / "tree", CONTENTS)


def contents(store: Store) -> dict[str, str]:
    """Path -> digest of the files that come back."""
    return {item[0]: item[6] for item in restored(store) if item[1] == "f"}


def on_disk(root: Path) -> dict[str, str]:
    return {item[0]: item[6] for item in kept(root) if item[1] == "f"}


def partial(call: Callable[[], object]) -> PartialTransferError:
    with pytest.raises(PartialTransferError) as caught:
        call()
    return caught.value


def names(error: PartialTransferError) -> set[str]:
    return {path for path, _ in error.failed}


class Disturbed(SteppedStore):
    """Does something once, before the first call of a verb to a key with ``part`` in it."""

    def __init__(self, inner: Store, verb: str, part: str, act: Callable[[], object]) -> None:
        super().__init__(inner)
        self._verb, self._part, self._act = verb, part, act
        self._lock, self.done = threading.Lock(), False

    def step(self, verb: str, key: str, size: int, call: Callable[[], T]) -> T:
        with self._lock:
            if verb == self._verb and self._part in key and not self.done:
                self.done = True
                self._act()
        return call()


def _rewrite(path: Path) -> None:
    path.write_bytes(path.read_bytes()[::-1] + b"!")


def _append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def _swap(path: Path) -> None:
    """Another file of the same size and time."""
    before, new = path.stat(), path.with_name("new")
    new.write_bytes(b"x" * before.st_size)
    os.utime(new, ns=(before.st_atime_ns, before.st_mtime_ns))
    new.replace(path)


def _become_a_link(path: Path) -> None:
    path.rename(path.with_name("aside"))
    path.symlink_to("aside")


def _become_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


CHANGES: dict[str, Callable[[Path], None]] = {
    "rewritten": _rewrite,
    "grown": _append,
    "swapped": _swap,
    "gone": Path.unlink,
    "a link": _become_a_link,
    "a pipe": _become_a_pipe,
}


@pytest.mark.parametrize("earlier", [False, True], ids=["new", "stored before"])
@pytest.mark.parametrize("kind", CHANGES)
@SIZES
def test_a_file_that_changes_between_scan_and_reading(
    store: Store, root: Path, size: str, kind: str, earlier: bool
) -> None:
    """All else is stored, and of this file what was stored before; the next call finishes."""
    path = f"run/{size}"
    if earlier:
        migrate(store, root)
        (root / path).write_bytes(CONTENTS[path] + b"2")
    before = {path: sha256_hex(CONTENTS[path])} if earlier else {}
    scan = migration.scan_source(root, name="nightly", observe=quiet)
    CHANGES[kind](root / path)
    plan = migration.plan_migration(store, scan, observe=quiet)
    error = partial(lambda: carry_out(store, plan))
    assert path in names(error) <= ({path} if plan.failed else {path, "run/inside"})
    rest = {p: digest for p, digest in on_disk(root).items() if p not in names(error) | {"run/aside"}}
    assert contents(store) == rest | before
    finishes(store, root)


def carry_out(store: Store, plan: Any) -> object:
    """Do what a plan says, step by step, as the flow does."""
    origin = plan.scan.origin
    sent = [migration.upload_batch(store, batch, origin=origin, observe=quiet) for batch in plan.batches]
    work = migration.plan_manifests(plan, sent)
    written = [
        migration.write_manifests(store, batch, origin=origin, observe=quiet) for batch in work.batches
    ]
    finished = migration.finish_migration(
        store, work, written, delete_older_than=AT_ONCE if plan.failed else None, observe=quiet
    )
    assert not finished.deletions
    raise PartialTransferError("failed", failed=finished.failed)


def finishes(store: Store, root: Path) -> None:
    """The next call stores the tree as it is, and then there is nothing more to do."""
    for path in root.rglob("*"):
        if path.is_fifo():
            path.unlink()  # of what it took the place of, what was stored would be kept
    migrate(store, root)
    assert contents(store) == on_disk(root)
    assert restored(store) == kept(root)
    migrate(store, root)  # hashes the large files that a receipt told of
    assert migrate(store, root).unchanged
    for key in invariants.blobs(store):
        assert sha256_hex(store.get(key)) == key.split("/")[2]


@pytest.mark.parametrize("earlier", [False, True], ids=["new", "stored before"])
@pytest.mark.parametrize("kind", CHANGES)
@pytest.mark.parametrize("size", ["packed", "single", "large"])
def test_a_file_that_changes_between_hashing_and_sending(
    store: Store, root: Path, size: str, kind: str, earlier: bool
) -> None:
    """Nothing is deleted, though asked for. What is left out with it, as its run waits, is named."""
    path = f"run/{size}"
    if earlier:
        migrate(store, root)
        (root / path).write_bytes(CONTENTS[path] + b"2")
    before = {path: sha256_hex(CONTENTS[path])} if earlier else {}
    disturbed = Disturbed(store, "create", "/plans/", lambda: CHANGES[kind](root / path))
    error = partial(lambda: migrate(disturbed, root, delete_after_upload=True, min_age=AT_ONCE))
    assert disturbed.done
    assert path in names(error) <= {path, "run/inside"}
    assert set(CONTENTS) - {path} <= set(on_disk(root))
    rest = {p: digest for p, digest in on_disk(root).items() if p not in names(error) | {"run/aside"}}
    assert contents(store) == rest | before
    finishes(store, root)


@pytest.mark.parametrize("size", ["inside", "packed", "single", "large"])
def test_a_file_that_changes_before_its_run_is_written(store: Store, root: Path, size: str) -> None:
    """What its manifest does not hold is stored as it was; else the run waits for the next call."""
    path = f"run/{size}"
    disturbed = Disturbed(store, "create", "/receipts/", lambda: _rewrite(root / path))
    if size == "inside":
        assert path in names(partial(lambda: migrate(disturbed, root)))
        assert path not in contents(store)
    else:
        migrate(disturbed, root)
        assert contents(store)[path] == sha256_hex(CONTENTS[path])
    finishes(store, root)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("kind", ["rewritten", "grown"])
def test_a_file_that_changes_while_it_is_sent_in_parts(store: Store, root: Path, kind: str) -> None:
    fill(root, {"run/large": LARGE[:1_200_000]})
    disturbed = Disturbed(store, "part", "", lambda: CHANGES[kind](root / "run" / "large"))
    error = partial(lambda: migrate(disturbed, root))
    assert disturbed.done
    assert "run/large" in names(error)
    assert "run/large" not in contents(store)
    finishes(store, root)


def test_a_file_that_grows_all_the_time(store: Store, root: Path) -> None:
    """Whatever is stored of it is what it once was, up to some byte."""
    path, stop = root / "run" / "log", threading.Event()
    line = b"0123456789abcdef" * 64

    def grow() -> None:
        with path.open("ab", buffering=0) as file:
            while not stop.wait(0.001):
                file.write(line)

    path.write_bytes(line * 1_100)
    thread = threading.Thread(target=grow)
    thread.start()
    try:
        for _ in range(4):
            with suppress(PartialTransferError):
                migrate(store, root)
            restored_log = contents(store).get("run/log")
            size = {item[0]: item[3] for item in restored(store)}.get("run/log", 0)
            assert restored_log in (None, sha256_hex(path.read_bytes()[:size]))
    finally:
        stop.set()
        thread.join()
    finishes(store, root)


def test_equal_files_one_of_which_changes(store: Store, root: Path) -> None:
    """Equal bytes are sent once: without the one that was to be sent, the other one is not stored either."""
    fill(root, {"a/one": b"=" * 20_000, "b/two": b"=" * 20_000})
    disturbed = Disturbed(store, "create", "/plans/", lambda: _rewrite(root / "a" / "one"))
    error = partial(lambda: migrate(disturbed, root))
    assert names(error) == {"a/one", "b/two"}
    assert set(contents(store)) == set(CONTENTS)
    finishes(store, root)


def test_a_run_whose_id_is_taken_is_named(store: Store, root: Path, tmp_path: Path) -> None:
    migrate(store, fill(tmp_path / "another", {"run/x": b"x"}), name="another")
    error = partial(lambda: migrate(store, root, delete_after_upload=True, min_age=AT_ONCE))
    assert names(error) == {"run", "run/inside"}
    assert set(on_disk(root)) == set(CONTENTS)
    back = {item[0] for item in restored(store, migration="nightly") if item[1] == "f"}
    assert back == set(CONTENTS) - {"run/inside"}


@pytest.mark.parametrize("earlier", [False, True], ids=["new", "stored before"])
@SIZES
def test_a_file_that_may_not_be_read(size: str, earlier: bool) -> None:
    """As somebody who is not root: the file is named, all else is stored, and nothing is deleted."""
    path = f"run/{size}"
    with for_everybody() as place:
        (place / "tree").mkdir()
        (place / "tree").chmod(0o777)
        store = GuardedStore(DirectoryStore(place / "store"))

        def prepare() -> None:
            os.environ["MLTRACK_CACHE_DIR"] = str(place / "cache")
            fill(place / "tree", CONTENTS)
            if earlier:
                migrate(store, place / "tree")
                (place / "tree" / path).write_bytes(CONTENTS[path] + b"2")
                fill(place / "tree", {"run/new": b"new", "run/news": b"n" * 9_000})
            (place / "tree" / path).chmod(0)

        def attempt() -> PartialTransferError:
            return partial(lambda: migrate(store, place / "tree", delete_after_upload=True, min_age=AT_ONCE))

        unprivileged(prepare)
        there = on_disk(place / "tree")
        failed = names(unprivileged(attempt))
        assert path in failed <= ({path, "run/inside", "run/new"} if size == "large" else {path})
        assert on_disk(place / "tree") == there
        before = {path: sha256_hex(CONTENTS[path])} if earlier else {}
        rest = {p: digest for p, digest in there.items() if p not in failed}
        assert contents(store) == rest | before
        unprivileged(lambda: (place / "tree" / path).chmod(0o644))
        unprivileged(lambda: migrate(store, place / "tree"))
        assert contents(store) == on_disk(place / "tree")


@pytest.mark.parametrize("earlier", [False, True], ids=["new", "stored before"])
def test_a_folder_that_may_not_be_read(earlier: bool) -> None:
    with for_everybody() as place:
        store = GuardedStore(DirectoryStore(place / "store"))

        def attempt() -> PartialTransferError:
            os.environ["MLTRACK_CACHE_DIR"] = str(place / "cache")
            root = fill(place / "tree", CONTENTS)
            if earlier:
                migrate(store, root)
            (root / "run").chmod(0)
            return partial(lambda: migrate(store, root, delete_after_upload=True, min_age=AT_ONCE))

        assert names(unprivileged(attempt)) == {"run"}
        local = {path: sha256_hex(body) for path, body in CONTENTS.items()}
        assert on_disk(place / "tree") == local
        before = {path: d for path, d in local.items() if earlier or not path.startswith("run/")}
        assert contents(store) == before
        (place / "tree" / "run").chmod(0o755)
        unprivileged(lambda: migrate(store, place / "tree"))
        assert contents(store) == local


class Denying(SteppedStore):
    """Refuses every write from one on, as a policy that was changed meanwhile does."""

    WRITES = frozenset({"create", "replace", "upload", "part", "complete"})

    def __init__(self, inner: Store, first: int) -> None:
        super().__init__(inner)
        self._first, self.writes, self._lock = first, 0, threading.Lock()

    def step(self, verb: str, key: str, size: int, call: Callable[[], T]) -> T:
        with self._lock:
            self.writes += verb in self.WRITES
            denied = verb in self.WRITES and 0 < self._first <= self.writes
        if denied:
            raise AccessError(f"{key}: PUT is denied. Grant s3:PutObject.")
        return call()


@pytest.mark.usefixtures("small_parts")
def test_a_store_that_denies_writing_halfway(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From any write on: told what is done and what is not, nothing is deleted, the next call goes on."""
    monkeypatch.setattr("mltrack_tasks.plan.BATCH_FILES", 2)
    fill(root, {"run/large": LARGE[:20_000], "other/large": LARGE[5:20_000]})
    there = kept(root)
    counted = Denying(GuardedStore(MemoryStore(max_workers=1)), 0)
    migrate(counted, root)
    expected = invariants.without_days(list(stored(counted)))
    assert counted.writes > 60
    sent = {f"{folder}/{name}" for folder in ("run", "other") for name in ("packed", "single", "large")}
    for first in some(range(1, counted.writes + 1)):
        monkeypatch.setenv("MLTRACK_CACHE_DIR", str(root.parent / f"cache {first}"))
        store = GuardedStore(MemoryStore(max_workers=1))
        denying = Denying(store, first)
        error = partial(lambda s=denying: migrate(s, root, delete_after_upload=True, min_age=AT_ONCE))  # type: ignore[misc]
        assert "PUT is denied" in str(error), first
        assert {*error.done, *names(error)} == {*sent, "loose"}, first
        assert not set(error.done) & names(error), first
        assert kept(root) == there, first
        report = migrate(store, root)
        assert not report.failed
        assert invariants.without_days(list(stored(store))) == expected, first
        assert restored(store) == there, first


def limited(size: int, work: Callable[[], Any]) -> Any:
    """Do ``work`` in a child whose disk takes no file larger than ``size`` [bytes] -> what it raised."""

    def child() -> Any:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        try:
            work()
        except MLTrackError as error:
            return error
        return None

    return in_child(child)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("size", [50, 5_000, 40_000, 1_000_000])
def test_a_disk_that_fills_up_during_a_restore(
    store: Store, root: Path, tmp_path: Path, size: int, overwrite: bool
) -> None:
    """Each file is whole or not there, under any name; what was written is not fetched again."""
    migrate(store, root)
    target = tmp_path / "back"
    if overwrite:
        fill(target, {"run/large": b"old", "loose": b"old"})
    old = on_disk(target)
    error = limited(size, lambda: download_from_s3(store, target, overwrite=overwrite, observe=quiet))
    assert isinstance(error, (AccessError, PartialTransferError)), error
    assert "full" in str(error)
    written = on_disk(target)
    new = {path: digest for path, digest in written.items() if old.get(path) != digest}
    assert new.items() <= on_disk(root).items()
    assert set(old) <= set(written)
    assert not any(".mltrack" in item[0] for item in kept(target))
    report = download_from_s3(store, target, overwrite=overwrite, observe=quiet)
    assert report.present >= len(new)
    assert kept(target) == kept(root)


@pytest.mark.parametrize("size", [10, 300, 20_000, 1_000_000])
def test_a_disk_that_fills_up_under_the_store(root: Path, tmp_path: Path, size: int) -> None:
    """Also the cache of digests is on that disk."""
    there = kept(root)
    where = tmp_path / "store"

    def work() -> None:
        store = GuardedStore(DirectoryStore(where))
        migrate(store, root, delete_after_upload=True, min_age=AT_ONCE)

    error = limited(size, work)
    assert isinstance(error, PartialTransferError), error
    assert kept(root) == there
    store = GuardedStore(DirectoryStore(where))
    migrate(store, root)
    assert restored(store) == there
    for key in invariants.blobs(store):
        assert sha256_hex(store.get(key)) == key.split("/")[2]


def test_a_cache_of_digests_that_lies(store: Store, root: Path, tmp_path: Path) -> None:
    """Or is damaged: what is sent is hashed, and what is found stays what it is."""
    migrate(store, root)
    there = kept(root)
    [database] = (tmp_path / "cache" / "hashes").glob("*.sqlite")
    for body in (b"", b"no database" * 100, database.read_bytes()[:5_000]):
        database.write_bytes(body)
        for name in ("-wal", "-shm"):
            database.with_name(database.name + name).unlink(missing_ok=True)
        assert not migrate(store, root).created_blobs
        assert restored(store) == there


@pytest.mark.parametrize("cached", [False, True])
def test_large_files_with_other_bytes_and_the_same_size_and_times(
    store: Store, root: Path, monkeypatch: pytest.MonkeyPatch, cached: bool
) -> None:
    """What a receipt says of a file is only believed of the bytes that it is about."""
    path, other = root / "run" / "large", root / "other" / "large"
    times = path.stat()
    for round in range(3):
        path.write_bytes(bytes([round]) + LARGE[1:])
        other.write_bytes(bytes([2 - round]) + LARGE[1:])
        for file in (path, other):
            os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
        monkeypatch.setenv("MLTRACK_CACHE_DIR", f"{root}.{0 if cached else round}")
        finishes(store, root)


def test_nothing_is_done_for_a_path_that_is_not_there(store: Store, tmp_path: Path) -> None:
    seen: list[Event] = []
    with pytest.raises(InvalidInputError, match="is not a folder on"):
        migrate(store, tmp_path / "none", observe=seen.append)
    assert not stored(store)
    assert not seen
