"""Content over S3 while answers are lost, writes compete and blobs vanish: each ends in a readable ref."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import replace
from pathlib import Path

import pytest

from mltrack_tasks.content import list_data, retrieve_data, retrieve_file, store_data, store_file
from mltrack_tasks.errors import TransientError
from mltrack_tasks.refs import DataRef
from mltrack_tasks.runs import get_run, store_run
from mltrack_tasks.stores import Store
from mltrack_tasks.stores.guard import GuardedStore
from mltrack_tasks.stores.retry import RetryingStore
from mltrack_tasks.stores.s3 import S3Store
from mltrack_tasks.stores.s3_settings import S3Settings
from tests.floor3 import invariants
from tests.floor3.limits import LARGE
from tests.servers import S3Server
from tests.servers.faultproxy import Fault, FaultProxy, Request
from tests.servers.faults import Kind
from tests.settings import settings_of

pytestmark = pytest.mark.usefixtures("small_parts")
BLOB = r"/data\.bin"


@pytest.fixture(scope="module")
def module_proxy(s3_server: S3Server) -> Iterator[FaultProxy]:
    with FaultProxy(s3_server.endpoint) as running:
        yield running


@pytest.fixture(scope="module")
def bare(s3_server: S3Server, module_proxy: FaultProxy) -> S3Store:
    return S3Store(settings_of(s3_server, endpoint_url=module_proxy.url))


@pytest.fixture
def proxy(module_proxy: FaultProxy) -> Iterator[FaultProxy]:
    yield module_proxy
    assert module_proxy.unfired() == []
    module_proxy.clear()


@pytest.fixture
def store(bare: S3Store, proxy: FaultProxy) -> Iterator[Store]:
    guarded = GuardedStore(RetryingStore(bare, sleep=lambda seconds: None))
    guarded.create("first", b"")
    guarded.delete(["first"])
    yield guarded
    guarded.delete([stat.key for stat in bare.list("")])


def put(store: Store, body: bytes) -> DataRef:
    return store_data(store, body, "n")


def check(store: Store, ref: DataRef, body: bytes) -> None:
    assert retrieve_data(store, ref) == body
    assert [item.ref for item in list_data(store)] == [ref]
    invariants.check_finished(store)


@pytest.mark.parametrize("body", [b"small", LARGE], ids=["small", "in parts"])
@pytest.mark.parametrize("kind", ["lose_answer", "reset", "status503", "conflict409", "truncate"])
def test_one_fault_on_the_blob(store: Store, proxy: FaultProxy, kind: Kind, body: bytes) -> None:
    methods = ("PUT",) if body == b"small" else ("PUT", "POST")
    for number, method in enumerate(methods):
        proxy.script(Fault(kind, method=method, match=BLOB, after=number))
        mine = body + bytes([number])
        ref = put(store, mine)
        check(store, ref, mine)
        store.delete([stat.key for stat in store.list("names/")])


@pytest.mark.parametrize("kind", ["lose_answer", "conflict409"])
def test_one_fault_on_a_record(store: Store, proxy: FaultProxy, kind: Kind) -> None:
    proxy.script(Fault(kind, method="PUT", match="/names/"), Fault(kind, method="PUT", match="/manifests/"))
    ref = put(store, b"x")
    check(store, ref, b"x")
    run = store_run(store, "r", {"d": ref}, storage_mode="by_type")
    assert get_run(store, "r") == run
    invariants.check_finished(store)


@pytest.mark.parametrize("body", [b"small", LARGE], ids=["small", "in parts"])
def test_a_blob_that_is_deleted_between_the_refusal_and_the_head(
    store: Store, proxy: FaultProxy, bare: S3Store, body: bytes, no_pauses: list[float]
) -> None:
    def delete(request: Request) -> None:
        key = request.path.removeprefix(f"/{bare.settings.bucket}/{bare.settings.prefix}/")
        bare.client.delete_object(Bucket=bare.settings.bucket, Key=f"{bare.settings.prefix}/{key}")

    put(store, body)
    proxy.script(Fault("custom", method="HEAD", match=BLOB, action=delete))
    check(store, put(store, body), body)


def test_a_body_that_is_damaged_on_its_way_is_noticed_and_healed(store: Store, proxy: FaultProxy) -> None:
    """moto takes any body; a server that checks refuses it (tests/real)."""
    proxy.script(Fault("flip_byte", method="PUT", match=BLOB))
    ref = put(store, b"damaged on its way")
    assert put(store, b"damaged on its way").created is True
    check(store, ref, b"damaged on its way")


@pytest.mark.parametrize("kind", ["reset", "truncate", "status503"])
def test_reading_outlasts_a_fault(store: Store, proxy: FaultProxy, kind: Kind, tmp_path: Path) -> None:
    for body in (b"small", LARGE):
        ref = put(store, body)
        proxy.script(Fault(kind, method="GET", match=BLOB, after=1 if body == LARGE else 0))
        assert retrieve_data(store, ref) == body
        proxy.script(Fault(kind, method="GET", match=BLOB))
        assert retrieve_file(store, ref, tmp_path / ref.hash).read_bytes() == body


def test_a_server_that_stays_down_leaves_no_open_upload(
    store: Store, proxy: FaultProxy, bare: S3Store, tmp_path: Path
) -> None:
    (tmp_path / "f").write_bytes(LARGE)
    proxy.script(Fault("status503", method="PUT", match=rf"{BLOB}\?.*partNumber=2", times=3))
    with pytest.raises(TransientError, match="SlowDown"):
        store_file(store, tmp_path / "f")
    uploads = bare.client.list_multipart_uploads(Bucket=bare.settings.bucket, Prefix=bare.settings.prefix)
    assert uploads.get("Uploads", []) == []
    check(store, store_file(store, tmp_path / "f", "n"), LARGE)


Step = Callable[[Store, Path], object]
STEPS: dict[str, Step] = {
    "store_data": lambda store, path: store_data(store, {"a": 1}, "n"),
    "store_file": lambda store, path: store_file(store, path, "n"),
    "store_run": lambda store, path: store_run(store, "r", {"a": 1, "b": b"2"}, storage_mode="by_type"),
}


@pytest.mark.parametrize("name", STEPS)
def test_every_request_may_lose_its_answer(
    name: str, bare: S3Store, proxy: FaultProxy, tmp_path: Path
) -> None:
    """Each write in turn lands and is not answered; the store's own second try settles it."""
    (tmp_path / "f").write_bytes(LARGE)
    once = replace(bare.settings, prefix=f"{bare.settings.prefix}-{name}")

    def fresh(number: int) -> Store:
        moved = _moved(bare, replace(once, prefix=f"{once.prefix}-{number}"))
        return GuardedStore(RetryingStore(moved, sleep=lambda seconds: None))

    proxy.forget()
    STEPS[name](fresh(0), tmp_path / "f")
    writes = sum(record.method in ("PUT", "POST") for record in proxy.requests)
    assert writes > 4
    for number in range(writes):
        store = fresh(number + 1)
        proxy.script(
            Fault("lose_answer", where=lambda request: request.method in ("PUT", "POST"), after=number)
        )
        STEPS[name](store, tmp_path / "f")
        invariants.check_finished(store)


def _moved(store: S3Store, settings: S3Settings) -> S3Store:
    """The same clients at another prefix."""
    moved = copy(store)
    moved.settings, moved.location = settings, settings.location
    return moved


def test_nothing_is_sent_twice_without_need(store: Store, proxy: FaultProxy) -> None:
    proxy.forget()
    put(store, b"x" * 5_000)  # asked for first, then sent
    put(store, b"x" * 5_000)  # asked for, and once more when it is pinned
    requests = [record for record in proxy.requests if re.search(BLOB, record.path)]
    assert [record.method for record in requests] == ["HEAD", "PUT", "HEAD", "HEAD"]
