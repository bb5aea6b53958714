"""HTTP proxy in front of any S3 server that plays scripted faults and counts what passes.

    with FaultProxy(server.endpoint) as proxy:
        proxy.script(Fault("lose_answer", method="PUT", match=r"\\.json$"))
        ...  # use proxy.url as the endpoint
        assert [record.fault for record in proxy.requests] == ["lose_answer", None]

Bodies pass in blocks of 256 KiB. The Host header is kept, so signatures stay valid. ``Expect:
100-continue`` is answered by the proxy itself.
"""

from __future__ import annotations

import re
import socket
import socketserver
import sys
import threading
from collections import defaultdict
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from .faults import Answer, Fault, Record, Request, Script, Totals
from .proxyhandler import Handler, shut

__all__ = ["Answer", "Fault", "FaultProxy", "Record", "Request", "Totals"]


class FaultProxy:
    """A proxy on a free loopback port. ``requests`` holds one record per request, oldest first.

    A record is there before the client can read the end of its answer. Leaving the ``with`` block
    raises what went wrong inside the proxy (a ``where`` or ``action`` that raised, for instance).
    """

    def __init__(self, backend_url: str) -> None:
        parts = urlsplit(backend_url)
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError(f"the fault proxy needs an http:// endpoint, not {backend_url!r}")
        self._server = _Server((parts.hostname, parts.port or 80))
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), daemon=True, name="fault-proxy"
        )
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.stop()
        self._thread.join()
        if self._server.failures and error is None:
            raise ExceptionGroup("the fault proxy failed", self._server.failures)

    def script(self, *faults: Fault) -> None:
        """Append faults; those already scripted come first."""
        self._server.script.add(*faults)

    def clear(self) -> None:
        """Forget all scripted faults; the records stay."""
        self._server.script.clear()

    def unfired(self) -> list[Fault]:
        return self._server.script.unfired()

    @property
    def requests(self) -> list[Record]:
        with self._server.lock:
            return list(self._server.records)

    def forget(self) -> None:
        """Drop the records so far; the faults stay."""
        with self._server.lock:
            self._server.records.clear()

    def count(self, method: str | None = None, match: str = "") -> int:
        """Count requests by method and by a regular expression found in ``/bucket/key?query``."""
        return sum(
            method in (None, record.method) and re.search(match, f"{record.path}?{record.query}") is not None
            for record in self.requests
        )

    def totals(self) -> dict[tuple[str, str], Totals]:
        """Return requests and body bytes by (method, decoded /bucket/key)."""
        sums: dict[tuple[str, str], Totals] = defaultdict(Totals)
        for record in self.requests:
            entry = sums[record.method, record.path]
            entry.requests += 1
            entry.sent += record.sent
            entry.received += record.received
        return dict(sums)


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, backend: tuple[str, int]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.backend = backend
        self.script = Script()
        self.lock = threading.Lock()
        self.records: list[Record] = []
        self.failures: list[Exception] = []
        self.stopping = threading.Event()
        self._clients: set[socket.socket] = set()

    def process_request_thread(self, request: socket.socket, client_address: object) -> None:  # type: ignore[override]
        with self.lock:
            self._clients.add(request)
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self.lock:
                self._clients.discard(request)

    def handle_error(self, request: object, client_address: object) -> None:
        error = sys.exception()
        if isinstance(error, Exception) and not isinstance(error, ConnectionError):
            with self.lock:
                self.failures.append(error)

    def stop(self) -> None:
        self.stopping.set()
        self.shutdown()
        self.server_close()
        with self.lock:
            clients = list(self._clients)
        for client in clients:
            shut(client)
