"""S3 requests that fail, lose their answer or compete: sent again, settled by reading, never doubled."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from mltrack_tasks.errors import AccessError, TransientError
from mltrack_tasks.stores.retry import RetryingStore
from mltrack_tasks.stores.s3 import S3Store
from mltrack_tasks.stores.s3_settings import S3Settings
from tests.servers.faultproxy import Answer, Fault, FaultProxy
from tests.servers.faults import Ending, Kind
from tests.settings import BUCKET


def test_a_failing_request_is_sent_again(proxied: S3Settings, proxy: FaultProxy) -> None:
    store = RetryingStore(S3Store(proxied), sleep=lambda seconds: None)
    store.create("k", b"x" * 1_000)
    kinds: tuple[Kind, ...] = ("reset", "truncate", "status503", "status500")
    for kind in kinds:
        proxy.forget()
        proxy.script(Fault(kind, method="GET", times=2))
        assert store.get("k") == b"x" * 1_000
        assert proxy.count("GET") == 3
        proxy.script(Fault(kind, method="GET", times=3))
        with pytest.raises(TransientError):
            store.get("k")


def test_a_lost_answer_to_a_create_says_false(proxied: S3Settings, proxy: FaultProxy) -> None:
    store = RetryingStore(S3Store(proxied), sleep=lambda seconds: None)
    endings: tuple[Ending, ...] = ("close", "reset")
    for ending in endings:
        proxy.script(Fault("lose_answer", method="PUT", ending=ending))
        assert store.create(ending, b"x") is False
        assert store.get(ending) == b"x"


def test_a_lost_answer_to_a_completion_says_false(proxied: S3Settings, proxy: FaultProxy) -> None:
    """The second try finds the upload gone or the key taken, as servers differ; reading tells whose it is."""
    store = RetryingStore(S3Store(proxied), sleep=lambda seconds: None)
    for status, code in ((404, "NoSuchUpload"), (412, "PreconditionFailed")):
        again = Fault("answer", method="POST", match="uploadId", answer=Answer(status, code))
        with store.upload(code, 1) as upload:
            upload.part(1, b"x", hashlib.sha256(b"x").digest())
            proxy.script(Fault("lose_answer", method="POST", match="uploadId"), again)
            assert upload.complete() is False
        assert store.get(code) == b"x"
        assert proxy.unfired() == []


def test_a_competing_write_is_no_error(proxied: S3Settings, proxy: FaultProxy) -> None:
    proxy.script(Fault("conflict409", method="PUT"))
    store = S3Store(proxied)
    assert store.create("k", b"x") is False
    assert store.head("k") is None
    assert store.create("k", b"x") is True


def test_a_listing_that_fails_goes_on_where_it_was(
    proxied: S3Settings, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "3")  # a page
    store = RetryingStore(S3Store(proxied), sleep=lambda seconds: None)
    keys = sorted(["a", "b//foreign", "c/d", *(f"k{number}" for number in range(9))])
    for key in keys:
        store.inner.client.put_object(Bucket=BUCKET, Key=f"{proxied.prefix}/{key}", Body=b"")
    for fault in ("status503", "reset", "truncate"):
        for after in range(5):
            proxy.script(Fault(fault, method="GET", match="list-type", after=after))
            assert [stat.key for stat in store.list("")] == keys
            assert proxy.unfired() == []


def test_an_abort_that_fails_does_not_hide_why(proxied: S3Settings, proxy: FaultProxy) -> None:
    store = S3Store(proxied)
    proxy.script(Fault("answer", method="DELETE", answer=Answer(403, "AccessDenied")))
    with pytest.raises(KeyError) as raised, store.upload("k", 1):
        raise KeyError("the reason")
    assert "s3:AbortMultipartUpload" in raised.value.__notes__[0]


def test_somebody_elses_bucket_is_not_written_to(proxied: S3Settings, proxy: FaultProxy) -> None:
    store = S3Store(replace(proxied, expected_owner="111122223333"))
    proxy.script(
        Fault(
            "answer",
            method="HEAD",
            answer=Answer(403, "AccessDenied"),
            where=lambda request: "x-amz-expected-bucket-owner" in request.headers,
        )
    )
    with pytest.raises(AccessError, match=BUCKET):
        store.create("k", b"x")
    assert proxy.count("PUT") == 0
    assert store.create("k", b"x") is True
