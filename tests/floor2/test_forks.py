"""Processes started after a store was used: a forked one is told so at once, a spawned one works."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import pytest

from mltrack_tasks.errors import InvalidInputError
from mltrack_tasks.stores import open_s3
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.s3 import S3Store
from mltrack_tasks.stores.s3_settings import S3Settings

HANGS_AFTER = 30.0
"""[s] What was forked answers in milliseconds, or never."""

VERBS: dict[str, Callable[[Store], object]] = {
    "create": lambda store: store.create("new", b""),
    "replace": lambda store: store.replace("k", b"y", '"e"'),
    "upload": lambda store: store.upload("new", 1),
    "get": lambda store: store.get("k"),
    "get_range": lambda store: bytes(store.get_range("k", 0, 1)),
    "head": lambda store: store.head("k"),
    "head with checksum": lambda store: store.head("k", checksum=True),
    "head of nothing": lambda store: store.head("missing", checksum=True),
    "list": lambda store: [stat.key for stat in store.list("x/")],
    "list of everything": lambda store: [stat.key for stat in store.list("")],
    "list from the middle": lambda store: [stat.key for stat in store.list("", after="k")],
    "delete": lambda store: store.delete(["missing"]),
}


def answer(pipe: Connection, ask: Callable[..., object], *arguments: Any) -> None:
    """In the child: send what a call gave, or the error that it raised."""
    try:
        pipe.send(ask(*arguments))
    except Exception as error:
        pipe.send(error)


def ask_child(method: str, ask: Callable[..., object], *arguments: Any) -> Any:
    """Call in a process started by fork or spawn -> what it gave or raised; one that hangs is ended."""
    context: Any = multiprocessing.get_context(method)
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=answer, args=(theirs, ask, *arguments))
    child.start()
    try:
        assert ours.poll(HANGS_AFTER), f"the child hangs in {ask}"
        return ours.recv()
    finally:
        child.kill()
        child.join()


@pytest.fixture(scope="module")
def used(s3_server: Any) -> Store:
    """A store that this process has used already, checked format and all."""
    from tests.settings import settings_of

    store = open_s3(settings_of(s3_server))
    store.create("k", b"x")
    return store


@pytest.mark.parametrize("verb", VERBS)
def test_a_forked_child_is_refused_at_once(verb: str, used: Store) -> None:
    VERBS["get"](used)
    refused = ask_child("fork", VERBS[verb], used)
    assert isinstance(refused, InvalidInputError), refused
    assert "'spawn' start method" in str(refused)
    assert used.get("k") == b"x"  # and its parent goes on


def test_a_forked_child_cannot_open_a_store_of_its_own(used: Store, s3_settings: S3Settings) -> None:
    for make in (S3Store, open_s3):
        assert isinstance(ask_child("fork", make, s3_settings), InvalidInputError)


def test_a_spawned_child_works(used: Store, s3_settings: S3Settings) -> None:
    open_s3(s3_settings).create("k", b"x")
    assert ask_child("spawn", first_forks_then_works, s3_settings) == [b"x", b"x", InvalidInputError]


def first_forks_then_works(settings: S3Settings) -> list[object]:
    """In a new process: what a child forked before S3 was used says, what we read, and one forked after."""
    before = ask_child("fork", read, settings)
    mine = read(settings)
    return [before, mine, type(ask_child("fork", read, settings))]


def read(settings: S3Settings) -> bytes:
    return open_s3(settings).get("k")
