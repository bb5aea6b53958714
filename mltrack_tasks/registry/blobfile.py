"""A file of a version as a seekable reader: range requests instead of a download."""

from __future__ import annotations

import io
from typing import BinaryIO, cast

from mltrack_tasks import layout
from mltrack_tasks.models import ModelFile
from mltrack_tasks.stores.base import Store

READ_AHEAD = 64 * 1024
"""[bytes] of one request at least."""


def open_blob(store: Store, file: ModelFile) -> BinaryIO:
    """Open a file of a version for reading. What is read is not proven: it serves to look into it."""
    return cast(BinaryIO, io.BufferedReader(_BlobFile(store, file), READ_AHEAD))


class _BlobFile(io.RawIOBase):
    def __init__(self, store: Store, file: ModelFile) -> None:
        super().__init__()
        self._store, self._key = store, layout.blob_key(file.digest, file.format)
        self._size, self._place = file.size_bytes, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError(f"{base + offset} lies before the beginning of the file")
        self._place = base + offset
        return self._place

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        if self._place >= self._size:
            return 0
        length = min(len(buffer), self._size - self._place)
        body = self._store.get_range(self._key, self._place, length)
        buffer[: len(body)] = body
        self._place += len(body)
        return len(body)
