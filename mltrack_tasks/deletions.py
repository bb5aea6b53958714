"""The writer's side of garbage collection: each side flags, then looks. docs/format.md has the protocol.

A writer pins its blobs, then looks for open deletion batches, then at the blobs that were there before it
came; a collector opens its batch, then looks for pins. So at least one of them sees the other, and no lock is
needed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from typing import TypeVar

from mltrack_tasks import layout
from mltrack_tasks.digest import is_digest
from mltrack_tasks.errors import IntegrityError, NotFoundError, SourceChangedError, TransientError
from mltrack_tasks.events import Event, Observe
from mltrack_tasks.fields import Fields
from mltrack_tasks.parallel import run_all
from mltrack_tasks.recordstore import ensure, read_record
from mltrack_tasks.refs import DataRef
from mltrack_tasks.stores.base import Store

BATCH_TIMEOUT = 120.0
"""[s] to wait for a collector to close a batch of 1,000 deletions that names one of our blobs."""
STALE = 43_200.0
"""[s] of writing and pinning after which also blobs that this call created are looked at again: a collector
leaves alone what is younger than a grace period, which is a day at least."""
_POLL = 0.5

T = TypeVar("T")

Writer = Callable[[Observe], DataRef]
"""Makes sure of one blob -> its ref; called again if a collector took the blob."""


def hold(
    store: Store,
    writers: Sequence[Writer],
    pin_key: Callable[[str], str],
    *,
    observe: Observe,
    listed: Callable[[list[DataRef]], Collection[str]] = lambda refs: (),
) -> list[DataRef]:
    """Write blobs, pin each under ``pin_key(digest)``, outlast open deletions -> refs in order.

    What was written is safe from collectors from here on, until a record lists it. Without an open batch
    this costs one LIST beside the writes, and a HEAD for each blob and each pin that was there before: a
    collection may have begun and ended since it was found. ``listed(refs)`` names digests that need no pin:
    it found them in a record that stands for good. Raises SourceChangedError if a blob that was taken cannot
    be written again because its source is another by now.
    """
    seen: list[Event] = []
    began = time.time()
    try:
        refs = run_all([partial(write, seen.append) for write in writers], store.max_workers)
        digests = dict.fromkeys(ref.hash for ref in refs)
        known = listed(refs)
        pins = [pin_key(digest) for digest in digests if digest not in known]
        fresh = run_all([partial(ensure, store, pin) for pin in pins], store.max_workers)
        threatened = outlast(store, digests)
        stale = time.time() - began > STALE
        settled = threatened.union(known)
        doubtful = [ref for ref in refs if ref.hash not in settled and (stale or not ref.created)]
        threatened |= {ref.hash for ref in missing(store, doubtful, lambda ref: ref.storage_path)}
        for write, ref in zip(writers, refs, strict=True):
            if ref.hash in threatened:
                _write_again(write, ref, seen.append)
                ensure(store, pin_key(ref.hash))
        old = [pin for pin, made in zip(pins, fresh, strict=True) if not made]
        run_all([partial(ensure, store, pin) for pin in missing(store, old, str)], store.max_workers)
    finally:
        for event in seen:  # from this thread, and also when something failed: a healed blob is news
            observe(event)
    return refs


def missing(store: Store, things: Iterable[T], key_of: Callable[[T], str]) -> list[T]:
    """Ask for the object of each thing -> those whose object is not there."""
    asked = list(things)
    found = run_all([partial(store.head, key_of(thing)) for thing in asked], store.max_workers)
    return [thing for thing, stat in zip(asked, found, strict=True) if stat is None]


def _write_again(write: Writer, ref: DataRef, observe: Observe) -> None:
    if write(observe).hash != ref.hash:
        raise SourceChangedError(
            f"The source of {ref.name!r} changed while it was stored. Run it again; nothing refers to it yet."
        )


def outlast(store: Store, digests: Collection[str]) -> set[str]:
    """Wait until no open batch names one of our digests, which are pinned -> those that one named."""
    deadline = time.monotonic() + BATCH_TIMEOUT
    threatened: set[str] = set()
    while hits := _open_batches(store, digests):
        threatened |= hits
        if time.monotonic() > deadline:
            raise TransientError(
                f"A garbage collection in {store.location} holds {len(hits)} of these blobs for over "
                f"{BATCH_TIMEOUT:.0f} s. Try again; if it stays, run collect_garbage to close its batch."
            )
        time.sleep(_POLL)
    return threatened


def _open_batches(store: Store, digests: Collection[str]) -> set[str]:
    hits: set[str] = set()
    for stat in store.list(layout.GC_DELETING):
        if not layout.is_batch_key(stat.key):
            continue  # a foreign object, such as a folder's placeholder
        try:
            record = read_record(store, stat.key)
        except NotFoundError:
            continue  # closed meanwhile
        except IntegrityError as error:
            raise IntegrityError(
                f"{stat.key} in {store.location} may be an open batch of deletions, and cannot be read: "
                f"{error} If no garbage collection is running, remove it."
            ) from error
        named = Fields(record.content, stat.key).texts("digests")
        if named is None or not all(map(is_digest, named)):
            raise IntegrityError(f"{stat.key} in {store.location} does not list digests; remove or mend it.")
        hits.update(digest for digest in named if digest in digests)
    return hits
