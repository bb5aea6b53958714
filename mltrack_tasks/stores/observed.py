"""Stores that watch or disturb each step of another: for tests, benchmarks and request accounts."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Literal, TypeVar

from mltrack_tasks.errors import MLTrackError, TransientError
from mltrack_tasks.stores.base import Level, Stat, Store, Upload, WrapperStore, WrapperUpload

T = TypeVar("T")

PAGE = 1_000
"""Keys that S3 lists in one answer."""


class SteppedStore(WrapperStore):
    """Passes each call through ``step(verb, key, size, call)``; subclasses say what a step does."""

    def step(self, verb: str, key: str, size: int, call: Callable[[], T]) -> T:
        """Do ``call``. ``size`` counts the bytes sent."""
        return call()

    def create(self, key: str, body: bytes | memoryview) -> bool:
        return self.step("create", key, len(body), lambda: self.inner.create(key, body))

    def replace(self, key: str, body: bytes | memoryview, etag: str) -> bool:
        return self.step("replace", key, len(body), lambda: self.inner.replace(key, body, etag))

    def upload(self, key: str, size: int, *, replacing: str | None = None) -> Upload:
        inner = self.step("upload", key, 0, lambda: self.inner.upload(key, size, replacing=replacing))
        return _SteppedUpload(self, key, inner)

    def get(self, key: str) -> bytes:
        return self.step("get", key, 0, lambda: self.inner.get(key))

    def get_range(self, key: str, start: int, length: int) -> bytes | memoryview:
        return self.step("get_range", key, 0, lambda: self.inner.get_range(key, start, length))

    def head(self, key: str, *, checksum: bool = False) -> Stat | None:
        return self.step("head", key, 0, lambda: self.inner.head(key, checksum=checksum))

    def list(self, prefix: str, *, after: str = "") -> Iterator[Stat]:
        return self.step("list", prefix, 0, lambda: self.inner.list(prefix, after=after))

    def level(self, prefix: str) -> Level:
        return self.step("level", prefix, 0, lambda: self.inner.level(prefix))

    def unfinished(self) -> Iterator[Stat]:
        return self.step("unfinished", "", 0, self.inner.unfinished)

    def copy(self, source: str, target: str, size: int) -> Stat:
        return self.step("copy", target, 0, lambda: self.inner.copy(source, target, size))

    def delete(self, keys: Iterable[str]) -> None:
        batch = list(keys)
        self.step("delete", ",".join(batch), 0, lambda: self.inner.delete(batch))


class _SteppedUpload(WrapperUpload):
    def __init__(self, store: SteppedStore, key: str, inner: Upload) -> None:
        super().__init__(inner)
        self._store, self._key = store, key

    def part(self, number: int, body: bytes, digest: bytes) -> None:
        self._store.step("part", self._key, len(body), lambda: self.inner.part(number, body, digest))

    def complete(self) -> bool:
        return self._store.step("complete", self._key, 0, self.inner.complete)


class CountingStore(SteppedStore):
    """Counts calls, bytes sent and bytes received by verb, and keeps the order of (verb, key)."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.calls: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()
        self.received: Counter[str] = Counter()
        self.log: list[tuple[str, str]] = []
        self._pages = 0
        self._lock = threading.Lock()

    @property
    def requests(self) -> int:
        """Requests that the calls take, when none is tried again and a listing gives PAGE keys at a time."""
        return self.calls.total() + self._pages

    def step(self, verb: str, key: str, size: int, call: Callable[[], T]) -> T:
        with self._lock:
            self.calls[verb] += 1
            self.sent[verb] += size
            self.log.append((verb, key))
        answer = call()
        if isinstance(answer, (bytes, memoryview)):
            with self._lock:
                self.received[verb] += len(answer)
        return answer

    def list(self, prefix: str, *, after: str = "") -> Iterator[Stat]:
        for number, stat in enumerate(super().list(prefix, after=after)):
            if number and number % PAGE == 0:
                with self._lock:
                    self._pages += 1
            yield stat

    def level(self, prefix: str) -> Level:
        objects, folders = super().level(prefix)
        with self._lock:
            self._pages += max(len(objects) + len(folders) - 1, 0) // PAGE
        return objects, folders


class FaultyStore(SteppedStore):
    """Fails the ``fail_at``-th call (from 1; 0: none).

    ``how`` says what the caller sees: "before" -- the call never reached the store; "after" -- it did, and
    its answer was lost; "crash" -- like "before", and every later call fails too, as for a process that died.
    """

    def __init__(
        self, inner: Store, fail_at: int, how: Literal["before", "after", "crash"] = "before"
    ) -> None:
        super().__init__(inner)
        self.fail_at, self.how, self.count = fail_at, how, 0
        self._lock = threading.Lock()

    def step(self, verb: str, key: str, size: int, call: Callable[[], T]) -> T:
        with self._lock:
            self.count += 1
            hit = self.count == self.fail_at or (self.how == "crash" and 0 < self.fail_at < self.count)
        if not hit:
            return call()
        if self.how == "after":
            with suppress(MLTrackError):  # an error is an answer too
                call()
        raise TransientError(f"Injected: step {self.fail_at}, {verb} of {key}, failed ({self.how}).")
