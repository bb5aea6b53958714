"""The writer's side of garbage collection: each side flags, then looks. docs/format.md has the protocol.

A writer pins its blobs, then looks for open deletion batches; a collector opens its batch, then looks for
pins. So at least one of them sees the other, and no lock is needed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence

from mltrack_tasks import layout
from mltrack_tasks.digest import is_digest
from mltrack_tasks.errors import IntegrityError, NotFoundError, TransientError
from mltrack_tasks.fields import Fields
from mltrack_tasks.recordstore import read_record
from mltrack_tasks.stores.base import Store

BATCH_TIMEOUT = 120.0
"""[s] to wait for a collector to close a batch of 1,000 deletions that names one of our blobs."""
_POLL = 0.5


def settle(store: Store, rewrite: Sequence[tuple[str, Callable[[], object]]]) -> None:
    """Outlast the open batches that name one of our digests, then write again what they took.

    ``rewrite`` pairs each pinned digest with what makes sure of one of its blobs. Without an open batch this
    costs one LIST. Raises TransientError if a batch stays open: its collector may have died.
    """
    deadline = time.monotonic() + BATCH_TIMEOUT
    threatened: set[str] = set()
    digests = {digest for digest, _ in rewrite}
    while hits := _open_batches(store, digests):
        threatened |= hits
        if time.monotonic() > deadline:
            raise TransientError(
                f"A garbage collection in {store.location} holds {len(hits)} of these blobs for over "
                f"{BATCH_TIMEOUT:.0f} s. Try again; if it stays, run collect_garbage to close its batch."
            )
        time.sleep(_POLL)
    for digest, write in rewrite:
        if digest in threatened:
            write()


def _open_batches(store: Store, digests: Collection[str]) -> set[str]:
    hits: set[str] = set()
    for stat in store.list(layout.GC_DELETING):
        try:
            record = read_record(store, stat.key)
        except NotFoundError:
            continue  # closed meanwhile
        named = Fields(record.content, stat.key).texts("digests")
        if named is None or not all(map(is_digest, named)):
            raise IntegrityError(f"{stat.key} in {store.location} does not list digests.")
        hits.update(digest for digest in named if digest in digests)
    return hits
