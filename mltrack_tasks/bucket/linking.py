"""What ties a bucket to other services: replication, notifications, trails. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mltrack_tasks.bucket.merging import (
    EMPTY_POLICY,
    NOTIFICATIONS,
    REPLICATION,
    SELECTORS,
    STATEMENTS,
    foreign,
    merge,
    own,
)
from mltrack_tasks.bucket.naming import sid_base
from mltrack_tasks.bucket.policies import queue_policy
from mltrack_tasks.bucket.rules import advanced_selector, basic_selector, queue_rules, replication_rule
from mltrack_tasks.bucket.settings import Replication
from mltrack_tasks.bucket.wishing import Place, Sight, Wish, ruled
from mltrack_tasks.errors import ConflictError, InvalidInputError

NOT_RETROACTIVE = (
    "Objects that are there already are not replicated: copy them with replicate_store, or with S3 Batch "
    "Replication."
)


def replication(sight: Sight) -> Wish | None:
    """Our rule of replication. A bucket has one role for all rules: others' is not replaced."""
    wish, place = sight.settings.replication, sight.place
    if wish is None:
        return None
    found = sight.found.get("replication")
    if wish.target_bucket is None:
        rest = ruled(sight, "replication", REPLICATION, {})
        return Wish(rest if rest and rest.get("Rules") else None, "asked for", True)
    _require_replicable(sight, wish)
    others = foreign(found, REPLICATION, place.base)
    if others.get("Rules"):
        _require_room(others, wish)
    rule = replication_rule(wish, place.arn_of(wish.target_bucket), place.prefix, _priority(sight, others))
    after = merge(found, REPLICATION, place.base, {"Rules": [rule]})
    if not others.get("Rules"):
        after["Role"] = wish.role_arn
    if after == found:
        after = found
    known = () if sight.target_versioned else (f"Whether {wish.target_bucket} keeps versions is not known.",)
    return Wish(
        after, f"new objects are copied to {wish.target_bucket}", True, notes=(NOT_RETROACTIVE, *known)
    )


def _priority(sight: Sight, others: Mapping[str, Any]) -> int:
    taken = {rule.get("Priority", 0) for rule in others.get("Rules", ())}
    for rule in own(sight.found.get("replication"), REPLICATION, sight.place.base).get("Rules", ()):
        if rule.get("Priority") not in (None, *taken):
            return int(rule["Priority"])
    return max(taken, default=0) + 1


def _require_replicable(sight: Sight, wish: Replication) -> None:
    if wish.target_bucket == sight.place.bucket:
        raise InvalidInputError("A bucket cannot be replicated into itself; name another target_bucket.")
    versioned = sight.found.get("versioning") or {}
    if sight.settings.versioning is False or (
        versioned.get("Status") != "Enabled" and not sight.settings.versioning and not sight.place.new
    ):
        raise InvalidInputError(
            f"Replication needs versioning on both sides, and {sight.place.bucket} keeps no versions: set "
            "versioning to True."
        )
    if sight.target_versioned is False:
        raise InvalidInputError(
            f"Replication needs versioning on both sides, and {wish.target_bucket} keeps no versions: "
            "enable it there (provision_bucket with that bucket as the store)."
        )
    if _uses_kms(sight) and not wish.target_kms_key_arn:
        raise InvalidInputError(
            "Objects here are encrypted by KMS, and S3 would leave them out without saying so: set "
            "replication.target_kms_key_arn to a key of the target's region, and let the role use both keys."
        )


def _uses_kms(sight: Sight) -> bool:
    wished = sight.settings.encryption
    if wished is not None:
        return wished.algorithm != "AES256"
    rules = (sight.found.get("encryption") or {}).get("Rules") or [{}]
    default = rules[0].get("ApplyServerSideEncryptionByDefault") or {}
    return str(default.get("SSEAlgorithm", "")).startswith("aws:kms")


def _require_room(others: Mapping[str, Any], wish: Replication) -> None:
    if others.get("Role") != wish.role_arn:
        raise ConflictError(
            f"The bucket's replication uses the role {others.get('Role')} for rules of others, and S3 knows "
            f"one role a bucket: give that role what {wish.role_arn} may do, and name it in "
            "replication.role_arn.",
            existing=others.get("Role"),
            offered=wish.role_arn,
        )
    old = [rule.get("ID") for rule in others["Rules"] if "Filter" not in rule]
    if old:
        raise ConflictError(
            f"The replication rules {old} are of the first form (Prefix without Filter), and S3 takes no "
            "mixture: have their owner write them with a Filter first.",
            existing=old,
        )


