"""Promotions: the numbered events that move an alias from one version of a model to another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from mltrack_tasks import canonical
from mltrack_tasks.digest import is_digest
from mltrack_tasks.errors import IntegrityError, InvalidInputError
from mltrack_tasks.fields import Fields, parse_time
from mltrack_tasks.modelkeys import check_alias, is_version
from mltrack_tasks.records import Record

ACTIONS = ("promote", "rollback", "remove")
TAKEN_BACK = "taken-back:"
"""How the request id begins of an event that takes a promotion back; the number of that follows."""


@dataclass(frozen=True)
class Promotion:
    """One event of an alias: which version it named from then on.

    ``version`` and ``tree_digest`` are None where the alias was removed, ``previous`` where it named nothing
    before. ``gates`` is the report of every gate that was asked, each with ``gate``, ``passed`` and
    ``detail``; ``approval`` is what a person said, with the tree digest that it was said of. ``request_id``
    tells a call that is made again from another one. ``created`` is False when it was there already.
    """

    model: str
    alias: str
    number: int
    version: str | None
    tree_digest: str | None
    previous: str | None
    action: str = "promote"
    reason: str | None = None
    request_id: str = ""
    gates: tuple[Mapping[str, Any], ...] = ()
    approval: Mapping[str, Any] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict, compare=False)
    if TYPE_CHECKING:
        created: bool = field(default=False, compare=False)
    else:
        created: InitVar[bool] = False  # not a field, for the reason given at DataRef.created

        def __post_init__(self, created: bool) -> None:
            object.__setattr__(self, "created", created)

    @property
    def at(self) -> datetime:
        """When, by the clock of whoever did it."""
        return parse_time(self.provenance.get("at"), "provenance.at")

    @property
    def actor(self) -> str:
        """Who: the user of the process that wrote it."""
        return str(self.provenance.get("actor", "unknown"))

    @property
    def flow_run_id(self) -> str | None:
        """The flow run that wrote it, if it was one."""
        found = self.provenance.get("flow_run_id")
        return None if found is None else str(found)

    def __hash__(self) -> int:
        return hash((self.model, self.alias, self.number))

    def to_content(self) -> dict[str, Any]:
        """Map onto the record's content: plain canonical JSON."""
        return {
            **self.extra,
            **{key: getattr(self, key) for key in _PLAIN_FIELDS},
            "gates": canonical.escape([dict(report) for report in self.gates], what="gates"),
            "approval": None
            if self.approval is None
            else canonical.escape(dict(self.approval), what="approval"),
        }

    @classmethod
    def from_record(cls, record: Record, *, what: str) -> Promotion:
        """Parse an event; IntegrityError names the field that is not what it must be."""
        fields = Fields(record.content, what)
        version, digest = fields.optional_text("version"), fields.optional_text("tree_digest")
        previous = fields.optional_text("previous")
        for each in (version, previous):
            if each is not None and not is_version(each):
                raise IntegrityError(f"{what}: {each!r:.80} is not a version id.")
        if (version is None) != (digest is None) or (digest is not None and not is_digest(digest)):
            raise IntegrityError(f"{what}: {digest!r:.80} is not the tree digest of {version!r:.80}.")
        return cls(
            model=fields.name("model"),
            alias=_alias_of(fields, what),
            number=fields.size("number"),
            version=version,
            tree_digest=digest,
            previous=previous,
            action=fields.choice(fields.text("action"), ACTIONS, "action"),
            reason=fields.optional_text("reason"),
            request_id=fields.text("request_id"),
            gates=tuple(_reports_of(fields, what)),
            approval=None if record.content.get("approval") is None else fields.values("approval"),
            extra={key: value for key, value in record.content.items() if key not in _FIELDS},
            provenance=record.provenance,
        )


def earlier_versions(events: Sequence[Promotion]) -> list[str | None]:
    """Replay the events of an alias, oldest first -> the versions that rolling back leads to, last first.

    A rollback takes away what came after the version that it led to, so that a second one goes further back
    and does not swing to and fro.
    """
    stack: list[str | None] = []
    for event in events:
        if event.action == "rollback" and event.version in stack:
            while stack[-1] != event.version:
                stack.pop()
        else:
            stack.append(event.version)
    return stack[-2::-1]


def at_time(events: Iterable[Promotion], moment: datetime) -> Promotion | None:
    """The event that was in force at a moment: the highest number among those written until then."""
    if not isinstance(moment, datetime) or moment.tzinfo is None:
        raise InvalidInputError(
            f"{moment!r} is not a datetime with a timezone; use datetime.now(timezone.utc)."
        )
    return max(
        (event for event in events if event.at <= moment), key=lambda event: event.number, default=None
    )


_PLAIN_FIELDS = (
    *("model", "alias", "number", "version", "tree_digest", "previous", "action", "reason", "request_id"),
)
_FIELDS = frozenset((*_PLAIN_FIELDS, "gates", "approval"))


def _alias_of(fields: Fields, what: str) -> str:
    try:
        return check_alias(fields.name("alias"))
    except InvalidInputError as error:
        raise IntegrityError(f"{what}: {error}") from error


def _reports_of(fields: Fields, what: str) -> list[Mapping[str, Any]]:
    plain = canonical.unescape(fields.items("gates"), what=f"{what}: gates")
    if not all(isinstance(report, dict) and type(report.get("passed")) is bool for report in plain):
        raise IntegrityError(f"{what}: gates should be reports, each with whether it passed.")
    return list(plain)
