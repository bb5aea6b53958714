"""What was wrong with migrations once: receipts, formats, copies, deletions, and what belongs to nobody."""

from __future__ import annotations

import io
import json
import os
import sqlite3
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from mltrack_tasks import layout
from mltrack_tasks.content import retrieve_data, store_data
from mltrack_tasks.digest import sha256_hex
from mltrack_tasks.errors import AccessError, PartialTransferError, TransientError
from mltrack_tasks.filetree import FILE, Entry
from mltrack_tasks.localtree import LocalTree
from mltrack_tasks.migration import download_from_s3, hashcache, scan_source
from mltrack_tasks.migration.hashcache import HashCache
from mltrack_tasks.records import Record
from mltrack_tasks.runs import get_run, list_runs, store_run
from mltrack_tasks.stores.base import Stat, Store
from mltrack_tasks.stores.directory import DirectoryStore
from mltrack_tasks.stores.guard import GuardedStore
from mltrack_tasks.stores.memory import MemoryStore
from mltrack_tasks.stores.observed import CountingStore, SteppedStore
from tests.floor2.localtrees import SECOND, for_everybody, unprivileged
from tests.floor3.migrationtrees import AT_ONCE, NAME, fill, kept, migrate, quiet, restored
from tests.floor3.test_migration_deletion import DONE, EXPERIMENT, RUN
from tests.floor3.test_migration_faults import Disturbed, names, partial

OWN = b"o" * 40_000
KEY = layout.blob_key(sha256_hex(OWN), "bin")
OPEN = f"{layout.GC_DELETING}batch-1.json"
WRITTEN_FIRST = [f"migrations/{NAME}/{folder}/" for folder in ("plans", "receipts")]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLTRACK_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(hashcache, "SETTLED", 0)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return fill(tmp_path / "tree", {"r/own": OWN})


def keys(store: Store, prefix: str) -> list[str]:
    return [stat.key for stat in store.list(prefix)]


def _refuse() -> None:
    raise AccessError("stopped here")


def _fail_once() -> None:
    raise TransientError("503")


def interrupted(store: Store, tree: Path) -> None:
    """A call that is stopped when its files are sent, and nothing lists them yet."""
    partial(lambda: migrate(Disturbed(store, "create", f"migrations/{NAME}/manifests/", _refuse), tree))
    assert [len(keys(store, prefix)) for prefix in WRITTEN_FIRST] == [1, 1]


def make_older(store: Store, days: int) -> list[str]:
    """Let the records of batches and receipts be of some days ago -> their keys."""
    found = [key for prefix in WRITTEN_FIRST for key in keys(store, prefix)]
    for key in found:
        raw, stat = json.loads(store.get(key)), store.head(key)
        raw["provenance"]["at"] = f"{datetime.now(UTC) - timedelta(days=days):%Y-%m-%dT%H:%M:%S.%fZ}"
        assert stat is not None
        assert stat.etag is not None
        record = Record(raw["content"], raw["provenance"])
        assert store.replace(key, record.to_bytes(), stat.etag)
    return found


def test_an_old_receipt_is_not_relied_on(store: Store, tree: Path) -> None:
    """A collector may take it, and what it holds, while the call that relies on it goes on."""
    interrupted(store, tree)
    old = make_older(store, days=21)
    migrate(Disturbed(store, "create", f"migrations/{NAME}/manifests/", lambda: store.delete(old)), tree)
    assert [len(keys(store, prefix)) for prefix in WRITTEN_FIRST] == [1, 1]  # written anew, under other ids
    assert restored(store, migration=NAME) == kept(tree)


def test_a_receipt_of_these_days_is_relied_on(store: Store, tree: Path) -> None:
    interrupted(store, tree)
    make_older(store, days=19)
    counting = CountingStore(store)
    migrate(counting, tree)
    created = [key for verb, key in counting.log if verb == "create"]
    assert not [key for key in created if key.startswith((KEY, *WRITTEN_FIRST))]
    assert restored(store, migration=NAME) == kept(tree)


class Collecting(SteppedStore):
    """Takes the blob, then closes its batch, at looks for open batches after the first."""

    looks = 0

    def list(self, prefix: str, *, after: str = "") -> Iterator[Stat]:
        if prefix == layout.GC_DELETING:
            self.looks += 1
            self.inner.delete({1: [], 2: [KEY]}.get(self.looks, [OPEN]))
        return super().list(prefix, after=after)


