"""What a cache may touch, and what it may not break: the user's files, a read, a healed blob."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mltrack_tasks.blobs import read_blob
from mltrack_tasks.content import retrieve_data, retrieve_file, store_data
from mltrack_tasks.digest import sha256_hex
from mltrack_tasks.errors import IntegrityError
from mltrack_tasks.layout import blob_key
from mltrack_tasks.refs import DataRef
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.cache import CachedStore
from mltrack_tasks.stores.memory import MemoryStore

FOREIGN = ("notes.txt", "ab/cd/old.bin", "models/m/weights", "mltrack-cache/README", "mltrack-cache/a/b/c")
"""Files of the user where a cache is made; the second has the depth of a cached piece."""


def test_the_users_own_files_outlive_any_amount_of_caching(tmp_path: Path) -> None:
    for name in FOREIGN:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"mine" * 5_000)  # larger than the cache may be
        os.utime(path, (0, 0))  # and older than anything in it
    bare = MemoryStore()
    store = CachedStore(bare, tmp_path, 10_000)
    for number in range(40):
        store.get(_blob(bare, bytes([number]) * 900))
    for name in FOREIGN:
        assert (tmp_path / name).read_bytes() == b"mine" * 5_000
    pieces = list((tmp_path / "mltrack-cache").glob("??/*/*"))
    assert 0 < sum(path.stat().st_size for path in pieces) <= 10_000
    beside = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    beside -= {path.relative_to(tmp_path).as_posix() for path in pieces}
    assert beside == {*FOREIGN, "mltrack-cache/.lock"}


def _blob(store: Store, body: bytes) -> str:
    key = blob_key(sha256_hex(body), "bin")
    store.create(key, body)
    return key


@pytest.mark.parametrize("failure", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("verb", ["mkdir", "write_bytes", "rename"])
def test_a_cache_that_cannot_be_written_fails_no_read(
    verb: str,
    failure: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    bare = MemoryStore()
    key = _blob(bare, b"0123456789")
    store = CachedStore(bare, tmp_path, 10_000)
    _break(monkeypatch, verb, failure)
    with caplog.at_level(logging.WARNING, logger="mltrack_tasks"):
        assert store.get(key) == b"0123456789"
        assert bytes(store.get_range(key, 2, 3)) == b"234"
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    assert str(tmp_path / "mltrack-cache") in caplog.text


@pytest.mark.parametrize("damaged", [False, True])
def test_a_cache_that_may_only_be_read_is_used_as_it_is(
    damaged: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another user's cache, or one on a read-only disk: neither a date nor a file in it can be changed."""
    bare = MemoryStore()
    key = _blob(bare, b"0123456789")
    CachedStore(bare, tmp_path, 10_000).get(key)
    [piece] = (tmp_path / "mltrack-cache").glob("??/*/*")
    if damaged:
        piece.write_bytes(b"x" * 42)
    else:
        bare.delete([key])  # so that only the cache can answer
    for verb in ("mkdir", "write_bytes", "unlink"):
        _break(monkeypatch, verb, errno.EROFS)
    monkeypatch.setattr("os.utime", _raiser(errno.EROFS))
    assert CachedStore(bare, tmp_path, 10_000).get(key) == b"0123456789"


def _break(monkeypatch: pytest.MonkeyPatch, verb: str, failure: int) -> None:
    monkeypatch.setattr(Path, verb, _raiser(failure))


def _raiser(failure: int) -> Callable[..., Any]:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise OSError(failure, os.strerror(failure))

    return fail


READS: dict[str, Callable[[Store, DataRef, Path], bytes]] = {
    "read_blob": lambda store, ref, path: read_blob(store, ref.hash, ref.format, ref.size_bytes),
    "retrieve_data": lambda store, ref, path: retrieve_data(store, ref),
    "retrieve_file": lambda store, ref, path: retrieve_file(store, ref, path / "out").read_bytes(),
}


@pytest.fixture(params=[b"small", b"in several ranges " * 500], ids=["small", "large"])
def body(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bytes:
    monkeypatch.setattr("mltrack_tasks.blobs.READ_SIZE", 2_000)
    whole: bytes = request.param
    return whole


@pytest.mark.parametrize("second", READS)
@pytest.mark.parametrize("first", READS)
def test_damage_that_was_read_does_not_outlive_its_healing(
    first: str, second: str, tmp_path: Path, body: bytes
) -> None:
    bare, ref = _damaged(body)
    store = CachedStore(bare, tmp_path / "cache", 10**6)
    with pytest.raises(IntegrityError, match=ref.hash):
        READS[first](store, ref, tmp_path)
    assert list((tmp_path / "cache" / "mltrack-cache").glob("??/*/*")) == []
    assert store_data(bare, body).created is True  # by another writer, who does not know this cache
    assert READS[second](store, ref, tmp_path) == body


@pytest.mark.parametrize("read", READS)
def test_a_bad_copy_that_a_trusting_reader_cached_is_fetched_again(
    read: str, tmp_path: Path, body: bytes
) -> None:
    bare, ref = _damaged(body)
    trusting = CachedStore(bare, tmp_path / "cache", 10**6)
    trusting.verify_reads = False
    assert READS[read](trusting, ref, tmp_path / "unproven") == body[::-1]
    store_data(bare, body)
    assert READS[read](CachedStore(bare, tmp_path / "cache", 10**6), ref, tmp_path) == body


def _damaged(body: bytes) -> tuple[Store, DataRef]:
    bare = MemoryStore()
    ref = store_data(bare, body)
    bare.delete([ref.storage_path])
    bare.create(ref.storage_path, body[::-1])
    return bare, ref
