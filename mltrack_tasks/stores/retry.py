"""A store that tries each request again when trying again can help: 3 tries, 30 s in all."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from mltrack_tasks.errors import TransientError
from mltrack_tasks.stores.base import Level, Stat, Store, Upload, WrapperStore, WrapperUpload

TRIES = 3
DEADLINE = 13.0
"""[s] after the start of the first try, past which no further one begins. The last one may take as long as it
takes to connect and to read in vain (5 s + 12 s): 30 s in all."""
FIRST_PAUSE = 0.2
"""[s] before the second try, doubled for each further one and drawn at random between half and all of it."""

T = TypeVar("T")


class RetryingStore(WrapperStore):
    """Retries TransientError.

    Every verb may be sent twice: ``create`` may then find its own object and say False, which its caller
    settles by reading; ``complete`` likewise. A ``copy`` overwrites what its first try left with equal bytes.
    """

    def __init__(self, inner: Store, *, sleep: Callable[[float], None] = time.sleep) -> None:
        super().__init__(inner)
        self._sleep = sleep

    def create(self, key: str, body: bytes | memoryview) -> bool:
        return self._retry(lambda: self.inner.create(key, body))

    def replace(self, key: str, body: bytes | memoryview, etag: str) -> bool:
        return self._retry(lambda: self.inner.replace(key, body, etag))

    def upload(self, key: str, size: int, *, replacing: str | None = None) -> Upload:
        inner = self._retry(lambda: self.inner.upload(key, size, replacing=replacing))
        return _RetryingUpload(inner, self._retry)

    def get(self, key: str) -> bytes:
        return self._retry(lambda: self.inner.get(key))

    def get_range(self, key: str, start: int, length: int) -> bytes | memoryview:
        return self._retry(lambda: self.inner.get_range(key, start, length))

    def head(self, key: str, *, checksum: bool = False) -> Stat | None:
        return self._retry(lambda: self.inner.head(key, checksum=checksum))

    def list(self, prefix: str, *, after: str = "") -> Iterator[Stat]:
        """List on, after a failure, from the last key that came: keys come in order."""
        failures = 0
        while True:
            try:
                for stat in self.inner.list(prefix, after=after):
                    after, failures = stat.key, 0
                    yield stat
                return
            except TransientError:
                failures += 1
                if failures >= TRIES:
                    raise
                self._sleep(_pause(failures))

    def level(self, prefix: str) -> Level:
        return self._retry(lambda: self.inner.level(prefix))

    def unfinished(self) -> Iterator[Stat]:
        return iter(self._retry(lambda: list(self.inner.unfinished())))

    def copy(self, source: str, target: str, size: int) -> Stat:
        return self._retry(lambda: self.inner.copy(source, target, size))

    def delete(self, keys: Iterable[str]) -> None:
        batch = list(keys)
        self._retry(lambda: self.inner.delete(batch))

    def _retry(self, call: Callable[[], T]) -> T:
        return tried(call, self._sleep)


class _RetryingUpload(WrapperUpload):
    def __init__(self, inner: Upload, retry: Callable[[Callable[[], bool | None]], bool | None]) -> None:
        super().__init__(inner)
        self._retry = retry

    def part(self, number: int, body: bytes, digest: bytes) -> None:
        self._retry(lambda: self.inner.part(number, body, digest))

    def complete(self) -> bool:
        return bool(self._retry(self.inner.complete))

    def abort(self) -> None:
        self._retry(self.inner.abort)


def tried(call: Callable[[], T], sleep: Callable[[float], None] = time.sleep) -> T:
    """Do ``call``, and again after a TransientError, while that can help."""
    start = time.monotonic()
    for failures in range(1, TRIES):
        try:
            return call()
        except TransientError:
            pause = _pause(failures)
            if time.monotonic() - start + pause > DEADLINE:
                raise
            sleep(pause)
    return call()


def _pause(failures: int) -> float:
    return random.uniform(0.5, 1.0) * FIRST_PAUSE * (1 << (failures - 1))
