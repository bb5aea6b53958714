"""The permissions of a role, each asked of the server: what is allowed, refused, or cannot be asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby

from mltrack_tasks.bucket.naming import root_of
from mltrack_tasks.checking.report import AccessCheck, PermissionCheck, not_probed
from mltrack_tasks.permissions import Permission, permissions_of
from mltrack_tasks.roles import PROBES
from mltrack_tasks.stores.asking import ALLOWED, READS, Asker, Heard
from mltrack_tasks.stores.s3 import S3Store

_LISTS = ("s3:ListBucket", "s3:ListBucketVersions", "s3:ListBucketMultipartUploads")
_OBJECTS_READ = ("s3:GetObject", "s3:GetObjectVersion", "s3:ListMultipartUploadParts")
_CHANGING = ("s3:PutObject", "s3:DeleteObject", "s3:DeleteObjectVersion", "s3:AbortMultipartUpload")
_WITHOUT_WRITING = "it was asked not to write; check_access with write=True (--write) tries it"
_NEVER: dict[str, str] = {
    "s3:CreateBucket": "the bucket is there",
    "s3:DeleteBucketPolicy": "that would take the bucket's policy away",
}
_SEEN_SHARE = 4
"""Resources of one action that a row names; ``permissions`` of the report has all."""


class Grants:
    """Asks for each permission of a role in a store. ``name`` stands in keys that nobody else uses.

    ``present`` is the key of an object that is there, or empty.
    """

    def __init__(self, store: S3Store, role: str, name: str, *, present: str, write: bool) -> None:
        settings = store.settings
        self._settings, self._role, self._name, self._write = settings, role, name, write
        self._root = root_of(settings.prefix)
        self._asker = Asker(store, f"{self._root}{PROBES}{name}")
        self._present = f"{self._root}{present}" if present else ""
        self._kms: dict[str, Heard] = {}
        self.permissions = permissions_of(
            role, settings.bucket, settings.prefix, kms_key=settings.kms_key_id, region=settings.region
        )

    @property
    def left(self) -> list[str]:
        """What could not be removed of what the server did against its conditions."""
        return self._asker.left

    def kms_seen(self, action: str, works: bool, why: str) -> None:
        """Say what a trial with the store's own key showed: there is no question that shows it without."""
        self._kms[action] = ALLOWED if works else Heard("not probed", why)

    def ask(self) -> Iterator[PermissionCheck]:
        """Ask for all, in the order of the policy."""
        if self._write and any(each.action in _CHANGING for each in self.permissions):
            self._asker.begin()
            self._present = self._present or self._asker.make()
        for each in self.permissions:
            heard = self._heard(each)
            yield PermissionCheck(each.action, each.resource, heard.verdict, heard.why)

    def _heard(self, wanted: Permission) -> Heard:
        action = wanted.action
        if action in _LISTS:
            return self._asker.listing(action, None if wanted.unprefixed else f"{self._root}{PROBES}")
        if action in READS:
            return self._asker.document(READS[action])
        if action.startswith("kms:"):
            return self._kms.get(action, Heard("not probed", "nothing was read or written with the key"))
        if action.startswith("cloudtrail:"):
            return Heard("not probed", "the store does not know which trail is yours")
        key = wanted.key(self._settings.bucket, self._settings.prefix, self._name)
        if key is None:
            why = _NEVER.get(action, "to write the document, even as it is, would be a change")
            return Heard("not probed", why)
        return self._of_object(wanted, key)

    def _of_object(self, wanted: Permission, key: str) -> Heard:
        action, asker = wanted.action, self._asker
        if action in _OBJECTS_READ:
            return asker.reading(action, self._present, key)
        if not self._write:
            return Heard("not probed", _WITHOUT_WRITING)
        if action == "s3:RestoreObject":
            return asker.restoring(key)
        if action == "s3:AbortMultipartUpload":
            return asker.dropping(key)
        if action == "s3:DeleteObject":
            return asker.deleting(key)
        if action == "s3:DeleteObjectVersion":
            return asker.deleting_version(key)
        if wanted.exact and not asker.writes_safely:
            return Heard("not probed", "no trial showed that this server keeps the condition of a write")
        return asker.writing(key)


def grant_rows(role: str, found: Iterable[PermissionCheck]) -> Iterator[AccessCheck]:
    """Make a row for each action, with the fix where it is refused."""
    ordered = sorted(found, key=lambda check: check.action)  # stable: resources in the policy's order
    for action, checks in groupby(ordered, key=lambda check: check.action):
        yield _row(role, action, list(checks))


def _row(role: str, action: str, checks: list[PermissionCheck]) -> AccessCheck:
    name = f"permission {action}"
    refused = [each for each in checks if each.verdict == "refused"]
    if refused:
        where = ", ".join(dict.fromkeys(each.resource for each in refused))
        grant = f"Grant {action} on {where}; iam_policy({role!r}) is the whole policy of this role."
        return AccessCheck(name, False, f"refused on {_some(refused)}: {refused[0].why}", grant)
    silent = [each for each in checks if each.verdict == "not probed"]
    if silent:
        allowed = len(checks) - len(silent)
        others = f"; allowed on {allowed} of {len(checks)} resources" if allowed else ""
        return not_probed(name, f"{silent[0].why} ({_some(silent)}{others})")
    return AccessCheck(name, True, f"allowed on {_some(checks)}")


def _some(checks: list[PermissionCheck]) -> str:
    names = list(dict.fromkeys(each.resource for each in checks))
    more = f" and {len(names) - _SEEN_SHARE} more" if len(names) > _SEEN_SHARE else ""
    return ", ".join(names[:_SEEN_SHARE]) + more
