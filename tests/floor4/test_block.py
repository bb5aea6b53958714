"""The block: what Prefect asks of one, what it refuses, and what comes back when it is loaded."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urlsplit

import pytest
from prefect import flow
from prefect.blocks.core import Block
from prefect.testing.standard_test_suites import BlockStandardTestSuite
from prefect_aws import AwsCredentials, MinIOCredentials
from pydantic import ValidationError

from mltrack_tasks import AccessError, MLTrackStore
from mltrack_tasks.content import retrieve_data, store_data
from mltrack_tasks.stores.identity import s3_of
from tests.servers import S3Server

SECRETS = {"aws_secret_access_key": "SECRET-4711", "aws_session_token": "TOKEN-4711"}
AWS = AwsCredentials(aws_access_key_id="AKIDEXAMPLE", **SECRETS)
MINIO = MinIOCredentials(minio_root_user="root", minio_root_password="SECRET-4711")
MINIO_URL = "http://localhost:9000"


def holds_secret(text: str) -> bool:
    return "4711" in text


class TestStandard(BlockStandardTestSuite):
    """Prefect's own suite for blocks."""

    @pytest.fixture
    def block(self) -> type[Block]:
        return MLTrackStore

    def test_has_a_valid_image(self, block: type[Block]) -> None:
        """Check the address alone: the suite's own test downloads the picture."""
        parts = urlsplit(str(block._logo_url))
        assert (parts.scheme, parts.hostname) == ("https", "cdn.sanity.io")
        assert parts.path.endswith("-225x225.png")


def test_a_block_with_aws_credentials_comes_back_equal(block: MLTrackStore) -> None:
    """Here by reference to a block of their own; saved inside the block in e2e/test_block_registration.py."""
    block.credentials.aws_session_token = "TOKEN-4711"
    block.credentials.save("keys", overwrite=True)
    block.save("round-trip", overwrite=True)

    @flow
    async def read() -> Any:
        loaded = await MLTrackStore.load("round-trip")
        return loaded, store_data(loaded.open(), {"a": 1})

    loaded, ref = asyncio.run(read())

    assert loaded == block == MLTrackStore.load("round-trip")
    assert retrieve_data(block.open(), ref) == {"a": 1}


def test_a_block_with_minio_credentials_comes_back_equal() -> None:
    """Prefect loads a nested block as bare fields, and all fields of AwsCredentials are optional."""
    keys = MINIO.model_copy()
    keys.save("minio-keys", overwrite=True)
    block = MLTrackStore(bucket="bucket", endpoint_url=MINIO_URL, credentials=keys)
    block.save("round-trip", overwrite=True)

    loaded = MLTrackStore.load("round-trip")

    assert loaded == block
    assert type(loaded.credentials) is MinIOCredentials
    assert loaded.s3_settings() == block.s3_settings()


@pytest.mark.parametrize("slug", [True, False], ids=["named", "bare"])
@pytest.mark.parametrize("keys", [AWS, MINIO], ids=["aws", "minio"])
def test_nested_credentials_are_told_apart(keys: Any, slug: bool) -> None:
    fields = keys.model_dump(context={"include_secrets": True})
    assert fields["block_type_slug"]
    if not slug:
        del fields["block_type_slug"]
    assert MLTrackStore(bucket="bucket", endpoint_url=MINIO_URL, credentials=fields).credentials == keys


def test_the_form_offers_both_kinds_of_credentials() -> None:
    references = MLTrackStore.model_json_schema()["block_schema_references"]["credentials"]
    assert {item["block_type_slug"] for item in references} == {"aws-credentials", "minio-credentials"}


