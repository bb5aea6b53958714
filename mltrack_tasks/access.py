"""Access: may these credentials use this store, and if not, what is to be done?"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mltrack_tasks import layout
from mltrack_tasks.errors import MLTrackError, NotFoundError
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.guard import GuardedStore
from mltrack_tasks.stores.identity import bucket_place, credential_source, identity, region_of, s3_of
from mltrack_tasks.stores.probe import PROBE_FOLDER, Capabilities, probe_capabilities
from mltrack_tasks.stores.s3 import S3Store


@dataclass(frozen=True)
class AccessCheck:
    """One question and its answer. ``ok`` is None where it is only worth knowing."""

    name: str
    ok: bool | None
    detail: str
    fix: str = ""


@dataclass(frozen=True)
class AccessReport:
    """What ``check_access`` found. ``ok`` when nothing failed; ``capabilities`` None if not probed."""

    location: str
    checks: tuple[AccessCheck, ...]
    capabilities: Capabilities | None = None

    @property
    def ok(self) -> bool:
        """Whether every check passed."""
        return all(check.ok is not False for check in self.checks)

    def rows(self) -> list[dict[str, str]]:
        """The checks as table rows: check, result, detail, fix."""
        marks = {True: "ok", False: "FAILED", None: "-"}
        return [
            {"check": check.name, "result": marks[check.ok], "detail": check.detail, "fix": check.fix}
            for check in self.checks
        ]


def check_access(store: Store, *, write: bool = True) -> AccessReport:
    """Try what the store needs -> a report with the fix beside each failure. Raises nothing of its own.

    Whose credentials and from where in the chain, account, region, bucket, list, read; with ``write`` also
    write and delete, and what the server can do, with small objects under ``.probe/`` that are removed again.
    Nothing else is written: a store that is not there yet is not begun.
    """
    checks: list[AccessCheck] = []
    bare = store.inner if isinstance(store, GuardedStore) else store
    s3 = s3_of(store)
    if s3 is not None:
        checks += [_ask("credentials", lambda: credential_source(s3)), _account(s3), _place(s3)]
    checks += [_ask("list", lambda: _list(bare)), _ask("read", lambda: _read(store))]
    if not write:
        return AccessReport(store.location, tuple(checks))
    checks.append(_ask("write and delete", lambda: _write(store, bare)))
    if checks[-1].ok is False:
        return AccessReport(store.location, tuple(checks))
    capabilities = probe_capabilities(store)
    return AccessReport(store.location, (*checks, *_capability_checks(capabilities)), capabilities)


def report_unopened(location: str, error: MLTrackError) -> AccessReport:
    """The report on a store that could not even be opened, such as for want of credentials."""
    return AccessReport(location, (_failed("open", error),))


def _ask(name: str, question: Callable[[], str]) -> AccessCheck:
    try:
        return AccessCheck(name, True, question())
    except MLTrackError as error:
        return _failed(name, error)


def _failed(name: str, error: MLTrackError, ok: bool | None = False) -> AccessCheck:
    """A message ends with what to do; service errors say so in ``details`` too."""
    advice = error.details.get("fix") or str(error).rsplit(". ", 1)[-1]
    return AccessCheck(name, ok, str(error), str(advice))


def _account(store: S3Store) -> AccessCheck:
    """Who we are is only worth knowing: a network may let S3 through and STS not."""
    try:
        who = identity(store)
    except MLTrackError as error:
        return _failed("account", error, ok=None)
    known = f"{who.account} as {who.arn}" if who else "not asked: an S3-compatible server has no STS"
    return AccessCheck("account", True if who else None, known)


def _place(store: S3Store) -> AccessCheck:
    """Bucket and region in one question, for S3 answers both in one."""
    name, bucket, here = "bucket and region", store.settings.bucket, region_of(store)
    try:
        found = bucket_place(store)
    except MLTrackError as error:
        return _failed(name, error)
    if found.region and found.region != (here or "us-east-1"):
        detail = f"{bucket} is in {found.region}, the store is set to {here or 'no region'}"
        return AccessCheck(name, False, detail, f"Set region_name={found.region!r}.")
    place = f"{bucket} in {found.region or here or 'an unnamed region'}"
    if found.allowed:
        return AccessCheck(name, True, place)
    return AccessCheck(name, None, f"{place}; HeadBucket is refused, what counts are the next lines")


def _list(store: Store) -> str:
    found = next(iter(store.list("")), None)
    return "the store is empty" if found is None else "there are objects"


def _read(store: Store) -> str:
    try:
        store.get(layout.FORMAT_KEY)
    except NotFoundError:
        return f"allowed; {layout.FORMAT_KEY} is not there yet"
    return f"{layout.FORMAT_KEY} read"


def _write(store: Store, bare: Store) -> str:
    if isinstance(store, GuardedStore):
        store.require_own_place()  # the first write would refuse a place inside another store
    key = f"{PROBE_FOLDER}{secrets.token_hex(8)}"
    bare.create(key, b"probe")
    bare.delete([key])
    return "a probe object was written and removed"


def _capability_checks(found: Capabilities) -> Iterator[AccessCheck]:
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
