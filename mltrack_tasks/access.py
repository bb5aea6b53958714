"""Access: may these credentials use this store, and if not, what is to be done?"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mltrack_tasks import layout
from mltrack_tasks.errors import MLTrackError, NotFoundError
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.identity import bucket_region, credential_source, identity, s3_of
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
    """
    checks: list[AccessCheck] = []
    s3 = s3_of(store)
    if s3 is not None:
        checks += [
            _ask("credentials", lambda: credential_source(s3)),
            _ask("account", lambda: _account(s3)),
            _region(s3),
        ]
    checks += [
        _ask("list", lambda: _list(store)),
        _ask("read", lambda: _read(store)),
    ]
    if not write:
        return AccessReport(store.location, tuple(checks))
    checks.append(_ask("write and delete", lambda: _write(store)))
    if checks[-1].ok is False:
        return AccessReport(store.location, tuple(checks))
    capabilities = probe_capabilities(store)
    return AccessReport(store.location, (*checks, *_capability_checks(capabilities)), capabilities)


def _ask(name: str, question: Callable[[], str]) -> AccessCheck:
    try:
        return AccessCheck(name, True, question())
    except MLTrackError as error:
        return AccessCheck(name, False, str(error), str(error.details.get("fix", "")))


def _account(store: S3Store) -> str:
    who = identity(store)
    return f"{who.account} as {who.arn}" if who else "not asked: an S3-compatible server has no STS"


def _region(store: S3Store) -> AccessCheck:
    """Bucket and region in one question, for S3 answers both in one."""
    try:
        there = bucket_region(store)
    except MLTrackError as error:
        return AccessCheck("bucket and region", False, str(error), str(error.details.get("fix", "")))
    here = store.client.meta.region_name
    if there and here and there != here:
        detail = f"the bucket is in {there}, the store is set to {here}"
        return AccessCheck("bucket and region", False, detail, f"Set region_name={there!r}.")
    return AccessCheck("bucket and region", True, f"{store.settings.bucket} in {there or here}")


def _list(store: Store) -> str:
    found = next(store.list(""), None)
    return "the store is empty" if found is None else "there are objects"


def _read(store: Store) -> str:
    try:
        store.get(layout.FORMAT_KEY)
    except NotFoundError:
        return f"allowed; {layout.FORMAT_KEY} is not there yet"
    return f"{layout.FORMAT_KEY} read"


def _write(store: Store) -> str:
    key = f"{PROBE_FOLDER}{secrets.token_hex(8)}"
    store.create(key, b"probe")
    store.delete([key])
    return "a probe object was written and removed"


def _capability_checks(found: Capabilities) -> Iterator[AccessCheck]:
    yield AccessCheck(
        "create-only writes", found.create_only, "If-None-Match on PUT", "Use a server that honours it."
    )
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