def test_an_open_deletion_of_what_a_receipt_names_is_waited_for(
    store: Store, tree: Path, no_pauses: list[float]
) -> None:
    interrupted(store, tree)
    store.create(OPEN, Record({"digests": [sha256_hex(OWN)]}, {"at": "2024-01-01T00:00:00Z"}).to_bytes())
    collecting = Collecting(store)
    report = migrate(collecting, tree)
    assert keys(store, layout.GC_DELETING) == []
    assert (report.created_blobs, restored(store)) == (1, kept(tree))


def test_a_blob_of_the_same_bytes_in_another_format_is_no_proof(store: Store, tmp_path: Path) -> None:
    file = io.BytesIO()
    np.save(file, np.arange(5_000))
    body = file.getvalue()
    raw = store_data(store, body, "raw")
    tree = fill(tmp_path / "tree", {"r/a.npy": body})
    interrupted(store, tree)
    store.delete([layout.blob_key(raw.hash, "npy")])
    migrate(store, tree)
    assert restored(store) == kept(tree)
    assert retrieve_data(store, raw) == body


def test_a_blob_of_another_size_is_no_proof(store: Store, tree: Path) -> None:
    interrupted(store, tree)
    stat = store.head(KEY)
    assert stat is not None
    assert stat.etag is not None
    assert store.replace(KEY, OWN[:-1], stat.etag)
    migrate(store, tree)
    assert store.get(KEY) == OWN


class Growing(SteppedStore):
    """Gets another run when all blobs have been listed."""

    grown = False

    def list(self, prefix: str, *, after: str = "") -> Iterator[Stat]:
        yield from super().list(prefix, after=after)
        if prefix == layout.BLOBS and not self.grown:
            self.grown = True
            store_run(self.inner, "two", {"y": b"2"}, storage_mode="flat")


def test_a_copy_has_no_run_without_its_blobs(store: Store, tmp_path: Path) -> None:
    store_run(store, "one", {"x": b"1"}, storage_mode="flat")
    download_from_s3(Growing(store), tmp_path / "copy", layout="store", observe=quiet)
    copy = GuardedStore(DirectoryStore(tmp_path / "copy"))
    assert get_run(store, "two").data
    assert [retrieve_data(copy, ref) for run in list_runs(copy) for ref in run.data.values()] == [b"1"]


def mlruns(root: Path) -> Path:
    """A store of MLflow with one run that has ended."""
    run = f"0/{DONE}"
    contents = {
        "0/meta.yaml": EXPERIMENT.encode(),
        f"{run}/meta.yaml": RUN.format(id=DONE, end=1700000001000, status=3).encode(),
        f"{run}/metrics/loss": b"1700000000000 0.5 0\n",
        f"{run}/params/lr": b"0.1",
        f"{run}/tags/t": b"v",
        f"{run}/artifacts/model": b"m" * 9_000,
    }
    return fill(root, contents)


