"""Verifying a store: is all there that its records need, and is it what it says?"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from mltrack_tasks import events, layout
from mltrack_tasks.errors import InvalidInputError
from mltrack_tasks.events import Event, Observe, log_event
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.memory import MemoryStore
from mltrack_tasks.trust.audit import REST, Audit
from mltrack_tasks.trust.checks import Check, Reading, attest
from mltrack_tasks.trust.findings import LEVELS, VerifyReport, first_ones
from mltrack_tasks.trust.journal import Journal, Scope, began_at, begin, last_audit, read_findings
from mltrack_tasks.trust.references import References
from mltrack_tasks.trust.roots import Unreadable, roots
from mltrack_tasks.trust.structure import unreadable

STRUCTURE, ATTESTED, READ = LEVELS
LAST = "last"
"""As ``since``: the newest audit that attested the whole store."""
MAX_PARTS = 1_000

_PART = re.compile(r"(?P<number>[1-9][0-9]{0,3}|week)/(?P<of>[1-9][0-9]{0,3})")


def verify_store(
    store: Store,
    *,
    level: str = STRUCTURE,
    part: str | None = None,
    since: str | None = None,
    resume: bool = True,
    keep: bool = True,
    observe: Observe = log_event,
) -> VerifyReport:
    """Look whether all that records need is there, and is what it says -> what was found.

    ``level`` says how closely: ``structure`` lists, and reads records; ``attested`` also asks for the
    checksum that the store keeps of each blob, with one HEAD; ``read`` downloads and hashes each blob
    instead. The last two look at the files of models under their own names too. ``part="3/4"`` takes the
    third of four parts of the blobs, the same ones each time, and ``"week/4"`` the one whose turn it is this
    week. ``since`` is the id of an earlier audit of the whole store at the level ``attested``, or ``"last"``:
    what nobody has written since is not asked again.

    What is found is kept under ``audits/``, step by step; the same call again goes on with an audit that was
    stopped, unless ``resume=False``. ``keep=False`` writes nothing to the store, for whoever may only read.
    Reads past every cache. Safe while others write: what is missing is looked for again before it is
    told, and what is younger than a day does not count as orphaned.

    Raises InvalidInputError for a level, part or audit that there is not; ConflictError if another call is at
    the same audit. What is wrong is not raised: see ``ok`` and ``findings`` of the report.
    """
    scope = _scope(store, level, part, since)
    direct = store.uncached()
    since_when = None if scope.since is None else began_at(direct, scope.since, ATTESTED)
    kept = keep and next(iter(store.list("")), None) is not None  # an empty place is not made a store
    journal = begin(store if kept else MemoryStore(), scope, last=REST, resume=resume)
    with References() as references:
        audit = Audit(direct, journal, references, _check_of(level), observe)
        audit.since, audit.chosen = since_when, _chooser(scope.part)
        for finding in () if scope.since is None else read_findings(direct, scope.since):
            references.suspect(finding.key)
        blind = _read_records(direct, references, observe)
        if blind:
            audit.left_out.append(
                f"{blind:,} records could not be read: what only they need counts as orphaned."
            )
        audit.run()
        journal.finish({"records": references.records, "left_out": audit.left_out})
        report = _report(store, journal, references.records, audit.left_out)
    if not kept:
        report = replace(report, audit="")
    name = events.STORE_VERIFIED if report.ok else events.STORE_UNHEALTHY
    observe(Event(name, store.location, {"level": level, "audit": report.audit, **report.counts}))
    return report


def in_part(digest: str, number: int, of: int) -> bool:
    """Whether a digest belongs to the ``number``-th of ``of`` parts: by its first 8 digits, for ever."""
    return int(digest[:8], 16) % of == number - 1


def _scope(store: Store, level: str, part: str | None, since: str | None) -> Scope:
    layout.check_choice(level, LEVELS, "The level")
    if part is not None and level == STRUCTURE:
        raise InvalidInputError("part is for the levels 'attested' and 'read': structure is always whole.")
    if since is not None and level != ATTESTED:
        raise InvalidInputError("since is for the level 'attested': only a store's checksum cannot change.")
    found = last_audit(store, ATTESTED) if since == LAST else since
    return Scope(level, None if part is None else _checked_part(part), found)


def _checked_part(part: str) -> str:
    match = _PART.fullmatch(part) if isinstance(part, str) else None
    of = int(match["of"]) if match else 0
    if match is None or not 1 <= of <= MAX_PARTS:
        raise InvalidInputError(f"part is {part!r:.80}; write '3/4' for the third of four, or 'week/4'.")
    week = (datetime.now(UTC).toordinal() - 1) // 7  # weeks begin on Mondays
    number = week % of + 1 if match["number"] == "week" else int(match["number"])
    if number > of:
        raise InvalidInputError(f"part is {part!r}: there are only {of} parts.")
    return f"{number}/{of}"


def _chooser(part: str | None) -> Callable[[str], bool]:
    if part is None:
        return lambda digest: True
    number, of = map(int, part.split("/"))
    return lambda digest: in_part(digest, number, of)


def _check_of(level: str) -> Check | None:
    checks: dict[str, Check] = {ATTESTED: attest, READ: Reading()}
    return checks.get(level)


def _read_records(store: Store, references: References, observe: Observe) -> int:
    """Read every record -> how many cannot be read."""
    blind = 0

    def note(found: Unreadable) -> None:
        nonlocal blind
        blind += 1
        references.note(unreadable(found.holder.key, found.error))

    for root in roots(store, note, observe=observe):
        references.add(root)
    references.finish()
    return blind


def _report(store: Store, journal: Journal, records: int, left_out: list[str]) -> VerifyReport:
    total, scope = journal.total, journal.scope
    return VerifyReport(
        location=store.location,
        level=scope.level,
        audit=journal.audit,
        began=journal.began,
        part=scope.part,
        since=scope.since,
        records=records,
        counts=dict(total.counts),
        findings=first_ones(total.findings),
        left_out=tuple(left_out),
        resumed=journal.resumed,
        **total.amounts,
    )
