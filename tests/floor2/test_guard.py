"""A store knows its format and its identity, and refuses a server that would overwrite."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mltrack_tasks.errors import (
    AccessError,
    FormatError,
    IntegrityError,
    InvalidInputError,
    TransientError,
)
from mltrack_tasks.stores import open_directory, open_s3
from mltrack_tasks.stores.base import Store, WrapperStore
from mltrack_tasks.stores.guard import GuardedStore
from mltrack_tasks.stores.memory import MemoryStore
from mltrack_tasks.stores.observed import CountingStore
from mltrack_tasks.stores.s3_settings import S3Settings
from tests.servers import S3Server
from tests.servers.faultproxy import Answer, Fault, FaultProxy
from tests.settings import settings_of

READS: dict[str, Callable[[Store], object]] = {
    "get": lambda store: store.get("k"),
    "get_range": lambda store: store.get_range("k", 0, 1),
    "head": lambda store: store.head("k"),
    "list": lambda store: list(store.list("")),
    "level": lambda store: store.level(""),
}
WRITES: dict[str, Callable[[Store], object]] = {
    "create": lambda store: store.create("k", b""),
    "replace": lambda store: store.replace("k", b"", "e"),
    "upload": lambda store: store.upload("k", 1),
    "copy": lambda store: store.copy("k", "t", 1),
    "delete": lambda store: store.delete(["k"]),
}


@pytest.mark.parametrize("verb", [*READS, *WRITES])
def test_a_newer_format_is_refused_by_every_verb(verb: str) -> None:
    bare = MemoryStore()
    bare.create("format.json", b'{"format":2,"store_id":"x"}')
    bare.create("k", b"x")
    with pytest.raises(FormatError, match="Upgrade mltrack_tasks"):
        (READS | WRITES)[verb](GuardedStore(bare))
    assert sorted(stat.key for stat in bare.list("")) == ["format.json", "k"]


FORGED = (b"", b"{}", b"[1]", b'{"format":"1"}', b'{"format":true}', b"\xff", b"[" * 9_999)


@pytest.mark.parametrize("body", FORGED, ids=lambda body: repr(body[:9]))
def test_a_format_that_something_else_wrote_is_refused(body: bytes) -> None:
    bare = MemoryStore()
    bare.create("format.json", body)
    for verb in (READS["get"], WRITES["create"]):
        with pytest.raises(IntegrityError, match=r"format\.json"):
            verb(GuardedStore(bare))


def test_reading_writes_nothing_and_the_first_write_makes_the_store() -> None:
    bare = MemoryStore()
    store = GuardedStore(bare)
    assert list(store.list("")) == []
    assert store.head("k") is None
    assert store.store_id is None
    assert list(bare.list("")) == []
    store.create("k", b"")
    assert json.loads(bare.get("format.json")) == {"format": 1, "store_id": store.store_id}
    assert GuardedStore(bare).store_id == store.store_id


def test_the_format_is_looked_at_once() -> None:
    counting = CountingStore(MemoryStore())
    store = GuardedStore(counting)
    for number in range(5):
        store.create(f"k{number}", b"")
        store.get(f"k{number}")
    assert [key for verb, key in counting.log if verb == "get_range"].count("format.json") == 1
    assert [key for verb, key in counting.log if verb == "create"].count("format.json") == 2


def test_racing_first_writers_agree_on_one_identity(tmp_path: Path) -> None:
    bare = MemoryStore()
    for make in (lambda: GuardedStore(bare), lambda: GuardedStore(open_directory(tmp_path / "s"))):
        stores = [make() for _ in range(16)]
        start = threading.Barrier(16)

        def write(store: GuardedStore, start: threading.Barrier = start) -> str:
            start.wait(30)
            store.create(f"k{id(store)}", b"")
            return str(store.store_id)

        with ThreadPoolExecutor(16) as pool:
            assert len(set(pool.map(write, stores))) == 1


def test_a_store_cannot_be_inside_another(tmp_path: Path, s3_settings: S3Settings) -> None:
    from dataclasses import replace

    outer = open_directory(tmp_path)
    outer.create("k", b"")
    inside = open_directory(tmp_path / "a" / "b")
    with pytest.raises(InvalidInputError, match="lies inside the store"):
        inside.create("k", b"")
    assert not (tmp_path / "a").exists()
    open_s3(s3_settings).create("k", b"")
    inside = open_s3(replace(s3_settings, prefix=f"{s3_settings.prefix}/a/b"))
    with pytest.raises(InvalidInputError, match="lies inside the store"):
        inside.create("k", b"")
    open_s3(replace(s3_settings, prefix=f"{s3_settings.prefix}-beside")).create("k", b"")


def test_what_is_above_may_be_hidden_from_us(proxied: S3Settings, proxy: FaultProxy) -> None:
    hidden = Fault(
        "answer",
        answer=Answer(403, "AccessDenied"),
        times=None,
        where=lambda request: proxied.prefix not in request.path,
    )
    proxy.script(hidden)
    store = open_s3(proxied)
    store.create("k", b"")
    assert store.get("k") == b""
    assert proxy.unfired() == []


def test_a_server_that_ignores_if_none_match_is_refused(proxied: S3Settings, proxy: FaultProxy) -> None:
    proxy.script(Fault("ignore_if_none_match", times=None, where=lambda r: "if-none-match" in r.headers))
    store = open_s3(proxied)
    for _ in range(2):
        with pytest.raises(AccessError, match=r"ignores If-None-Match.*AWS S3, MinIO, Ceph") as raised:
            store.create("k", b"")
        assert proxied.bucket in str(raised.value)
    assert store.head("k") is None


def test_a_server_that_lets_overwrite_an_existing_store_is_refused(
    proxied: S3Settings, proxy: FaultProxy, s3_server: S3Server
) -> None:
    open_s3(settings_of(s3_server, prefix=proxied.prefix)).create("k", b"")
    before = open_s3(proxied)
    identity = before.store_id  # type: ignore[attr-defined]
    proxy.script(Fault("ignore_if_none_match", times=None, where=lambda r: "if-none-match" in r.headers))
    with pytest.raises(AccessError, match="ignores If-None-Match"):
        before.create("other", b"")
    proxy.clear()
    assert open_s3(proxied).store_id == identity  # type: ignore[attr-defined]


def test_a_format_that_comes_and_goes_is_a_transient_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refuses(WrapperStore):
        def create(self, key: str, body: bytes | memoryview) -> bool:
            return False

    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with pytest.raises(TransientError, match="neither be created nor read"):
        GuardedStore(Refuses(MemoryStore())).create("k", b"")
