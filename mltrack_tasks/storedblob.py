"""A blob of one store as what another store is given."""

from __future__ import annotations

from collections.abc import Iterator

from mltrack_tasks import layout
from mltrack_tasks.blobs import damaged
from mltrack_tasks.copies import noted_composite
from mltrack_tasks.digest import part_size_for, sha256_hex
from mltrack_tasks.sources import Source
from mltrack_tasks.stores.base import Store


class StoredBlob(Source):
    """The bytes of a blob of ``store``, ``size`` of them.

    They are proven before they are handed on, whatever the store's ``verify_reads`` says: IntegrityError if
    they do not hash to their name. What is sent in parts is proven by its sender, before it is complete.
    """

    def __init__(self, store: Store, digest: str, format: str, size: int) -> None:
        self._store, self._key = store, layout.blob_key(digest, format)
        self.digest, self.size = digest, size

    def body(self) -> bytes | memoryview:
        body = self._store.get(self._key)
        if len(body) != self.size or sha256_hex(body) != self.digest:
            raise damaged(self._store, self._key)
        return body

    def parts(self) -> Iterator[bytes]:
        step = part_size_for(self.size)
        for start in range(0, self.size, step):
            yield bytes(self._store.get_range(self._key, start, min(step, self.size - start)))

    def composite(self) -> str:
        return noted_composite(self._store, self.digest, self.size) or super().composite()
