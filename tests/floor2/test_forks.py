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
from mltrack_tasks.stores.s3_settings import S3Settings

HANGS_AFTER = 10.0
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
        return ours.recv() if ours.poll(HANGS_AFTER if method == "fork" else 40.0) else "it hangs"
    finally:
        child.kill()
        child.join()


def forked_verbs(settings: S3Settings) -> dict[str, object]:
    """In a new process: use a store, then fork once for each verb -> what each child says.

    Not in the process of the tests: what a forked child does in obstore after all can hang its parent.
    """
    used = open_s3(settings)
    used.get("k")
    said = {verb: ask_child("fork", call_verb, verb, used) for verb in VERBS}
    said["open"] = ask_child("fork", read, settings)
    used.get("k")  # the parent goes on
    return said


def call_verb(verb: str, store: Store) -> object:
    return VERBS[verb](store)


def first_forks_then_works(settings: S3Settings) -> list[object]:
    """In a new process: what a child forked before S3 was used says, what we read, and one forked after."""
    before = ask_child("fork", read, settings)
    mine = read(settings)
    return [before, mine, type(ask_child("fork", read, settings))]


def read(settings: S3Settings) -> bytes:
    return open_s3(settings).get("k")


@pytest.fixture
def filled(s3_settings: S3Settings) -> S3Settings:
    """A store that holds ``k``."""
    open_s3(s3_settings).create("k", b"x")
    return s3_settings


def test_a_forked_child_is_refused_at_once_by_every_verb(filled: S3Settings) -> None:
    said = ask_child("spawn", forked_verbs, filled)
    assert isinstance(said, dict), said
    assert set(said) == {*VERBS, "open"}
    wrong = {verb: answer for verb, answer in said.items() if not isinstance(answer, InvalidInputError)}
    assert wrong == {}
    assert all("'spawn' start method" in str(error) for error in said.values())


def test_a_spawned_child_works_and_so_does_one_forked_before(filled: S3Settings) -> None:
    assert ask_child("spawn", first_forks_then_works, filled) == [b"x", b"x", InvalidInputError]
