"""Where the bytes of a blob come from: memory, or a file that may change while it is read."""

from __future__ import annotations

import hashlib
import io
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from stat import S_ISREG
from typing import BinaryIO, cast

from mltrack_tasks.digest import SINGLE_PUT_LIMIT, composite_checksum, part_size_for, sha256_hex
from mltrack_tasks.errors import InvalidInputError, SourceChangedError
from mltrack_tasks.parallel import map_ordered
from mltrack_tasks.stores.files import os_errors

_CHUNK = 1024 * 1024


class Source(ABC):
    """Bytes with a known digest and size, readable more than once."""

    digest: str
    size: int

    @abstractmethod
    def body(self) -> bytes | memoryview:
        """All bytes at once: for what goes up in one PUT."""

    @abstractmethod
    def parts(self) -> Iterator[bytes]:
        """The bytes in parts of ``part_size_for(size)``, as they are now."""

    def expected_parts(self) -> Iterator[tuple[bytes, bytes | None]]:
        """The parts, each with the raw SHA-256 that it must have, where that was noted.

        Where it was not, the end raises SourceChangedError if the parts are not those of the digest.
        """
        whole = hashlib.sha256()
        for part in self.parts():
            whole.update(part)
            yield part, None
        if whole.hexdigest() != self.digest:
            raise changed(f"The source of {self.digest}")

    def require_unchanged(self) -> None:
        """Raise SourceChangedError if the bytes may no longer be those of the digest."""
        return

    def md5(self) -> str:
        """MD5 -> hex: what a server that keeps no SHA-256 shows as ETag of a single PUT."""
        hasher = hashlib.md5(usedforsecurity=False)
        for part in self.parts():
            hasher.update(part)
        return hasher.hexdigest()

    def composite(self) -> str:
        """Composite checksum of the parts, as S3 shows it."""
        return composite_checksum(hashlib.sha256(part).digest() for part in self.parts())

    def multipart_etag(self) -> str:
        """MD5 of the parts' MD5s and their count: the ETag of a plain multipart upload."""
        digests = [hashlib.md5(part, usedforsecurity=False).digest() for part in self.parts()]
        return f"{hashlib.md5(b''.join(digests), usedforsecurity=False).hexdigest()}-{len(digests)}"


class BytesSource(Source):
    """Bytes in memory. The buffer that is hashed is the buffer that is sent."""

    def __init__(self, body: bytes | memoryview) -> None:
        self._body = body
        self.size = len(body)
        self.digest = sha256_hex(body)

    def body(self) -> bytes | memoryview:
        return self._body

    def parts(self) -> Iterator[bytes]:
        step = part_size_for(self.size)
        for start in range(0, self.size, step):
            yield bytes(self._body[start : start + step])


class FileSource(Source):
    """An open file too large for one PUT. Read once for its name, and again to be sent."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file, self._name = file, name
        self._before = _identity(file)
        self.size = self._before[0]
        self.digest, self._digests = self._hash()
        self.require_unchanged()

    def _hash(self) -> tuple[str, tuple[bytes, ...]]:
        """Hash the whole in this thread, and each part in another: a file alone waits for its name."""
        whole = hashlib.sha256()

        def read() -> Iterator[bytes]:
            for part in self.parts():
                yield part
                whole.update(part)  # while the other thread has it

        digests = tuple(map_ordered(_raw_sha256, read(), 2))
        return whole.hexdigest(), digests

    def body(self) -> bytes | memoryview:
        self._file.seek(0)
        return self._file.read()

    def parts(self) -> Iterator[bytes]:
        step = part_size_for(self.size)
        for start in range(0, self.size, step):
            expected = min(step, self.size - start)
            part = os.pread(self._file.fileno(), expected, start)
            while len(part) < expected:
                more = os.pread(self._file.fileno(), expected - len(part), start + len(part))
                if not more:
                    raise changed(self._name)
                part += more
            yield part

    def expected_parts(self) -> Iterator[tuple[bytes, bytes | None]]:
        yield from zip(self.parts(), self._digests, strict=True)

    def composite(self) -> str:
        return composite_checksum(self._digests)

    def require_unchanged(self) -> None:
        """Raise SourceChangedError if size or modification time differ from when it was opened."""
        if _identity(self._file) != self._before:
            raise changed(self._name)


@contextmanager
def open_source(path: Path) -> Iterator[tuple[Source, BinaryIO]]:
    """Open a file as a source -> (source, the same bytes to look into).

    Up to SINGLE_PUT_LIMIT [bytes] it is read once into memory. Raises InvalidInputError if it is missing or
    not a plain file, SourceChangedError if it changes while it is read.
    """
    with os_errors(str(path)), open(path, "rb", buffering=0, opener=_open_at_once) as raw:
        if not S_ISREG(os.fstat(raw.fileno()).st_mode):
            raise InvalidInputError(f"{path} is not a plain file.")
        file = cast(BinaryIO, raw)
        if os.fstat(raw.fileno()).st_size > SINGLE_PUT_LIMIT:
            yield FileSource(file, str(path)), file
        else:
            body = _read_whole(file, str(path))
            yield BytesSource(body), io.BytesIO(body)


def changed(name: str) -> SourceChangedError:
    """The error for a file that changed while it was read."""
    return SourceChangedError(
        f"{name} changed while it was read; nothing was stored. Run it again when nothing writes to it."
    )


def _raw_sha256(part: bytes) -> bytes:
    return hashlib.sha256(part).digest()


def _open_at_once(path: str, flags: int) -> int:
    """Open without waiting for the other end, should the path be a pipe."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)


def _read_whole(file: BinaryIO, name: str) -> bytes:
    before = _identity(file)
    chunks = []
    while chunk := file.read(_CHUNK):
        chunks.append(chunk)
    if chunk is None:  # a device behind a plain file's mask has nothing to say just now
        raise InvalidInputError(f"{name} is not a plain file: reading it does not come to an end.")
    body = b"".join(chunks)
    if _identity(file) != before or len(body) != before[0]:
        raise changed(name)
    return body


def _identity(file: BinaryIO) -> tuple[int, int, int]:
    stat = os.fstat(file.fileno())
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns
