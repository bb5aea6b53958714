"""A store with as many blobs as one likes, which exist only as answers: for counts, memory and time."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from mltrack_tasks import layout
from mltrack_tasks.errors import TransientError
from mltrack_tasks.stores.base import Level, Stat, Store, WrapperStore
from mltrack_tasks.stores.memory import MemoryStore

PAGE = 1_000
OF_RUN = 100
"""Blobs of one run, unless it is said."""
SIZE = 4_096
ETAG = "1"
OLD = datetime(2024, 1, 1, tzinfo=UTC)


class SyntheticStore(WrapperStore):
    """``blobs`` blobs of SIZE bytes; each is needed and pinned by one run of ``blobs / of_run``.

    Every ``bad``-th blob is missing (0: none), the one after it has a wrong checksum. Listings come page by
    page. What is written goes into ``inner``, or else into memory. ``requests`` counts by verb; after
    ``dies_after`` all fail.
    """

    def __init__(
        self,
        blobs: int,
        *,
        bad: int = 0,
        dies_after: int | None = None,
        of_run: int = OF_RUN,
        inner: Store | None = None,
    ) -> None:
        super().__init__(inner or MemoryStore())
        self.location = f"synthetic: {blobs:,} blobs"
        self.blobs, self.bad, self.dies_after, self.of_run = blobs, bad, dies_after, of_run
        self.requests: Counter[str] = Counter()
        self._step = 16**15 // blobs
        self._lock = threading.Lock()
        self.inner.create(layout.FORMAT_KEY, b'{"format":1,"store_id":"synthetic"}')

    def digest(self, number: int) -> str:
        """Digests grow with their numbers, so that listings are in order."""
        return f"{number * self._step:015x}".ljust(64, "0")

    def list(self, prefix: str, *, after: str = "") -> Iterator[Stat]:
        if prefix == layout.BLOBS:
            keys = self._blob_keys(self._first(after))
        elif prefix == layout.PINS:
            keys = self._pin_keys(self._first(after))
        elif prefix == layout.MANIFESTS:
            keys = (layout.manifest_key(f"r{number:08d}") for number in range(self.blobs // self.of_run))
        else:
            self._count("list")
            yield from self.inner.list(prefix, after=after)
            return
        yield from self._paged(keys, SIZE if prefix == layout.BLOBS else 0)

    def level(self, prefix: str) -> Level:
        self._count("list")
        return self.inner.level(prefix)

    def get_range(self, key: str, start: int, length: int) -> bytes | memoryview:
        self._count("get")
        place = layout.parse_manifest_key(key)
        return self._manifest(int(place[0][1:])) if place else self.inner.get_range(key, start, length)

    def head(self, key: str, *, checksum: bool = False) -> Stat | None:
        self._count("head")
        blob = layout.parse_blob_key(key)
        if layout.parse_manifest_key(key):
            return Stat(key, 1, None, OLD)
        if blob is None:
            return self.inner.head(key)
        number = int(blob[0][:15], 16) // self._step
        if self._is_bad(number, 0):
            return None
        return Stat(key, SIZE, None, OLD, sha256="f" * 64 if self._is_bad(number, 1) else blob[0])

    def create(self, key: str, body: bytes | memoryview) -> bool:
        self._count("create")
        return self.inner.create(key, body)

    def _first(self, after: str) -> int:
        """The number of the first blob behind a key."""
        return int(after.split("/")[-1][:15], 16) // self._step + 1 if after else 0

    def _blob_keys(self, first: int) -> Iterator[str]:
        numbers = (number for number in range(first, self.blobs) if not self._is_bad(number, 0))
        return (layout.blob_key(self.digest(number), "bin") for number in numbers)

    def _pin_keys(self, first: int) -> Iterator[str]:
        for number in range(first, self.blobs):
            yield layout.run_pin_key(self.digest(number), f"r{number // self.of_run:08d}")

    def _is_bad(self, number: int, offset: int) -> bool:
        return self.bad > 0 and number % self.bad == offset

    def _paged(self, keys: Iterator[str], size: int) -> Iterator[Stat]:
        self._count("list")
        for number, key in enumerate(keys):
            if number and number % PAGE == 0:
                self._count("list")
            yield Stat(key, size, ETAG, OLD)

    def _manifest(self, run: int) -> bytes:
        numbers = range(run * self.of_run, (run + 1) * self.of_run)
        content = {
            **_RUN,
            "run_id": f"r{run:08d}",
            "data": {str(number): self._ref(number) for number in numbers},
        }
        provenance = {"at": "2024-01-01T00:00:00Z"}
        return json.dumps({"format": 1, "content": content, "provenance": provenance}).encode()

    def _ref(self, number: int) -> dict[str, Any]:
        digest = self.digest(number)
        return {
            **{"hash": digest, "format": "bin", "size_bytes": SIZE, "name": str(number), "metadata": {}},
            **{
                "storage_path": layout.blob_key(digest, "bin"),
                "shape": None,
                "columns": None,
                "dtypes": None,
            },
        }

    def _count(self, verb: str) -> None:
        with self._lock:
            if self.dies_after is not None and self.requests.total() >= self.dies_after:
                raise TransientError("Injected: the process dies here.")
            self.requests[verb] += 1


_RUN: dict[str, Any] = {
    **{"run_type": "experiment", "status": "finished", "storage_modes": ["flat"], "project": None},
    **{"model": None, "inputs": {}, "outputs": {}, "values": {}, "params": {}, "metrics": {}, "tags": {}},
    **{"started_at": None, "ended_at": None},
}
