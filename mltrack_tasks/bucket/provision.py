"""Provisioning: look at a bucket, plan, and apply, so that what others configured stays as it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from mltrack_tasks import events
from mltrack_tasks.bucket.applying import apply_document
from mltrack_tasks.bucket.history import Applied, last_applied, write_applied
from mltrack_tasks.bucket.planning import (
    RECOMMENDED,
    SETTING_OF,
    Row,
    digest_of,
    hazards,
    own_part,
    same_part,
)
from mltrack_tasks.bucket.planning import (
    plan as plan_of,
)
from mltrack_tasks.bucket.report import BucketReport
from mltrack_tasks.bucket.settings import BucketSettings, checked_settings
from mltrack_tasks.bucket.wishing import Place, Sight
from mltrack_tasks.errors import AccessError, ConflictError, InvalidInputError, MLTrackError
from mltrack_tasks.events import Event, Observe, log_event
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.identity import bucket_place, region_of, s3_of
from mltrack_tasks.stores.s3_bucket import BucketAdmin, Found, is_unsupported


@dataclass
class _Look:
    """What one look at the bucket found."""

    sight: Sight
    rows: list[Row]
    notes: list[str] = field(default_factory=list)
    number: int = 0
    before: Applied | None = None


def provision_bucket(
    store: Store,
    settings: BucketSettings | Mapping[str, Any] | None = None,
    *,
    dry_run: bool = True,
    plan: str | None = None,
    observe: Observe = log_event,
) -> BucketReport:
    """Compare the bucket of a store with ``settings`` -> a report; ``dry_run=False`` makes the changes.

    What the settings leave out stays as it was last applied, and what never was is set as recommended. Rules
    and statements of others stay as they are. Each document is kept in a record under ``bucket/changes/``
    before it is written (``undo_bucket_change``), and read again right before. Applied twice, the second
    call changes nothing; the same call again finishes one that was interrupted. ``plan=report.plan`` makes
    the changes of that report, or none.

    Raises InvalidInputError, with the reason and what is safe, for settings that would break the store, and
    for a store that is no bucket; ConflictError for what rules of others do not leave room for, and if
    somebody changes a document at the same time; AccessError for what was asked for and cannot be done here.
    """
    bare = s3_of(store)
    if bare is None:
        raise InvalidInputError(f"{store.location} is not in a bucket: there is nothing to provision.")
    admin, wish = BucketAdmin(bare), checked_settings(settings)
    looked = look(store, admin, wish)
    digest = digest_of(looked.rows)
    if plan is not None and plan != digest:
        raise ConflictError(
            f"The changes of the plan {plan[:12]} are not those that {admin.bucket} needs now "
            f"({digest[:12]}): the bucket or the settings changed. Look at a new dry run, and apply its "
            "plan.",
            existing=digest,
            offered=plan,
        )
    created = looked.sight.place.new
    if not dry_run:
        if created:
            wanted = wish.ownership or ("BucketOwnerEnforced" if wish.recommended else None)
            admin.create(_region(admin, wish), wanted)
            looked = look(store, admin, wish)
        _report_drift(looked, observe)
        looked.rows, changes = _apply(store, admin, looked, observe)
    report = _report(store, looked, dry_run, digest, created)
    return report if dry_run else replace(report, changes=tuple(changes))


def look(store: Store, admin: BucketAdmin, wish: BucketSettings) -> _Look:
    """Read what is there, and plan."""
    place, notes = _place(admin, wish)
    before, number = (None, 0) if place.new else last_applied(store, admin.bucket)
    settings = wish.over(before.settings if before else None)
    applied = before.documents if before else {}
    admin.trail = settings.cloudtrail.trail if settings.cloudtrail else None
    wished = settings.notifications
    admin.queue = wished.queue_arn if wished and wished.create_queue else None
    found = {} if place.new else _read(admin, settings, applied)
    rows: list[Row] = []
    for name, each in found.items():
        if each.state not in ("unsupported", "denied"):
            continue
        if getattr(settings, SETTING_OF[name]) is not None:
            raise AccessError(f"{name} was asked for, and cannot be read: {each.detail}")
        rows.append(Row(name, each.state, each.detail))
    said = {name: each.document for name, each in found.items()}
    sight = Sight(settings, place, said, applied, _target_versioned(admin, settings))
    unread = {row.document for row in rows}
    planned = [row for row in plan_of(sight) if row.document not in unread]
    order = list(SETTING_OF)
    looked = _Look(sight, sorted([*planned, *rows], key=lambda row: order.index(row.document)), notes)
    looked.number, looked.before = number, before
    return looked


def _place(admin: BucketAdmin, wish: BucketSettings) -> tuple[Place, list[str]]:
    settings, store = admin.settings, admin.store
    place = Place(
        bucket=settings.bucket,
        prefix=settings.prefix,
        plain_http=str(store.client.meta.endpoint_url).startswith("http://"),
        encryption=settings.encryption,
        kms_key_id=settings.kms_key_id,
    )
    try:
        there = bucket_place(store)
    except AccessError as error:
        if error.details.get("code") != "NoSuchBucket":
            raise
        return replace(place, new=True, region=_region(admin, wish)), []
    region = there.region or region_of(store)
    notes = []
    if wish.region and region and wish.region != region:
        notes.append(f"The bucket is in {region}; a bucket cannot be moved to {wish.region}.")
    return replace(place, region=region, shared=admin.is_shared()), notes


def _region(admin: BucketAdmin, wish: BucketSettings) -> str | None:
    return wish.region or region_of(admin.store)


def _read(admin: BucketAdmin, settings: BucketSettings, applied: Mapping[str, Any]) -> dict[str, Found]:
    """Read the documents that something is wished of, and those that say what others' rules endanger."""
    needed = {name for name, field in SETTING_OF.items() if getattr(settings, field) is not None}
    needed |= set(applied) & set(SETTING_OF) | {"lifecycle"}
    if settings.recommended:
        needed |= set(RECOMMENDED)
    if "replication" in needed:
        needed |= {"versioning", "encryption"}
    return {name: admin.read(name) for name in SETTING_OF if name in needed}


