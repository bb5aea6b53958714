"""Where a record came from: time, actor, host, program versions, and the flow run if there is one."""

from __future__ import annotations

import getpass
import platform
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from types import MappingProxyType
from typing import Any

from mltrack_tasks import codeversion
from mltrack_tasks.fields import format_time

UNKNOWN = "unknown"
_surroundings: ContextVar[Mapping[str, Any]] = ContextVar("surroundings", default=MappingProxyType({}))


@contextmanager
def within(**facts: Any) -> Iterator[None]:
    """Add facts (flow run, task run, deployment) to every record written in this block."""
    token = _surroundings.set({**_surroundings.get(), **facts})
    try:
        yield
    finally:
        _surroundings.reset(token)


def current() -> dict[str, Any]:
    """Describe this moment and process, as plain JSON."""
    return {
        "at": format_time(datetime.now(UTC)),
        "actor": _actor(),
        "host": socket.gethostname(),
        "versions": {"mltrack_tasks": library_version(), "python": platform.python_version()},
        **_surroundings.get(),
    }


def of_run() -> dict[str, Any]:
    """Describe this moment, the program's code and the libraries in use: what the manifest of a run says.

    Records of which there are many have ``current`` instead; this one may ask git.
    """
    found = current()
    code = None if "code" in found else codeversion.code_version()
    if code is not None:
        found["code"] = code
    return {**found, "versions": {**codeversion.library_versions(), **found["versions"]}}


def at_this_moment(described: Mapping[str, Any]) -> dict[str, Any]:
    """Take over what ``of_run`` said a moment ago, for the next of many records: all but the time holds."""
    return {**described, "at": format_time(datetime.now(UTC))}


@cache
def library_version() -> str:
    """Version of this library, or ``unknown`` when it runs from a folder that was never installed."""
    try:
        return version("mltrack_tasks")
    except PackageNotFoundError:
        return UNKNOWN


def _actor() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"  # a container's numeric user without an entry in the password file
