"""What a look at an object proves: copies made by other tools, races of healers, archived objects."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from mltrack_tasks import events
from mltrack_tasks.blobs import Presence, judge
from mltrack_tasks.content import retrieve_data, store_data
from mltrack_tasks.digest import PART_SIZE, MiB, sha256_hex
from mltrack_tasks.errors import ArchivedError, IntegrityError, InvalidInputError, TransientError
from mltrack_tasks.events import Event
from mltrack_tasks.layout import blob_key
from mltrack_tasks.refs import DataRef
from mltrack_tasks.runs import store_run
from mltrack_tasks.sources import BytesSource
from mltrack_tasks.stores.base import Stat, Store
from mltrack_tasks.stores.guard import GuardedStore
from mltrack_tasks.stores.observed import CountingStore
from mltrack_tasks.stores.retry import RetryingStore
from mltrack_tasks.stores.s3 import S3Store
from mltrack_tasks.stores.s3_settings import S3Settings
from tests.floor3 import invariants
from tests.floor3.limits import LARGE
from tests.servers import S3Server
from tests.servers.faultproxy import Answer, Fault, FaultProxy
from tests.settings import settings_of

SMALL = b"small enough for one PUT"


@pytest.fixture(params=[SMALL, LARGE], ids=["small", "in parts"])
def body(request: pytest.FixtureRequest, small_parts: None) -> bytes:
    whole: bytes = request.param
    return whole


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
    unfired = module_proxy.unfired()
    module_proxy.clear()
    assert unfired == []


@pytest.fixture
def store(bare: S3Store, proxy: FaultProxy) -> Iterator[Store]:
    guarded = GuardedStore(RetryingStore(bare, sleep=lambda seconds: None))
    yield guarded
    proxy.clear()
    guarded.delete([stat.key for stat in bare.list("")])


def target(store: S3Store, body: bytes) -> dict[str, str]:
    """Where boto3 finds the blob of ``body``."""
    key = blob_key(sha256_hex(body), "bin")
    return {"Bucket": store.settings.bucket, "Key": f"{store.settings.prefix}/{key}"}


def copy_in_parts(store: S3Store, body: bytes, part_size: int, **options: Any) -> None:
    """Put the blob there as another tool would: in parts of its own size."""
    place = target(store, body)
    upload = store.client.create_multipart_upload(**place, **options)["UploadId"]
    parts = []
    for number, start in enumerate(range(0, len(body), part_size), 1):
        piece = body[start : start + part_size]
        answer = store.client.upload_part(**place, UploadId=upload, PartNumber=number, Body=piece, **options)
        parts.append({key: answer[key] for key in ("ETag", "ChecksumSHA256") if key in answer})
        parts[-1]["PartNumber"] = number
    store.client.complete_multipart_upload(**place, UploadId=upload, MultipartUpload={"Parts": parts})


def store_again(store: Store, body: bytes) -> tuple[DataRef, list[str], CountingStore]:
    counting = CountingStore(store)
    seen: list[Event] = []
    ref = store_data(counting, body, "n", observe=seen.append)
    return ref, [event.name for event in seen], counting


@pytest.mark.parametrize("options", [{}, {"ChecksumAlgorithm": "SHA256"}], ids=["md5", "sha256"])
@pytest.mark.parametrize("part_size", [1_000, 2_400])
def test_a_copy_that_was_made_in_other_parts_is_present(
    part_size: int, options: dict[str, str], store: Store, bare: S3Store, small_parts: None
) -> None:
    """Parts of 2,400 bytes are as many as ours of 2,500."""
    copy_in_parts(bare, LARGE, part_size, **options)
    ref, seen, counting = store_again(store, LARGE)
    assert (ref.created, seen) == (False, [events.BLOB_PRESENT, events.DATA_STORED])
    assert counting.sent["part"] == counting.calls["replace"] == 0
    assert retrieve_data(store, ref) == LARGE


@pytest.mark.parametrize("part_size", [1_000, 2_500])
def test_a_damaged_copy_in_any_parts_is_healed(
    part_size: int, store: Store, bare: S3Store, small_parts: None
) -> None:
    copy_in_parts(bare, LARGE, part_size)
    [stat] = [stat for stat in store.list("") if "/data." in stat.key]
    bare.client.put_object(**target(bare, LARGE), Body=LARGE[::-1])
    ref, seen, _ = store_again(store, LARGE)
    assert (ref.created, ref.storage_path) == (True, stat.key)
    assert seen == [events.BLOB_HEALED, events.DATA_STORED]
    assert retrieve_data(store, ref) == LARGE


WHEN = datetime(2024, 1, 1, tzinfo=UTC)
MD5 = hashlib.md5(SMALL, usedforsecurity=False).hexdigest()


@pytest.mark.parametrize(
    ("stat", "verdict"),
    [
        ({"etag": f'"{MD5}"'}, Presence.PRESENT),
        ({"etag": MD5}, Presence.PRESENT),
        ({"etag": '"' + "0" * 32 + '"'}, Presence.UNKNOWN),  # encrypted with KMS, or damaged
        ({"etag": '"' + "0" * 32 + '-1"'}, Presence.UNKNOWN),
        ({"etag": '"' + "0" * 32 + '-0"'}, Presence.UNKNOWN),
        ({"etag": '"d41d8cd98f00b204e9800998ecf8427e-"'}, Presence.UNKNOWN),
        ({"etag": '"0x8DC"'}, Presence.UNKNOWN),
        ({"etag": ""}, Presence.UNKNOWN),
        ({"etag": None}, Presence.UNKNOWN),
        ({"etag": None, "sha256": sha256_hex(SMALL)}, Presence.PRESENT),
        ({"etag": f'"{MD5}"', "sha256": "0" * 64}, Presence.DAMAGED),
        ({"etag": f'"{MD5}"', "size": 3}, Presence.DAMAGED),
        ({"etag": None, "composite": "A" * 43 + "=-1"}, Presence.UNKNOWN),
        ({"etag": None, "composite": "A" * 43 + "=-7"}, Presence.UNKNOWN),
    ],
)
def test_what_a_look_says(stat: dict[str, Any], verdict: Presence) -> None:
    found = Stat(**{"key": "k", "size": len(SMALL), "modified": WHEN, **stat})
    assert judge(found, BytesSource(SMALL)) is verdict


def test_a_composite_over_our_own_parts_proves_the_bytes(small_parts: None) -> None:
    source = BytesSource(LARGE)
    ours = Stat("k", len(LARGE), None, WHEN, composite=source.composite())
    assert judge(ours, source) is Presence.PRESENT
    assert judge(ours, BytesSource(LARGE[::-1])) is not Presence.PRESENT
    assert 16 * MiB == PART_SIZE  # what a blob in parts is compared by: never to change


@pytest.mark.parametrize("times", [1, None])
def test_a_conflict_of_two_healers_ends_in_success_or_a_typed_error(
    times: int | None,
    body: bytes,
    store: Store,
    bare: S3Store,
    proxy: FaultProxy,
    no_pauses: list[float],
) -> None:
    bare.client.put_object(**target(bare, body), Body=body[::-1])
    healing = Fault("conflict409", match=r"/data\.bin", times=times, where=lambda r: "if-match" in r.headers)
    proxy.script(healing)
    if times is None:
        with pytest.raises(TransientError):
            store_data(store, body, "n")
        assert not [key for key in invariants.keys(store) if key.startswith("names/")]
        assert proxy.unfired() == []
        proxy.clear()
    ref, seen, _ = store_again(store, body)
    assert seen == [events.BLOB_HEALED, events.DATA_STORED]
    assert retrieve_data(store, ref) == body
    invariants.check_finished(store)


@pytest.mark.parametrize("kind", ["status503", "lose_answer"])
def test_a_healing_that_breaks_off_is_finished(
    kind: Any, body: bytes, store: Store, bare: S3Store, proxy: FaultProxy, no_pauses: list[float]
) -> None:
    bare.client.put_object(**target(bare, body), Body=body[::-1])
    proxy.script(Fault(kind, match=r"/data\.bin", where=lambda request: "if-match" in request.headers))
    ref = store_data(store, body, "n")
    assert retrieve_data(store, ref) == body
    invariants.check_finished(store)


@pytest.mark.parametrize("storage_class", ["GLACIER", "DEEP_ARCHIVE"])
def test_an_archived_blob_is_not_referred_to(
    storage_class: str, body: bytes, store: Store, bare: S3Store
) -> None:
    ref = store_data(store, body, "before")
    bare.client.put_object(**target(bare, body), Body=body, StorageClass=storage_class)
    with pytest.raises(ArchivedError, match=rf"{ref.hash}.*{storage_class}.*restore"):
        store_data(store, body, "n")
    for thing in (ref, body):
        with pytest.raises(ArchivedError, match=storage_class):
            store_run(store, "r", {"d": thing}, storage_mode="flat")
    assert not [key for key in invariants.keys(store) if key.startswith(("names/n/", "manifests/"))]
    with pytest.raises(ArchivedError, match=ref.hash):
        retrieve_data(store, ref)
    bare.client.restore_object(**target(bare, body), RestoreRequest={"Days": 1})
    assert store_run(store, "r", {"d": ref}, storage_mode="flat").data == {"d": ref}


@pytest.mark.parametrize("storage_class", ["STANDARD_IA", "GLACIER_IR", "INTELLIGENT_TIERING"])
def test_a_blob_in_a_readable_class_is_present(
    storage_class: str, body: bytes, store: Store, bare: S3Store
) -> None:
    bare.client.put_object(**target(bare, body), Body=body, StorageClass=storage_class)
    ref, seen, _ = store_again(store, body)
    assert seen == [events.BLOB_PRESENT, events.DATA_STORED]
    assert retrieve_data(store, ref) == body


@pytest.mark.parametrize(
    ("headers", "archived"),
    [
        ({"x-amz-storage-class": "INTELLIGENT_TIERING"}, False),
        ({"x-amz-storage-class": "INTELLIGENT_TIERING", "x-amz-archive-status": "ARCHIVE_ACCESS"}, True),
        ({"x-amz-storage-class": "INTELLIGENT_TIERING", "x-amz-archive-status": "DEEP_ARCHIVE_ACCESS"}, True),
        ({"x-amz-storage-class": "GLACIER", "x-amz-restore": 'ongoing-request="true"'}, True),
        (
            {
                "x-amz-storage-class": "GLACIER",
                "x-amz-restore": 'ongoing-request="false", expiry-date="Fri, 21 Dec 2035 00:00:00 GMT"',
            },
            False,
        ),
    ],
)
def test_the_answer_to_a_head_says_whether_it_is_archived(
    headers: dict[str, str], archived: bool, store: Store, proxy: FaultProxy
) -> None:
    empty = store_data(store, b"", "n")
    plain = {"ETag": '"d41d8cd98f00b204e9800998ecf8427e"', "Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}
    answer = Answer(200, "OK", headers={**plain, **headers})
    proxy.script(Fault("answer", method="HEAD", match=r"/data\.bin", times=2, answer=answer))
    stat = store.head(empty.storage_path, checksum=True)
    assert stat is not None
    assert (stat.size, stat.archived) == (0, archived)
    if archived:
        with pytest.raises(ArchivedError):
            store_run(store, "r", {"d": empty}, storage_mode="flat")
    else:
        store_run(store, "r", {"d": empty}, storage_mode="flat")


@pytest.mark.parametrize("storage_class", ["GLACIER", "DEEP_ARCHIVE"])
def test_an_archive_is_no_storage_class_of_a_store(storage_class: str) -> None:
    for make in (
        lambda: S3Settings("bucket", storage_class=storage_class),
        lambda: S3Settings("bucket").with_extra_args({"StorageClass": storage_class}),
    ):
        with pytest.raises(InvalidInputError, match=rf"{storage_class} .* restored.*GLACIER_IR.*lifecycle"):
            make()
    assert replace(S3Settings("bucket"), storage_class="GLACIER_IR").storage_class == "GLACIER_IR"


def test_a_ref_to_a_damaged_blob_is_refused_without_reading_it(store: Store, bare: S3Store) -> None:
    ref = store_data(store, SMALL)
    wrong = b"x" * len(SMALL)
    bare.client.put_object(**target(bare, SMALL), Body=wrong, ChecksumAlgorithm="SHA256")
    counting = CountingStore(store)
    with pytest.raises(IntegrityError, match=ref.hash):
        store_run(counting, "r", {"d": ref}, storage_mode="flat")
    assert counting.calls["get"] == counting.calls["get_range"] == 0
