"""The journal of an audit: numbered records of how far it is and what it found, so that it can go on.

An audit is a folder below ``audits/``: ``begun.json`` says what it is to look at, each step what was found
and up to where, ``report.json`` that it is complete.
"""

from __future__ import annotations

import re
import secrets
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from mltrack_tasks.errors import (
    ConflictError,
    FormatError,
    IntegrityError,
    InvalidInputError,
    NotFoundError,
    TransientError,
)
from mltrack_tasks.events import logger
from mltrack_tasks.fields import Fields
from mltrack_tasks.recordstore import create_record, read_record
from mltrack_tasks.stores.base import Store
from mltrack_tasks.trust.findings import (
    LEVELS,
    ROW,
    Finding,
    amount_of,
    counted,
    first_ones,
)
from mltrack_tasks.usage_stats import Amount

AUDITS = "audits/"
RESUMED_FOR = timedelta(days=30)
"""How long an audit that was stopped may be gone on with, by the store's clock."""

_ID = re.compile(rf"[0-9]{{8}}T[0-9]{{12}}Z-({'|'.join(LEVELS)})(-[1-9][0-9]*of[1-9][0-9]*)?-[0-9a-f]{{8}}")
_TIME = len("20240115T093000000000Z-")
_STEP = re.compile(r"[0-9]{8}\.json")
_PLACES = {"data": re.compile(r"[0-9a-f]{64}|g"), "models": re.compile(r"models.*", re.DOTALL)}
"""How far a section can be: up to a digest, or behind all of them; up to a key."""
_AMOUNTS = ("blobs", "checked", "unchanged", "unattested")


@dataclass(frozen=True)
class Scope:
    """What an audit is to look at: calls of one scope go on with each other's work."""

    level: str
    part: str | None = None
    since: str | None = None

    @property
    def suffix(self) -> str:
        """What the ids of its audits have in common."""
        return self.level + (f"-{self.part.replace('/', 'of')}" if self.part else "")

    def to_content(self) -> dict[str, Any]:
        """Map onto the content of ``begun.json``."""
        return {"level": self.level, "part": self.part, "since": self.since}


@dataclass
class Tally:
    """What was counted and found: of a step, or of a whole audit."""

    amounts: dict[str, Amount] = field(default_factory=lambda: dict.fromkeys(_AMOUNTS, Amount()))
    counts: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)

    def find(self, finding: Finding) -> None:
        """Take up one finding."""
        self.counts[finding.kind] += 1
        self.findings.append(finding)

    def count(self, name: str, size: int) -> None:
        """Count one object of so many bytes as ``blobs``, ``checked``, ``unchanged`` or ``unattested``."""
        before = self.amounts[name]
        self.amounts[name] = Amount(before.objects + 1, before.size_bytes + size)

    def add(self, other: Tally) -> None:
        """Add what a step found; of its findings, what there is room for."""
        for name, more in other.amounts.items():
            before = self.amounts[name]
            self.amounts[name] = Amount(before.objects + more.objects, before.size_bytes + more.size_bytes)
        self.counts += other.counts
        self.findings = list(first_ones([*self.findings, *other.findings]))

    def to_content(self) -> dict[str, Any]:
        """Map onto plain JSON."""
        return {
            **{name: [amount.objects, amount.size_bytes] for name, amount in self.amounts.items()},
            "counts": {kind: count for kind, count in sorted(self.counts.items()) if count},
            "findings": [finding.to_json() for finding in self.findings],
        }

    @classmethod
    def from_content(cls, content: Mapping[str, Any], what: str) -> Tally:
        """Read what ``to_content`` wrote; IntegrityError for anything else."""
        fields = Fields(content, what)
        return cls(
            {name: amount_of(fields, name) for name in _AMOUNTS},
            Counter(counted(fields.objects("counts"), what)),
            [Finding.from_json(row) for row in fields.rows("findings", *ROW)],
        )


class Journal:
    """One audit: what it came to so far, and where it goes on."""

    def __init__(self, store: Store, audit: str, scope: Scope, began: datetime) -> None:
        self._store, self.audit, self.scope, self.began = store, audit, scope, began
        self.total = Tally()
        self.section = self.after = ""
        """How far it is: the key, or digest, up to which a section was looked at."""
        self.resumed = False
        self._steps = 0
        self._dropped: list[int] = []

    def step(self, section: str, after: str, tally: Tally) -> None:
        """Keep what was found up to a place. ConflictError if another call is at the same audit."""
        self._steps += 1
        self.section, self.after = section, after
        content = {"section": section, "after": after, **tally.to_content()}
        try:
            create_record(
                self._store, step_key(self.audit, self._steps), content, what=f"A step of {self.audit}"
            )
        except ConflictError as error:
            raise ConflictError(
                f"Another call goes on with the audit {self.audit} of {self._store.location}. Wait for it, "
                "or begin one of your own with resume=False.",
                existing=error.existing,
                offered=error.offered,
            ) from error
        self.total.add(tally)

    def finish(self, told: Mapping[str, Any]) -> None:
        """Write that the audit is complete."""
        total = {key: value for key, value in self.total.to_content().items() if key != "findings"}
        content = {**total, **told, "steps": self._steps, "dropped": self._dropped}
        create_record(self._store, report_key(self.audit), content, what=f"The audit {self.audit}")

    def go_on(self, last: str) -> None:
        """Take up the steps that are there. Those of the ``last`` section do not count: it is done anew."""
        self.resumed = True
        while (found := _read_step(self._store, self.audit, self._steps + 1)) is not None:
            self._steps += 1
            fields, tally = found
            section, after = fields.text("section"), fields.text("after")
            if section == last:
                self._dropped.append(self._steps)
                continue
            if section not in _PLACES or not _PLACES[section].fullmatch(after):
                raise IntegrityError(f"A step of {self.audit} ends at {after!r:.80}, which is no place.")
            self.section, self.after = section, after
            self.total.add(tally)


