"""S3 servers for tests: ``serve(directory)`` of each module is a context manager -> S3Server.

``moto`` runs in this process, the others as child processes on free loopback ports, with their
data and logs under ``directory``. From a shell: ``python -m tests.servers minio -- pytest ...``.
"""

from __future__ import annotations

from .model import S3Server, client, create_bucket

__all__ = ["S3Server", "client", "create_bucket"]
