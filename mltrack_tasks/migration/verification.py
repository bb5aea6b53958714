"""What receipts say, held against what the store has."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from mltrack_tasks import events
from mltrack_tasks.blobs import fault_of, read_blob
from mltrack_tasks.digest import sha256_hex
from mltrack_tasks.errors import ArchivedError, IntegrityError, NotFoundError, TransientError
from mltrack_tasks.events import Event, Observe, log_event
from mltrack_tasks.migration.existing import find_existing
from mltrack_tasks.migration.origin import Origin
from mltrack_tasks.migration.uploading import Uploaded, upload_batch
from mltrack_tasks.parallel import map_ordered
from mltrack_tasks.plan import Batch, Found
from mltrack_tasks.receipts import Pack, Receipt
from mltrack_tasks.stores.base import Store

_TRIES = 3
Faults = dict[str, str]
"""Digest of a blob -> what is wrong with it."""


def verify_batch(
    store: Store, batch: Batch, sent: Uploaded, *, origin: Origin, observe: Observe = log_event
) -> Uploaded:
    """Verify what a batch's receipt says; what is gone is sent again -> what the store has.

    Raises TransientError if blobs keep disappearing.
    """
    return verify_batches(store, [batch], [sent], origin=origin, observe=observe)[0]


def verify_batches(
    store: Store,
    batches: Sequence[Batch],
    sent: Sequence[Uploaded],
    *,
    origin: Origin,
    observe: Observe = log_event,
) -> list[Uploaded]:
    """Verify all that was sent by one LIST, or by HEADs where that is less; what is gone is sent again.

    Each blob was accepted with its SHA-256 when it was sent, so its presence and size are looked at; what
    a deletion of local files goes by is ``find_faults``. Raises TransientError if blobs keep disappearing.
    """
    done = list(sent)
    suspects = list(range(len(done)))
    for _ in range(_TRIES):
        there = find_existing(
            store, {digest for number in suspects for digest in _sizes(done[number].receipt)}
        )
        suspects = [number for number in suspects if not _agrees(_sizes(done[number].receipt), there)]
        details = {"done": len(done) - len(suspects), "total": len(done), "unit": "batches"}
        observe(Event(events.PROGRESS, "verifying", details))
        if not suspects:
            return done
        for number in suspects:
            events.logger.warning("sent again, as the store has lost some of it: %r", batches[number])
            done[number] = upload_batch(store, batches[number], origin=origin, trust=False, observe=observe)
    raise TransientError(f"Blobs disappear from {store.location} while they are written. Try again.")


def find_faults(store: Store, receipt: Receipt, *, observe: Observe = log_event) -> Faults:
    """Look at the bytes of all that a receipt names -> what is wrong with which blob; empty if all is well.

    By the SHA-256 that the store keeps, or by reading where it keeps none; each pack is read, and every file
    in it hashed.
    """
    faults: Faults = {}
    for pack in receipt.packs:
        if fault := fault_of_pack(store, pack):
            faults[pack.digest] = fault
    items = [(digest, format, size) for digest, (format, size) in receipt.blobs.items()]
    answers = map_ordered(partial(_fault_of_blob, store), items, store.max_workers)
    for number, ((digest, _, _), fault) in enumerate(zip(items, answers, strict=True), start=1):
        if fault:
            faults[digest] = fault
        details = {"done": number, "total": len(items), "unit": "blobs"}
        observe(Event(events.PROGRESS, "verifying", details))
    return faults


def _sizes(receipt: Receipt) -> dict[str, int]:
    sizes = {digest: size for digest, (_, size) in receipt.blobs.items()}
    return sizes | {pack.digest: pack.size for pack in receipt.packs}


def _agrees(wanted: dict[str, int], there: Found) -> bool:
    return all(digest in there and there[digest][1] == size for digest, size in wanted.items())


def _fault_of_blob(store: Store, item: tuple[str, str, int]) -> str:
    return fault_of(store, *item)


def fault_of_pack(store: Store, pack: Pack) -> str:
    """Read a pack, and hash each file in it."""
    try:
        body = memoryview(read_blob(store, pack.digest, "bin"))
    except (NotFoundError, IntegrityError, ArchivedError) as error:
        return str(error)
    for digest, (offset, size) in pack.members.items():
        if sha256_hex(body[offset : offset + size]) != digest:
            return f"does not hold {digest} where its receipt says"
    return ""
