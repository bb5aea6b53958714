"""Copies on S3: what is sent, what fails on the way, and servers that differ."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from moto.s3 import models as moto_models
from moto.s3.responses import S3Response

from mltrack_tasks import digest
from mltrack_tasks.digest import composite_checksum, sha256_hex
from mltrack_tasks.errors import (
    AccessError,
    ArchivedError,
    InvalidInputError,
    NotFoundError,
    TransientError,
)
from mltrack_tasks.layout import blob_key
from mltrack_tasks.stores import s3_copy
from mltrack_tasks.stores.retry import TRIES, RetryingStore
from mltrack_tasks.stores.s3 import S3Store
from mltrack_tasks.stores.s3_settings import S3Settings
from mltrack_tasks.testing import RawS3
from tests.servers.faultproxy import Answer, Fault, FaultProxy, Request

PART = 300
BODY = bytes(range(256)) * 4
"""Above the limit: four parts."""
PARTS = [BODY[start : start + PART] for start in range(0, len(BODY), PART)]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copy more than 300 bytes in parts of 300."""
    monkeypatch.setattr(moto_models, "S3_UPLOAD_PART_MIN_SIZE", 256)
    monkeypatch.setattr(digest, "PART_SIZE", PART)
    monkeypatch.setattr(s3_copy, "SINGLE_PUT_LIMIT", PART)


@pytest.fixture
def store(proxied: S3Settings) -> S3Store:
    return S3Store(proxied)


@pytest.fixture
def raw(store: S3Store, proxy: FaultProxy) -> Iterator[RawS3]:
    made = RawS3(store.client, store.settings.bucket, store.settings.prefix)
    yield made
    proxy.clear()
    assert made.open_uploads() == []


def copying(request: Request) -> bool:
    return "x-amz-copy-source" in request.headers


def send(store: S3Store, key: str) -> None:
    """Upload BODY in parts."""
    with store.upload(key, len(BODY)) as upload:
        for number, part in enumerate(PARTS, start=1):
            upload.part(number, part, hashlib.sha256(part).digest())
        assert upload.complete()


def test_storage_class_and_encryption_are_those_of_the_store(proxied: S3Settings) -> None:
    settings = replace(proxied, storage_class="STANDARD_IA", encryption="aws:kms", kms_key_id="k-1")
    store = S3Store(settings)
    S3Store(proxied).create("source", BODY)
    for size in (PART, len(BODY)):
        for target, expected in ((blob_key(sha256_hex(BODY), "bin"), "STANDARD_IA"), ("models/m", None)):
            store.copy("source", target, size)
            head = store.client.head_object(Bucket=settings.bucket, Key=f"{settings.prefix}/{target}")
            assert head.get("StorageClass") == expected
            assert (head["ServerSideEncryption"], head["SSEKMSKeyId"]) == ("aws:kms", "k-1")


def test_tags_are_left_behind(store: S3Store, proxy: FaultProxy) -> None:
    """To read them needs a permission of its own, and the copy is another thing."""
    bucket, prefix = store.settings.bucket, store.settings.prefix
    store.client.put_object(Bucket=bucket, Key=f"{prefix}/k", Body=b"x", Tagging="a=b")
    seen: list[str | None] = []
    keep = Fault(
        "custom", where=copying, action=lambda r: seen.append(r.headers.get("x-amz-tagging-directive"))
    )
    proxy.script(keep)
    store.copy("k", "t", 1)
    assert seen == ["REPLACE"]
    assert store.client.get_object_tagging(Bucket=bucket, Key=f"{prefix}/t")["TagSet"] == []


def test_the_payer_is_named_in_every_request(proxied: S3Settings, proxy: FaultProxy) -> None:
    store = S3Store(replace(proxied, request_payer=True))
    store.create("k", BODY)
    seen: list[str | None] = []
    proxy.script(
        Fault("custom", times=None, action=lambda r: seen.append(r.headers.get("x-amz-request-payer")))
    )
    store.copy("k", "t", PART)
    store.copy("k", "t", len(BODY))
    assert len(seen) > 8
    assert set(seen) == {"requester"}


def test_somebody_elses_bucket_is_not_copied_in(proxied: S3Settings, proxy: FaultProxy) -> None:
    store = S3Store(replace(proxied, expected_owner="111122223333"))
    proxy.script(Fault("answer", method="HEAD", answer=Answer(403, "AccessDenied")))
    with pytest.raises(AccessError, match=proxied.bucket):
        store.copy("k", "t", 1)
    assert proxy.count("PUT") == 0


