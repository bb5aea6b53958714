"""Probe the installed Prefect and data libraries for the features that mltrack_tasks rests on.

Prints one JSON object on the last line: `{"versions": {...}, "failed": {check: reason}}`.
`check_versions.py` runs it in fresh environments; it needs moto beside the runtime dependencies.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

REPORTED = (
    *("prefect", "fastapi", "prefect-aws", "boto3", "pandas", "numpy", "pyarrow", "obstore"),
    "pydantic",
)
SERVER_START = 120  # [s]; a cold database took 18-24 s on two cores


def isolate(home: str) -> None:
    """Forget the caller's Prefect and AWS settings and use `home` for all state."""
    for name in [n for n in os.environ if n.startswith(("AWS_", "PREFECT_"))]:
        if not name.startswith("AWS_CA_"):
            del os.environ[name]
    os.environ |= {
        "PREFECT_HOME": home,
        "PREFECT_PROFILES_PATH": os.path.join(home, "profiles.toml"),
        # Releases before 3.8.6 keep these two under ~/.prefect, wherever PREFECT_HOME is.
        "PREFECT_LOCAL_STORAGE_PATH": os.path.join(home, "storage"),
        "PREFECT_MEMO_STORE_PATH": os.path.join(home, "memo_store.toml"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_LEVEL": "ERROR",
        "AWS_CONFIG_FILE": os.path.join(home, "aws-config"),
        "AWS_SHARED_CREDENTIALS_FILE": os.path.join(home, "aws-credentials"),
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ACCESS_KEY_ID": "probe",
        "AWS_SECRET_ACCESS_KEY": "probe",
        "AWS_DEFAULT_REGION": "us-east-1",
        "NO_PROXY": "127.0.0.1,localhost",
    }


def check_parquet() -> None:
    """Frame -> Parquet bytes -> equal frame, for the dtypes users have."""
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq
    from pandas.testing import assert_frame_equal

    frame = pd.DataFrame(
        {
            "i": pd.array([1, None], dtype="Int64"),
            "s": ["a", "b"],
            "c": pd.Categorical(["x", "y"]),
            "t": pd.DatetimeIndex(["2024-01-01", pd.NaT], tz="UTC"),
            "a": pd.array([1.5, None], dtype="float64[pyarrow]"),
        },
        index=pd.Index([3, 4], name="k"),
    )
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pandas(frame), buffer, compression="zstd")
    table = pq.read_table(io.BytesIO(buffer.getvalue()))
    assert_frame_equal(table.to_pandas(), frame, check_exact=True)


def check_obstore(endpoint: str) -> None:
    """Create-only PUT with SHA-256, conditional replace, ranges and LIST through obstore."""
    import boto3
    import obstore
    from obstore.auth.boto3 import Boto3CredentialProvider
    from obstore.exceptions import AlreadyExistsError
    from obstore.store import S3Store

    store = S3Store(
        "probe",
        prefix="p",
        region="us-east-1",
        endpoint=endpoint,
        checksum_algorithm="sha256",
        client_options={"allow_http": True, "read_timeout": "30s"},
        credential_provider=Boto3CredentialProvider(boto3.Session()),
    )
    first = obstore.put(store, "k", b"one", mode="create", attributes={"Content-Type": "a/b"})
    try:
        obstore.put(store, "k", b"two", mode="create")
    except AlreadyExistsError:
        pass
    else:
        raise AssertionError("a second create of one key succeeded")
    update: Any = {name: value for name, value in first.items() if value is not None}
    obstore.put(store, "k", b"three", mode=update)
    assert bytes(obstore.get(store, "k").bytes()) == b"three"
    assert bytes(obstore.get_range(store, "k", start=0, end=2)) == b"th"
    listed = [item["path"] for page in obstore.list(store) for item in page]
    assert listed == ["k"], listed


def check_local_stores() -> None:
    """The directory and memory stores refuse a second create of one key."""
    import obstore
    from obstore.exceptions import AlreadyExistsError
    from obstore.store import LocalStore, MemoryStore

    with tempfile.TemporaryDirectory() as folder:
        for store in (LocalStore(folder), MemoryStore()):
            obstore.put(store, "a/b", b"one", mode="create")
            try:
                obstore.put(store, "a/b", b"two", mode="create")
            except AlreadyExistsError:
                continue
            raise AssertionError(f"{store} let a second create of one key succeed")


def check_boto3(endpoint: str) -> None:
    """Conditional PUT, multipart with composite SHA-256, conditional delete, checksummed HEAD."""
    from base64 import b64encode

    import boto3
    from botocore.exceptions import ClientError

    s3: Any = boto3.client("s3", endpoint_url=endpoint)
    s3.create_bucket(Bucket="probe")
    s3.put_object(Bucket="probe", Key="b", Body=b"1", IfNoneMatch="*")
    try:
        s3.put_object(Bucket="probe", Key="b", Body=b"2", IfNoneMatch="*")
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 412:
            raise
    else:
        raise AssertionError("a second create of one key succeeded")
    s3.head_object(Bucket="probe", Key="b", ChecksumMode="ENABLED")
    body = b"part"
    digest = b64encode(hashlib.sha256(body).digest()).decode()
    upload = s3.create_multipart_upload(
        Bucket="probe", Key="m", ChecksumAlgorithm="SHA256", ChecksumType="COMPOSITE"
    )["UploadId"]
    part = s3.upload_part(
        Bucket="probe", Key="m", UploadId=upload, PartNumber=1, Body=body, ChecksumSHA256=digest
    )
    parts = [{"PartNumber": 1, "ETag": part["ETag"], "ChecksumSHA256": digest}]
    s3.complete_multipart_upload(
        Bucket="probe",
        Key="m",
        UploadId=upload,
        MultipartUpload={"Parts": parts},
        IfNoneMatch="*",
    )
    shape = s3.meta.service_model.operation_model("DeleteObject").input_shape
    assert "IfMatch" in shape.members, "this botocore knows no conditional delete"


