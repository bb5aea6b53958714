"""Lifecycle rules in the form of S3's own documents, as far as a tally can tell what they would do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from mltrack_tasks.errors import InvalidInputError
from mltrack_tasks.pricing.bills import SMALL
from mltrack_tasks.pricing.prices import CLASSES
from mltrack_tasks.pricing.tally import CURRENT, MARKER, UPLOAD, Slot

_RULE = frozenset(
    {"ID", "Id", "Status", "Filter", "Prefix", "Transitions", "Expiration", "NoncurrentVersionTransitions"}
    | {"NoncurrentVersionExpiration", "AbortIncompleteMultipartUpload"}
)
_SIZES = (SMALL, SMALL - 1)
"""ObjectSizeGreaterThan that means what S3 does without it: small objects stay where they are."""


class Rule(NamedTuple):
    """What one rule does to the objects below a prefix of the bucket."""

    name: str
    prefix: str
    moves: tuple[tuple[int, str], ...]
    """(days, storage class) of current objects, in the order of days."""
    expires: int | None
    older_moves: tuple[tuple[int, str], ...]
    older_expires: int | None
    aborts: int | None

    def judge(self, slot: Slot, small: bool) -> str | None:
        """Where objects of a slot are in the end, if this rule alone is obeyed; None: they are gone."""
        if slot.state == UPLOAD:
            return None if self.aborts is not None and slot.days >= self.aborts else slot.storage_class
        if slot.state == MARKER:
            return slot.storage_class
        current = slot.state == CURRENT
        expires, moves = (self.expires, self.moves) if current else (self.older_expires, self.older_moves)
        if expires is not None and slot.days >= expires:
            return None
        reached = [name for days, name in moves if slot.days >= days and not small]
        return _lower(slot.storage_class, reached[-1]) if reached else slot.storage_class


_ORDER = (
    *("STANDARD", "REDUCED_REDUNDANCY", "STANDARD_IA", "INTELLIGENT_TIERING", "ONEZONE_IA", "GLACIER_IR"),
    *("GLACIER", "DEEP_ARCHIVE"),
)
"""S3 moves objects downward in this order only."""


def _lower(now: str, target: str) -> str:
    """S3 never moves an object upward: it stays in the lower one of two classes."""
    return max(now, target, key=_ORDER.index)


def parse_rules(document: Mapping[str, Any] | Iterable[Mapping[str, Any]]) -> list[Rule]:
    """Read a lifecycle configuration, ``{"Rules": [...]}``, or its rules -> those that are enabled.

    The form is that of ``put-bucket-lifecycle-configuration``; ``Id`` for ``ID`` and a rule without a filter,
    as older documents have them, are taken too. Raises InvalidInputError for what a listing cannot answer:
    filters by tag or by another size than 128 KB, dates, and numbers of newer versions.
    """
    rules = document.get("Rules") if isinstance(document, Mapping) else document
    if isinstance(rules, str) or not isinstance(rules, Iterable):
        raise InvalidInputError('Lifecycle rules are a list of rules, or {"Rules": [...]}.')
    return [rule for number, raw in enumerate(rules, start=1) if (rule := _rule(raw, number)) is not None]


def _rule(raw: Any, number: int) -> Rule | None:
    what = f"Lifecycle rule {number}"
    if not isinstance(raw, Mapping):
        raise InvalidInputError(f"{what} is {raw!r:.80}, not a rule.")
    what = f"Lifecycle rule {raw.get('ID', raw.get('Id', number))!s:.80}"
    _only(raw, _RULE, what)
    if raw.get("Status") not in ("Enabled", "Disabled"):
        raise InvalidInputError(f"{what} has the Status {raw.get('Status')!r:.40}: Enabled or Disabled.")
    older = _part(raw, "NoncurrentVersionExpiration", ("NoncurrentDays",), what)
    abort = _part(raw, "AbortIncompleteMultipartUpload", ("DaysAfterInitiation",), what)
    expire = _part(raw, "Expiration", ("Days", "ExpiredObjectDeleteMarker"), what)
    rule = Rule(
        name=what.removeprefix("Lifecycle rule "),
        prefix=_prefix(raw, what),
        moves=_moves(raw, "Transitions", "Days", what),
        expires=_days(expire, "Days", what),
        older_moves=_moves(raw, "NoncurrentVersionTransitions", "NoncurrentDays", what),
        older_expires=_days(older, "NoncurrentDays", what),
        aborts=_days(abort, "DaysAfterInitiation", what),
    )
    return rule if raw["Status"] == "Enabled" else None


def _prefix(raw: Mapping[str, Any], what: str) -> str:
    found = raw.get("Filter", {})
    if isinstance(found, Mapping) and set(found) == {"And"}:
        found = found["And"]
    if not isinstance(found, Mapping):
        raise InvalidInputError(f"{what} has the Filter {found!r:.80}, not a filter.")
    _only(found, {"Prefix", "ObjectSizeGreaterThan"}, f"The Filter of {what}")
    if found.get("ObjectSizeGreaterThan", SMALL) not in _SIZES:
        raise InvalidInputError(
            f"{what}: sizes are told apart at {SMALL:,} bytes only; leave that filter out."
        )
    prefix = found.get("Prefix", raw.get("Prefix", ""))
    if not isinstance(prefix, str):
        raise InvalidInputError(f"{what} has the Prefix {prefix!r:.80}, not a text.")
    return prefix


def _moves(raw: Mapping[str, Any], name: str, days: str, what: str) -> tuple[tuple[int, str], ...]:
    found = raw.get(name, [])
    if isinstance(found, (str, Mapping)) or not isinstance(found, Iterable):
        raise InvalidInputError(f"{what}: {name} is {found!r:.80}, not a list.")
    moves = []
    for each in found:
        part = _part({name: each}, name, (days, "StorageClass"), what)
        target = part.get("StorageClass")
        if target not in CLASSES or target in ("STANDARD", "REDUCED_REDUNDANCY"):
            raise InvalidInputError(f"{what}: {name} goes to {target!r:.80}, which is no class to move to.")
        moves.append((_days(part, days, what) or 0, str(target)))
    return tuple(sorted(moves, key=lambda move: (move[0], _ORDER.index(move[1]))))


def _part(raw: Mapping[str, Any], name: str, keys: tuple[str, ...], what: str) -> Mapping[str, Any]:
    found = raw.get(name, {})
    if not isinstance(found, Mapping):
        raise InvalidInputError(f"{what}: {name} is {found!r:.80}.")
    _only(found, keys, f"{name} of {what}")
    return found


def _days(part: Mapping[str, Any], key: str, what: str) -> int | None:
    days = part.get(key)
    if days is None:
        return None
    if type(days) is not int or not 0 <= days < 100_000:
        raise InvalidInputError(f"{what}: {key} is {days!r:.40}, not a number of days.")
    return days


def _only(found: Mapping[str, Any], known: Iterable[str], what: str) -> None:
    if unknown := sorted(map(str, set(found) - set(known))):
        raise InvalidInputError(
            f"{what} has {', '.join(unknown):.200}: a listing does not tell what that would do."
        )


def applies(rule: Rule, slot: Slot, base: str) -> bool:
    """Whether a rule is about a slot of the store whose keys begin with ``base``.

    Raises InvalidInputError for a rule about a part of one of the store's folders: they are counted whole.
    """
    folder = base + slot.place.partition(":")[0]
    if folder != base:
        folder += "/"
    if folder.startswith(rule.prefix):
        return True
    if rule.prefix.startswith(folder) and folder != base:
        raise InvalidInputError(
            f"Lifecycle rule {rule.name} is about {rule.prefix!r:.200}, a part of {folder}: the folders of a "
            "store are counted whole. Give a prefix that ends with one."
        )
    return False


def obeyed(rules: Iterable[Rule], base: str, slot: Slot, small: bool) -> str | None:
    """Where objects of a slot are in the end, if all rules are obeyed; None: they are gone.

    Where several apply, S3 removes rather than moves, and moves to the cheaper class.
    """
    result = slot.storage_class
    for rule in rules:
        if applies(rule, slot, base):
            judged = rule.judge(slot, small)
            if judged is None:
                return None
            result = _lower(result, judged)
    return result
