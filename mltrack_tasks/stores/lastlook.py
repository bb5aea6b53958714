"""A last look before deletions are sent, after which nothing but the network can hold them up.

Whoever may delete only for a while looks at a clock before each request. Its process may be stopped between
that look and the request, for as long as a machine may sleep. On S3 the request is therefore signed first:
the server refuses one whose signature is over 15 minutes old, and what comes before it, the look refuses.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from mltrack_tasks.digest import base64_from_raw
from mltrack_tasks.stores.s3_errors import Failure, botocore_errors, translate

Look = Callable[[], None]
_look: ContextVar[Look | None] = ContextVar("look", default=None)


@contextmanager
def last_look(look: Look) -> Iterator[None]:
    """Call ``look`` right before each deletion that a store sends in this block; its error stops that."""
    token = _look.set(look)
    try:
        yield
    finally:
        _look.reset(token)


def is_asked_for() -> bool:
    """Whether deletions are to be looked at."""
    return _look.get() is not None


def look_now() -> None:
    """Do what was asked for, if something was."""
    look = _look.get()
    if look is not None:
        look()


def watch_deletions(client: Any) -> None:
    """Let a boto3 client look between the signature of a DeleteObjects and its sending, at each try."""
    register = client.meta.events.register
    register("before-send.s3.DeleteObjects", lambda **_: look_now(), unique_id="mltrack-last-look")
    register("before-call.s3.DeleteObjects", _add_md5, unique_id="mltrack-md5")


def _add_md5(params: Any, **_: Any) -> None:
    """S3 has always asked for it here; botocore sends a CRC32 instead, which not all that speak S3 accept."""
    digest = hashlib.md5(params["body"], usedforsecurity=False).digest()
    params["headers"]["Content-MD5"] = base64_from_raw(digest)


def delete_watched(client: Any, bucket: str, keys: Sequence[str], payer: bool) -> None:
    """Delete keys by one request of a watched client; missing ones are fine."""
    objects = {"Objects": [{"Key": key} for key in keys], "Quiet": True}
    options = {"RequestPayer": "requester"} if payer else {}
    with botocore_errors("delete", f"s3://{bucket}/{keys[0]}"):
        answer = client.delete_objects(Bucket=bucket, Delete=objects, **options)
    for failed in answer.get("Errors", ()):
        failure = Failure(str(failed.get("Code")), str(failed.get("Message") or "")[:300])
        raise translate(failure, "delete", f"s3://{bucket}/{failed.get('Key')}", answered=True)
