"""What check_access finds where access is right, and the fix that it names where it is not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
from prefect import flow
from prefect.settings import PREFECT_API_URL
from prefect_aws import AwsCredentials

from flows.check_access import check_access as check_flow
from mltrack_tasks import (
    AccessError,
    AccessReport,
    InvalidInputError,
    MLTrackStore,
    NotFoundError,
    check_access,
)
from mltrack_tasks.access import check_access as check_store
from mltrack_tasks.artifacts import plain
from mltrack_tasks.content import store_data
from mltrack_tasks.stores.s3_settings import S3Settings
from tests.servers import S3Server, client, create_bucket, moto
from tests.servers.faultproxy import Answer, Fault, FaultProxy

BUCKET = "guarded"
QUESTIONS = ["credentials", "account", "bucket and region", "list", "read", "write and delete"]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A server that checks signatures and policies, with the bucket BUCKET."""
    with moto.serve_with_iam(tmp_path_factory.mktemp("iam")) as server:
        create_bucket(server, BUCKET)
        yield server


def user(server: S3Server, name: str, *actions: str) -> AwsCredentials:
    """Keys of a new user that may do these actions on everything, and nothing else."""
    iam: Any = boto3.client(
        "iam",
        endpoint_url=server.endpoint,
        region_name=server.region,
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
    )
    iam.create_user(UserName=name)
    statement = {"Effect": "Allow", "Action": list(actions), "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    iam.put_user_policy(UserName=name, PolicyName="some", PolicyDocument=policy)
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return AwsCredentials(aws_access_key_id=key["AccessKeyId"], aws_secret_access_key=key["SecretAccessKey"])


def owner(server: S3Server) -> AwsCredentials:
    return AwsCredentials(aws_access_key_id=server.access_key, aws_secret_access_key=server.secret_key)


def guarded_block(server: S3Server, keys: AwsCredentials, **fields: Any) -> MLTrackStore:
    where = {"bucket": BUCKET, "endpoint_url": server.endpoint, "region_name": server.region}
    return MLTrackStore(**{**where, "credentials": keys, **fields})


def rows(report: AccessReport) -> dict[str, dict[str, str]]:
    return {row["check"]: row for row in report.rows()}


def failed(report: AccessReport) -> dict[str, str]:
    """The fix of each question that failed; a failure without one is no answer."""
    found = {row["check"]: row["fix"] for row in report.rows() if row["result"] == "FAILED"}
    assert all(found.values()), found
    assert report.ok is (not found)
    return found


def keys_below(settings: S3Settings, server: S3Server) -> list[str]:
    found = client(server).list_objects_v2(Bucket=settings.bucket, Prefix=f"{settings.prefix}/")
    return [item["Key"] for item in found.get("Contents", [])]


def test_a_flow_makes_a_table_of_it(block: MLTrackStore) -> None:
    @flow
    def look() -> AccessReport:
        return check_access(store=block)

    report = look()

    assert report.ok
    assert [row["check"] for row in report.rows()][:6] == QUESTIONS
    wanted = {"artifacts": {"key": {"any_": ["mltrack-access"]}}, "sort": "CREATED_DESC"}
    artifact = httpx.post(f"{PREFECT_API_URL.value()}/artifacts/filter", json=wanted).json()[0]
    assert artifact["type"] == "table"
    assert json.loads(artifact["data"]) == report.rows()
    assert plain(report.location) in artifact["description"]


def test_nothing_is_left_and_nothing_begun(
    block: MLTrackStore, s3_settings: S3Settings, s3_server: S3Server
) -> None:
    report = check_store(block.open())
    assert report.ok
    assert report.capabilities is not None
    assert report.capabilities.create_only
    assert keys_below(s3_settings, s3_server) == []


def test_without_writing_nothing_is_sent(proxied_block: MLTrackStore, proxy: FaultProxy) -> None:
    report = check_store(proxied_block.open(), write=False)
    assert list(rows(report)) == [*QUESTIONS[:5], "clock", "lifecycle rules"]
    assert report.ok
    assert proxy.count("PUT") == proxy.count("POST") == proxy.count("DELETE") == 0


def test_a_store_in_use_is_read(block: MLTrackStore) -> None:
    store_data(block.open(), {"a": 1})
    found = rows(check_store(block.open()))
    assert found["read"]["detail"] == "format.json read"
    assert found["list"]["detail"] == "there are objects"


def test_a_reader_fails_at_writing_alone(guarded: S3Server) -> None:
    store_data(guarded_block(guarded, owner(guarded)).open(), {"a": 1})
    reader = user(guarded, "reader", "s3:GetObject", "s3:ListBucket")
    report = check_store(guarded_block(guarded, reader).open())
    fixes = failed(report)
    assert list(fixes) == ["write and delete"]
    assert "s3:PutObject" in fixes["write and delete"]


def test_a_role_that_was_not_granted_is_told_with_what_to_grant(guarded: S3Server) -> None:
    reads = ("s3:GetObject", "s3:List*", "s3:GetBucketVersioning", "s3:HeadBucket")  # the last is moto's own
    reader = user(guarded, "no-writer", *reads)
    block = guarded_block(guarded, reader, prefix="no-writer")
    store_data(guarded_block(guarded, owner(guarded), prefix="no-writer").open(), {"a": 1})
    assert failed(check_access.fn(role="reader", store=block)) == {}
    fixes = failed(check_access.fn(role="writer", store=block))
    assert next(iter(fixes)) == "write and delete"
    refused = {name.removeprefix("permission ") for name in fixes if name.startswith("permission ")}
    assert refused == {"s3:AbortMultipartUpload", "s3:DeleteObject", "s3:DeleteObjectVersion", "s3:PutObject"}
    assert "arn:aws:s3:::guarded/no-writer/manifests/*" in fixes["permission s3:PutObject"]
    assert "iam_policy('writer')" in fixes["permission s3:PutObject"]


def test_a_writer_that_may_not_list_is_told_so(guarded: S3Server) -> None:
    writer = user(guarded, "writer", "s3:GetObject", "s3:PutObject", "s3:DeleteObject")
    report = check_store(guarded_block(guarded, writer, prefix="writer").open())
    fixes = failed(report)
    assert "s3:ListBucket" in fixes["list"]
    assert rows(report)["bucket and region"]["result"] == "-"
    assert "write and delete" not in fixes


def test_a_writer_that_may_not_delete_is_told_so(guarded: S3Server) -> None:
    keeper = user(guarded, "keeper", "s3:GetObject", "s3:PutObject", "s3:ListBucket")
    fixes = failed(check_store(guarded_block(guarded, keeper, prefix="keeper").open()))
    assert list(fixes) == ["write and delete", "nothing left behind"]
    assert "s3:DeleteObject" in fixes["write and delete"]


@pytest.mark.parametrize(
    ("keys", "fix"),
    [
        (AwsCredentials(aws_access_key_id="AKIAUNKNOWN", aws_secret_access_key="x"), "access key and secret"),
        (None, "access key and secret"),
    ],
    ids=["unknown key", "wrong secret"],
)
def test_invalid_keys_are_told_so(guarded: S3Server, keys: AwsCredentials | None, fix: str) -> None:
    wrong = AwsCredentials(aws_access_key_id=guarded.access_key, aws_secret_access_key="x")
    fixes = failed(check_store(guarded_block(guarded, keys or wrong).open()))
    assert list(fixes) == ["list", "read", "write and delete"]
    assert all(fix in each for each in fixes.values())


def test_a_missing_bucket_is_told_so(block: MLTrackStore) -> None:
    fixes = failed(check_store(block.model_copy(update={"bucket": "not-there"}).open()))
    assert list(fixes) == ["bucket and region", "list", "read", "write and delete"]
    assert all("bucket's name" in fix for fix in fixes.values())


def test_an_endpoint_that_does_not_answer_is_told_so(block: MLTrackStore) -> None:
    fixes = failed(check_store(block.model_copy(update={"endpoint_url": "http://127.0.0.1:9"}).open()))
    assert list(fixes) == ["bucket and region", "list", "read", "write and delete"]
    assert all("endpoint_url" in fix for fix in fixes.values())


def test_what_failed_first_is_not_repeated_for_each_permission(block: MLTrackStore) -> None:
    missing = block.model_copy(update={"bucket": "not-there"})
    found = rows(check_access.fn(role="admin", store=missing))
    assert found["permissions"]["detail"].startswith("not probed")
    assert not [name for name in found if name.startswith("permission ")]


def test_the_flow_ends_with_a_message_or_with_each_fix(block: MLTrackStore) -> None:
    state = check_flow(store=block, return_state=True)
    assert state.is_completed()
    assert "as writer: nothing failed" in str(state.message)
    with pytest.raises(AccessError, match=r"(?s)as writer: \d+ of \d+ checks failed.*bucket's name"):
        check_flow(store=block.model_copy(update={"bucket": "not-there"}))


def test_another_region_is_named(proxied_block: MLTrackStore, proxy: FaultProxy) -> None:
    there = Answer(200, "", headers={"x-amz-bucket-region": "eu-central-1"})
    proxy.script(Fault("answer", method="HEAD", match=r"^/mltrack-test\?", answer=there))
    fixes = failed(check_store(proxied_block.open()))
    assert fixes == {"bucket and region": "Set region_name='eu-central-1'."}
    assert proxy.unfired() == []


def test_a_server_that_overwrites_is_told_so(proxied_block: MLTrackStore, proxy: FaultProxy) -> None:
    proxy.script(Fault("ignore_if_none_match", method="PUT", times=None))
    fixes = failed(check_store(proxied_block.open()))
    assert list(fixes) == ["create-only writes"]


def test_whose_credentials_and_from_where(
    block: MLTrackStore, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "SECRET-4711")
    bare = {"credentials": None, "endpoint_url": None, "region_name": None}
    found = rows(check_store(block.model_copy(update=bare).open(), write=False))
    assert found["credentials"]["detail"] == "environment variables (key id ...MPLE)"
    assert found["account"]["detail"].startswith("123456789012 as arn:aws:sts::123456789012:")
    assert found["bucket and region"]["result"] == "ok"


def test_a_network_without_sts_is_no_failure(
    block: MLTrackStore, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_server.endpoint)
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:9")
    report = check_store(block.model_copy(update={"endpoint_url": None}).open(), write=False)
    assert report.ok
    assert rows(report)["account"]["result"] == "-"
    assert "cannot be reached" in rows(report)["account"]["detail"]


def test_no_credentials_at_all_make_a_report() -> None:
    report = check_access.fn(store="s3://bucket")
    assert report.location == "s3://bucket/mltrack"
    assert "AWS_ACCESS_KEY_ID" in failed(report)["open"]


def test_a_directory_is_checked_too(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    report = check_access.fn(store=str(folder))
    assert report.ok
    assert list(rows(report))[:3] == ["list", "read", "write and delete"]
    assert [path for path in folder.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_place_that_is_no_directory_is_told_so(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("x")
    assert len(failed(check_access.fn(store=str(tmp_path / place)))) == 1


@pytest.mark.parametrize(("store", "kind"), [("gs://x", InvalidInputError), ("no-such", NotFoundError)])
def test_a_store_that_is_none_is_an_error(store: str, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        check_access.fn(store=store)
