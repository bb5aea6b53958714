"""Applying one change: kept first, read again right before it is written, and looked at afterwards."""

from __future__ import annotations

import time
from dataclasses import replace

from mltrack_tasks import events
from mltrack_tasks.bucket.history import Change, write_change
from mltrack_tasks.bucket.merging import same_document
from mltrack_tasks.bucket.planning import Row
from mltrack_tasks.errors import ConflictError
from mltrack_tasks.events import Event, Observe
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.s3_bucket import BucketAdmin

_LOOKS = 4
"""How often a written document is looked for: configurations are not consistent at once."""


def apply_document(
    store: Store, admin: BucketAdmin, row: Row, *, undoes: int | None = None, observe: Observe
) -> tuple[Row, int]:
    """Write ``row.after`` in place of ``row.before`` -> (the row, with notes; the number of the change).

    S3 has no conditional write of configurations: the document is read right before it is written, and
    ConflictError raised if it is not ``row.before`` any more. Whoever writes within that moment is
    overwritten; the record has what was read.
    """
    now = admin.read(row.document).document
    if now != row.before:
        raise ConflictError(
            f"Somebody changed {row.document} of {admin.bucket} since it was looked at. Nothing was written "
            "to it; look at a new dry run.",
            existing=now,
            offered=row.before,
        )
    change = Change(0, admin.bucket, row.document, row.before, row.after, row.why, undoes)
    number = write_change(store, change).number
    admin.write(row.document, row.after)
    details = {"document": row.document, "change": number, "undoes": undoes}
    observe(Event(events.BUCKET_CHANGED, admin.bucket, details))
    return _confirmed(admin, row), number


def _confirmed(admin: BucketAdmin, row: Row) -> Row:
    """Look whether the bucket says what was written; what it adds to it is told."""
    for attempt in range(_LOOKS):
        found = admin.read(row.document).document
        if row.after is None or same_document(found, row.after):
            return row
        if attempt + 1 < _LOOKS:
            time.sleep(0.1 * 2**attempt)
    note = f"{row.document}: the bucket says something else than what was written; look again in a while."
    return replace(row, notes=(*row.notes, note))
