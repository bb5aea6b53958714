"""Whom a real server lets in, what it says otherwise, and the options that it takes or refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from mltrack_tasks.access import check_access
from mltrack_tasks.content import retrieve_data, store_data
from mltrack_tasks.errors import AccessError, InvalidInputError, MLTrackError
from mltrack_tasks.stores import Store, open_s3
from mltrack_tasks.stores.retry import RetryingStore
from mltrack_tasks.stores.s3 import S3Store
from mltrack_tasks.stores.s3_settings import Keys, S3Settings
from tests.real.conftest import RealServer
from tests.real.expectations import Expected

Fresh = Callable[..., S3Settings]

VERBS: dict[str, tuple[str, Callable[[Store], object]]] = {
    "create": ("s3:PutObject", lambda store: store.create("k", b"x")),
    "upload": ("s3:PutObject", lambda store: store.upload("k", 1)),
    "get": ("s3:GetObject", lambda store: store.get("k")),
    "head": ("s3:GetObject", lambda store: store.head("k")),
    "head with checksum": ("s3:GetObject", lambda store: store.head("k", checksum=True)),
    "list": ("s3:ListBucket", lambda store: list(store.list(""))),
    "delete": ("s3:DeleteObject", lambda store: store.delete(["k"])),
}


def test_check_access_finds_nothing_wrong(store: Store, expected: Expected) -> None:
    report = check_access(store)
    assert report.ok, report.rows()
    assert report.capabilities is not None
    assert report.capabilities.refuses_damage is expected.capabilities.refuses_damage
    assert list(store.list("")) == []  # a store that is not there yet is not begun


def test_a_wrong_secret(settings: S3Settings, expected: Expected) -> None:
    wrong = replace(settings, keys=replace(settings.keys, secret_key="wrong"))
    if not expected.checks_credentials:
        assert store_data(open_s3(wrong), b"x").created
        return
    with pytest.raises(
        AccessError, match=r"(?s)s3://.*SignatureDoesNotMatch.*Check the access key and secret"
    ):
        store_data(open_s3(wrong), b"x")
    assert check_access(open_s3(wrong)).ok is False


def test_an_unknown_key(settings: S3Settings, expected: Expected) -> None:
    unknown = replace(settings, keys=Keys("AKIAUNKNOWNUNKNOWN00", "wrong"))
    if not expected.checks_credentials:
        assert store_data(open_s3(unknown), b"x").created
        return
    with pytest.raises(AccessError, match=r"(?s)InvalidAccessKeyId.*Check the access key and secret"):
        store_data(open_s3(unknown), b"x")


@pytest.mark.parametrize("verb", VERBS)
def test_a_user_without_rights(
    server: RealServer, settings: S3Settings, expected: Expected, verb: str
) -> None:
    """Where no such user is given (AWS), the owner with a wrong secret is one."""
    nobody = server.denied or replace(settings.keys, secret_key="wrong")
    action, call = VERBS[verb]
    store = RetryingStore(S3Store(replace(settings, keys=nobody)))
    if not expected.checks_credentials:
        RetryingStore(S3Store(settings)).create("k", b"")
        call(store)
        return
    with pytest.raises(AccessError) as caught:
        call(store)
    assert caught.value.details["action"] == action
    assert settings.bucket in str(caught.value)
    if server.denied:
        assert f"Grant {action}" in str(caught.value)


@pytest.mark.parametrize("verb", VERBS)
def test_a_missing_bucket(fresh: Fresh, verb: str) -> None:
    settings = fresh(bucket="mltrack-no-such-bucket-7c1f")
    _, call = VERBS[verb]
    with pytest.raises(
        AccessError, match=r"(?s)mltrack-no-such-bucket-7c1f.*Check the bucket's name, region"
    ):
        call(RetryingStore(S3Store(settings)))


def test_another_region(server: RealServer, settings: S3Settings, expected: Expected) -> None:
    other = "eu-central-1" if server.settings.region != "eu-central-1" else "us-west-2"
    store = open_s3(replace(settings, region=other))
    if not expected.checks_region:
        assert store_data(store, b"x").created
        return
    with pytest.raises(AccessError, match=r"(?s)Set region_name to the bucket's region"):
        store_data(store, b"x")


def test_storage_classes(fresh: Fresh, client: Any, expected: Expected) -> None:
    settings = fresh(storage_class="STANDARD_IA")
    store = open_s3(settings)
    if not expected.has_storage_classes:
        with pytest.raises(InvalidInputError, match=r"(?s)Check the store's options \(storage class"):
            store_data(store, b"x")
        return
    ref = store_data(store, b"x")
    assert _head(client, settings, ref.storage_path)["StorageClass"] == "STANDARD_IA"
    assert _head(client, settings, "format.json").get("StorageClass") in (None, "STANDARD")
    assert retrieve_data(store, ref) == b"x"


def test_encryption(fresh: Fresh, client: Any, expected: Expected) -> None:
    settings = fresh().with_extra_args({"ServerSideEncryption": "AES256"})
    store = open_s3(settings)
    if not expected.encrypts:
        with pytest.raises(MLTrackError) as caught:
            store_data(store, b"x")
        assert isinstance(caught.value, (AccessError, InvalidInputError))
        return
    ref = store_data(store, b"x")
    for key in (ref.storage_path, "format.json"):
        assert _head(client, settings, key)["ServerSideEncryption"] == "AES256"
    assert retrieve_data(store, ref) == b"x"
    assert store_data(store, b"x").created is False


def _head(client: Any, settings: S3Settings, key: str) -> dict[str, Any]:
    answer: dict[str, Any] = client.head_object(Bucket=settings.bucket, Key=f"{settings.prefix}/{key}")
    return answer
