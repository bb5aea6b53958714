"""HEADs with checksums: those past boto3 say what boto3 says, signed and sent as boto3 would."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import pytest

from mltrack_tasks.errors import AccessError, TransientError
from mltrack_tasks.stores.retry import RetryingStore
from mltrack_tasks.stores.s3 import S3Store
from mltrack_tasks.stores.s3_answers import stat_of
from mltrack_tasks.stores.s3_settings import Keys, S3Settings
from tests.servers.faultproxy import Answer, Fault, FaultProxy, Request

KEYS = ("plain", "a b/c+d", "ü/€", "per%25cent", "tilde~/(x)!*'", "ends.", "q?a=b&c#d")


def by_boto(store: S3Store, key: str) -> Any:
    full = f"{store.settings.prefix}/{key}"
    answer = store.client.head_object(Bucket=store.settings.bucket, Key=full, ChecksumMode="ENABLED")
    return stat_of(key, answer)


def counted(store: S3Store) -> list[str]:
    """The HEADs that go through boto3 from now on."""
    seen: list[str] = []
    store.client.meta.events.register("before-call.s3.HeadObject", lambda **said: seen.append("head"))
    return seen


def sent(proxy: FaultProxy) -> list[str]:
    return [record.path for record in proxy.requests if record.method == "HEAD"]


@pytest.fixture
def store(proxied: S3Settings) -> S3Store:
    """One that has sent its first HEAD."""
    made = S3Store(proxied)
    made.create("first", b"x")
    made.head("first", checksum=True)
    return made


def test_they_say_what_boto3_says(store: S3Store, proxy: FaultProxy) -> None:
    prefix, bucket = store.settings.prefix, store.settings.bucket
    for key in KEYS:
        store.create(key, key.encode())
    upload = store.client.create_multipart_upload(
        Bucket=bucket, Key=f"{prefix}/large", ChecksumAlgorithm="SHA256", StorageClass="GLACIER"
    )["UploadId"]
    target = {"Bucket": bucket, "Key": f"{prefix}/large", "UploadId": upload}
    part = store.client.upload_part(**target, PartNumber=1, Body=b"p", ChecksumAlgorithm="SHA256")
    done = {"PartNumber": 1, "ETag": part["ETag"], "ChecksumSHA256": part["ChecksumSHA256"]}
    store.client.complete_multipart_upload(**target, MultipartUpload={"Parts": [done]})
    through_boto = counted(store)
    proxy.forget()
    found = {key: store.head(key, checksum=True) for key in (*KEYS, "large")}
    assert len(sent(proxy)) == len(found)
    assert through_boto == []
    assert found == {key: by_boto(store, key) for key in found}
    assert found["large"] is not None
    assert found["large"].archived


def test_what_is_not_there_costs_one_request(store: S3Store, proxy: FaultProxy) -> None:
    assert store.head("nothing", checksum=True) is None  # and whether there is a bucket is asked once
    through_boto = counted(store)
    proxy.forget()
    assert store.head("nothing", checksum=True) is None
    assert len(sent(proxy)) == 1
    assert through_boto == []


def test_errors_are_those_of_boto3(store: S3Store, proxy: FaultProxy) -> None:
    proxy.script(Fault("answer", method="HEAD", times=2, answer=Answer(403, "AccessDenied")))
    with pytest.raises(AccessError, match="s3:GetObject"):
        store.head("first", checksum=True)
    proxy.script(Fault("status503", method="HEAD", times=6))
    patient = RetryingStore(store, sleep=lambda seconds: None)
    with pytest.raises(TransientError):
        patient.head("first", checksum=True)
    for kind in ("reset", "truncate"):
        proxy.script(Fault(kind, method="HEAD"))  # type: ignore[arg-type]
        assert patient.head("first", checksum=True) is not None
    assert store.head("first", checksum=True) is not None


def test_a_server_that_refuses_them_gets_boto3s(store: S3Store, proxy: FaultProxy) -> None:
    """After three that boto3 could send and we could not, only boto3 is asked."""
    for _ in range(3):
        proxy.script(Fault("answer", method="HEAD", answer=Answer(400, "BadRequest")))
        assert store.head("first", checksum=True) == by_boto(store, "first")
    proxy.forget()
    through_boto = counted(store)
    assert store.head("first", checksum=True) is not None
    assert len(through_boto) == len(sent(proxy)) == 1


def test_without_botocores_inner_parts_all_goes_through_boto3(
    proxied: S3Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = S3Store(proxied)
    monkeypatch.setattr(store._heads, "_session", None)
    through_boto = counted(store)
    store.create("k", b"x")
    for _ in range(3):
        assert store.head("k", checksum=True) is not None
    assert len(through_boto) == 3


def test_they_carry_what_the_settings_ask_for(proxied: S3Settings, proxy: FaultProxy) -> None:
    keys = replace(proxied.keys, session_token="a-token")
    store = S3Store(replace(proxied, request_payer=True, keys=keys))
    store.create("k", b"x")
    seen: list[Request] = []
    proxy.script(Fault("custom", method="HEAD", times=None, action=seen.append))
    for _ in range(2):
        store.head("k", checksum=True)
    boto, own = (request.headers for request in seen)
    names = {"x-amz-checksum-mode", "x-amz-request-payer", "x-amz-security-token", "user-agent", "host"}
    assert {name: own[name] for name in names} == {name: boto[name] for name in names}
    assert set(own) >= set(boto) - {"amz-sdk-invocation-id", "amz-sdk-request"}


def test_renewed_credentials_sign_the_next(store: S3Store, proxy: FaultProxy) -> None:
    seen: list[str] = []
    proxy.script(
        Fault("custom", times=None, action=lambda request: seen.append(request.headers["authorization"]))
    )
    store.head("first", checksum=True)
    held = store.client._request_signer._credentials
    held.access_key = "AKIARENEWED"
    store.head("first", checksum=True)
    assert "Credential=AKIARENEWED/" not in seen[0]
    assert "Credential=AKIARENEWED/" in seen[1]


def test_many_threads_ask_at_once(proxied: S3Settings) -> None:
    """Also for the first time, when each learns from boto3."""
    store = S3Store(proxied)
    for number in range(8):
        store.create(f"k{number}", b"x" * number)
    sizes: dict[int, int] = {}

    def ask(number: int) -> None:
        found = store.head(f"k{number}", checksum=True)
        sizes[number] = -1 if found is None else found.size

    for _ in range(3):
        threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sizes == {number: number for number in range(8)}


def test_a_bucket_at_amazon_is_addressed_as_boto3_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an endpoint of one's own the bucket is part of the host."""
    store = S3Store(S3Settings("some-bucket", region="eu-west-1", keys=Keys("AKIA", "s")))
    request = _Made()
    store._heads._asked.key = "mltrack/a b"
    request.url = "https://some-bucket.s3.eu-west-1.amazonaws.com/mltrack/a%20b"
    request.context = {"signing": {"region": "eu-west-1", "signing_name": "s3"}}
    store._heads._learn(request)
    assert store._heads._way is not None
    assert store._heads._way.base == "https://some-bucket.s3.eu-west-1.amazonaws.com/"


class _Made:
    url: str
    context: dict[str, Any]
    headers: dict[str, Any] = {"User-Agent": b"boto"}  # noqa: RUF012
