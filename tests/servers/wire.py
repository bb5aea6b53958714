"""HTTP/1.1 bodies and heads as streams of blocks, so that a proxy never holds a whole body."""

from __future__ import annotations

import http.client
import select
import socket
from collections.abc import Iterable, Iterator
from email.message import Message
from io import BufferedIOBase

BLOCK = 256 * 1024
_HOP_BY_HOP = {"connection", "keep-alive", "proxy-connection", "transfer-encoding", "expect"}


class WireError(OSError):
    """The other side broke off, or sent what is not HTTP."""


class RequestBody:
    """The body of a request as blocks; ``count`` is the number of its bytes read so far."""

    def __init__(self, stream: BufferedIOBase, headers: Message) -> None:
        self._stream = stream
        self.chunked = "chunked" in headers.get("Transfer-Encoding", "").lower()
        self.length = None if self.chunked else int(headers.get("Content-Length") or 0)
        self.count = 0
        self._blocks = self._chunks() if self.chunked else self._exactly(self.length or 0)

    def __iter__(self) -> Iterator[bytes]:
        for block in self._blocks:
            self.count += len(block)
            yield block

    def drain(self) -> None:
        """Read what is left, so that the client gets to read the answer."""
        for _ in self:
            pass

    def _exactly(self, size: int) -> Iterator[bytes]:
        while size:
            block = self._stream.read(min(size, BLOCK))
            if not block:
                raise WireError(f"the client closed with {size} bytes of its body unsent")
            size -= len(block)
            yield block

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self._stream.readline().partition(b";")[0] or b"0", 16):
            yield from self._exactly(size)
            self._stream.readline()
        while self._stream.readline().strip():
            pass  # HTTP trailers; aws-chunked keeps its own inside the body


def framed(blocks: Iterable[bytes], *, chunked: bool) -> Iterator[bytes]:
    """Yield blocks as they go on the wire, with chunk sizes where there is no Content-Length."""
    for block in blocks:
        yield b"%x\r\n%b\r\n" % (len(block), block) if chunked else block
    if chunked:
        yield b"0\r\n\r\n"


def flipped(blocks: Iterable[bytes], position: int) -> Iterator[bytes]:
    """Yield blocks with the byte at ``position`` of the whole inverted."""
    start = 0
    for block in blocks:
        if start <= position < start + len(block):
            damaged = bytearray(block)
            damaged[position - start] ^= 0xFF
            block = bytes(damaged)
        start += len(block)
        yield block


def head(start_line: str, headers: Iterable[tuple[str, str]], *extra: tuple[str, str]) -> bytes:
    """Build the head of a request or an answer, without what concerns one connection only."""
    kept = [(name, value) for name, value in headers if name.lower() not in _HOP_BY_HOP]
    lines = [start_line, *(f"{name}: {value}" for name, value in (*kept, *extra)), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def answer_blocks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    while block := response.read(BLOCK):
        yield block


def last_marked(blocks: Iterable[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Yield (block, is the last one)."""
    held: bytes | None = None
    for block in blocks:
        if held is not None:
            yield held, False
        held = block
    if held is not None:
        yield held, True


def readable(connection: socket.socket, seconds: float = 0.0) -> bool:
    """Say whether bytes or an end of file wait on the connection."""
    poll = select.poll()  # select() knows no descriptors above 1023
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(seconds * 1000))
