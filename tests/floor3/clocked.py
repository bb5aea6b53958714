"""A store whose clock the test moves: what is old, and what is not, without waiting."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from mltrack_tasks.stores.base import Level, Stat, Store
from mltrack_tasks.stores.observed import SteppedStore

T = TypeVar("T")


class ClockedStore(SteppedStore):
    """Gives each object the time at which it was written, by a clock that stands still until it is moved."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.now = datetime(2024, 1, 1, tzinfo=UTC)
        self.times: dict[str, datetime] = {}

    def later(self, age: timedelta) -> None:
        """Let time pass."""
        self.now += age

    def step(self, verb: str, key: str, size: int, call: Callable[[], T]) -> T:
        answer = call()
        if verb in ("replace", "complete", "create") and answer is True:
            self.times[key] = self.now
        return answer

    def head(self, key: str, *, checksum: bool = False) -> Stat | None:
        stat = super().head(key, checksum=checksum)
        return None if stat is None else self._dated(stat)

    def list(self, prefix: str, *, after: str = "") -> Iterator[Stat]:
        return map(self._dated, super().list(prefix, after=after))

    def level(self, prefix: str) -> Level:
        objects, folders = super().level(prefix)
        return [*map(self._dated, objects)], folders

    def _dated(self, stat: Stat) -> Stat:
        return replace(stat, modified=self.times.get(stat.key, self.now))
