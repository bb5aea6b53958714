"""MinIO with one drive: MLTRACK_MINIO, what scripts/ci_servers.sh built, or `minio` on PATH."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import boto3

from .model import S3Server
from .process import (
    INSTALLED,
    ServerStartError,
    answers_s3,
    clean_environment,
    free_ports,
    running,
)

_NOTHING = {"Effect": "Deny", "Action": "s3:*", "Resource": "arn:aws:s3:::*"}


def program() -> str:
    """Return the path of the server's program; raise ServerStartError when there is none."""
    named = os.environ.get("MLTRACK_MINIO")
    candidates = [named] if named else [str(INSTALLED / "minio"), "minio"]
    for candidate in candidates:
        if found := shutil.which(candidate):
            return found
    raise ServerStartError(
        f"no MinIO at {' or '.join(candidates)}: build it with `scripts/ci_servers.sh minio`, "
        "or set MLTRACK_MINIO to the path of one"
    )


@contextmanager
def serve(directory: Path) -> Iterator[S3Server]:
    """Run MinIO on a free port, with its data in ``directory/data``.

    The alt user is a session of the owner that may do nothing in S3; it needs its session token.
    """
    port, console = free_ports(2)
    owner = S3Server("minio", f"http://127.0.0.1:{port}", "mltrack-owner", "mltrack-owner-secret")
    command = [program(), "server", "--quiet", "--certs-dir", str(directory / "certs")]
    command += ["--address", f"127.0.0.1:{port}", "--console-address", f"127.0.0.1:{console}"]
    env = clean_environment(
        MINIO_ROOT_USER=owner.access_key,
        MINIO_ROOT_PASSWORD=owner.secret_key,
        MINIO_SITE_REGION=owner.region,  # else requests signed for any region pass
        MINIO_BROWSER="off",
        MINIO_UPDATE="off",
        HOME=str(directory),
    )
    data = directory / "data"
    data.mkdir(parents=True, exist_ok=True)
    with running("minio", [*command, str(data)], directory / "minio.log", env) as child:
        child.wait_until(answers_s3(owner), 30)
        yield _with_alt(owner)


def _with_alt(owner: S3Server) -> S3Server:
    sts = boto3.client(
        "sts",
        endpoint_url=owner.endpoint,
        region_name=owner.region,
        aws_access_key_id=owner.access_key,
        aws_secret_access_key=owner.secret_key,
    )
    session = sts.assume_role(
        RoleArn="arn:aws:iam::000000000000:role/alt",  # MinIO asks for one and ignores it
        RoleSessionName="alt",
        Policy=json.dumps({"Version": "2012-10-17", "Statement": [_NOTHING]}),
        DurationSeconds=43200,
    )["Credentials"]
    return replace(
        owner,
        alt_access_key=session["AccessKeyId"],
        alt_secret_key=session["SecretAccessKey"],
        alt_session_token=session["SessionToken"],
    )
