"""What bytes are, as far as pickles go: bounded reading, decompression, the headers of arrays, containers."""

from __future__ import annotations

import bz2
import io
import lzma
import tarfile
import tokenize
import zlib
from math import inf, prod
from typing import Any, BinaryIO

import numpy as np

from mltrack_tasks.picklemodels import BY_LAMBDA, has_lambda_text
from mltrack_tasks.pickleops import Opinion, has_magic, walk

HEAD, MORE = 4 << 10, 1 << 20
"""[bytes] of a zip's member, or out of a compressed file, that are looked at: first, and if in doubt."""
MAX_READ = 4 << 20
"""[bytes] in one read: a zip's directory is read at once, and says itself how large it is."""
BUDGET = 512 << 20
"""[bytes] read of one file, its nested zips counted."""
MAX_HEADER = 16 << 10
"""[bytes] of an array's header; numpy itself reads none above 10,000."""
MAX_DICTIONARY = 128 << 20
"""[bytes] of memory for xz; its strongest level needs 65 MiB."""

MAX_RATIO = 1032
"""[bytes] that zlib makes of one, at most (its own documentation, zlib_tech)."""
MAX_ARRAYS = 16
"""One after the other in a file, as repeated ``np.save`` leaves them."""

BY_BYTES, BY_OPCODES, BY_ARRAY = "its first bytes", "its opcodes", "an object array"
CLOSED = "cannot be looked into"

ZIP = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")
_NPY = b"\x93NUMPY"
_HDF5 = b"\x89HDF\r\n\x1a\n"
_OTHERS = (
    *(b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a\x07", b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18"),
    *(b"\x02\x21\x4c\x18", b"\x1f\x9d", b"ZF0x"),
)
"""7z, rar, zstd and lz4; lz4 of old, compress, and joblib before 0.10."""
_BAD_HEADER = (
    *(ValueError, SyntaxError, TypeError, LookupError, tokenize.TokenError, RecursionError),
    *(MemoryError, OverflowError, AttributeError),
)
"""numpy reads a header as a Python literal, or as tokens if it is from Python 2, and makes a dtype of it."""
_BAD_STREAM = (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError)


class BrokenError(OSError):
    """Not as the container says. An OSError, which zipfile expects where a seek fails."""


class _Source(io.RawIOBase):
    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self.size, self._at, self._left = file, size, 0, BUDGET
        self.failed: list[BaseException] = []

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        at = offset + (0, self._at, self.size)[whence]
        if at < 0:
            raise BrokenError("before the start")
        self._at = at
        return at

    def readinto(self, buffer: Any) -> int:
        self.spend(len(buffer))
        length = min(len(buffer), self.size - self._at)
        if length <= 0:
            return 0
        try:
            self._file.seek(self._at)
            data = self._file.read(length)
        except BaseException as error:
            self.failed.append(error)
            raise
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def spend(self, length: int) -> None:
        self._left -= length
        if self._left < 0:
            raise BrokenError("more than may be read")


class Reader(io.BufferedReader):
    """A file of ``size`` bytes: few requests for small reads, and BrokenError for large or too many.

    ``failed`` keeps what the file itself raised, of which zipfile makes its own errors, or none at all.
    """

    def __init__(self, file: BinaryIO, size: int) -> None:
        source = _Source(file, size)
        super().__init__(source, 16 << 10)
        self.size, self.spend, self.failed = size, source.spend, source.failed

    def read(self, size: int | None = -1, /) -> bytes:
        wanted = max(0, self.size - self.tell()) if size is None or size < 0 else size
        if wanted > MAX_READ:
            raise BrokenError("too much at once")  # io would make room for it before it reads
        return super().read(wanted)

    def start(self, most: int) -> bytes:
        """Read the first ``most`` bytes, or all if they are fewer."""
        self.seek(0)
        return b"".join(iter(lambda: self.read(min(MAX_READ, max(0, most - self.tell()))), b""))


def reason_of(
    stream: BinaryIO, size: int, *, cut: bool = False, most: float = inf, inside: bool = False
) -> str | None:
    """Look at the start of a seekable stream -> why it counts as pickled, or None.

    Zips are not looked into here, nor followed as opcodes: ``P``, with which they begin, asks for a
    persistent id, which only PyTorch knows of, and PyTorch looks whether it is a zip first. ``cut``: the
    stream is the start of something longer, of at ``most`` so many bytes, and a walk through opcodes that
    has not ended then counts. Text may begin with the length of a string, and so large it mostly is not.
    ``inside``: it came out of a compressed file, where a further container is closed.
    """
    stream.seek(0)
    head = stream.read(HEAD)
    if has_magic(head):
        return BY_BYTES
    if head.startswith(_NPY):
        return _of_arrays(stream, cut)
    if head.startswith(ZIP):
        return CLOSED if inside else None
    if head.startswith(_OTHERS) or _is_tar(head):
        return CLOSED
    if head.startswith(_HDF5):
        stream.seek(0)
        return BY_LAMBDA if has_lambda_text(stream.read(MORE)) else None
    decoder = _decoder(head)
    if decoder is not None:
        out = _first_of(decoder, stream)
        if out is None:
            return CLOSED if _is_sure(head) else _of_opcodes(stream, size, cut, most)
        reason = CLOSED if inside else _of_expanded(*out, _most_of(decoder, most if cut else size))
        if reason is not None:
            return reason
        # The two bytes that zlib begins with may be opcodes, and the rest both.
    return _of_opcodes(stream, size, cut, most)