def test_an_archived_source_must_be_restored_first(store: S3Store, raw: RawS3) -> None:
    full = f"{store.settings.prefix}/k"
    store.client.put_object(Bucket=store.settings.bucket, Key=full, Body=b"x", StorageClass="GLACIER")
    with pytest.raises(ArchivedError, match="Restore it first"):
        store.copy("k", "t", 1)
    assert raw.get("t") is None


def test_an_archived_source_of_many_parts(store: S3Store, raw: RawS3, proxy: FaultProxy) -> None:
    send(store, "k")
    proxy.script(Fault("answer", times=None, where=copying, answer=Answer(403, "InvalidObjectState")))
    with pytest.raises(ArchivedError, match="Restore it first"):
        store.copy("k", "t", len(BODY))
    assert raw.get("t") is None


@pytest.mark.parametrize("size", [1, len(BODY)])
def test_an_error_in_an_answer_of_200_is_an_error(
    size: int, store: S3Store, raw: RawS3, proxy: FaultProxy
) -> None:
    """S3 says 200 before it copies, and may fail afterwards."""
    store.create("k", BODY[:size])
    late = Fault("answer", times=None, where=copying, answer=Answer(200, "InternalError"))
    proxy.script(late)
    with pytest.raises(TransientError, match="InternalError"):
        store.copy("k", "t", size)
    assert raw.get("t") is None
    proxy.clear()
    proxy.script(Fault("answer", where=copying, answer=Answer(200, "SlowDown")))
    RetryingStore(store, sleep=lambda seconds: None).copy("k", "t", size)
    assert raw.get("t") == BODY[:size]


def test_each_part_is_tried_again_by_itself(store: S3Store, raw: RawS3, proxy: FaultProxy) -> None:
    send(store, "k")
    store.copy("k", "first", len(BODY))
    proxy.forget()
    proxy.script(
        *(
            Fault(kind, match=f"partNumber={n}", times=TRIES - 1)
            for kind, n in (("status503", 2), ("reset", 4))
        )
    )  # type: ignore[arg-type]
    store.copy("k", "t", len(BODY))
    assert proxy.unfired() == []
    assert raw.get("t") == BODY
    assert proxy.count("PUT") == len(PARTS) + 2 * (TRIES - 1)


@pytest.mark.parametrize("match", [f"partNumber={len(PARTS)}", "partNumber=1", r"/t\?uploadId="])
def test_a_copy_that_fails_leaves_the_target_and_no_parts(
    match: str, store: S3Store, raw: RawS3, proxy: FaultProxy
) -> None:
    send(store, "k")
    store.create("t", b"old")
    proxy.script(
        Fault(
            "answer",
            match=match,
            times=None,
            where=lambda r: r.method != "DELETE",
            answer=Answer(403, "AccessDenied"),
        )
    )
    with pytest.raises(AccessError, match="Grant s3:GetObject and s3:PutObject"):
        store.copy("k", "t", len(BODY))
    assert raw.get("t") == b"old"


def test_parts_that_cannot_be_dropped_do_not_hide_why(store: S3Store, proxy: FaultProxy) -> None:
    send(store, "k")
    proxy.script(
        Fault("answer", match="partNumber=2", answer=Answer(403, "AccessDenied")),
        Fault("answer", method="DELETE", after=1, answer=Answer(403, "AccessDenied")),
    )
    with pytest.raises(AccessError) as raised:
        store.copy("k", "t", len(BODY))
    assert "s3:AbortMultipartUpload" in raised.value.__notes__[0]


def test_a_lost_answer_is_made_up_for_by_another_copy(store: S3Store, raw: RawS3, proxy: FaultProxy) -> None:
    send(store, "k")
    retrying = RetryingStore(store, sleep=lambda seconds: None)
    for size, lost in (
        (PART, Fault("lose_answer", where=copying)),
        (len(BODY), Fault("lose_answer", method="POST", match="uploadId")),
    ):
        proxy.script(lost)
        retrying.copy("k", f"t{size}", size)
        assert proxy.unfired() == []
        assert raw.get(f"t{size}") == BODY


def test_an_upload_that_was_dropped_meanwhile_is_begun_again(
    store: S3Store, raw: RawS3, proxy: FaultProxy
) -> None:
    send(store, "k")
    proxy.script(Fault("answer", match="partNumber=3", times=TRIES, answer=Answer(404, "NoSuchUpload")))
    RetryingStore(store, sleep=lambda seconds: None).copy("k", "t", len(BODY))
    assert proxy.unfired() == []
    assert raw.get("t") == BODY