def _target_versioned(admin: BucketAdmin, settings: BucketSettings) -> bool | None:
    wish = settings.replication
    return admin.versioned(wish.target_bucket) if wish and wish.target_bucket else None


def _apply(store: Store, admin: BucketAdmin, looked: _Look, observe: Observe) -> tuple[list[Row], list[int]]:
    rows, changes = [], []
    for row in looked.rows:
        if row.state == "change":
            try:
                row, number = apply_document(store, admin, row, observe=observe)
                changes.append(number)
            except (AccessError, InvalidInputError) as error:
                if row.explicit:
                    _tell(error, row, changes)
                    raise
                # A server that lacks it may also call the document, which S3 takes, invalid.
                denied = isinstance(error, AccessError) and not is_unsupported(error)
                row = replace(row, state="denied" if denied else "unsupported", why=str(error))
            except MLTrackError as error:
                _tell(error, row, changes)
                raise
        rows.append(row)
    _keep(store, looked, rows, changes)
    return rows, changes


_HINTS = {
    "notifications": "The queue must let S3 send to it: mltrack_tasks.bucket.policies.queue_policy is what "
    "it needs, and create_queue sees to it. After that S3 may need a minute: make the same call again.",
    "logging": "The target's policy must let logging.s3.amazonaws.com write to it.",
    "replication": "After versioning was first enabled, S3 may need some minutes: make the same call again.",
}


def _tell(error: MLTrackError, row: Row, changes: list[int]) -> None:
    """Add to an error what was done before it, and what often is the reason."""
    if hint := _HINTS.get(row.document):
        error.add_note(hint)
    if changes:
        error.add_note(f"Changed before it, each to be undone by its number: {changes}.")


def _keep(store: Store, looked: _Look, rows: list[Row], changes: list[int]) -> None:
    """Write down what is applied now, unless that is written down already."""
    place = looked.sight.place
    documents = {
        row.document: own_part(row.document, row.after, place)
        for row in rows
        if row.state in ("same", "change")
    }
    settings = looked.sight.settings
    before = looked.before
    if before and not changes and before.settings.to_content() == settings.to_content():
        known = before.documents
        if all(name in known and same_part(part, known[name]) for name, part in documents.items()):
            return
    kept = {**(before.documents if before else {}), **documents}
    write_applied(store, Applied(looked.number + 1, place.bucket, settings, kept, tuple(changes)))


def _report_drift(looked: _Look, observe: Observe) -> None:
    for row in looked.rows:
        if row.drift:
            observe(Event(events.BUCKET_DRIFTED, looked.sight.place.bucket, {"document": row.document}))


def _report(store: Store, looked: _Look, dry_run: bool, digest: str, created: bool) -> BucketReport:
    place, settings = looked.sight.place, looked.sight.settings
    return BucketReport(
        location=store.location,
        bucket=place.bucket,
        dry_run=dry_run,
        created=created,
        plan=digest,
        documents=tuple(looked.rows),
        hazards=tuple(hazards(looked.sight.found, place)),
        notes=(*looked.notes, *(note for row in looked.rows for note in row.notes)),
        retention=(settings.temporary.policy(),) if settings.temporary else (),
    )
