"""Run a command against a fresh S3 server: ``python -m tests.servers minio -- pytest tests``.

The command finds MLTRACK_TEST_S3_SERVER, _ENDPOINT, _BUCKET (created), AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY and AWS_DEFAULT_REGION in its environment, and nothing of the caller's AWS
settings. The exit code is the command's, or 3 when the server does not start.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

from . import ceph, localstack, minio, moto
from .model import S3Server, create_bucket
from .process import ServerStartError, clean_environment

SERVERS = {
    "moto": moto.serve,
    "moto_iam": moto.serve_with_iam,
    "minio": minio.serve,
    "localstack": localstack.serve,
    "ceph": ceph.serve,
}
BUCKET = "mltrack-test"


def environment(server: S3Server, bucket: str, directory: Path) -> dict[str, str]:
    """Return what a command needs to reach the server, and none of this user's AWS settings."""
    nowhere = str(directory / "no-aws-files")
    settings = {
        "MLTRACK_TEST_S3_SERVER": server.name,
        "MLTRACK_TEST_S3_ENDPOINT": server.endpoint,
        "MLTRACK_TEST_S3_BUCKET": bucket,
        "AWS_ACCESS_KEY_ID": server.access_key,
        "AWS_SECRET_ACCESS_KEY": server.secret_key,
        "AWS_DEFAULT_REGION": server.region,
        "AWS_CONFIG_FILE": nowhere,
        "AWS_SHARED_CREDENTIALS_FILE": nowhere,
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    if server.alt_access_key and server.alt_secret_key:
        settings["MLTRACK_TEST_S3_ALT_ACCESS_KEY"] = server.alt_access_key
        settings["MLTRACK_TEST_S3_ALT_SECRET_KEY"] = server.alt_secret_key
        settings["MLTRACK_TEST_S3_ALT_SESSION_TOKEN"] = server.alt_session_token or ""
    return clean_environment(**settings)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.servers", description=__doc__)
    parser.add_argument("server", choices=sorted(SERVERS))
    parser.add_argument("--dir", type=Path, help="for data and logs; default: a temporary one")
    parser.add_argument("--bucket", default=BUCKET)
    parser.add_argument("command", nargs="+", help="after `--`: what to run")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    options = parse(arguments)
    signal.signal(signal.SIGTERM, _terminated)
    with ExitStack() as stack:
        directory = options.dir or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        try:
            server = stack.enter_context(SERVERS[options.server](directory.resolve()))
        except ServerStartError as error:
            print(error, file=sys.stderr)
            return 3
        create_bucket(server, options.bucket)
        print(f"{server.name} at {server.endpoint}, bucket {options.bucket}", file=sys.stderr)
        return subprocess.run(
            options.command, env=environment(server, options.bucket, directory), check=False
        ).returncode


def _terminated(number: int, frame: FrameType | None) -> None:
    """End through the context managers, which stop the server."""
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
