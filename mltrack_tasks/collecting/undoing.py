"""Undoing a collection, as long as the bucket keeps what was deleted."""

from __future__ import annotations

from dataclasses import dataclass

from mltrack_tasks import events, layout
from mltrack_tasks.collecting.plans import DIGESTS, read_plan, rows_of
from mltrack_tasks.events import Event, Observe, log_event
from mltrack_tasks.parallel import map_ordered
from mltrack_tasks.stores.base import Store


@dataclass(frozen=True)
class UndoneCollection:
    """What came back of what a plan lists: blobs, and objects with what describes those."""

    plan: str
    blobs: int
    objects: int

    def __str__(self) -> str:
        if not self.objects:
            return "nothing came back: nothing of it is deleted now, or the store keeps no versions of that"
        return f"{self.blobs:,} blobs ({self.objects:,} objects) came back"


def undo_collection(store: Store, plan: str, *, observe: Observe = log_event) -> UndoneCollection:
    """Bring back the blobs that a plan lists and a collection deleted -> how many.

    Only a bucket with versioning has them, until a lifecycle rule removes them; elsewhere nothing comes back,
    and the report says so. What came back is as old as it was: store it again, or something that refers to
    it, before the next collection. Undone twice, the second call finds nothing. Raises NotFoundError for an
    unknown plan, AccessError without s3:ListBucketVersions or s3:DeleteObjectVersion.
    """
    direct = store.uncached()
    found = read_plan(direct, plan)
    blobs = objects = done = 0
    for rows in rows_of(direct, found, DIGESTS):
        folders = map(layout.blob_folder, rows)
        for count in map_ordered(direct.undelete, folders, direct.max_workers):
            blobs += count > 0
            objects += count
        done += len(rows)
        details = {"done": done, "total": found.blobs, "unit": "blobs"}
        observe(Event(events.PROGRESS, "undoing a collection", details))
    return UndoneCollection(plan, blobs, objects)
