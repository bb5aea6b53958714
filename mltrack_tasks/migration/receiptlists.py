"""Receipts in the store: how one is kept, and which of them a finished state lists.

Each state adds receipts to those of the one before. So that their number stays bounded, small ones are merged
now and then into new ones, of just what the state needs; older states keep their own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from mltrack_tasks import canonical, layout
from mltrack_tasks.digest import sha256_hex
from mltrack_tasks.migration.state import find_receipt, read_receipts
from mltrack_tasks.migrations import receipt_key
from mltrack_tasks.plan import cut_by
from mltrack_tasks.receipts import Pack, Receipt
from mltrack_tasks.recordstore import create_if_absent, same_content
from mltrack_tasks.stores.base import Store

RELIABLE = timedelta(days=20)
"""Age up to which a receipt that no manifest lists is relied on: a collector takes none younger than 30 days,
and that leaves time to finish."""
MAX_LISTED = 64
"""Receipts that a state lists before the small ones among them are merged."""
FULL = 20_000
"""Files of a receipt that is not merged, and of one that was: some 3 MB."""


def renewed(content: Mapping[str, Any]) -> str:
    """Another id for a record of today."""
    return sha256_hex(canonical.dumps([layout.utc_day(datetime.now(UTC)), content]))[:32]


def keep_receipt(store: Store, migration: str, receipt: Receipt) -> Receipt:
    """Write a receipt -> it; under another id if the one there is old, or of other bytes of large files."""
    if create_if_absent(store, receipt_key(migration, receipt.batch), receipt.to_content()):
        return receipt
    there = find_receipt(store, migration, receipt.batch, max_age=RELIABLE)
    if there is not None and same_content(there.to_content(), receipt.to_content()):
        return receipt
    own = renewed(receipt.to_content())
    renamed = replace(receipt, batch=own)
    create_if_absent(store, receipt_key(migration, own), renamed.to_content())
    return renamed


def listed_receipts(
    store: Store,
    migration: str,
    before: Sequence[str],
    new: Sequence[str],
    *,
    needed: Collection[str],
    moved: Collection[str] = (),
) -> tuple[str, ...]:
    """Choose the receipts of a state: those of the one before it and new ones, or fewer that say the same.

    ``needed`` are the digests of all its files; ``moved`` those that the ``new`` receipts name another place
    of, as the store had lost the one before.
    """
    listed = tuple(dict.fromkeys((*before, *new)))
    if len(listed) <= MAX_LISTED and not moved:
        return listed
    older = [batch for batch in before if batch not in new]
    found = {receipt.batch: receipt for receipt in read_receipts(store, migration, older)}
    valid = frozenset(needed) - frozenset(moved)
    reduced = {batch: _reduced(receipt, valid) for batch, receipt in found.items()}
    whole = {batch for batch in found if _stays(found[batch], reduced[batch], moved)}
    merged = _merged(reduced[batch] for batch in found if batch not in whole)
    ids = [keep_receipt(store, migration, receipt).batch for receipt in merged]
    kept = [batch for batch in older if batch in whole or batch not in found]
    return tuple(dict.fromkeys((*kept, *ids, *new)))


def _stays(receipt: Receipt, reduced: Receipt, moved: Collection[str]) -> bool:
    """Whether a receipt is large, most of it is needed, and nothing in it has moved."""
    worth = _size(reduced) >= FULL and _size(reduced) * 2 >= _size(receipt)
    return worth and receipt.places().keys().isdisjoint(moved)


def _size(receipt: Receipt) -> int:
    return len(receipt.blobs) + sum(len(pack.members) for pack in receipt.packs)


def _reduced(receipt: Receipt, needed: Collection[str]) -> Receipt:
    """Leave of a receipt what it says of some digests."""
    packs = (
        replace(pack, members={digest: place for digest, place in pack.members.items() if digest in needed})
        for pack in receipt.packs
    )
    blobs = {digest: place for digest, place in receipt.blobs.items() if digest in needed}
    return Receipt(receipt.batch, blobs, tuple(pack for pack in packs if pack.members))


def _merged(receipts: Iterable[Receipt]) -> Iterator[Receipt]:
    """Put receipts together into ones of FULL files; of a digest in several, a blob of its own counts."""
    blobs: dict[str, tuple[str, int]] = {}
    packs: dict[str, Pack] = {}
    for receipt in receipts:
        blobs |= receipt.blobs
        for pack in receipt.packs:
            known = packs.get(pack.digest)
            members = {**known.members, **pack.members} if known else pack.members
            packs[pack.digest] = replace(pack, members=members)
    seen = set(blobs)
    rows: list[tuple[int, str | Pack]] = [(1, digest) for digest in sorted(blobs)]
    for pack in (packs[digest] for digest in sorted(packs)):
        members = {digest: place for digest, place in pack.members.items() if digest not in seen}
        seen |= members.keys()
        rows += [(len(members), replace(pack, members=members))] if members else []
    for part in cut_by(rows, FULL):
        own = {item: blobs[item] for item in part if isinstance(item, str)}
        yield _named(Receipt("0" * 32, own, tuple(item for item in part if isinstance(item, Pack))))


def _named(receipt: Receipt) -> Receipt:
    """Name a receipt by what it says."""
    return replace(receipt, batch=sha256_hex(canonical.dumps(receipt.to_content()))[:32])
