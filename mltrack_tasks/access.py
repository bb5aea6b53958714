"""Access: may these credentials use this store, and if not, what is to be done?"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from mltrack_tasks import layout
from mltrack_tasks.checking.grants import Grants, grant_rows
from mltrack_tasks.checking.report import AccessCheck, AccessReport, PermissionCheck, ask, failed, not_probed
from mltrack_tasks.checking.rules import rule_rows
from mltrack_tasks.checking.speed import Line, clock_row, measure, speed_row
from mltrack_tasks.errors import IntegrityError, MLTrackError, NotFoundError
from mltrack_tasks.roles import Role, check_role
from mltrack_tasks.stores.asking import is_refusal
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.guard import GuardedStore
from mltrack_tasks.stores.identity import (
    bucket_place,
    credential_source,
    identity,
    region_of,
    require_listing,
    s3_of,
)
from mltrack_tasks.stores.probe import PROBE_FOLDER, Capabilities, probe_capabilities
from mltrack_tasks.stores.s3 import S3Store
from mltrack_tasks.stores.traces import Traces, remove_traces

STALE = timedelta(days=1)
"""Age of trials from which on they are of no check that is going on."""
_SWEEP = (
    f"Remove what is below {PROBE_FOLDER} with the owner's credentials, and grant s3:DeleteObject and "
    f"s3:DeleteObjectVersion on {PROBE_FOLDER}*. What Object Lock retains stays until that ends."
)


def check_access(store: Store, *, role: Role | None = None, write: bool = True) -> AccessReport:
    """Try what the store needs -> a report with the fix beside each failure.

    Whose credentials and from where in the chain, account, region, bucket, clock, list, read, lifecycle rules
    that would break the store; with ``write`` also write and delete, what the server can do, and how fast a
    small upload is, by objects under ``.probe/`` that are removed again, with their versions. With ``role``
    (reader, writer, promoter, admin) each permission of its policy is asked for, by requests that change
    nothing; a reader's are asked for without any writing. What cannot be asked so is told as not probed.

    Nothing else is written: a store that is not there yet is not begun. Raises InvalidInputError for an
    unknown role, and otherwise nothing of its own.
    """
    known = None if role is None else check_role(role)
    return _Checking(store, known, write and known != "reader").run()


def report_unopened(location: str, error: MLTrackError) -> AccessReport:
    """The report on a store that could not even be opened, such as for want of credentials."""
    return AccessReport(location, (failed("open", error),))


class _Checking:
    """One check of one store. ``blocked``: what was seen makes further questions about rights vain."""

    def __init__(self, store: Store, role: str | None, write: bool) -> None:
        self.store, self.role, self.write = store, role, write
        self.bare = store.inner if isinstance(store, GuardedStore) else store
        self.s3 = s3_of(store)
        self.name = f"probe-{secrets.token_hex(8)}"
        self.trial = f"{PROBE_FOLDER}{self.name}"
        self.present = ""
        self.blocked = False
        self.ahead: float | None = None
        self.capabilities: Capabilities | None = None
        self.written = self.read_back = False
        self.permissions: list[PermissionCheck] = []

    def run(self) -> AccessReport:
        checks = [*(self._surroundings(self.s3) if self.s3 else ()), *self._first()]
        left: list[str] = []
        try:
            if self.write:
                checks.append(ask("write and delete", self._write))
            if self.s3 is not None:
                checks += self._on_s3(self.s3, left)
            if self.written:
                checks += self._of_server()
        finally:
            traces = remove_traces(self.s3, self.trial) if self.s3 and self.write else None
        if traces is not None:
            checks.append(_traces_row(traces, self.capabilities, left))
        if self.written and self.s3:
            checks += _of_earlier_checks(self.s3)
        return AccessReport(
            self.store.location, tuple(checks), self.capabilities, self.role, tuple(self.permissions)
        )

    def _surroundings(self, s3: S3Store) -> Iterator[AccessCheck]:
        yield ask("credentials", lambda: credential_source(s3))
        yield _account(s3)
        yield self._place(s3)

    def _place(self, s3: S3Store) -> AccessCheck:
        """Bucket and region in one question, for S3 answers both in one."""
        name, bucket, here = "bucket and region", s3.settings.bucket, region_of(s3)
        try:
            found = bucket_place(s3)
        except MLTrackError as error:
            self.blocked = True
            return failed(name, error)
        self.ahead = found.ahead
        if found.region and found.region != (here or "us-east-1"):
            detail = f"{bucket} is in {found.region}, the store is set to {here or 'no region'}"
            return AccessCheck(name, False, detail, f"Set region_name={found.region!r}.")
        place = f"{bucket} in {found.region or here or 'an unnamed region'}"
        if found.allowed:
            return AccessCheck(name, True, place)
        return AccessCheck(name, None, f"{place}; HeadBucket is refused, what counts are the next lines")

    def _first(self) -> Iterator[AccessCheck]:
        try:
            found = next(iter(self.bare.list("")), None)
            self.present = "" if found is None else found.key
            if found is None and self.s3 is not None:
                require_listing(self.s3)
            yield AccessCheck("list", True, "there are objects" if found else "the store is empty")
        except MLTrackError as error:
            self.blocked |= not is_refusal(error)
            yield failed("list", error)
        yield ask("read", self._read)

    def _read(self) -> str:
        try:
            self.store.get(layout.FORMAT_KEY)
        except NotFoundError:
            return f"allowed; {layout.FORMAT_KEY} is not there yet"
        self.present = layout.FORMAT_KEY
        return f"{layout.FORMAT_KEY} read"

    def _write(self) -> str:
        if isinstance(self.store, GuardedStore):
            self.store.require_own_place()  # the first write would refuse a place inside another store
        key = f"{self.trial}-object"
        self.bare.create(key, b"probe")
        self.written = True
        if self.bare.get(key) != b"probe":
            raise IntegrityError(f"{self.store.location}/{key} was read otherwise than it was written.")
        self.read_back = True
        self.bare.delete([key])
        return "a probe object was written and removed"

    def _on_s3(self, s3: S3Store, left: list[str]) -> Iterator[AccessCheck]:
        yield clock_row(self.ahead)
        if self.blocked:
            why = "what failed above comes first"
            yield from (not_probed(name, why) for name in ("lifecycle rules", "permissions"))
            return
        yield from rule_rows(s3)
        if self.role is not None:
            grants = Grants(s3, self.role, self.name, present=self.present, write=self.write)
            grants.kms_seen("kms:GenerateDataKey", self.written, "no trial object could be written")
            grants.kms_seen("kms:Decrypt", self.read_back, "no trial object could be read")
            self.permissions += grants.ask()
            left += grants.left
            yield from grant_rows(self.role, self.permissions)

    def _of_server(self) -> Iterator[AccessCheck]:
        self.capabilities = probe_capabilities(self.store)
        yield from _capability_rows(self.capabilities)
        if self.s3 is not None:
            try:
                line = self._line(self.s3)
            except MLTrackError as error:
                yield failed("upload speed", error, ok=None)
            else:
                yield speed_row(line)

    def _line(self, s3: S3Store) -> Line:
        return measure(self.bare, s3.settings, f"{self.trial}-speed", region_of(s3))


def _account(store: S3Store) -> AccessCheck:
    """Who we are is only worth knowing: a network may let S3 through and STS not."""
    try:
        who = identity(store)
    except MLTrackError as error:
        return failed("account", error, ok=None)
    known = f"{who.account} as {who.arn}" if who else "not asked: an S3-compatible server has no STS"
    return AccessCheck("account", True if who else None, known)


def _of_earlier_checks(store: S3Store) -> Iterator[AccessCheck]:
    """Remove what a check that was killed left; one that is going on takes no day."""
    left = remove_traces(store, PROBE_FOLDER, before=datetime.now(UTC) - STALE).left
    if left:
        yield AccessCheck("left by earlier checks", None, f"remaining: {'; '.join(left[:3])}", _SWEEP)


def _traces_row(traces: Traces, found: Capabilities | None, others: list[str]) -> AccessCheck:
    """Say whether anything remains of the trials."""
    name = "nothing left behind"
    left = [*traces.left, *(found.left if found else ()), *others]
    unseen = [*traces.unseen, *(found.unseen if found else ())]
    if left:
        return AccessCheck(name, False, f"remaining: {'; '.join(left[:3])}", _SWEEP)
    if unseen:
        return not_probed(name, unseen[0])
    return AccessCheck(name, True, "all trial objects are removed, with their versions and uploads")


def _capability_rows(found: Capabilities) -> Iterator[AccessCheck]:
    advice = "Use a server that honours it." if found.create_only is False else ""
    yield AccessCheck("create-only writes", found.create_only, "If-None-Match on PUT", advice)
    yield _known(
        "create-only multipart", found.create_only_parts, "without it, racing writers may send twice"
    )
    yield _known("damaged bodies refused", found.refuses_damage, "without it, damage shows at the first read")
    yield _known("checksums kept", found.keeps_checksums, "without them, audits must download")
    yield _known("conditional delete", found.conditional_delete, "garbage collection has it where it can")
    yield _known("versioning", found.versioning, "with it, deleted objects can be brought back")
    for note in found.notes:
        yield AccessCheck("note", None, note)


def _known(name: str, found: bool | None, meaning: str) -> AccessCheck:
    answer = {True: "yes", False: "no", None: "not known"}[found]
    return AccessCheck(name, None, f"{answer}; {meaning}")
