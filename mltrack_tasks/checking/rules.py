"""Rules of the bucket that would break the store: what expires or archives by age."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mltrack_tasks import layout
from mltrack_tasks.bucket.judging import judge
from mltrack_tasks.bucket.merging import LIFECYCLE, foreign
from mltrack_tasks.bucket.naming import root_of, rule_base
from mltrack_tasks.bucket.planning import hazards
from mltrack_tasks.bucket.wishing import Place
from mltrack_tasks.checking.report import AccessCheck, failed, not_probed
from mltrack_tasks.errors import MLTrackError
from mltrack_tasks.stores.asking import expiry_of
from mltrack_tasks.stores.s3 import S3Store
from mltrack_tasks.stores.s3_bucket import BucketAdmin, Found

_LIFECYCLE, _TIERS = "lifecycle rules", "archive tiers"
_OTHER_PLACE = "Let it begin at another prefix, or remove it from the bucket."
_ASK_ADMIN = "Let somebody with the role admin run check_access(role='admin')."


def rule_rows(store: S3Store) -> Iterator[AccessCheck]:
    """Read the bucket's rules, as far as these credentials may, and judge what they do to the store."""
    admin = BucketAdmin(store)
    found = _read(admin, "lifecycle")
    if isinstance(found, AccessCheck):
        yield found
    elif found.state == "denied":
        yield _seen_on_objects(store)
    else:
        yield from _judged(found.document, store.settings.prefix)
    tiers = None if store.settings.endpoint_url else _read(admin, "archive_tiers")
    if isinstance(tiers, Found) and tiers.document:
        place = Place(store.settings.bucket, store.settings.prefix)
        for said in hazards({"archive_tiers": tiers.document}, place):
            yield AccessCheck(_TIERS, False, said, _OTHER_PLACE)


def _read(admin: BucketAdmin, name: str) -> Found | AccessCheck:
    try:
        return admin.read(name)
    except MLTrackError as error:
        return failed(_LIFECYCLE, error, ok=None)


def _judged(document: Any, prefix: str) -> Iterator[AccessCheck]:
    """Ours were judged when they were applied: what they archive was accepted."""
    theirs = foreign(document, LIFECYCLE, rule_base(prefix)).get("Rules", ())
    count = len((document or {}).get("Rules", ()))
    verdicts = [each for rule in theirs for each in judge(rule, root_of(prefix))]
    for each in verdicts:
        yield AccessCheck(_LIFECYCLE, False if each.refused else None, str(each), each.instead)
    if not any(each.refused for each in verdicts):
        yield AccessCheck(_LIFECYCLE, True, f"{count} in the bucket; none breaks the store")


def _seen_on_objects(store: S3Store) -> AccessCheck:
    """Who may not read the rules can still see, on an object, when it will expire."""
    why = "these credentials may not read them (s3:GetLifecycleConfiguration)"
    try:
        expiry = expiry_of(store, layout.FORMAT_KEY)
    except MLTrackError as error:
        return failed(_LIFECYCLE, error, ok=None)
    if expiry is None:
        return not_probed(_LIFECYCLE, why, _ASK_ADMIN)
    said = f"a rule of the bucket lets S3 delete {layout.FORMAT_KEY}: {expiry}"
    return AccessCheck(_LIFECYCLE, False, said, f"{_OTHER_PLACE} {_ASK_ADMIN}")
