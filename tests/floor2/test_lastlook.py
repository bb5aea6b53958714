"""A last look before deletions: after the signature, before the request; what it refuses is not sent."""

from __future__ import annotations

import re
from pathlib import Path

import botocore.auth
import pytest

from mltrack_tasks.errors import AccessError, TransientError
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.directory import DirectoryStore
from mltrack_tasks.stores.lastlook import last_look
from mltrack_tasks.stores.memory import MemoryStore
from mltrack_tasks.stores.retry import RetryingStore
from mltrack_tasks.stores.s3 import S3Store
from mltrack_tasks.stores.s3_settings import S3Settings
from tests.servers.faultproxy import Answer, Fault, FaultProxy, Request

KEYS = ["data/a", "data/b c", "data/ü&<x>"]


class TooLateError(Exception):
    """What a look raises that is not for the stores to understand."""


def refuse() -> None:
    raise TooLateError


def filled(store: Store) -> Store:
    for key in KEYS:
        assert store.create(key, b"x")
    return store


def left(store: Store) -> list[str]:
    return [stat.key for stat in store.list("data/")]


@pytest.fixture(params=["memory", "directory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "memory":
        return filled(MemoryStore())
    if request.param == "directory":
        return filled(DirectoryStore(tmp_path / "store"))
    return filled(S3Store(request.getfixturevalue("s3_settings")))


def test_what_the_look_refuses_stays_and_what_it_admits_goes(store: Store) -> None:
    with pytest.raises(TooLateError), last_look(refuse):
        store.delete(KEYS)
    assert left(store) == sorted(KEYS)
    looks: list[int] = []
    with last_look(lambda: looks.append(len(left(store)))):
        store.delete([*KEYS, "data/missing"])
    assert looks[0] == len(KEYS)
    assert left(store) == []
    store.delete(KEYS)  # outside, nobody looks
    assert len(looks) <= len(KEYS) + 1


def test_the_request_is_signed_before_the_look_and_sent_after_it(
    proxied: S3Settings, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = filled(S3Store(proxied))
    proxy.forget()
    sent: list[Request] = []
    proxy.script(Fault("custom", action=sent.append))
    steps: list[str] = []
    clock = botocore.auth.get_current_datetime
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda: steps.append("signed") or clock())
    with last_look(lambda: steps.append(f"looked, {proxy.count()} sent")):
        store.delete(KEYS)
    assert re.fullmatch("(signed ?)+ looked, 0 sent", " ".join(steps))
    assert [(record.method, record.query) for record in proxy.requests] == [("POST", "delete")]
    assert sent[0].headers.keys() >= {"content-md5", "authorization"}
    assert left(store) == []


def test_each_try_is_looked_at(proxied: S3Settings, proxy: FaultProxy) -> None:
    store = filled(RetryingStore(S3Store(proxied), sleep=lambda seconds: None))
    proxy.forget()
    proxy.script(Fault("status503", method="POST"))
    looks: list[int] = []
    with last_look(lambda: looks.append(proxy.count("POST"))):
        store.delete(KEYS)
    assert looks == [0, 1]
    assert left(store) == []
    filled(store)
    proxy.script(Fault("status503", method="POST"))
    with pytest.raises(TooLateError), last_look(lambda: refuse() if proxy.count("POST") == 3 else None):
        store.delete(KEYS)
    assert left(store) == sorted(KEYS)


class Refusals(Answer):
    """A 200 that deleted nothing."""

    def body(self) -> bytes:
        said = f"<Error><Key>p/data/a</Key><Code>{self.code}</Code><Message>no</Message></Error>"
        return f"<DeleteResult>{said}</DeleteResult>".encode()


@pytest.mark.parametrize(
    ("code", "error"), [("AccessDenied", AccessError), ("InternalError", TransientError)]
)
def test_a_key_that_was_not_deleted_is_an_error(
    proxied: S3Settings, proxy: FaultProxy, code: str, error: type[Exception]
) -> None:
    store = S3Store(proxied)
    proxy.script(Fault("answer", method="POST", answer=Refusals(200, code)))
    with pytest.raises(error, match=rf"s3:DeleteObject on s3://.*data/a failed: {code}: no"), last_look(int):
        store.delete(KEYS)