def test_a_directory_is_made_absolute(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert MLTrackStore(path="data").path == str(tmp_path / "data")
    assert MLTrackStore(path="~/data", cache_dir="c").location == str(tmp_path / "data")
    assert MLTrackStore(path="data", cache_dir="c").cache_dir == str(tmp_path / "c")


def test_an_emptied_form_field_is_none() -> None:
    block = MLTrackStore(bucket="bucket", path="", region_name="", endpoint_url="", storage_class="")
    assert (block.path, block.region_name, block.endpoint_url, block.storage_class) == (None,) * 4


REFUSED = {
    "nothing": ({}, "either bucket"),
    "both": ({"bucket": "b", "path": "/d"}, "either bucket"),
    "empty path": ({"path": ""}, "either bucket"),
    "bucket with prefix": ({"bucket": "b/c"}, "bucket"),
    "address as bucket": ({"bucket": "s3://b"}, "bucket"),
    "prefix that climbs": ({"bucket": "b", "prefix": "../x"}, "prefix"),
    "storage class": ({"bucket": "b", "storage_class": "COLD"}, "INTELLIGENT_TIERING"),
    "encryption": ({"bucket": "b", "server_side_encryption": "rot13"}, "AES256, aws:kms"),
    "key without kms": ({"bucket": "b", "kms_key_id": "k"}, "aws:kms"),
    "key with AES256": (
        {"bucket": "b", "kms_key_id": "k", "server_side_encryption": "AES256"},
        "aws:kms",
    ),
    "unknown extra": ({"bucket": "b", "s3_extra_args": {"ACL": "public-read"}}, "ACL.*It honours"),
    "payer": ({"bucket": "b", "s3_extra_args": {"RequestPayer": "me"}}, "requester"),
    "MinIO without endpoint": ({"bucket": "b", "credentials": MINIO}, "endpoint_url"),
    "no workers": ({"bucket": "b", "max_workers": 0}, "max_workers"),
    "many workers": ({"bucket": "b", "max_workers": 65}, "max_workers"),
    "no cache": ({"bucket": "b", "cache_max_bytes": 0}, "cache_max_bytes"),
    "endpoint without scheme": ({"bucket": "b", "endpoint_url": "localhost:9000"}, "http://host:port"),
    "endpoint with user": ({"bucket": "b", "endpoint_url": "http://u:SECRET-4711@h"}, "their block"),
    "misspelt": ({"bucket": "b", "perfix": "x"}, "has no perfix"),
    "misspelt key": ({"bucket": "b", "credentials": {"secret": "SECRET-4711"}}, "has no secret"),
    "half a key": ({"bucket": "b", "credentials": AwsCredentials(aws_access_key_id="A")}, "go together"),
    "token alone": ({"bucket": "b", "credentials": {"aws_session_token": "TOKEN-4711"}}, "go together"),
    "directory with keys": ({"path": "/d", "credentials": AWS}, "no credentials"),
    "directory with KMS": ({"path": "/d", "server_side_encryption": "AES256"}, "server_side_encryption"),
    "stranger's home": ({"path": "~no-such-user/d"}, "no-such-user"),
}


@pytest.mark.parametrize(("fields", "said"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_work_is_refused_without_the_secret(fields: dict[str, Any], said: str) -> None:
    keys = {} if {"credentials", "path"} & set(fields) else {"credentials": AWS}
    with pytest.raises(ValidationError, match=said) as caught:
        MLTrackStore(**keys, **fields)
    assert not holds_secret(str(caught.value))
    assert not holds_secret(repr(caught.value))


def test_a_role_takes_lists_and_mappings(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Policies and tags of the role reach STS as they were given, and the role's keys work."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", s3_server.endpoint)
    options = {
        "PolicyArns": [{"arn": "arn:aws:iam::aws:policy/AmazonS3FullAccess"}],
        "Tags": [{"Key": "team", "Value": "ml"}],
        "DurationSeconds": 900,
    }
    role = "arn:aws:iam::123456789012:role/writer"
    keys = AwsCredentials(
        aws_access_key_id="A", aws_secret_access_key="B", assume_role_arn=role, assume_role_kwargs=options
    )
    block = MLTrackStore(
        bucket="mltrack-test",
        prefix="role",
        endpoint_url=s3_server.endpoint,
        region_name=s3_server.region,
        credentials=keys,
    )
    store = block.open()
    assert retrieve_data(store, store_data(store, {"a": 1})) == {"a": 1}
    assumed = s3_of(store)
    assert assumed is not None
    assert assumed.session.get_credentials().access_key not in ("A", None)
    assert block.open() is store  # equal settings, one store and its connections


def test_without_any_credentials_opening_says_what_to_set() -> None:
    with pytest.raises(AccessError, match="AWS_PROFILE or AWS_ACCESS_KEY_ID"):
        MLTrackStore(bucket="bucket").open()


def test_other_surroundings_open_another_store(monkeypatch: pytest.MonkeyPatch) -> None:
    block = MLTrackStore(bucket="bucket", endpoint_url=MINIO_URL)
    stores = []
    for key in ("first", "second", "first"):
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
        stores.append(block.open())
    assert stores[0] is stores[2]
    assert stores[0] is not stores[1]
