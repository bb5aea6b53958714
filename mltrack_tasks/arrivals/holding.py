"""Messages that stay hidden from others while they are worked on, however long that takes."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Protocol, Self

from mltrack_tasks import events
from mltrack_tasks.errors import MLTrackError
from mltrack_tasks.stores.queues import Message

RENEWALS = 3
"""Renewals within the time that a message stays hidden, so that one or two may fail."""


class Holds(Protocol):
    """What can keep messages hidden; 0 shows them again."""

    def hold(self, messages: Sequence[Message], seconds: int) -> None: ...


class Held:
    """``with Held(queue, messages, visibility_s):`` keeps them hidden; they are shown again if it fails.

    A renewal that fails is told in the log, and tried again with the next: what comes of it is that somebody
    else gets the messages too, and finds the work done.
    """

    def __init__(self, queue: Holds, messages: Sequence[Message], visibility_s: int) -> None:
        self._queue, self._messages, self._visibility_s = queue, messages, visibility_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="mltrack-held-messages", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        if error is not None:
            self._try_to_hold(0)

    def _renew(self) -> None:
        while not self._over.wait(self._visibility_s / RENEWALS):
            self._try_to_hold(self._visibility_s)

    def _try_to_hold(self, seconds: int) -> None:
        try:
            self._queue.hold(self._messages, seconds)
        except MLTrackError as failed:
            events.logger.warning("Messages are not kept hidden for %s s: %s", seconds, failed)