def begin(store: Store, scope: Scope, *, last: str, resume: bool) -> Journal:
    """Begin an audit, or go on with the newest of this scope that was not finished, if it can be read."""
    try:
        open_audit = _unfinished(store, scope) if resume else None
        if open_audit is not None:
            open_audit.go_on(last)
            return open_audit
    except (FormatError, IntegrityError) as error:
        logger.warning("begun anew: %s", error)
    now = datetime.now(UTC)
    audit = f"{now:%Y%m%dT%H%M%S%fZ}-{scope.suffix}-{secrets.token_hex(4)}"
    create_record(store, begun_key(audit), scope.to_content(), what=f"The audit {audit}")
    return Journal(store, audit, scope, _began(store, audit))


def read_findings(store: Store, audit: str) -> Iterator[Finding]:
    """Read all findings of a finished audit, one after the other.

    Raises NotFoundError if there is none of this id, or it was not finished.
    """
    if not is_audit(audit):
        raise InvalidInputError(f"{audit!r:.80} is not the id of an audit.")
    what = f"{report_key(audit)} in {store.location}"
    try:
        fields = Fields(read_record(store, report_key(audit)).content, what)
    except NotFoundError as error:
        said = f"There is no finished audit {audit} in {store.location}; verify_store reports the ids."
        raise NotFoundError(said, details=error.details) from error
    dropped = set(fields.sizes("dropped") or ())
    for number in range(1, fields.size("steps") + 1):
        found = _read_step(store, audit, number)
        if found is None:
            raise NotFoundError(f"The step {number} of the audit {audit} is not in {store.location}.")
        if number not in dropped:
            yield from found[1].findings


def last_audit(store: Store, level: str) -> str | None:
    """Name the newest finished audit of a whole store at ``level``, or None."""
    for audit in _audits(store, Scope(level).suffix):
        if store.head(report_key(audit)) is not None:
            return audit
    return None


def last_finished(store: Store) -> list[str]:
    """Name the newest finished audit of each level and part, the newest first."""
    found: dict[str, str] = {}
    for audit in sorted(filter(is_audit, store.level(AUDITS)[1]), reverse=True):
        if scope_of(audit) not in found and store.head(report_key(audit)) is not None:
            found[scope_of(audit)] = audit
    return list(found.values())


def began_at(store: Store, audit: str, level: str) -> datetime:
    """When a finished audit of the whole store began, by the store's clock.

    Raises InvalidInputError if ``audit`` is none.
    """
    if not is_audit(audit) or store.head(report_key(audit)) is None:
        raise InvalidInputError(f"{audit!r:.80} is no finished audit of {store.location}.")
    scope = _scope(store, audit)
    if scope.level != level or scope.part is not None:
        raise InvalidInputError(f"{audit} is not an audit of a whole store at the level {level!r}.")
    return _began(store, audit)


def is_audit(text: object) -> bool:
    """Tell whether ``text`` has the form of an audit's id."""
    return isinstance(text, str) and _ID.fullmatch(text) is not None


def scope_of(audit: str) -> str:
    """The level and part in the id of an audit, as text: ``read-3of4``."""
    return audit[_TIME:-9]


def is_audit_key(key: str) -> bool:
    """Tell whether a key is that of a record of an audit."""
    root, _, rest = key.partition("/")
    audit, _, last = rest.partition("/")
    named = last in ("begun.json", "report.json") or _STEP.fullmatch(last) is not None
    return f"{root}/" == AUDITS and is_audit(audit) and named


def begun_key(audit: str) -> str:
    """Key of the record by which an audit begins."""
    return f"{AUDITS}{audit}/begun.json"


def step_key(audit: str, number: int) -> str:
    """Key of one step of an audit."""
    return f"{AUDITS}{audit}/{number:08d}.json"


def report_key(audit: str) -> str:
    """Key of the record by which an audit is complete."""
    return f"{AUDITS}{audit}/report.json"


def _unfinished(store: Store, scope: Scope) -> Journal | None:
    """The newest audit of a scope, if it was not finished and is not old."""
    newest = next(_audits(store, scope.suffix), None)
    if newest is None or store.head(report_key(newest)) is not None or _scope(store, newest) != scope:
        return None
    began = _began(store, newest)
    return Journal(store, newest, scope, began) if datetime.now(UTC) - began < RESUMED_FOR else None


def _audits(store: Store, suffix: str) -> Iterator[str]:
    """Name the audits of a suffix, newest first."""
    names = filter(is_audit, store.level(AUDITS)[1])
    return (name for name in sorted(names, reverse=True) if scope_of(name) == suffix)


def _scope(store: Store, audit: str) -> Scope:
    fields = Fields(read_record(store, begun_key(audit)).content, begun_key(audit))
    return Scope(fields.text("level"), fields.optional_text("part"), fields.optional_text("since"))


def _began(store: Store, audit: str) -> datetime:
    stat = store.head(begun_key(audit))
    if stat is None:
        raise TransientError(f"{begun_key(audit)} has disappeared from {store.location}. Try again.")
    return stat.modified


def _read_step(store: Store, audit: str, number: int) -> tuple[Fields, Tally] | None:
    key = step_key(audit, number)
    try:
        content = read_record(store, key).content
    except NotFoundError:
        return None
    return Fields(content, key), Tally.from_content(content, key)
