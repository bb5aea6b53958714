"""What receipts say, held against what the store has."""

from __future__ import annotations

from collections.abc import Sequence

from mltrack_tasks import events, layout
from mltrack_tasks.blobs import read_blob
from mltrack_tasks.digest import sha256_hex
from mltrack_tasks.errors import ArchivedError, IntegrityError, NotFoundError, TransientError
from mltrack_tasks.events import Event, Observe, log_event
from mltrack_tasks.migration.existing import find_missing
from mltrack_tasks.migration.origin import Origin
from mltrack_tasks.migration.uploading import Uploaded, upload_batch
from mltrack_tasks.plan import Batch
from mltrack_tasks.receipts import Pack, Receipt
from mltrack_tasks.stores.base import Store

_TRIES = 3


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

    Each blob was accepted with its SHA-256 when it was sent, or judged by what the store keeps of it, so
    presence and size are looked at. Raises TransientError if blobs keep disappearing.
    """
    done = list(sent)
    suspects = list(range(len(done)))
    for _ in range(_TRIES):
        wanted = {blob: size for n in suspects for blob, size in _sizes(done[n].receipt).items()}
        missing = find_missing(store, wanted)
        suspects = [number for number in suspects if not missing.isdisjoint(_sizes(done[number].receipt))]
        details = {"done": len(done) - len(suspects), "total": len(done), "unit": "batches"}
        observe(Event(events.PROGRESS, "verifying", details))
        if not suspects:
            return done
        for number in suspects:
            events.logger.warning("sent again, as the store has lost some of it: %r", batches[number])
            done[number] = upload_batch(store, batches[number], origin=origin, trust=False, observe=observe)
    raise TransientError(f"Blobs disappear from {store.location} while they are written. Try again.")


def _sizes(receipt: Receipt) -> dict[tuple[str, str], int]:
    """Digest and format of all that a receipt names -> size [bytes]."""
    sizes = {(digest, format): size for digest, (format, size) in receipt.blobs.items()}
    return sizes | {(pack.digest, "bin"): pack.size for pack in receipt.packs}


def fault_of_pack(store: Store, pack: Pack) -> str:
    """Read a pack, and hash each file in it."""
    store.evict(layout.blob_key(pack.digest, "bin"))  # what the store holds is in question
    try:
        body = memoryview(read_blob(store, pack.digest, "bin"))
    except (NotFoundError, IntegrityError, ArchivedError) as error:
        return str(error)
    for digest, (offset, size) in pack.members.items():
        if sha256_hex(body[offset : offset + size]) != digest:
            return f"does not hold {digest} where its receipt says"
    return ""