def _of_opcodes(stream: BinaryIO, size: int, cut: bool, most: float) -> str | None:
    return None if walk(stream, size, cut=cut, most=most) is Opinion.NO else BY_OPCODES


def _of_expanded(data: bytes, cut: bool, most: float) -> str | None:
    return reason_of(io.BytesIO(data), len(data), cut=cut, most=most, inside=True)


def _most_of(decoder: Any, size: float) -> float:
    """Bound what comes out of compressed bytes; bzip2 and xz make any number of one."""
    return inf if isinstance(decoder, (bz2.BZ2Decompressor, lzma.LZMADecompressor)) else MAX_RATIO * size


def _is_tar(head: bytes) -> bool:
    """Look for the magic number of POSIX, or check the sum of the first header: older tars have only that."""
    if head[257:262] == b"ustar":
        return True
    try:
        tarfile.TarInfo.frombuf(head[: tarfile.BLOCKSIZE], "utf-8", "surrogateescape")
    except tarfile.TarError:
        return False
    return True


def _of_arrays(stream: BinaryIO, cut: bool) -> str | None:
    at = 0
    for _ in range(MAX_ARRAYS):
        stream.seek(at)
        start = stream.read(len(_NPY))
        if start != _NPY:
            return None
        data = io.BytesIO(start + stream.read(MAX_HEADER))
        try:
            dtype, shape = _header(data)
            at += data.tell() + prod(shape) * dtype.itemsize
        except _BAD_HEADER:
            return CLOSED
        if dtype.hasobject:
            return BY_ARRAY
        if cut:
            return None
    return CLOSED


def _header(stream: BinaryIO) -> tuple[np.dtype[Any], tuple[int, ...]]:
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise ValueError("a version that numpy does not know")
    # Version 3 differs from 2 in the encoding of field names only.
    read: Any = (
        np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    )
    shape, _, dtype = read(stream)
    return dtype, shape


def _is_sure(head: bytes) -> bool:
    return head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00"))


def _decoder(head: bytes) -> Any:
    if head.startswith(b"\x1f\x8b"):
        return zlib.decompressobj(31)
    if head.startswith(b"BZh"):
        return bz2.BZ2Decompressor()
    if head.startswith((b"\xfd7zXZ\x00", b"\x5d\x00\x00")):
        return lzma.LZMADecompressor(memlimit=MAX_DICTIONARY)
    if (
        len(head) > 2
        and head[0] & 0x0F == 8
        and head[0] >> 4 <= 7
        and int.from_bytes(head[:2], "big") % 31 == 0
    ):
        return zlib.decompressobj()
    return None


def _feed(decoder: Any, data: bytes, most: int) -> bytes:
    if isinstance(decoder, (bz2.BZ2Decompressor, lzma.LZMADecompressor)):
        return decoder.decompress(data, most)
    out: bytes = decoder.decompress(data, most)
    return out


def _first_of(decoder: Any, stream: BinaryIO) -> tuple[bytes, bool] | None:
    """Decompress the first HEAD bytes -> them, and whether there is more; None if nothing can be told."""
    stream.seek(0)
    out = b""
    for _ in range(32):  # bzip2 gives nothing before it has read a block, of up to 900 kB
        data = stream.read(64 << 10)
        try:
            out += _feed(decoder, data, MORE - len(out))
        except _BAD_STREAM:
            return (out, True) if len(out) >= HEAD else None
        if decoder.eof:
            more = bool(decoder.unused_data or stream.read(1))
            return None if more and len(out) < HEAD else (out, more)
        if len(out) >= HEAD:
            return out, True
        if not data:
            return (out, True) if out else None
    return None


def payload(data: bytes, most: int) -> bytes:
    """Bytes found to be pickled -> the pickles in them, decompressed and without an array's header.

    ValueError if they are broken, or become more than ``most`` bytes.
    """
    decoder = _decoder(data)
    if decoder is not None:
        if walk(io.BytesIO(data), len(data)) is not Opinion.NO:
            raise ValueError("it is a pickle as well as compressed")
        try:
            data = _feed(decoder, data, most + 1)
        except _BAD_STREAM as error:
            raise ValueError("it cannot be decompressed") from error
        if len(data) > most or not decoder.eof or decoder.unused_data:
            raise ValueError("it is too large or cut when decompressed")
    if not data.startswith(_NPY):
        return data
    stream = io.BytesIO(data)
    try:
        _header(stream)
    except _BAD_HEADER as error:
        raise ValueError("an array's header is broken") from error
    return data[stream.tell() :]
