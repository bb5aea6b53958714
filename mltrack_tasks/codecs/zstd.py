"""Zstandard around whole blobs: frames of up to CHUNK bytes, one after the other, as any zstd tool reads.

Each frame says in its header what it unpacks to, so a blob can be weighed before it is unpacked, and is
unpacked a frame at a time into a buffer of that size. What does not say it, or says more, is not ours.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, BinaryIO, NamedTuple, cast

from mltrack_tasks import canonical
from mltrack_tasks.digest import MiB
from mltrack_tasks.memory import free_memory

CHUNK = 8 * MiB
"""[bytes] that one frame unpacks to at most: what is in memory at once, beside the result."""
LEVEL = 3
"""zstd's own default: of JSON and integers 3 to 10 times less, at 200 MB/s and more."""
_SPOOLED = 64 * MiB
_MAGIC = b"\x28\xb5\x2f\xfd"
_LONGEST_HEADER = 18
_FIELD = (1, 2, 4, 8)
"""[bytes] of the content size in a header, by its flag."""
_RESERVED = 3
_VALUE = 80
"""[bytes] that a value of JSON takes about as a Python object, however short its text is."""
_TIMES = {"npy": 3, "json": 4, "bin": 2}
"""How often a format lies in memory while it is read: the bytes, and what is made of them (measured)."""
_WIDE = ((re.compile(rb"[\xf0-\xff]"), 10), (re.compile(rb"[\xc4-\xef]"), 6))
"""The same for JSON that has such a byte: one such character makes Python's text 4 or 2 bytes wide."""
_MAX_BLOCKS = CHUNK // 512
"""Blocks of a frame: zstd makes them of 128 KiB, or parts of it; a forged one takes 3 bytes, and as long."""


class Frame(NamedTuple):
    """What a frame's header says: how long it is, and what it unpacks to [bytes]."""

    length: int
    plain: int


class Packer:
    """What encoders write to: packs each CHUNK into a frame of ``sink``. ``finish`` writes the rest."""

    def __init__(self, sink: BinaryIO) -> None:
        self._sink, self._buffer, self._frames = sink, bytearray(), 0

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Take bytes of any length."""
        view = memoryview(data).cast("B")
        for start in range(0, len(view), CHUNK):
            self._buffer += view[start : start + CHUNK]
            while len(self._buffer) >= CHUNK:
                self._pack(CHUNK)
        return len(view)

    def finish(self) -> None:
        """Write what is left; of nothing at all, one empty frame."""
        if self._buffer or not self._frames:
            self._pack(len(self._buffer))

    def _pack(self, size: int) -> None:
        self._sink.write(_codec().compress(bytes(self._buffer[:size]), asbytes=True))
        del self._buffer[:size]
        self._frames += 1


def frame_at(body: memoryview) -> Frame | None:
    """Read the frame at the beginning of ``body``; None if it goes on behind it.

    Raises ValueError for anything that ``Packer`` does not write.
    """
    if bytes(body[:4]) != _MAGIC[: len(body)]:
        raise ValueError("it does not begin with a frame of zstd")
    if len(body) < 5:
        return None
    flags = body[4]
    if not flags & 0x20 and not flags >> 6:
        raise ValueError("a frame does not say what it unpacks to")
    if flags & 0x0B:
        raise ValueError("a frame asks for a dictionary, or is of a kind that is not written here")
    at = 5 + (not flags & 0x20)
    width = _FIELD[flags >> 6]
    if len(body) < at + width:
        return None
    plain = int.from_bytes(body[at : at + width], "little") + (256 if width == 2 else 0)
    if plain > CHUNK:
        raise ValueError(f"a frame unpacks to {plain:,} bytes, more than the {CHUNK:,} of any of ours")
    end = _end_of_blocks(body, at + width)
    length = None if end is None else end + (4 if flags & 0x04 else 0)
    return None if length is None or length > len(body) else Frame(length, plain)


def _end_of_blocks(body: memoryview, at: int) -> int | None:
    for _ in range(_MAX_BLOCKS):
        if at + 3 > len(body):
            return None
        header = int.from_bytes(body[at : at + 3], "little")
        last, kind, size = header & 1, header >> 1 & 3, header >> 3
        if kind == _RESERVED:
            raise ValueError("a frame has a block of an unknown kind")
        at += 3 + (1 if kind == 1 else size)
        if last:
            return at
    raise ValueError(f"a frame has more than {_MAX_BLOCKS:,} blocks")


def frames_of(chunks: Iterable[bytes | memoryview]) -> Iterator[tuple[Frame, memoryview]]:
    """Cut bytes that come in pieces into frames. Raises ValueError if the last is cut off, or none comes."""
    rest, count = b"", 0
    for chunk in chunks:
        body = memoryview(rest + bytes(chunk) if rest else chunk)
        while len(body) and (frame := frame_at(body)):
            count += 1
            if count > 1 and not frame.plain:
                raise ValueError("it has empty frames")
            yield frame, body[: frame.length]
            body = body[frame.length :]
        rest = bytes(body)
        if len(rest) > 2 * CHUNK:
            raise ValueError("a frame is longer than what it unpacks to could make it")
    if rest or not count:
        raise ValueError("it ends within a frame")


def unpack(frame: Frame, body: memoryview) -> bytes:
    """Unpack one frame. pyarrow raises OSError if it holds another number of bytes than it says."""
    return cast(bytes, _codec().decompress(body, frame.plain, asbytes=True))


def unpacked(body: bytes | memoryview, format: str) -> bytearray:
    """Unpack a blob whose inside is of ``format``, if there is room for it and for what is made of it.

    Raises ValueError, before anything large is made, if there is not: few bytes can stand for many.
    """
    plain, free = 0, free_memory()
    for frame, _ in frames_of([body]):
        plain += frame.plain
        _require_room(plain * _TIMES[format], free)
    whole, at, values, times = bytearray(plain), 0, 0, _TIMES[format]
    for frame, part in frames_of([body]):
        piece = unpack(frame, part)
        whole[at : at + frame.plain] = piece
        at += frame.plain
        if format == "json":
            values += canonical.marks(piece)
            if not piece.isascii():
                times = max([times, *(more for wide, more in _WIDE if wide.search(piece))])
    free = free_memory()
    if values * _VALUE > free:
        values = canonical.marks_outside_texts(bytes(whole))  # texts may hold the same characters
    _require_room(max(values * _VALUE, plain * (times - 1)), free)
    return whole


@contextmanager
def unpacked_file(source: BinaryIO) -> Iterator[BinaryIO]:
    """Unpack a file, from its beginning, into a temporary one.

    Raises ValueError, before anything is unpacked, if the temporary folder has no room for it.
    """
    source.seek(0)
    plain, free = 0, shutil.disk_usage(tempfile.gettempdir()).free
    for frame, _ in frames_of(iter(lambda: source.read(MiB), b"")):
        plain += frame.plain
        if plain > free:
            raise ValueError(f"it takes {plain:,} bytes of the temporary folder, and {free:,} are free")
    source.seek(0)
    with tempfile.SpooledTemporaryFile(max_size=_SPOOLED) as spooled:
        for frame, part in frames_of(iter(lambda: source.read(MiB), b"")):
            spooled.write(unpack(frame, part))
        spooled.seek(0)
        yield cast(BinaryIO, spooled)


def _require_room(size: int, free: int) -> None:
    if size > free:
        raise ValueError(f"it takes {size:,} bytes of memory once it is unpacked, and {free:,} are free")


@cache
def _codec() -> Any:
    import pyarrow as pa

    return pa.Codec("zstd", compression_level=LEVEL)
