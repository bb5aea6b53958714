"""Open batches of deletions, the collector's side: opened, compared with those of others, closed."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta

from mltrack_tasks import events, layout, provenance
from mltrack_tasks.collecting.keys import batch_key
from mltrack_tasks.collecting.marks import read_digests
from mltrack_tasks.errors import NotFoundError, TransientError
from mltrack_tasks.records import Record
from mltrack_tasks.recordstore import ensure
from mltrack_tasks.stores.base import Stat, Store

BATCH = 1_000
"""Digests of one batch: whoever writes one of them waits until it is closed."""
ABANDONED = timedelta(hours=1)
"""A batch of this age, by the store's clock, has no collector any more that would delete by it."""


class OpenBatches:
    """The batches of one collector for one round."""

    def __init__(self, store: Store, digests: Sequence[str]) -> None:
        self._store = store
        self.keys: list[str] = []
        for start in range(0, len(digests), BATCH):
            key = batch_key(secrets.token_hex(16))
            self.keys.append(key)
            content = {"digests": list(digests[start : start + BATCH])}
            ensure(store, key, Record(content, provenance.current()).to_bytes())

    def of_others(self) -> set[str]:
        """Digests that other collectors are at: they are left to those.

        Two that open at once may leave the same ones to each other; a later collection takes them. Closes
        what dead collectors left open.
        """
        listed = {stat.key: stat for stat in self._store.list(layout.GC_DELETING)}
        own = next((listed[key] for key in self.keys if key in listed), None)
        if own is None:
            raise TransientError(
                f"{self.keys[0]} was removed from {self._store.location} while its collector was at work. "
                "Run the same call again."
            )
        others = [stat for key, stat in listed.items() if key not in self.keys and layout.is_batch_key(key)]
        return {digest for stat in others for digest in self._alive(stat, own)}

    def close(self) -> None:
        """Let writers go on."""
        self._store.delete(self.keys)

    def _alive(self, other: Stat, own: Stat) -> list[str]:
        if _closed_if_abandoned(self._store, other, own.modified):
            return []
        try:
            return read_digests(self._store, other.key)
        except NotFoundError:
            return []  # closed meanwhile


def close_abandoned(store: Store, now: datetime) -> None:
    """Close what dead collectors left open, so that writers do not wait for them; ``now`` is the store's."""
    for stat in store.list(layout.GC_DELETING):
        if layout.is_batch_key(stat.key):
            _closed_if_abandoned(store, stat, now)


def _closed_if_abandoned(store: Store, batch: Stat, now: datetime) -> bool:
    if now - batch.modified <= ABANDONED:
        return False
    events.logger.warning("closed: %s, which a dead collector left open", batch.key)
    store.delete([batch.key])
    return True
