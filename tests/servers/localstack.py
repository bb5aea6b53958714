"""LocalStack's S3, and the queues to which it sends, from a virtual environment of its own: it pins boto3.

That environment is MLTRACK_LOCALSTACK_VENV, or the one made by scripts/ci_servers.sh out of
``localstack-requirements.txt``. It refuses damaged bodies, but knows no signatures and policies.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .model import S3Server
from .process import (
    INSTALLED,
    ServerStartError,
    answers_s3,
    clean_environment,
    free_ports,
    running,
)


def python() -> Path:
    """Return LocalStack's interpreter; raise ServerStartError when there is none."""
    venv = Path(os.environ.get("MLTRACK_LOCALSTACK_VENV") or INSTALLED / "localstack")
    found = venv / "bin" / "python"
    if found.exists():
        return found
    raise ServerStartError(
        f"no LocalStack in {venv}: run `scripts/ci_servers.sh localstack`, or set "
        "MLTRACK_LOCALSTACK_VENV to a virtual environment that has it"
    )


@contextmanager
def serve(directory: Path) -> Iterator[S3Server]:
    """Run LocalStack with S3, SQS and EventBridge on a free port, its state under ``directory``."""
    (port,) = free_ports(1)
    server = S3Server("localstack", f"http://127.0.0.1:{port}", "test", "test")
    command = [str(python()), "-m", "localstack.runtime.main"]
    with running("localstack", command, directory / "localstack.log", _env(directory, port)) as it:
        it.wait_until(answers_s3(server), 90)
        yield server


def _env(directory: Path, port: int) -> dict[str, str]:
    state = directory / "state"
    return clean_environment(
        SERVICES="s3,sqs,events",
        STRICT_SERVICE_LOADING="1",
        EAGER_SERVICE_LOADING="1",
        GATEWAY_LISTEN=f"127.0.0.1:{port}",
        LOCALSTACK_VOLUME_DIR=str(state),
        FILESYSTEM_ROOT=str(state),
        HOME=str(directory),
        PERSISTENCE="0",
        OVERRIDE_IN_DOCKER="0",
        DNS_ADDRESS="0",  # no DNS server of its own
        DISABLE_EVENTS="1",  # nothing is sent home
        SKIP_SSL_CERT_DOWNLOAD="1",
        LS_LOG="warning",
    )
