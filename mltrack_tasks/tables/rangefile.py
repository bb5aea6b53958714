"""A stored object as a seekable file: each read is a range read, but for the tail, which is kept."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import TypeVar

from mltrack_tasks.digest import MiB
from mltrack_tasks.errors import IntegrityError

F = TypeVar("F", bound="RangeFile")
Read = Callable[[int, int], bytes | memoryview]
"""(start, length) -> at most so many bytes; fewer only at the object's end."""

WHOLE_BELOW = MiB
"""[bytes] Objects up to this size are fetched in one read: a second request costs more than their rest."""
TAIL = 64 * 1024
"""[bytes] of the end that are fetched first: where the footer is. pyarrow asks for as much."""
PATIENCE = 10.0
"""[s] to wait, when a dataset is closed, for threads that still decode what nobody asks for any more."""


class Ranges:
    """Range reads of one object of ``size`` bytes.

    Keeps the object's tail with the footer in memory, and the first exception of ``read`` in ``error``:
    pyarrow and DuckDB make texts of exceptions. A read that is short, or shows that the object is longer, is
    an IntegrityError.
    """

    def __init__(self, read: Read, size: int, what: str) -> None:
        self.size, self.what = size, what
        self.error: BaseException | None = None
        self.judge: Callable[[int, memoryview], None] | None = None
        """Told what is read, and from where, before pyarrow is; raises to keep it back."""
        self._read = read
        self._tail_start = 0 if size <= WHOLE_BELOW else size - TAIL
        self._tail: memoryview | None = None
        self._tail_lock = threading.Lock()
        self._quiet = threading.Condition()
        self._closed = False
        self._reading = self._files = 0

    def read(self, start: int, length: int) -> bytes | memoryview:
        """Read ``length`` bytes from ``start``, or up to the end."""
        body = self.read_unjudged(start, length)
        try:
            if self.judge is not None:
                self.judge(start, memoryview(body))
        except Exception as error:
            self.error = self.error or error
            raise
        return body

    def read_unjudged(self, start: int, length: int) -> bytes | memoryview:
        """Read the same for who judges."""
        end = min(start + length, self.size)
        if end <= start:
            return b""
        tail = self._read_tail() if end > self._tail_start else memoryview(b"")
        cut = min(max(start, self._tail_start), end)
        kept = tail[cut - self._tail_start : end - self._tail_start]
        if cut == start:
            return kept
        fetched = self._fetch(start, cut - start)
        return bytes(fetched) + kept if kept else fetched

    def open(self, kind: type[F]) -> F:
        """Open a file of its own over these reads; ``close`` waits until nobody holds it any more."""
        file = kind(self)
        with self._quiet:
            self._files += 1
        weakref.finalize(file, self._dropped).atexit = False
        return file

    def close(self) -> None:
        """Refuse further reads, and wait for those under way.

        pyarrow reads ahead in threads of its own. One that still wants to call Python when the interpreter
        ends aborts the process, and one that still reads makes an account of bytes untrue.
        """
        with self._quiet:
            self._closed = True
            self._quiet.wait_for(lambda: not self._reading)
            self._quiet.wait_for(lambda: not self._files, PATIENCE)

    def _dropped(self) -> None:
        with self._quiet:
            self._files -= 1
            self._quiet.notify_all()

    def _read_tail(self) -> memoryview:
        with self._tail_lock:
            if self._tail is None:
                # A byte more than there should be: so the size is proven without a request of its own.
                tail = self._fetch(self._tail_start, self.size - self._tail_start, beyond=1)
                missing = _footer_size(tail) - len(tail)
                if 0 < missing <= self._tail_start:
                    self._tail_start -= missing
                    tail = bytes(self._fetch(self._tail_start, missing)) + tail
                self._tail = memoryview(tail)
            return self._tail

    def _fetch(self, start: int, length: int, beyond: int = 0) -> bytes | memoryview:
        with self._quiet:
            if self._closed:
                raise ValueError(f"{self.what} is not read any more")
            self._reading += 1
        try:
            body = self._read(start, length + beyond)
            self._check_length(len(body), start, length)
        except BaseException as error:
            self.error = self.error or error
            raise
        finally:
            with self._quiet:
                self._reading -= 1
                self._quiet.notify_all()
        return body

    def _check_length(self, found: int, start: int, length: int) -> None:
        if found == length:
            return
        less = "ends before" if found < length else "goes on beyond"
        raise IntegrityError(
            f"{self.what} {less} the {self.size:,} bytes that it should have (asked for {length:,} from "
            f"{start:,}, got {found:,}): it is damaged, or the ref is of something else. Store the same data "
            "again to replace it."
        )


def _footer_size(tail: bytes | memoryview) -> int:
    """Size of a Parquet footer [bytes], as the end of the file says; 0 if it is none."""
    end = bytes(tail[-8:])
    return int.from_bytes(end[:4], "little") + 8 if end[4:] == b"PAR1" else 0


class RangeFile:
    """A seekable read-only file over ``Ranges``, as much of one as ``pyarrow.PythonFile`` needs.

    pyarrow locks each such file while it reads: what should be fetched at the same time needs several.
    """

    closed = False

    def __init__(self, ranges: Ranges) -> None:
        self._ranges, self._position = ranges, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = 0) -> int:
        base = (0, self._position, self._ranges.size)[whence]
        self._position = base + offset
        return self._position

    def read(self, length: int = -1) -> bytes | memoryview:
        length = self._ranges.size - self._position if length < 0 else length
        body = self._ranges.read(self._position, length)
        self._position += len(body)
        return body

    def close(self) -> None:
        """Do nothing: there is nothing to give back."""
