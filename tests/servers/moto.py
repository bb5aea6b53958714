"""moto: S3 in memory. In this process (0.5 s), or in a child that verifies signatures and policies.

All moto servers of one process share their buckets, and its switch for authentication is global
too; hence the child for ``serve_with_iam``. moto accepts wrong checksums: see docs/s3_servers.md.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
from moto.server import ThreadedMotoServer

from .model import REGION, S3Server
from .process import answers_s3, clean_environment, free_ports, running

_ANYTHING = {"Effect": "Allow", "Action": "*", "Resource": "*"}
_ALL: dict[str, object] = {"Version": "2012-10-17", "Statement": [_ANYTHING]}
_lock = threading.Lock()
_open = 0


Watch = Callable[[dict[str, Any]], None]
"""Sees the WSGI environment of each request before moto does."""


@contextmanager
def serve(directory: Path | None = None, *, watch: Watch | None = None) -> Iterator[S3Server]:
    """Run moto in this process; its buckets vanish when the last moto server here ends.

    Any credentials are accepted. ``directory`` is unused: moto keeps objects in memory.
    """
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # else a line per request
    threaded = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    threaded.start()
    if watch is not None:
        _watch(threaded, watch)
    host, port = threaded.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    _count(+1)
    try:
        yield S3Server("moto", endpoint, "testing", "testing", REGION, "alt", "alt")
    finally:
        if _count(-1) == 0:
            _post(f"{endpoint}/moto-api/reset", b"")
        threaded.stop()


@contextmanager
def serve_with_iam(directory: Path) -> Iterator[S3Server]:
    """Run moto as a child that checks signatures and identity policies.

    The owner may do everything, the alt user nothing. Presigned URLs and anonymous requests get a
    500 from moto 5.2 in this mode.
    """
    (port,) = free_ports(1)
    server = S3Server("moto_iam", f"http://127.0.0.1:{port}", "setup", "setup")
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with running("moto", command, directory / "moto.log", clean_environment()) as child:
        child.wait_until(answers_s3(server), 30)
        access_key, secret_key = _add_user(server, "owner", _ALL)
        alt_access_key, alt_secret_key = _add_user(server, "alt", None)
        _post(f"{server.endpoint}/moto-api/reset-auth", b"0")
        yield replace(
            server,
            access_key=access_key,
            secret_key=secret_key,
            alt_access_key=alt_access_key,
            alt_secret_key=alt_secret_key,
        )


def _watch(threaded: ThreadedMotoServer, watch: Watch) -> None:
    server = threaded._server
    assert server is not None
    inner = server.app

    def watched(environ: dict[str, Any], start_response: Any) -> Any:
        watch(environ)
        return inner(environ, start_response)

    server.app = watched


def _count(change: int) -> int:
    global _open
    with _lock:
        _open += change
        return _open


def _add_user(server: S3Server, name: str, policy: dict[str, object] | None) -> tuple[str, str]:
    iam = boto3.client(
        "iam",
        endpoint_url=server.endpoint,
        region_name=server.region,
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
    )
    iam.create_user(UserName=name)
    if policy is not None:
        iam.put_user_policy(UserName=name, PolicyName="all", PolicyDocument=json.dumps(policy))
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return key["AccessKeyId"], key["SecretAccessKey"]


def _post(url: str, body: bytes) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    headers = {"Content-Type": "text/plain"}  # the default would make a form of the body
    with opener.open(urllib.request.Request(url, body, headers), timeout=10) as answer:
        answer.read()
