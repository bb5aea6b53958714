"""One client connection of the fault proxy: forward, refuse, cut, and file records."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from typing import Protocol

from . import wire
from .faults import ANSWERS, Answer, Fault, Record, Request, Script

BACKEND_TIMEOUT = 120.0
"""How long the server behind may be silent [s]."""

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class ProxyServer(Protocol):
    """What a connection shares with the others."""

    backend: tuple[str, int]
    script: Script
    lock: threading.Lock
    records: list[Record]
    stopping: threading.Event


class Exchange:
    """One request on its way: what its record will say."""

    def __init__(self, request: Request, fault: Fault | None, body: wire.RequestBody) -> None:
        self.request, self.fault, self.body = request, fault, body
        self.status: int | None = None
        self.backend_status: int | None = None
        self.received = 0
        self.filed = False

    def record(self) -> Record:
        return Record(
            method=self.request.method,
            path=self.request.path,
            query=self.request.query,
            status=self.status,
            backend_status=self.backend_status,
            sent=self.body.count,
            received=self.received,
            fault=self.fault.kind if self.fault else None,
        )


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: ProxyServer  # type: ignore[assignment]
    _upstream: socket.socket | None = None

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent: the records say it all."""

    def finish(self) -> None:
        self._leave_backend()
        super().finish()

    def _play(self) -> None:
        target = self.requestline.split()[1]  # self.path has leading slashes merged
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, target, headers)
        fault = self.server.script.take(request)
        exchange = Exchange(request, fault, wire.RequestBody(self.rfile, self.headers))
        try:
            self._obey(exchange)
        except (OSError, http.client.HTTPException):
            # Client or server broke off. Neither can be told more than that the connection is gone.
            self.close_connection = True
            self._leave_backend()
        finally:
            self._file(exchange)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _play  # noqa: N815

    def _obey(self, exchange: Exchange) -> None:
        fault = exchange.fault
        if fault is None:
            return self._forward(exchange)
        if answer := fault.answer or ANSWERS.get(fault.kind):
            return self._refuse(exchange, answer)
        if fault.kind == "reset":
            return self._drop(exchange, reset=True)
        if fault.kind == "hang":
            return self._hang(exchange)
        if fault.kind == "delay":
            self.server.stopping.wait(fault.seconds)
        if fault.action:
            _act(fault.action, exchange.request)
        return self._forward(exchange)

    def _file(self, exchange: Exchange) -> None:
        """Append the record, once; before the last byte goes out, so that tests can count on it."""
        with self.server.lock:
            if not exchange.filed:
                exchange.filed = True
                self.server.records.append(exchange.record())

    # faults without the server

    def _refuse(self, exchange: Exchange, answer: Answer) -> None:
        exchange.body.drain()
        body = b"" if exchange.request.method == "HEAD" else answer.body()
        exchange.status, exchange.received = answer.status, len(body)
        self._file(exchange)
        headers = {"Content-Type": "application/xml", "x-amz-request-id": "fault", **answer.headers}
        length = ("Content-Length", str(len(body)))
        line = f"HTTP/1.1 {answer.status} {answer.code}"
        self.connection.sendall(wire.head(line, headers.items(), length) + body)

    def _drop(self, exchange: Exchange, *, reset: bool) -> None:
        """End the connection without an answer, politely (FIN) or not (RST)."""
        exchange.body.drain()
        self._file(exchange)
        self.close_connection = True
        if reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            # rfile keeps the descriptor open; closed at once it sends RST, and no FIN before it.
            socket.close(self.connection.detach())
        else:
            shut(self.connection)

    def _hang(self, exchange: Exchange) -> None:
        exchange.body.drain()
        self._file(exchange)
        while not self.server.stopping.is_set() and not wire.readable(self.connection, 0.05):
            pass
        self.close_connection = True

    # faults on the way

    def _forward(self, exchange: Exchange) -> None:
        response = self._ask_backend(exchange)
        exchange.backend_status = response.status
        kind = exchange.fault.kind if exchange.fault else None
        if kind == "lose_answer":
            response.read()
            self._lose(exchange)
        elif kind == "truncate":
            self._cut(exchange, response)
        else:
            self._relay(exchange, response)
        if response.will_close:
            self._leave_backend()

    def _ask_backend(self, exchange: Exchange) -> http.client.HTTPResponse:
        request, body = exchange.request, exchange.body
        backend = self._backend()
        try:
            backend.sendall(self._request_head(exchange))
            for piece in wire.framed(self._request_blocks(exchange), chunked=body.chunked):
                backend.sendall(piece)
        except ConnectionError:
            body.drain()  # a server may refuse before it has read all; its answer waits
        response = http.client.HTTPResponse(backend, method=request.method)
        response.begin()
        return response

    def _request_head(self, exchange: Exchange) -> bytes:
        strip = exchange.fault is not None and exchange.fault.kind == "ignore_if_none_match"
        headers = [
            (name, value)
            for name, value in self.headers.items()
            if not (strip and name.lower() == "if-none-match")
        ]
        framing = [("Transfer-Encoding", "chunked")] if exchange.body.chunked else []
        line = f"{exchange.request.method} {exchange.request.target} HTTP/1.1"
        return wire.head(line, headers, *framing)

    def _request_blocks(self, exchange: Exchange) -> Iterator[bytes]:
        fault, body = exchange.fault, exchange.body
        if fault is None or fault.kind != "flip_byte":
            return iter(body)
        middle = (body.length or 0) // 2
        return wire.flipped(body, middle if fault.position is None else fault.position)

    def _relay(self, exchange: Exchange, response: http.client.HTTPResponse) -> None:
        endless = response.length is None and not response.chunked
        framing = [("Transfer-Encoding", "chunked")] if response.chunked else []
        if endless:
            framing.append(("Connection", "close"))
            self.close_connection = True
        exchange.status = response.status
        head = self._answer_head(response, *framing)
        blocks = self._counted(exchange, wire.answer_blocks(response))
        pieces = itertools.chain([head], wire.framed(blocks, chunked=response.chunked))
        for piece, last in wire.last_marked(pieces):
            if last:
                self._file(exchange)
            self.connection.sendall(piece)

    def _lose(self, exchange: Exchange) -> None:
        ending = exchange.fault.ending if exchange.fault else "close"
        if ending == "hang":
            self._hang(exchange)
        else:
            self._drop(exchange, reset=ending == "reset")

    def _cut(self, exchange: Exchange, response: http.client.HTTPResponse) -> None:
        """Send half of the answer's body, then close; no known length: part of its status line."""
        head = self._answer_head(response)
        whole = response.length or 0
        body = response.read(whole // 2)
        exchange.status = response.status if whole else None
        exchange.received = len(body)
        self._leave_backend()
        self.connection.sendall(head + body if whole else head[: len("HTTP/1.1 2")])
        self._drop(exchange, reset=False)

    @staticmethod
    def _answer_head(response: http.client.HTTPResponse, *framing: tuple[str, str]) -> bytes:
        line = f"HTTP/1.1 {response.status} {response.reason}"
        return wire.head(line, response.getheaders(), *framing)

    @staticmethod
    def _counted(exchange: Exchange, blocks: Iterator[bytes]) -> Iterator[bytes]:
        for block in blocks:
            exchange.received += len(block)
            yield block

    # the connection to the server, kept as long as the client's

    def _backend(self) -> socket.socket:
        if self._upstream is not None and wire.readable(self._upstream):
            self._leave_backend()  # the server closed it while it was idle
        if self._upstream is None:
            self._upstream = socket.create_connection(self.server.backend, BACKEND_TIMEOUT)
            self._upstream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self._upstream

    def _leave_backend(self) -> None:
        if self._upstream is not None:
            self._upstream.close()
            self._upstream = None


def _act(action: Callable[[Request], object], request: Request) -> None:
    try:
        action(request)
    except Exception as error:  # also an OSError, which would else pass for a broken connection
        raise RuntimeError(f"the action for {request.method} {request.path} failed") from error


def shut(connection: socket.socket) -> None:
    """End the connection in both directions; nothing happens when the other side was faster."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
