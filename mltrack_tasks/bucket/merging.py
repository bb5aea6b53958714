"""Merging: our rules into a document whose other rules belong to others and stay as they are.

A document is what boto3 reads and writes, as plain JSON; a policy is its text. ``base`` is what the ids of
our rules begin with. All laws hold for any document: others' rules keep their bytes and their order, merging
twice is merging once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mltrack_tasks import canonical
from mltrack_tasks.errors import IntegrityError

Document = dict[str, Any]
Rules = dict[str, list[Any]]


@dataclass(frozen=True)
class Shape:
    """Where a document keeps its rules, and under which name a rule has its id."""

    lists: tuple[str, ...]
    id: str


LIFECYCLE = REPLICATION = Shape(("Rules",), "ID")
NOTIFICATIONS = Shape(("TopicConfigurations", "QueueConfigurations", "LambdaFunctionConfigurations"), "Id")
TIERS = Shape(("Configurations",), "Id")
SELECTORS = Shape(("AdvancedEventSelectors",), "Name")
STATEMENTS = Shape(("Statement",), "Sid")


def own(document: Mapping[str, Any] | None, shape: Shape, base: str) -> Rules:
    """Pick our rules out of a document, by the list that they are in; lists without any are left out."""
    picked = {
        name: [rule for rule in _rules(document, name) if _is_ours(rule, shape, base)] for name in shape.lists
    }
    return {name: rules for name, rules in picked.items() if rules}


def foreign(document: Mapping[str, Any] | None, shape: Shape, base: str) -> Document:
    """Say what of a document is not ours: other fields, and others' rules."""
    rest = dict(document or {})
    for name in shape.lists:
        kept = [rule for rule in _rules(document, name) if not _is_ours(rule, shape, base)]
        rest.pop(name, None)
        if kept:
            rest[name] = kept
    return rest


def merge(
    document: Mapping[str, Any] | None, shape: Shape, base: str, wanted: Mapping[str, Sequence[Any]]
) -> Document:
    """Put ``wanted`` in place of our rules; a rule whose id is there already keeps its place.

    A document in which nothing of ours changes comes back as it is, in whatever way it says it.
    """
    before = dict(document or {})
    if same_rules(own(document, shape, base), wanted, shape):
        return before
    for name in shape.lists:
        rules = _merged(_rules(document, name), shape, base, wanted.get(name, ()))
        if rules:
            before[name] = rules
        else:
            before.pop(name, None)
    return before


def same_rules(one: Mapping[str, Sequence[Any]], other: Mapping[str, Sequence[Any]], shape: Shape) -> bool:
    """Tell whether two lots of rules say the same, in whatever order."""
    return all(_by_id(one, name, shape) == _by_id(other, name, shape) for name in shape.lists)


def _by_id(rules: Mapping[str, Sequence[Any]], name: str, shape: Shape) -> list[tuple[str, Any]]:
    return sorted(((str(rule[shape.id]), spoken(rule)) for rule in rules.get(name, ())), key=str)


def spoken(value: Any, key: str = "") -> Any:
    """What a value means: S3 gives back ``Prefix`` for ``prefix``, one item for a list of one, in any "
    "order."""
    if isinstance(value, Mapping):
        return {name: spoken(item, name) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        items = [spoken(item) for item in value]
        return items[0] if len(items) == 1 else sorted(items, key=canonical.dumps)
    return value.lower() if key == "Name" and str(value).lower() in ("prefix", "suffix") else value


def _merged(rules: list[Any], shape: Shape, base: str, wanted: Sequence[Any]) -> list[Any]:
    left = {rule[shape.id]: rule for rule in wanted}
    merged = []
    for rule in rules:
        if not _is_ours(rule, shape, base):
            merged.append(rule)
        elif rule[shape.id] in left:
            merged.append(left.pop(rule[shape.id]))
    return [*merged, *left.values()]


def _rules(document: Mapping[str, Any] | None, name: str) -> list[Any]:
    found = (document or {}).get(name) or []
    return [found] if isinstance(found, Mapping) else list(found)  # a policy may have one statement bare


def _is_ours(rule: Any, shape: Shape, base: str) -> bool:
    return isinstance(rule, Mapping) and str(rule.get(shape.id, "")).startswith(base)


EMPTY_POLICY: Document = {"Version": "2012-10-17"}


def parse_policy(text: str | None) -> Document | None:
    """Read a policy's text; IntegrityError for one that cannot be written again as it is."""
    if text is None:
        return None
    found = canonical.loads(text.encode("utf-8"), what="The bucket's policy")
    if not isinstance(found, dict):
        raise IntegrityError("The bucket's policy is not a JSON object.")
    return found


def merge_policy(text: str | None, base: str, wanted: Sequence[Any]) -> str | None:
    """Put our statements into a policy's text -> the text; None for a policy without any statement.

    A policy in which nothing of ours changes keeps its very text.
    """
    before = parse_policy(text)
    if same_rules(own(before, STATEMENTS, base), {"Statement": wanted}, STATEMENTS):
        return text
    merged = merge(before or EMPTY_POLICY, STATEMENTS, base, {"Statement": wanted})
    if "Statement" not in merged:
        return None
    return json.dumps(merged, separators=(",", ":"), ensure_ascii=False)


def same_document(found: Any, written: Any) -> bool:
    """Tell whether a bucket says what was written, in its own way and with its defaults beside it."""
    if isinstance(found, str) and isinstance(written, str):
        return found == written or spoken(parse_policy(found)) == spoken(parse_policy(written))
    if not isinstance(found, Mapping) or not isinstance(written, Mapping):
        return bool(found == written)
    added = [found[key] for key in found.keys() - written.keys()]
    if any(isinstance(value, (list, Mapping)) for value in added):
        return False
    return bool(spoken({key: found.get(key) for key in written}) == spoken(written))