def check_prefect() -> None:
    """Blocks, tasks, mapping, retries, artifacts and events against a fresh Prefect server."""
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=SERVER_START):
        probe_block()
        probe_flow()


def probe_block() -> None:
    """Save and load a block with nested credentials by name; the secret must stay one."""
    from prefect.blocks.core import Block
    from prefect_aws import AwsCredentials, MinIOCredentials
    from pydantic import Field, SecretStr

    class ProbeStore(Block):
        """Hold what the real block holds: a bucket and one of two credentials."""

        bucket: str = Field(description="Bucket.")
        credentials: AwsCredentials | MinIOCredentials | None = Field(
            default=None, description="Credentials."
        )

    if "assume_role_arn" not in AwsCredentials.model_fields:
        raise AssertionError("AwsCredentials knows no role to assume")
    minio = MinIOCredentials(minio_root_user="u", minio_root_password=SecretStr("hidden"))
    for name, credentials in (("aws", AwsCredentials()), ("minio", minio), ("none", None)):
        block: Any = ProbeStore(bucket="b", credentials=credentials)
        block.save(name, overwrite=True, _sync=True)
        loaded: Any = ProbeStore.load(name, _sync=True)  # type: ignore[call-arg]
        assert type(loaded.credentials) is type(credentials), (name, loaded.credentials)
        assert "hidden" not in repr(loaded)
    assert loaded.bucket == "b"


def probe_flow() -> None:
    """Run one flow that uses every task feature of floor 4."""
    from prefect import flow, runtime, task, unmapped
    from prefect.artifacts import (
        create_markdown_artifact,
        create_progress_artifact,
        create_table_artifact,
        update_progress_artifact,
    )
    from prefect.cache_policies import NO_CACHE
    from prefect.events import emit_event

    calls: list[int] = []

    @task(
        cache_policy=NO_CACHE,
        persist_result=False,
        retries=2,
        retry_delay_seconds=[0.01, 0.02],
        retry_jitter_factor=0.1,
        retry_condition_fn=lambda task, run, state: len(calls) < 2,
    )
    def flaky() -> int:
        calls.append(1)
        if len(calls) < 2:
            raise OSError("first try")
        return len(calls)

    @task(cache_policy=NO_CACHE, persist_result=False)
    def add(x: int, *, y: list[int]) -> int:
        return x + sum(y)

    @flow(name="mltrack-probe")
    def probe() -> tuple[str, list[int], int]:
        create_table_artifact(table=[{"a": 1}], key="probe-table")
        create_markdown_artifact(markdown="# a", key="probe-markdown")
        progress: Any = create_progress_artifact(progress=0.0, key="probe-progress")
        update_progress_artifact(artifact_id=progress, progress=100.0)
        event = emit_event(event="mltrack.probe", resource={"prefect.resource.id": "mltrack.probe"})
        assert event is not None, "emit_event returned nothing"
        mapped = add.map([1, 2], y=unmapped([10, 20])).result()
        return str(runtime.flow_run.id), mapped, flaky.submit().result()

    flow_run_id, mapped, tries = probe()
    assert len(flow_run_id) == 36, flow_run_id
    assert mapped == [31, 32], mapped
    assert tries == 2, tries


def check_server_import() -> None:
    """The Prefect server's application builds; a fastapi it cannot live with fails here."""
    from prefect.server.api.server import create_app

    create_app(ephemeral=True)


def installed(name: str) -> str:
    """Return the installed version of `name`, or "-"."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "-"


def reason(error: BaseException) -> str:
    """Return the last line of what went wrong, short enough for a table."""
    return traceback.format_exception_only(error)[-1].strip().replace("\n", " ")[:300]


def main() -> int:
    """Run every check, print the result as JSON, return 1 if one failed."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    failed: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="mltrack-probe-") as home:
        isolate(home)
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        endpoint = "http://{}:{}".format(*server.get_host_and_port())
        checks: dict[str, Callable[[], None]] = {
            "parquet": check_parquet,
            "boto3": lambda: check_boto3(endpoint),
            "obstore": lambda: check_obstore(endpoint),
            "local stores": check_local_stores,
            "server import": check_server_import,
            "prefect": check_prefect,
        }
        for name, check in checks.items():
            if name == "prefect" and "server import" in failed:
                continue  # it would only wait for a server that cannot start
            try:
                check()
            except Exception as error:
                traceback.print_exc()
                failed[name] = reason(error)
        server.stop()
    print(json.dumps({"versions": {n: installed(n) for n in REPORTED}, "failed": failed}))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
