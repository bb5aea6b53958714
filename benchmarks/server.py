"""The server to measure on: the one that the environment names, else MinIO, else Ceph."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from mltrack_tasks.stores.s3_settings import Keys, S3Settings
from tests.servers import S3Server, ceph, create_bucket, minio
from tests.servers.process import ServerStartError


@dataclass(frozen=True)
class Target:
    """A bucket on a running server."""

    server: str
    settings: S3Settings


@contextmanager
def target() -> Iterator[Target]:
    """Give a fresh prefix on the server to measure on."""
    endpoint, bucket = os.environ.get("MLTRACK_TEST_S3_ENDPOINT"), os.environ.get("MLTRACK_TEST_S3_BUCKET")
    prefix = f"bench-{uuid.uuid4().hex[:12]}"
    if bucket:
        name = os.environ.get("MLTRACK_TEST_S3_SERVER", endpoint or "AWS")
        yield Target(name, S3Settings(bucket, prefix, endpoint_url=endpoint, region="us-east-1"))
        return
    with tempfile.TemporaryDirectory(prefix="mltrack-bench-") as folder, _local(Path(folder)) as server:
        create_bucket(server, "mltrack-bench")
        keys = Keys(server.access_key, server.secret_key)
        settings = S3Settings(
            "mltrack-bench", prefix, keys, endpoint_url=server.endpoint, region=server.region
        )
        yield Target(server.name, settings)


@contextmanager
def _local(folder: Path) -> Iterator[S3Server]:
    """Start the first server that is installed, of those with a storage engine of their own."""
    reasons = []
    for kind in (minio, ceph):
        with ExitStack() as stack:
            try:
                server = stack.enter_context(kind.serve(folder))
            except ServerStartError as error:
                reasons.append(str(error))
                continue
            yield server
            return
    raise SystemExit(f"make bench needs a real server, or MLTRACK_TEST_S3_BUCKET: {'; '.join(reasons)}")
