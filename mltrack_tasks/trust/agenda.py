"""The agenda of healing: what audits found, and can be mended."""

from __future__ import annotations

from mltrack_tasks.errors import NotFoundError
from mltrack_tasks.stores.base import Store
from mltrack_tasks.trust.findings import CORRUPT, UNDESCRIBED, WRONG_CHECKSUM, Finding
from mltrack_tasks.trust.journal import last_finished, read_findings

_OF_BYTES = (CORRUPT, WRONG_CHECKSUM)
"""What not every level looks for. Other findings of an earlier audit may be of what was removed since."""


def agenda(store: Store, audit: str | None) -> tuple[list[str], list[Finding]]:
    """Choose what is to be healed -> the audits that told of it, and their findings.

    Without ``audit`` those of the newest one, and what earlier ones of other levels or parts told of bytes: a
    nightly audit of the structure does not look at what a weekly reading found. NotFoundError if there is no
    finished audit.
    """
    newest = last_finished(store) if audit is None else [audit]
    if not newest:
        raise NotFoundError(
            f"{store.location} was not verified yet: there is no audit. Run verify_store first."
        )
    used, found = newest[:1], [each for each in read_findings(store, newest[0]) if _is_mendable(each)]
    known = {each.key for each in found}
    for earlier in newest[1:]:
        more = [
            each for each in read_findings(store, earlier) if each.kind in _OF_BYTES and each.key not in known
        ]
        used += [earlier] if more else []
        found += more
        known |= {each.key for each in more}
    return used, found


def _is_mendable(finding: Finding) -> bool:
    return finding.wrong or finding.kind == UNDESCRIBED
