"""Healing one blob: its bytes, fetched and proven, are written over what was found, if it is still that."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from mltrack_tasks.blobs import hash_object, send_blob
from mltrack_tasks.errors import MLTrackError, TransientError
from mltrack_tasks.sources import Source
from mltrack_tasks.stores.base import Stat, Store
from mltrack_tasks.trust.healing import Healed
from mltrack_tasks.trust.remedies import Remedy, Wanted, fetched, tried

_TRIES = 3


def heal_blob(
    store: Store, wanted: Wanted, *, remedies: Sequence[Remedy], dry_run: bool
) -> Healed | list[str] | None:
    """Heal one blob -> how; None if it is intact by now; else what stood in the way wherever it was looked.

    What the server says of the bytes is not believed: they are read. Errors of this store itself are raised.
    """
    direct = store.uncached()
    stat = direct.head(wanted.key, checksum=True)
    if stat is not None and _is_intact(direct, stat, wanted.digest):
        return None
    failures: list[str] = []
    for candidate in tried(remedies, wanted, failures):
        with ExitStack() as stack:
            try:
                source = stack.enter_context(fetched(candidate, wanted))
            except MLTrackError as error:
                failures.append(str(error))
                continue
            if not dry_run and not _write(direct, wanted, source, stat):
                return None
            store.evict(wanted.key)
            return Healed(wanted.key, candidate.source, source.size)
    return failures


def _write(store: Store, wanted: Wanted, source: Source, found: Stat | None) -> bool:
    """Write a blob over what was found -> False if somebody else has mended it meanwhile."""
    for _ in range(_TRIES):
        etag = None if found is None else found.etag
        if send_blob(store, wanted.key, source, replacing=etag):
            return True
        found = store.head(wanted.key, checksum=True)
        if found is not None and _is_intact(store, found, wanted.digest):
            return False
    raise TransientError(f"{wanted.key} in {store.location} is being written by others too. Try again.")


def _is_intact(store: Store, stat: Stat, digest: str) -> bool:
    """Whether an object has the right bytes: they are read, unless they are archived."""
    return stat.sha256 == digest if stat.archived else hash_object(store, stat) == digest