@pytest.mark.parametrize("before", range(5))
def test_a_deletion_that_was_killed_is_finished_by_the_next_call(
    before: int, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as anything of a run of MLflow is here, ``meta.yaml`` is, which makes it one."""
    tree = mlruns(tmp_path / "tree")
    whole = kept(tree)
    delete, calls = LocalTree.delete, count()

    def killed(*args: object) -> str | None:
        if next(calls) == before:
            raise KeyboardInterrupt
        return delete(*args)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(LocalTree, "delete", killed)
        with pytest.raises(KeyboardInterrupt):
            migrate(store, tree, delete_after_upload=True, min_age=AT_ONCE)
    assert (tree / "0" / DONE / "meta.yaml").exists()
    migrate(store, tree, delete_after_upload=True, min_age=AT_ONCE)
    assert [item[0] for item in kept(tree)] == ["0", "0/meta.yaml"]
    assert restored(store) == whole


def test_what_was_deleted_before_the_store_failed_counts(
    store: Store, tmp_path: Path, no_pauses: list[float]
) -> None:
    tree = fill(tmp_path / "tree", {"a/x": b"1", "b/x": b"2", "c/x": b"3"})
    migrate(store, tree)
    failing = Disturbed(store, "get_range", "manifests/c", _fail_once)
    report = migrate(failing, tree, delete_after_upload=True, min_age=AT_ONCE)
    assert failing.done
    assert (report.deleted_files, report.kept, kept(tree)) == (3, (), [])


def _locked_out(exclude: list[str], include: list[str]) -> list[str]:
    """Migrate a folder with another in it that we may not list -> what failed."""
    store = GuardedStore(MemoryStore(max_workers=2))
    with for_everybody() as folder:
        os.environ["MLTRACK_CACHE_DIR"] = str(folder / "cache")
        tree = fill(folder / "tree", {"a/x.csv": b"1", "private/y.csv": b"2"})
        (tree / "private").chmod(0)
        try:
            migrate(store, tree, exclude=exclude, include=include)
        except PartialTransferError as error:
            return sorted(names(error))
        finally:
            (tree / "private").chmod(0o755)
        assert [item[0] for item in restored(store) if item[1] == FILE] == ["a/x.csv"]
        return []


@pytest.mark.parametrize(
    ("exclude", "include", "failed"),
    [
        ([], [], ["private"]),
        (["private"], [], []),
        (["private/*"], [], []),
        (["*vate*"], [], []),
        (["private/*.txt"], [], ["private"]),
        ([], ["a/*"], []),
        ([], ["*.csv"], ["private"]),
        (["private/*"], ["*.csv"], []),
    ],
)
def test_what_is_left_out_on_purpose_fails_nothing(
    exclude: list[str], include: list[str], failed: list[str]
) -> None:
    """A folder that cannot be listed does, unless nothing in it could have been chosen."""
    assert unprivileged(lambda: _locked_out(exclude, include)) == failed


def test_a_renamed_experiment_reaches_its_runs(store: Store, tmp_path: Path) -> None:
    tree = mlruns(tmp_path / "tree")
    migrate(store, tree)
    assert get_run(store, DONE).project == "Default"
    fill(tree, {"0/meta.yaml": EXPERIMENT.replace("Default", "renamed").encode()})
    assert migrate(store, tree).runs == (DONE,)
    assert get_run(store, DONE).project == "renamed"
    assert [run.run_id for run in list_runs(store, project="renamed")] == [DONE]


def test_a_file_that_changed_just_before_it_was_read_is_not_remembered(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long it takes to send it: it may have changed since, within the same step of the clock."""
    monkeypatch.setattr(hashcache, "SETTLED", 2 * SECOND)
    tree = fill(tmp_path / "tree", {"r/large": b"l" * (2 << 20)})
    clock = [time.time_ns()]
    monkeypatch.setattr("time.time_ns", lambda: clock[0])
    slow = Disturbed(store, "head", "data/", lambda: clock.append(clock.pop() + 3 * SECOND))
    migrate(slow, tree)
    assert slow.done
    with HashCache(tree) as cache:
        [entry] = [e for e in scan_source(tree, name=NAME, observe=quiet).entries if e.kind == FILE]
        assert cache.fill([entry]) == [entry]
        assert not entry.digest


@pytest.mark.parametrize("columns", ["path", "path, size, mtime_ns, ctime_ns, inode"])
def test_a_cache_of_other_columns_is_none(tmp_path: Path, columns: str) -> None:
    entry = Entry("x", FILE, size=1, mtime_ns=2, ctime_ns=3, inode=4)
    with HashCache(tmp_path, tmp_path) as cache:
        cache.keep([entry._replace(digest="ab" * 32)], since=time.time_ns())
        assert cache.fill([entry])[0].digest
    [path] = (tmp_path / "hashes").glob("*.sqlite")
    with sqlite3.connect(path) as database:
        database.executescript(f"DROP TABLE digests; CREATE TABLE digests ({columns});")
        row = [b"x", 1, 2, 3, 4][: columns.count(",") + 1]
        database.execute(f"INSERT INTO digests VALUES ({', '.join('?' * len(row))})", row)
    database.close()
    with HashCache(tmp_path, tmp_path) as cache:
        assert cache.fill([entry]) == [entry]


def test_a_file_that_is_named_like_a_database_is_kept(store: Store, tmp_path: Path) -> None:
    tree = fill(tmp_path / "tree", {"r/notes.db": b"not one", "r/empty.db": b"", "a/x": b"1"})
    whole = tree / "r" / "damaged.db"
    with sqlite3.connect(whole) as database:
        database.executescript("CREATE TABLE t (x); INSERT INTO t VALUES (1);")
    database.close()
    whole.write_bytes(whole.read_bytes()[:100] + b"\xff" * 3_000)
    migrate(store, tree)
    assert restored(store) == kept(tree)
    assert restored(store, run_ids=["a", "r"]) == kept(tree)
