"""Stores around stores: retries, faults, counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest

from mltrack_tasks.errors import AccessError, InvalidInputError, NotFoundError, TransientError
from mltrack_tasks.stores import retry
from mltrack_tasks.stores.base import Stat, Store
from mltrack_tasks.stores.memory import MemoryStore
from mltrack_tasks.stores.observed import CountingStore, FaultyStore, SteppedStore
from mltrack_tasks.stores.retry import RetryingStore

T = TypeVar("T")


class Fails(SteppedStore):
    """Fails the first calls of each verb with a given error."""

    def __init__(self, inner: Store, times: int, error: Exception) -> None:
        super().__init__(inner)
        self.times, self.error = times, error
        self.calls: dict[str, int] = {}

    def step(self, verb: str, key: str, size: int, call: Callable[[], T]) -> T:
        self.calls[verb] = self.calls.get(verb, 0) + 1
        if self.calls[verb] <= self.times:
            raise self.error
        return call()


def every_verb(store: Store) -> None:
    store.create("k", b"x")
    store.get("k")
    store.get_range("k", 0, 1)
    stat = store.head("k")
    assert stat is not None
    store.replace("k", b"y", stat.etag or "")
    with store.upload("u", 1) as upload:
        upload.part(1, b"x", b"")
        upload.complete()
    store.copy("k", "c", 1)
    assert [found.key for found in store.list("")] == ["c", "k", "u"]
    assert [found.key for found in store.level("")[0]] == ["c", "k", "u"]
    store.check("k")
    store.delete(["c", "k", "u"])


def test_each_verb_is_tried_three_times() -> None:
    pauses: list[float] = []
    failing = Fails(MemoryStore(), retry.TRIES - 1, TransientError("busy"))
    every_verb(RetryingStore(failing, sleep=pauses.append))
    assert set(failing.calls.values()) == {retry.TRIES}
    assert len(failing.calls) == 12
    assert len(pauses) == 12 * (retry.TRIES - 1)
    for first, second in zip(pauses[::2], pauses[1::2], strict=True):
        assert retry.FIRST_PAUSE / 2 <= first <= retry.FIRST_PAUSE
        assert retry.FIRST_PAUSE <= second <= retry.FIRST_PAUSE * 2


def test_the_third_failure_is_the_callers() -> None:
    failing = Fails(MemoryStore(), retry.TRIES, TransientError("busy"))
    store = RetryingStore(failing, sleep=lambda seconds: None)
    for verb in (lambda: store.get("k"), lambda: list(store.list("")), lambda: store.create("k", b"")):
        with pytest.raises(TransientError, match="busy"):
            verb()
    assert failing.calls == {"get": 3, "list": 3, "create": 3}


@pytest.mark.parametrize("error", [NotFoundError("no"), AccessError("no"), InvalidInputError("no")])
def test_only_transient_errors_are_tried_again(error: Exception) -> None:
    failing = Fails(MemoryStore(), 1, error)
    store = RetryingStore(failing)
    for verb in (lambda: store.get("k"), lambda: list(store.list(""))):
        with pytest.raises(type(error)):
            verb()
    assert failing.calls == {"get": 1, "list": 1}


def test_no_try_begins_after_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(retry.time, "monotonic", lambda: now[0])

    class Slow(Fails):
        def step(self, verb: str, key: str, size: int, call: Callable[[], T]) -> T:
            now[0] += 12.5
            return super().step(verb, key, size, call)

    slow = Slow(MemoryStore(), 9, TransientError("timed out"))
    with pytest.raises(TransientError):
        RetryingStore(slow, sleep=lambda seconds: None).get("k")
    assert slow.calls == {"get": 2}


def test_a_listing_that_breaks_off_goes_on_and_repeats_nothing() -> None:
    class BreaksOff(MemoryStore):
        """Ends each listing with an error after two keys."""

        def list(self, prefix: str, *, after: str = "") -> Iterator[Stat]:
            for number, stat in enumerate(super().list(prefix, after=after)):
                if number == 2:
                    raise TransientError("broken off")
                yield stat

    inner = BreaksOff()
    keys = [f"k{number}" for number in range(9)]
    for key in keys:
        inner.create(key, b"")
    store = RetryingStore(inner, sleep=lambda seconds: None)
    assert [stat.key for stat in store.list("")] == keys


def test_faulty_store_fails_one_call_or_all_that_follow() -> None:
    for how, landed in (("before", False), ("after", True), ("crash", False)):
        bare = MemoryStore()
        store = FaultyStore(bare, 2, how)  # type: ignore[arg-type]
        store.create("a", b"")
        with pytest.raises(TransientError, match=r"step 2, create of b"):
            store.create("b", b"")
        assert (bare.head("b") is not None) is landed
        if how == "crash":
            with pytest.raises(TransientError):
                store.get("a")
        else:
            assert store.get("a") == b""
    with pytest.raises(TransientError, match="Injected"):
        FaultyStore(MemoryStore(), 1, "after").get("missing")


def test_counting_store_counts_calls_and_bytes() -> None:
    store = CountingStore(MemoryStore())
    every_verb(store)
    verbs = ("create", "get", "get_range", "head", "replace", "upload", "part", "complete", "copy", "list")
    assert store.calls == dict.fromkeys((*verbs, "level", "delete"), 1)
    assert {verb: size for verb, size in store.sent.items() if size} == {"create": 1, "replace": 1, "part": 1}
    assert store.log[0] == ("create", "k")
    assert store.log[-1] == ("delete", "c,k,u")


def test_counting_store_counts_the_pages_of_levels() -> None:
    for objects, folders, requests in ((0, 0, 1), (600, 400, 1), (600, 401, 2), (1_000, 1_001, 3)):
        inner = MemoryStore()
        for number in range(objects):
            inner.create(f"{number}", b"")
        for number in range(folders):
            inner.create(f"f{number}/x", b"")
        store = CountingStore(inner)
        assert [len(found) for found in store.level("")] == [objects, folders]
        assert store.requests == requests


def test_wrappers_keep_what_they_are_around() -> None:
    inner = MemoryStore(max_workers=3)
    inner.verify_reads = False
    store = RetryingStore(CountingStore(inner))
    assert (store.location, store.max_workers, store.verify_reads) == ("memory:", 3, False)
    assert repr(store) == "<RetryingStore <CountingStore <MemoryStore memory:>>>"
    assert store.evict("k") is False
    assert list(store.outer()) == []