def test_parts_of_a_shorter_object_are_no_missing_key(store: S3Store, proxy: FaultProxy) -> None:
    send(store, "k")
    for code in ("InvalidRange", "InvalidArgument"):
        proxy.clear()
        proxy.script(Fault("answer", match="partNumber=4", answer=Answer(416, code)))
        with pytest.raises(InvalidInputError, match=code):
            store.copy("k", "t", len(BODY))


def test_a_server_without_checksums_of_copied_parts_is_found_out_once(
    store: S3Store, raw: RawS3, proxy: FaultProxy
) -> None:
    """MinIO refuses the first part; the others take it and tell nothing, as moto does here."""
    send(store, "k")
    source = store.head("k")
    assert source is not None
    for number, refusing in enumerate((True, False)):
        fresh = S3Store(store.settings)
        if refusing:
            proxy.script(Fault("answer", match="partNumber=1", answer=Answer(400, "InvalidArgument")))
        proxy.forget()
        for begun in (2, 1):
            copied = fresh.copy("k", f"t{number}", len(BODY))
            assert (copied.etag, copied.sha256, copied.composite) == (source.etag, None, None)
            assert raw.get(f"t{number}") == BODY
            assert len([r for r in proxy.requests if r.method == "POST" and r.query == "uploads"]) == begun
            proxy.forget()


@pytest.fixture
def like_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tell the SHA-256 of each part that is copied out of BODY."""
    copy_part = S3Response.upload_part_copy

    def upload_part_copy(response: Any) -> Any:
        status, headers, body = copy_part(response)
        first, last = response.headers["x-amz-copy-source-range"].removeprefix("bytes=").split("-")
        told = base64.b64encode(hashlib.sha256(BODY[int(first) : int(last) + 1]).digest()).decode()
        end = "</CopyPartResult>"
        body = body.replace(end, f"<ChecksumSHA256>{told}</ChecksumSHA256>{end}")
        return status, {**headers, "content-length": str(len(body))}, body

    monkeypatch.setattr(S3Response, "upload_part_copy", upload_part_copy)


@pytest.mark.usefixtures("like_aws")
def test_a_server_that_tells_checksums_of_copied_parts_keeps_the_composite(
    store: S3Store, raw: RawS3, proxy: FaultProxy
) -> None:
    send(store, "k")
    proxy.forget()
    store.copy("k", "t", len(BODY))
    assert raw.get("t") == BODY
    assert proxy.count("POST") == 2
    found = store.head("t", checksum=True)
    assert found is not None
    assert found.composite == composite_checksum(hashlib.sha256(part).digest() for part in PARTS)


def test_a_key_that_ceph_misreads_in_parts_is_copied_whole(
    store: S3Store, raw: RawS3, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to what S3 copies by one request: what is larger is copied in parts, whatever its key is."""
    for key in ("a%20b", "a?versionId=x", "100%"):
        send(store, key)
        proxy.forget()
        copied = store.copy(key, f"t/{key}", len(BODY))
        assert proxy.count("PUT") == 1
        assert proxy.count("POST") == 0
        assert raw.get(f"t/{key}") == BODY
        assert copied.sha256 == sha256_hex(BODY)
    monkeypatch.setattr(s3_copy, "WHOLE_LIMIT", len(BODY) - 1)
    send(store, "100%/x")
    proxy.forget()
    store.copy("100%/x", "t", len(BODY))
    assert proxy.count("POST") == 3
    assert raw.get("t") == BODY


def test_a_missing_source_names_its_key(store: S3Store, raw: RawS3) -> None:
    for size in (1, len(BODY)):
        with pytest.raises(NotFoundError, match=f"{store.settings.prefix}/missing failed"):
            store.copy("missing", "t", size)
    assert raw.get("t") is None


def test_a_long_level_comes_in_pages(
    store: S3Store, raw: RawS3, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "3")
    objects, folders = [f"m/k{n}" for n in range(8)], [f"f{n}" for n in range(8)]
    for key in [*objects, *(f"m/{name}/x" for name in folders)]:
        raw.put(key, b"")
    for foreign in ("m/zz", "m//x", "m/../x"):
        proxy.forget()
        found = store.level("m/")
        assert ([stat.key for stat in found[0]], found[1]) == (objects, folders)
        assert proxy.count("GET") > 5
        raw.put(foreign, b"")
        objects += [foreign] * (foreign == "m/zz")
