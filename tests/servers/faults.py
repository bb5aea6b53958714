"""What the fault proxy can be told to do, and what it remembers of each request."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args
from urllib.parse import unquote
from xml.sax.saxutils import escape

Kind = Literal[
    "status503",  # refuse with SlowDown, do not forward
    "status500",  # refuse with InternalError, do not forward
    "conflict409",  # refuse with ConditionalRequestConflict, do not forward
    "answer",  # answer with Fault.answer, do not forward
    "reset",  # reset the connection, do not forward
    "hang",  # take the request, never answer, do not forward
    "lose_answer",  # forward, let the server do it, end as Fault.ending says, without an answer
    "truncate",  # forward, cut the answer in the middle
    "flip_byte",  # forward with one byte of the request body inverted
    "ignore_if_none_match",  # forward without If-None-Match (and without a valid signature)
    "delay",  # wait Fault.seconds, then forward
    "custom",  # call Fault.action, then forward
]
Ending = Literal["close", "reset", "hang"]
"""How a lost answer looks to the client: end of file, connection reset, or silence. Clients differ:
some repeat a conditional request after one of them and not after another."""


@dataclass(frozen=True)
class Answer:
    """An S3 error made by the proxy; ``elements`` become further children of ``<Error>``."""

    status: int
    code: str
    message: str = "injected by the fault proxy"
    headers: Mapping[str, str] = field(default_factory=dict)
    elements: Mapping[str, str] = field(default_factory=dict)

    def body(self) -> bytes:
        parts = {"Code": self.code, "Message": self.message, **self.elements, "RequestId": "fault"}
        inner = "".join(f"<{name}>{escape(text)}</{name}>" for name, text in parts.items())
        return f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{inner}</Error>'.encode()


ANSWERS: Mapping[Kind, Answer] = {
    "status503": Answer(503, "SlowDown"),
    "status500": Answer(500, "InternalError"),
    "conflict409": Answer(409, "ConditionalRequestConflict"),
}


@dataclass(frozen=True)
class Request:
    """The head of a request: header names in lower case, path and query as they came."""

    method: str
    target: str
    headers: Mapping[str, str]

    @property
    def path(self) -> str:
        """Return the decoded path, ``/bucket/key``."""
        return unquote(self.target.partition("?")[0])

    @property
    def query(self) -> str:
        return self.target.partition("?")[2]

    @property
    def has_body(self) -> bool:
        return "transfer-encoding" in self.headers or self.headers.get("content-length", "0") != "0"


@dataclass(frozen=True)
class Fault:
    """One scripted fault.

    It fits a request when ``method`` is equal (None: any), ``match`` is found by ``re.search`` in
    the decoded ``/bucket/key?query`` and ``where`` says so. The first ``after`` fitting requests
    pass, the next ``times`` (None: all) get it. ``flip_byte`` fits only requests with a body.
    """

    kind: Kind
    method: str | None = None
    match: str = ""
    times: int | None = 1
    after: int = 0
    where: Callable[[Request], bool] | None = None
    seconds: float = 0.0  # of delay
    ending: Ending = "close"  # of lose_answer
    position: int | None = None  # of flip_byte: index of the byte on the wire; None: the middle
    answer: Answer | None = None  # of answer
    action: Callable[[Request], object] | None = None  # of custom; runs in the proxy's thread

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"unknown fault {self.kind!r}; choose one of {get_args(Kind)}")
        for kind, name in (("answer", "answer"), ("custom", "action"), ("delay", "seconds")):
            if self.kind == kind and not getattr(self, name):
                raise ValueError(f"Fault({kind!r}) needs {name}=...")
        re.compile(self.match)

    def fits(self, request: Request) -> bool:
        text = f"{request.path}?{request.query}"
        return (
            self.method in (None, request.method)
            and re.search(self.match, text) is not None
            and (self.kind != "flip_byte" or request.has_body)
            and (self.where is None or self.where(request))
        )


@dataclass(frozen=True)
class Record:
    """What became of one request. Bytes count bodies only, as they are on the wire."""

    method: str
    path: str  # decoded /bucket/key
    query: str
    status: int | None  # what the client got; None: no answer
    backend_status: int | None  # what the server said; None: not forwarded, or no answer
    sent: int  # body bytes that the client sent [bytes]
    received: int  # body bytes that the client was given [bytes]
    fault: Kind | None


@dataclass
class Totals:
    requests: int = 0
    sent: int = 0
    received: int = 0


@dataclass
class _Armed:
    fault: Fault
    passed: int = 0
    fired: int = 0

    def take(self) -> bool:
        """Count one fitting request; say whether it gets the fault."""
        if self.passed < self.fault.after:
            self.passed += 1
            return False
        if self.fault.times is not None and self.fired >= self.fault.times:
            return False
        self.fired += 1
        return True


class Script:
    """The faults in the order in which they were given. The first that is due takes the request."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._armed: list[_Armed] = []

    def add(self, *faults: Fault) -> None:
        with self._lock:
            self._armed.extend(_Armed(fault) for fault in faults)

    def clear(self) -> None:
        with self._lock:
            self._armed.clear()

    def take(self, request: Request) -> Fault | None:
        with self._lock:
            for armed in self._armed:
                if armed.fault.fits(request) and armed.take():
                    return armed.fault
        return None

    def unfired(self) -> list[Fault]:
        """Return the faults that no request met yet: a test that counts on them proved nothing."""
        with self._lock:
            return [armed.fault for armed in self._armed if not armed.fired]