def queue(sight: Sight) -> Wish | None:
    """The queue of our messages: there, with a place for dead letters, and open to S3 for this bucket."""
    wish, place = sight.settings.notifications, sight.place
    if wish is None or not wish.create_queue or wish.queue_arn is None:
        return None
    found = sight.found.get("queue") or {"QueueArn": wish.queue_arn}
    dead = {"deadLetterTargetArn": wish.queue_arn + "-dead", "maxReceiveCount": wish.max_receives}
    wanted = queue_policy(wish.queue_arn, place.arn)["Statement"]
    statement = {"Sid": f"{sid_base(place.prefix)}Send", **wanted[0]}
    after = {**with_statements(found, place, [statement]), "RedrivePolicy": found.get("RedrivePolicy", dead)}
    return Wish(after, "the bucket may send to the queue, and what nobody understands has a place", True)


def with_statements(document: Mapping[str, Any], place: Place, statements: Sequence[Any]) -> dict[str, Any]:
    """A queue's document with these statements in the place of ours."""
    policy = merge(
        document.get("Policy") or EMPTY_POLICY, STATEMENTS, sid_base(place.prefix), {"Statement": statements}
    )
    rest = {key: value for key, value in document.items() if key != "Policy"}
    return {**rest, "Policy": policy} if policy.get("Statement") else rest


def notifications(sight: Sight) -> Wish | None:
    """Our messages; EventBridge is for the whole bucket, so it is only ever switched on."""
    wish, place = sight.settings.notifications, sight.place
    if wish is None:
        return None
    found = sight.found.get("notifications")
    rules = queue_rules(wish, place.prefix)
    for rule in rules:
        for other in _foreign_rules(found, place.base):
            if _overlap(rule, other):
                raise ConflictError(
                    f"The notification {other.get('Id')!r} of others is about the same events of the same "
                    f"keys as {rule['Id']!r}, and S3 sends each event once: send that one to a topic or to "
                    "EventBridge that feeds both, and set notifications.event_bridge.",
                    existing=other,
                    offered=rule,
                )
    after = merge(found, NOTIFICATIONS, place.base, {"QueueConfigurations": rules})
    if wish.event_bridge and "EventBridgeConfiguration" not in after:
        after["EventBridgeConfiguration"] = {}
    return Wish(after or None, "new records are told when they are complete", True)


def _foreign_rules(found: Mapping[str, Any] | None, base: str) -> Iterator[Mapping[str, Any]]:
    others = foreign(found, NOTIFICATIONS, base)
    for name in NOTIFICATIONS.lists:
        yield from others.get(name, ())


def _overlap(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """S3's own test: two rules may not be about one event of one key."""
    mine, theirs = (tuple(map(_ends_of(rule).get, ("prefix", "suffix"))) for rule in (one, other))
    before = [str(each[0] or "") for each in (mine, theirs)]
    behind = [str(each[1] or "") for each in (mine, theirs)]
    keys = (before[0].startswith(before[1]) or before[1].startswith(before[0])) and (
        behind[0].endswith(behind[1]) or behind[1].endswith(behind[0])
    )
    return keys and any(str(event).startswith("s3:ObjectCreated:") for event in other.get("Events", ()))


def _ends_of(rule: Mapping[str, Any]) -> dict[str, str]:
    rules = ((rule.get("Filter") or {}).get("Key") or {}).get("FilterRules") or ()
    return {str(each.get("Name")).lower(): str(each.get("Value", "")) for each in rules}


def cloudtrail(sight: Sight) -> Wish | None:
    """Our selector in a trail: by its name, or, in the older form, by the keys that it is about."""
    wish, place = sight.settings.cloudtrail, sight.place
    if wish is None:
        return None
    found = sight.found.get("cloudtrail") or {}
    why = f"requests for objects of the store are recorded in {wish.trail}"
    notes = ("Data events are billed per 100,000.",)
    if not found.get("EventSelectors"):
        wanted = [advanced_selector(wish, place.arn, place.prefix)] if wish.enabled else []
        return Wish(
            merge(found, SELECTORS, place.base, {"AdvancedEventSelectors": wanted}), why, True, "", notes
        )
    selector = basic_selector(wish, place.arn, place.prefix)
    theirs = [each for each in found["EventSelectors"] if not is_basic(each, place.arn, place.prefix)]
    mine = [each for each in found["EventSelectors"] if each not in theirs]
    wanted = [selector] if wish.enabled else []
    if mine == wanted or (mine and wanted and _says(mine, selector)):
        return Wish(found, why, True, "", notes)
    return Wish({**found, "EventSelectors": [*theirs, *wanted]}, why, True, "", notes)


def is_basic(selector: Mapping[str, Any], arn: str, prefix: str) -> bool:
    """Tell whether a selector of the older form is ours: it is about our keys, and nothing else."""
    values = [value for each in selector.get("DataResources", ()) for value in each.get("Values", ())]
    return values == [f"{arn}/{prefix}/" if prefix else f"{arn}/"]


def _says(mine: list[Any], selector: Mapping[str, Any]) -> bool:
    return len(mine) == 1 and all(mine[0].get(key) == value for key, value in selector.items())
