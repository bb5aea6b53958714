"""Any tree into a store and back: the same bytes, permissions and times, and nothing sent twice."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings

from mltrack_tasks.migration import download_from_s3, hashcache
from mltrack_tasks.stores.directory import DirectoryStore
from mltrack_tasks.stores.guard import GuardedStore
from mltrack_tasks.stores.memory import MemoryStore
from mltrack_tasks.stores.observed import CountingStore
from tests.floor2.localtrees import SECOND, MadeFile, make_socket, seen
from tests.floor3.conftest import Place
from tests.floor3.migrationtrees import fill, kept, made, migrate, quiet, restored, stored, trees
from tests.settings import examples

BORDERS = {
    b"sizes %d" % seed: {
        b"%d" % size: MadeFile(bytes([seed]), 0o640, seed * SECOND + 123_456_789, size - 1)
        for size in (1, 4096, 4097, 32768, 32769, 1 << 20, (1 << 20) + 1, (4 << 20) + 1)
    }
    for seed in (1, 2)
}
ODD = {
    b"n" * 250: {b"\xff\xfe\n": MadeFile(b"x", 0o400, 5), b"\x1b[31m": MadeFile(b"", 0o444, 0), b"%2E": {}},
    b"~": {b"~name~": b"/etc/passwd", b"..a": b"..", b"a\\b": b"a"},
    b"file": MadeFile(b"x", 0o777, 2**32 * SECOND + 1),
    b"file.part": {b"file": b"../file", b"twice": MadeFile(b"x", 0o600, 7)},
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fresh cache of digests that keeps files at once: those of a test are all young."""
    monkeypatch.setenv("MLTRACK_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(hashcache, "SETTLED", 0)


def goes_around(store: GuardedStore, root: Path, **options: Any) -> None:
    """Migrate, look at what comes back, and migrate again."""
    report = migrate(store, root, **options)
    there = kept(root)
    assert report.files == sum(item[1] == "f" for item in there)
    assert report.size_bytes == sum(item[3] for item in there)
    assert restored(store) == there

    before, counted = stored(store), CountingStore(store)
    assert migrate(counted, root, **options).unchanged
    assert not counted.sent.total()
    assert stored(store) == before


@given(tree=trees)
@example(tree={})
@example(tree=BORDERS)
@example(tree=ODD)
def test_in_memory(tree: dict[bytes, Any]) -> None:
    with made(tree) as root:
        goes_around(GuardedStore(MemoryStore()), root)


@given(tree=trees)
@example(tree=BORDERS)
@example(tree=ODD)
@settings(max_examples=examples(5))
def test_without_packs(tree: dict[bytes, Any]) -> None:
    with made(tree) as root:
        goes_around(GuardedStore(MemoryStore()), root, pack_small_files=False)


@given(tree=trees)
@example(tree=BORDERS)
@example(tree=ODD)
@settings(max_examples=examples(10))
def test_in_a_directory(tree: dict[bytes, Any]) -> None:
    with made(tree) as root:
        goes_around(GuardedStore(DirectoryStore(root.parent / "store")), root)


@given(tree=trees)
@example(tree=BORDERS)
@example(tree=ODD)
@settings(max_examples=examples(2))
def test_on_s3(s3_place: Place, tree: dict[bytes, Any]) -> None:
    s3_place.raw.clear()
    with made(tree) as root:
        goes_around(s3_place.store, root)


@given(tree=trees)
@settings(max_examples=examples(10))
def test_a_restore_over_a_restore_fetches_nothing(tree: dict[bytes, Any]) -> None:
    store = GuardedStore(MemoryStore())
    with made(tree) as root:
        migrate(store, root)
        back = root.parent / "back"
        first = download_from_s3(store, back, observe=quiet)
        assert first.written_files == first.files
        counted = CountingStore(store)
        again = download_from_s3(counted, back, observe=quiet)
        assert (again.written_files, again.present) == (0, first.files)
        assert not any(key.startswith("data/") and key not in _trees(store) for _, key in counted.log)
        assert kept(back) == kept(root)


def _trees(store: GuardedStore) -> set[str]:
    """Blobs that are no files: lists of entries, which a restore has to read."""
    return {key for key, body in stored(store).items() if key.startswith("data/") and body.startswith(b"[[")}


@given(tree=trees)
@settings(max_examples=examples(10))
def test_what_comes_back_migrates_as_the_same(tree: dict[bytes, Any]) -> None:
    store = GuardedStore(MemoryStore())
    with made(tree) as root:
        migrate(store, root)
        back = root.parent / "back" / root.name  # a folder's own name can be the id of a run
        download_from_s3(store, back, observe=quiet)
        before = {key for key in stored(store) if key.startswith("data/")}
        report = migrate(store, back)
        assert report.created_blobs == 0
        assert (report.number == 1) is (kept(root) == seen(root))  # what was left out did not come back
        assert {key for key in stored(store) if key.startswith("data/")} == before


def test_equal_contents_are_stored_once(store: GuardedStore, tmp_path: Path) -> None:
    sizes = (5_000, 50_000, 1_500_000)
    fill(tmp_path / "tree", {f"{folder}/{size}": b"x" * size for folder in "abc" for size in sizes})
    report = migrate(store, tmp_path / "tree")
    assert report.files == 9
    assert sum(len(body) for key, body in stored(store).items() if key.endswith("data.bin")) < 1_570_000
    assert restored(store) == kept(tmp_path / "tree")


def test_hard_links_and_holes_come_back_as_files(store: GuardedStore, tmp_path: Path) -> None:
    root = fill(tmp_path / "tree", {"r/one": b"1" * 9_000})
    os.link(root / "r/one", root / "r/two")
    with open(root / "r/holes", "xb") as file:
        file.truncate(3 << 20)
    migrate(store, root)
    assert restored(store) == kept(root)


def test_what_is_no_file_is_named(store: GuardedStore, tmp_path: Path) -> None:
    root = fill(tmp_path / "tree", {"r/one": b"1"})
    os.mkfifo(root / "r/pipe")
    make_socket(root / "socket")
    report = migrate(store, root)
    assert [path for path, _ in report.left_out] == ["r/pipe", "socket"]
    assert restored(store) == kept(root)
    assert migrate(store, root).unchanged


@pytest.mark.parametrize("options", [{"include": ["a/*"]}, {"exclude": ["b*", "top"]}])
def test_patterns_choose(store: GuardedStore, tmp_path: Path, options: dict[str, Any]) -> None:
    root = fill(tmp_path / "tree", {"a/x/y": b"1", "b/x": b"2", "top": b"3"})
    migrate(store, root, **options)
    assert [item[0] for item in restored(store)] == ["a", "a/x", "a/x/y"]


def test_a_dry_run_writes_nothing_and_says_what_would_be(store: GuardedStore, tmp_path: Path) -> None:
    root = fill(tmp_path / "tree", {"r/small": b"1", "r/packed": b"2" * 9_000, "r/large": b"3" * 2_000_000})
    said = migrate(store, root, dry_run=True)
    assert not stored(store)
    done = migrate(store, root)
    assert (said.files, said.new_files, said.new_bytes) == (done.files, done.new_files, done.new_bytes)
    assert said.number is None


def test_the_name_follows_from_host_and_path(store: GuardedStore, tmp_path: Path) -> None:
    root = fill(tmp_path / "tree", {"r/x": b"1"})
    first = migrate(store, root, name=None)
    again = migrate(store, os.path.relpath(root), name=None)
    assert first.migration == again.migration
    assert first.migration.startswith(socket.gethostname().split(".")[0][:10])
    assert again.unchanged
