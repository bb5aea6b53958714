"""Send one batch: what the store has is not sent again, and what it confirmed becomes a receipt."""

from __future__ import annotations

import time
from collections.abc import Sequence

from mltrack_tasks import events
from mltrack_tasks.deletions import missing, outlast
from mltrack_tasks.events import Event, Observe, log_event
from mltrack_tasks.filetree import Entry
from mltrack_tasks.layout import blob_key
from mltrack_tasks.migration.hashcache import HashCache
from mltrack_tasks.migration.hashing import Failed, hash_entries
from mltrack_tasks.migration.origin import Origin
from mltrack_tasks.migration.receiptlists import RELIABLE, keep_receipt, renewed
from mltrack_tasks.migration.sending import Sent, Way, send_packs, send_singles
from mltrack_tasks.migration.state import find_receipt, is_older
from mltrack_tasks.migrations import batch_key
from mltrack_tasks.plan import Batch, Listing
from mltrack_tasks.receipts import DEFER_ABOVE, Pack, Receipt, batch_content, batch_id
from mltrack_tasks.recordstore import create_if_absent, read_record
from mltrack_tasks.stores.base import Store


class Uploaded:
    """What became of a batch. Neither tuple nor dataclass: Prefect would walk through all of a receipt."""

    __slots__ = ("created_blobs", "created_bytes", "failed", "receipt")

    def __init__(
        self,
        receipt: Receipt,
        failed: Sequence[Failed] = (),
        created_blobs: int = 0,
        created_bytes: int = 0,
    ) -> None:
        self.receipt, self.failed = receipt, tuple(failed)
        """``failed``: files that could not be read, or changed meanwhile."""
        self.created_blobs, self.created_bytes = created_blobs, created_bytes

    def __repr__(self) -> str:
        return f"<{self.receipt!r}, {self.created_blobs:,} blobs created, {len(self.failed):,} files failed>"


def upload_batch(
    store: Store,
    batch: Batch,
    *,
    origin: Origin,
    trust: bool = True,
    observe: Observe = log_event,
) -> Uploaded:
    """Make sure that the store has a batch's files -> the receipt, and what could not be read.

    A batch that has its receipt is not sent again, unless a large file has other bytes by now, or the receipt
    is so old that a collector may take it, or with ``trust=False``. Its record is written before its blobs,
    so that a garbage collection that begins meanwhile sees what they are for. A file that cannot be read, or
    is not the one that was found any more, is left out and named. Errors of the store are raised; the same
    call again goes on where it stopped.
    """
    done = find_receipt(store, origin.migration, batch.id, max_age=RELIABLE) if trust else None
    if done is not None and _is_of(done, batch, origin, observe) and not outlast(store, done.digests_held()):
        return Uploaded(done)
    _flag(store, origin.migration, batch)
    # What the record names is safe from here on, before it is looked for: who had opened a batch of deletions
    # is done, and who opens one sees the record.
    outlast(store, {entry.digest for entry in batch.single() if entry.digest})
    began = time.time_ns()
    with origin.open() as tree, HashCache(tree.root) as cache:
        work = _Work(Way(store, tree, origin.migration), batch, observe)
        singles, packed = batch.single(), batch.packed()
        work.send(singles, packed, batch.listing if trust else Listing())
        while threatened := outlast(store, work.digests()) | work.lost():
            taken = [entry for entry in singles if work.digest_of(entry) in threatened]
            work.send(taken, packed if threatened & set(work.packs) else [], Listing())
        cache.keep(work.hashed(), began)
    receipt = keep_receipt(store, origin.migration, work.receipt())
    return Uploaded(receipt, tuple(work.failed.values()), len(work.created), sum(work.created.values()))


