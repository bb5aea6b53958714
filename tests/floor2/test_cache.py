"""The read cache: only blobs, always proven, never above its limit, shared by processes."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mltrack_tasks.digest import sha256_hex
from mltrack_tasks.errors import InvalidInputError
from mltrack_tasks.layout import blob_key
from mltrack_tasks.stores.cache import CachedStore
from mltrack_tasks.stores.directory import DirectoryStore
from mltrack_tasks.stores.memory import MemoryStore
from mltrack_tasks.stores.observed import CountingStore


class Cached:
    """A cached store with the account of what reaches the store behind it."""

    def __init__(self, folder: Path, max_bytes: int = 1_000_000) -> None:
        self.folder = folder
        self.behind = CountingStore(MemoryStore())
        self.store = CachedStore(self.behind, folder, max_bytes)

    def blob(self, body: bytes) -> str:
        key = blob_key(sha256_hex(body), "bin")
        self.behind.inner.create(key, body)
        return key

    def size(self) -> int:
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())

    def files(self) -> list[Path]:
        return [path for path in self.folder.rglob("*") if path.is_file() and path.name != ".lock"]


@pytest.fixture
def cached(tmp_path: Path) -> Cached:
    return Cached(tmp_path / "cache")


def test_a_blob_is_fetched_once(cached: Cached) -> None:
    key = cached.blob(b"0123456789")
    for _ in range(3):
        assert cached.store.get(key) == b"0123456789"
        assert bytes(cached.store.get_range(key, 2, 3)) == b"234"
        assert bytes(cached.store.get_range(key, 2, 4)) == b"2345"
    assert cached.behind.calls == {"get": 1, "get_range": 2}


@pytest.mark.parametrize(
    "key",
    [
        *("format.json", "manifests/r.json", f"names/n/{'a' * 64}.json"),
        *(f"data/aa/{'b' * 64}/data.bin", f"data/aa/{'a' * 64}/metadata.json"),
    ],
)
def test_records_and_foreign_keys_are_never_cached(cached: Cached, key: str) -> None:
    cached.behind.inner.create(key, b"{}")
    for _ in range(2):
        cached.store.get(key)
        cached.store.get_range(key, 0, 1)
    assert cached.behind.calls == {"get": 2, "get_range": 2}
    assert cached.store.evict(key) is False
    assert not cached.folder.exists()


@pytest.mark.parametrize(
    "damage", [b"", b"x", b"y" * 32, b"y" * 42], ids=["empty", "short", "digest", "long"]
)
def test_a_damaged_file_is_noticed_and_fetched_again(cached: Cached, damage: bytes) -> None:
    key = cached.blob(b"0123456789")
    cached.store.get(key)
    [file] = cached.files()
    file.write_bytes(damage)
    assert cached.store.get(key) == b"0123456789"
    assert cached.store.get(key) == b"0123456789"
    assert cached.behind.calls["get"] == 2


def test_evicting_forgets_every_piece(cached: Cached) -> None:
    key, other = cached.blob(b"0123456789"), cached.blob(b"other")
    cached.store.get(key)
    cached.store.get_range(key, 0, 5)
    cached.store.get(other)
    assert cached.store.evict(key) is True
    assert cached.store.evict(key) is False
    cached.store.get(key)
    cached.store.get(other)
    assert cached.behind.calls["get"] == 3


def test_a_copy_forgets_what_was_kept_of_its_target(cached: Cached) -> None:
    good, damaged = cached.blob(b"0123456789"), blob_key(sha256_hex(b"abc"), "bin")
    cached.behind.inner.create(damaged, b"wrong")
    cached.behind.inner.create("elsewhere", b"abc")
    cached.store.get(good)
    cached.store.get(damaged)
    cached.store.copy("elsewhere", damaged, 3)
    assert cached.store.get(damaged) == b"abc"
    cached.store.copy(good, "other", 10)
    assert cached.store.get(good) == b"0123456789"
    assert cached.behind.calls["get"] == 3


def test_the_limit_is_kept_and_the_least_recently_used_goes(tmp_path: Path) -> None:
    cached = Cached(tmp_path / "cache", max_bytes=10_000)
    keys = [cached.blob(bytes([number]) * 900) for number in range(30)]
    for key in keys:
        cached.store.get(key)
        cached.store.get(keys[0])  # used all the time
        assert cached.size() <= 10_000
    cached.behind.calls.clear()
    cached.store.get(keys[0])
    cached.store.get(keys[-1])
    assert cached.behind.calls["get"] == 0
    cached.store.get(keys[1])
    assert cached.behind.calls["get"] == 1


def test_a_blob_too_large_for_the_cache_passes_through(tmp_path: Path) -> None:
    cached = Cached(tmp_path / "cache", max_bytes=1_000)
    key = cached.blob(b"x" * 600)
    for _ in range(2):
        assert len(cached.store.get(key)) == 600
    assert cached.behind.calls["get"] == 2
    with pytest.raises(InvalidInputError, match="positive"):
        CachedStore(cached.behind, tmp_path, 0)


def test_a_cache_that_was_there_is_counted(tmp_path: Path) -> None:
    first = Cached(tmp_path / "cache", max_bytes=100_000)
    for number in range(20):
        first.store.get(first.blob(bytes([number]) * 900))
    second = Cached(tmp_path / "cache", max_bytes=10_000)
    second.store.get(second.blob(b"new"))
    assert second.size() <= 10_000


def test_threads_share_a_small_cache(tmp_path: Path) -> None:
    cached = Cached(tmp_path / "cache", max_bytes=5_000)
    bodies = [bytes([number]) * 700 for number in range(12)]
    keys = [cached.blob(body) for body in bodies]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: cached.store.get(keys[n % 12]), range(400)))
    assert found == [bodies[n % 12] for n in range(400)]
    assert cached.size() <= 5_000 + 8 * 732  # each thread may be about to look


def test_processes_share_a_cache(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "store")
    bodies = [bytes([number]) * 700 for number in range(12)]
    for body in bodies:
        store.create(blob_key(sha256_hex(body), "bin"), body)
    code = (
        "import sys\n"
        "from mltrack_tasks.digest import sha256_hex\n"
        "from mltrack_tasks.layout import blob_key\n"
        "from mltrack_tasks.stores.cache import CachedStore\n"
        "from mltrack_tasks.stores.directory import DirectoryStore\n"
        "store = CachedStore(DirectoryStore(sys.argv[1]), sys.argv[2], 5_000)\n"
        "for number in range(300):\n"
        "    body = bytes([number % 12]) * 700\n"
        "    assert store.get(blob_key(sha256_hex(body), 'bin')) == body\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "store"), str(tmp_path / "cache")]
    workers = [subprocess.Popen(command, cwd=Path(__file__).parents[2]) for _ in range(3)]
    assert [worker.wait(60) for worker in workers] == [0, 0, 0]
    assert Cached(tmp_path / "cache").size() <= 5_000 + 3 * 732


def test_a_folder_that_cannot_be_made_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    cached = Cached(tmp_path / "file" / "cache")
    assert cached.store.get(cached.blob(b"x")) == b"x"
