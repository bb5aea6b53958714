"""Undoing a change of the bucket's configuration, from the document that was kept before it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mltrack_tasks.bucket.applying import apply_document
from mltrack_tasks.bucket.history import Change, last_applied, read_change, write_applied
from mltrack_tasks.bucket.linking import with_statements
from mltrack_tasks.bucket.merging import merge, merge_policy, same_document
from mltrack_tasks.bucket.naming import sid_base
from mltrack_tasks.bucket.planning import SETTING_OF, SHAPES, Row, digest_of, own_part, same_part
from mltrack_tasks.bucket.report import BucketReport
from mltrack_tasks.bucket.wishing import Place
from mltrack_tasks.errors import ConflictError, InvalidInputError
from mltrack_tasks.events import Observe, log_event
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.identity import bucket_place, region_of, s3_of
from mltrack_tasks.stores.s3_bucket import BucketAdmin


def undo_bucket_change(
    store: Store, change: int, *, dry_run: bool = True, observe: Observe = log_event
) -> BucketReport:
    """Put back what a document said before a change -> a report; ``dry_run=False`` writes it.

    If nobody changed the document since, it says again what it said, byte for byte. If others changed their
    rules, only ours go back. An undoing is a change as well, and can be undone. The wish for that document
    is forgotten: say it again to have it again. Versioning cannot be taken back, only suspended.

    Raises NotFoundError for an unknown change, ConflictError if ours was changed again since: undo that
    first.
    """
    bare = s3_of(store)
    if bare is None:
        raise InvalidInputError(f"{store.location} is not in a bucket: there is nothing to undo.")
    admin, kept = BucketAdmin(bare), read_change(store, change)
    if kept.bucket != admin.bucket or kept.document not in SETTING_OF:
        raise InvalidInputError(
            f"Change {change} is of {kept.document!r} of the bucket {kept.bucket!r}, not of {admin.bucket!r}."
        )
    region = bucket_place(bare).region or region_of(bare)
    place = Place(admin.bucket, admin.settings.prefix, region)
    if kept.document == "cloudtrail":
        admin.trail = (kept.before or {}).get("TrailARN")
    if kept.document == "queue":
        admin.queue = (kept.before or kept.after)["QueueArn"]
    found = admin.read(kept.document).document
    target = undone(kept, found, place)
    why = f"as before change {change}"
    row = Row(kept.document, "same" if target == found else "change", why, found, target, True)
    numbers: tuple[int, ...] = ()
    if row.state == "change" and not dry_run:
        row, number = apply_document(store, admin, row, undoes=change, observe=observe)
        numbers = (number,)
        _forget(store, place, kept.document, numbers)
    return BucketReport(
        location=store.location,
        bucket=admin.bucket,
        dry_run=dry_run,
        created=False,
        plan=digest_of([row]),
        documents=(row,),
        changes=numbers,
        notes=row.notes,
    )


def undone(change: Change, found: Any, place: Place) -> Any:
    """What a document is to say when a change is taken back."""
    name = change.document
    if same_document(found, change.after):
        target = change.before
    else:
        mine, before, after = (own_part(name, each, place) for each in (found, change.before, change.after))
        if same_part(mine, before):
            return found
        if not same_part(mine, after):
            raise ConflictError(
                f"{name} of {place.bucket} was changed again since change {change.number}. Undo the later "
                "change first, or say what you want with provision_bucket.",
                existing=found,
                offered=change.before,
            )
        target = _ours_of(name, found, before, place)
    if name == "queue" and target is None:
        return with_statements(found, place, ())  # the queue stays: messages may lie in it
    if target is None and name in ("versioning", "acceleration"):
        return {"Status": "Suspended"}
    return target


def _ours_of(name: str, found: Any, part: Any, place: Place) -> Any:
    """A document with our rules as they were, and those of others as they are."""
    if name == "policy":
        return merge_policy(found, sid_base(place.prefix), part.get("Statement", ()))
    if name == "queue":
        return with_statements(found, place, part.get("Statement", ()))
    if name not in SHAPES:
        return part
    shape = SHAPES[name]
    merged = merge(found, shape, place.base, part)
    if name == "cloudtrail" or any(merged.get(each) for each in shape.lists):
        return merged
    return merged if name == "notifications" and merged else None


def _forget(store: Store, place: Place, name: str, changes: tuple[int, ...]) -> None:
    before, number = last_applied(store, place.bucket)
    if before is None:
        return
    settings = before.settings.model_copy(update={SETTING_OF[name]: None})
    documents = {key: part for key, part in before.documents.items() if key != name}
    write_applied(
        store, replace(before, number=number + 1, settings=settings, documents=documents, changes=changes)
    )
