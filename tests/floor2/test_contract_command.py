"""``python -m mltrack_tasks.testing``: the contract against a bucket that somebody names."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mltrack_tasks.testing.__main__ import main
from tests.servers import S3Server, client
from tests.settings import BUCKET, fresh_prefix


def test_a_bucket_is_checked_and_left_as_it_was(s3_server: S3Server) -> None:
    """moto lets wrong checksums pass, which is known before: what counts is that it never overwrites."""
    prefix = fresh_prefix()
    command = [sys.executable, "-m", "mltrack_tasks.testing", f"s3://{BUCKET}/{prefix}"]
    command += [
        "--endpoint-url",
        s3_server.endpoint,
        "--region",
        s3_server.region,
        "-k",
        "overwrit or ranges",
    ]
    keys = {"AWS_ACCESS_KEY_ID": s3_server.access_key, "AWS_SECRET_ACCESS_KEY": s3_server.secret_key}
    root = Path(__file__).parents[2]
    done = subprocess.run(command, env={**os.environ, **keys}, cwd=root, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "3 passed" in done.stdout
    assert client(s3_server).list_objects_v2(Bucket=BUCKET, Prefix=f"{prefix}/")["KeyCount"] == 0


def test_what_is_no_address_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["bucket"])
    assert "s3://bucket/prefix" in capsys.readouterr().err