def _is_of(receipt: Receipt, batch: Batch, origin: Origin, observe: Observe) -> bool:
    """Whether a receipt is of these very bytes: the batch's id does not tell those of large files."""
    large = [entry for entry in batch.files if entry.size > DEFER_ABOVE]
    with origin.open() as tree, HashCache(tree.root) as cache:
        found = hash_entries(tree, cache, large, everything=True, observe=observe)
    return not found.failed and all(receipt.digests.get(e.path) == e.digest for e in found.entries)


def _flag(store: Store, migration: str, batch: Batch) -> None:
    """Write the record of a batch, before its blobs; anew if it is so old that a collector may take it."""
    key, content = batch_key(migration, batch.id), batch_content(batch.files, batch.pack)
    if not create_if_absent(store, key, content) and is_older(read_record(store, key), RELIABLE):
        create_if_absent(store, batch_key(migration, renewed(content)), content)


class _Work:
    """A batch, and what has become of its files so far."""

    def __init__(self, way: Way, batch: Batch, observe: Observe) -> None:
        self._way, self._batch, self._observe = way, batch, observe
        self._sent: dict[str, Sent] = {}
        self.packs: dict[str, Pack] = {}
        self.failed: dict[str, Failed] = {}
        self.created: dict[str, int] = {}
        """Digest -> size [bytes] of blobs that were written."""

    def send(self, singles: list[Entry], packed: list[Entry], listing: Listing) -> None:
        """Send files; those that fail are named in ``failed``."""
        done = 0
        for answer in send_packs(self._way, packed):
            if isinstance(answer, Failed):
                self.failed[answer.path] = answer
                continue
            pack, created = answer
            self.packs[pack.digest] = pack
            self._count(pack.digest, pack.size, created)
            self._tell(done := done + pack.size)
        for sent in send_singles(self._way, singles, listing):
            if isinstance(sent, Failed):
                self.failed[sent.path] = sent
                self._sent.pop(sent.path, None)  # it was there, was taken, and could not be sent again
                continue
            self._sent[sent.entry.path] = sent
            self._count(sent.entry.digest, sent.entry.size, sent.created)
            self._tell(done := done + sent.entry.size)

    def digest_of(self, entry: Entry) -> str | None:
        """Digest of a file that was sent."""
        sent = self._sent.get(entry.path)
        return None if sent is None else sent.entry.digest

    def digests(self) -> set[str]:
        """Blobs that the receipt is going to name."""
        return {sent.entry.digest for sent in self._sent.values()} | set(self.packs)

    def lost(self) -> set[str]:
        """Blobs that were there before their pin, and are gone: a collection began and ended meanwhile."""
        late = {item.entry.digest: item.format for item in self._sent.values() if _is_late(item.entry)}
        late |= dict.fromkeys(self.packs, "bin")
        found = (item for item in late.items() if item[0] not in self.created)
        return {digest for digest, _ in missing(self._way.store, found, lambda item: blob_key(*item))}

    def hashed(self) -> list[Entry]:
        """Files whose digest was not known before they were sent."""
        return [sent.entry for sent in self._sent.values() if _is_late(sent.entry)]

    def receipt(self) -> Receipt:
        """What was confirmed, under the id of a batch of just these files."""
        done = [entry for entry in self._batch.files if entry.path not in self.failed]
        return Receipt(
            batch=batch_id(done, self._batch.pack),
            blobs={item.entry.digest: (item.format, item.entry.size) for item in self._sent.values()},
            packs=tuple(self.packs.values()),
            digests={entry.path: entry.digest for entry in self.hashed()},
        )

    def _count(self, digest: str, size: int, created: bool) -> None:
        if created:
            self.created[digest] = size

    def _tell(self, done: int) -> None:
        details = {"done": done, "total": self._batch.size_bytes, "unit": "bytes"}
        self._observe(Event(events.PROGRESS, "sending files", details))


def _is_late(entry: Entry) -> bool:
    """Whether the batch's record could not name a file's blob, so that a pin came after it."""
    return entry.size > DEFER_ABOVE
