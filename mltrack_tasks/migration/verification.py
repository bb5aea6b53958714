"""What receipts say, held against what the store has."""

from __future__ import annotations

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
from mltrack_tasks.plan import Batch
from mltrack_tasks.receipts import Pack, Receipt
from mltrack_tasks.stores.base import Store

_TRIES = 3
Faults = dict[str, str]
"""Digest of a blob -> what is wrong with it."""


def find_faults(
    store: Store, receipt: Receipt, *, thorough: bool = False, observe: Observe = log_event
) -> Faults:
    """Look for all that a receipt names -> the digests of what is wrong, and why; empty if all is well.

    Each blob was accepted with its SHA-256 when it was sent, so its presence and size are looked at, by LIST
    or HEAD. ``thorough`` asks for the SHA-256 that the store keeps, or reads the bytes where it keeps none,
    and reads each pack to hash every file in it: what a deletion of the local files goes by.
    """
    faults = _thorough(store, receipt, observe) if thorough else _present(store, receipt)
    details = {"done": len(receipt.blobs) + len(receipt.packs), "total": None, "unit": "blobs"}
    observe(Event(events.PROGRESS, "verifying", details))
    return faults


def verify_batch(
    store: Store,
    batch: Batch,
    sent: Uploaded,
    *,
    origin: Origin,
    observe: Observe = log_event,
) -> Uploaded:
    """Verify what a batch's receipt says; what is gone is sent again, whatever the receipt says.

    Raises TransientError if blobs keep disappearing.
    """
    for _ in range(_TRIES):
        if not (faults := find_faults(store, sent.receipt, observe=observe)):
            return sent
        events.logger.warning("sent again, as the store has lost it: %s", sorted(faults)[:5])
        sent = upload_batch(store, batch, origin=origin, trust=False, observe=observe)
    raise TransientError(f"Blobs disappear from {store.location} while they are written: {faults}.")


def _present(store: Store, receipt: Receipt) -> Faults:
    wanted = {digest: size for digest, (_, size) in receipt.blobs.items()}
    wanted |= {pack.digest: pack.size for pack in receipt.packs}
    found = find_existing(store, wanted)
    faults: Faults = {}
    for digest, size in wanted.items():
        if digest not in found:
            faults[digest] = "is missing"
        elif found[digest][1] != size:
            faults[digest] = f"has {found[digest][1]:,} bytes, not {size:,}"
    return faults


def _thorough(store: Store, receipt: Receipt, observe: Observe) -> Faults:
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
