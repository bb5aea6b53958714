"""Two clocks: the store's, by which things are old, and this machine's, by which a collector gives up."""

from __future__ import annotations

import secrets
import time
from datetime import datetime

from mltrack_tasks.collecting.keys import clock_key
from mltrack_tasks.errors import TransientError
from mltrack_tasks.stores.base import Store

PATIENCE = 300.0
"""[s] after which a collector sends no more deletions for a batch that it opened."""


def time_at(store: Store) -> datetime:
    """Ask a store for the time: what it gives to an object that is written now, and removed."""
    key = clock_key(secrets.token_hex(16))
    store.create(key, b"")
    try:
        stat = store.head(key)
    finally:
        store.delete([key])
    if stat is None:
        raise TransientError(f"{key} disappeared from {store.location} as soon as it was written. Try again.")
    return stat.modified


class Patience:
    """How long a batch has been open, by this machine: also the time that it slept counts."""

    def __init__(self) -> None:
        self._began, self._began_at = time.monotonic(), time.time()

    def require(self) -> None:
        """Raise TransientError if the batch has been open for so long that others may close it."""
        passed = max(time.monotonic() - self._began, time.time() - self._began_at)
        if passed > PATIENCE:
            raise TransientError(
                f"A batch of deletions was open for {passed:.0f} s, over {PATIENCE:.0f} s; nothing more was "
                "deleted by it. Run the same call again, at a quieter time or with more max_workers."
            )
