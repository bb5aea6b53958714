"""Our rules of lifecycle, archive tiers, replication, notifications and trails, as S3 takes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mltrack_tasks.bucket.judging import ARCHIVES, SMALL, Objection, judge
from mltrack_tasks.bucket.naming import root_of, rule_base
from mltrack_tasks.bucket.settings import ArchiveTiers, CloudTrail, Lifecycle, Notifications, Replication
from mltrack_tasks.errors import InvalidInputError

Rule = dict[str, Any]


def lifecycle_rules(wish: Lifecycle, prefix: str) -> tuple[list[Rule], list[Objection]]:
    """Write the rules of a wish -> (rules, warnings); InvalidInputError for what would break the store."""
    made = [*_versions(wish, prefix), *_moves(wish, prefix)]
    base = rule_base(prefix)
    for number, given in enumerate(wish.rules, start=1):
        rule = {key: value for key, value in given.items() if key not in ("Id", "ID")}
        name = given.get("ID") or given.get("Id") or f"rule {number}"
        made.append({"ID": f"{base}{name}", **rule})
    verdicts = [
        verdict
        for rule in made
        for verdict in judge(rule, root_of(prefix), accept_archived=wish.accept_archived)
    ]
    for verdict in verdicts:
        if verdict.refused:
            raise InvalidInputError(str(verdict), details={"rule": verdict.rule, "instead": verdict.instead})
    for rule in made[len(made) - len(wish.rules) :]:
        _require_scope(rule, root_of(prefix))
    return made, verdicts


def _require_scope(rule: Mapping[str, Any], root: str) -> None:
    chosen = rule.get("Filter") or {}
    prefix = str(chosen.get("Prefix") or (chosen.get("And") or {}).get("Prefix") or "")
    if not isinstance(rule.get("Filter"), Mapping) or not prefix.startswith(root):
        raise InvalidInputError(
            f"The lifecycle rule {rule['ID']!r} is not about this store: give it a Filter whose Prefix "
            f"begins with {root!r}, or configure it outside of this library."
        )


def _rule(prefix: str, name: str, filter: Rule, **actions: Any) -> Rule:
    return {"ID": f"{rule_base(prefix)}{name}", "Filter": filter, "Status": "Enabled", **actions}


def _versions(wish: Lifecycle, prefix: str) -> list[Rule]:
    made, whole = [], {"Prefix": root_of(prefix)}
    if wish.abort_uploads_days is not None:
        days = {"DaysAfterInitiation": wish.abort_uploads_days}
        made.append(_rule(prefix, "abort-uploads", whole, AbortIncompleteMultipartUpload=days))
    if wish.noncurrent_days is not None:
        expiry = {"NoncurrentDays": wish.noncurrent_days}
        if wish.noncurrent_keep is not None:
            expiry["NewerNoncurrentVersions"] = wish.noncurrent_keep
        marker = {"ExpiredObjectDeleteMarker": True}
        made.append(_rule(prefix, "noncurrent", whole, Expiration=marker, NoncurrentVersionExpiration=expiry))
    return made


def _moves(wish: Lifecycle, prefix: str) -> list[Rule]:
    if wish.transition_days is None:
        return []
    chosen: Rule = {"Prefix": f"{root_of(prefix)}data/", "ObjectSizeGreaterThan": SMALL}
    if wish.transition_tag is not None:
        key, value = wish.transition_tag
        chosen["Tags"] = [{"Key": key, "Value": value}]
    move = {"Days": wish.transition_days, "StorageClass": wish.transition_class}
    name = "archive" if wish.transition_class in ARCHIVES else "transition"
    return [_rule(prefix, name, {"And": chosen}, Transitions=[move])]


def tier_rules(wish: ArchiveTiers, prefix: str) -> list[Rule]:
    """Write the archive tiers of INTELLIGENT_TIERING; InvalidInputError unless archives were accepted."""
    days = {"ARCHIVE_ACCESS": wish.archive_days, "DEEP_ARCHIVE_ACCESS": wish.deep_archive_days}
    tiers = [{"AccessTier": tier, "Days": after} for tier, after in days.items() if after is not None]
    if tiers and not wish.accept_archived:
        raise InvalidInputError(
            "archive_tiers moves blobs that nobody read for a while where they must be restored first, also "
            "for runs of today that share them. Without it INTELLIGENT_TIERING keeps every blob readable at "
            "once. To archive all the same, set archive_tiers.accept_archived."
        )
    if not tiers:
        return []
    chosen = {"Prefix": f"{root_of(prefix)}data/"}
    return [{"Id": f"{rule_base(prefix)}tiers", "Filter": chosen, "Status": "Enabled", "Tierings": tiers}]


def replication_rule(wish: Replication, arn: str, prefix: str, priority: int) -> Rule:
    """Write the rule that copies the store's new objects into the bucket ``arn``."""
    target: Rule = {"Bucket": arn}
    if wish.storage_class:
        target["StorageClass"] = wish.storage_class
    if wish.target_account:
        target["Account"] = wish.target_account
        target["AccessControlTranslation"] = {"Owner": "Destination"}
    rule: Rule = {
        "ID": f"{rule_base(prefix)}replicate",
        "Priority": priority,
        "Filter": {"Prefix": root_of(prefix)},
        "Status": "Enabled",
        "Destination": target,
        # What is deleted here by mistake is still there.
        "DeleteMarkerReplication": {"Status": "Disabled"},
    }
    if wish.target_kms_key_arn:
        target["EncryptionConfiguration"] = {"ReplicaKmsKeyID": wish.target_kms_key_arn}
        rule["SourceSelectionCriteria"] = {"SseKmsEncryptedObjects": {"Status": "Enabled"}}
    return rule


def queue_rules(wish: Notifications, prefix: str) -> list[Rule]:
    """Write what tells a queue of new records, a rule for each folder."""
    if wish.queue_arn is None:
        return []
    return [
        {
            "Id": f"{rule_base(prefix)}{folder.strip('/')}",
            "QueueArn": wish.queue_arn,
            "Events": ["s3:ObjectCreated:*"],
            "Filter": {"Key": {"FilterRules": [{"Name": "prefix", "Value": f"{root_of(prefix)}{folder}"}]}},
        }
        for folder in wish.folders
    ]


def advanced_selector(wish: CloudTrail, arn: str, prefix: str) -> Rule:
    """Write the selector of the store's data events. ``arn`` is the bucket's."""
    fields: list[Rule] = [
        {"Field": "eventCategory", "Equals": ["Data"]},
        {"Field": "resources.type", "Equals": ["AWS::S3::Object"]},
        {"Field": "resources.ARN", "StartsWith": [f"{arn}/{root_of(prefix)}"]},
    ]
    if not wish.reads:
        fields.append({"Field": "readOnly", "Equals": ["false"]})
    return {"Name": f"{rule_base(prefix)}data-events", "FieldSelectors": fields}


def basic_selector(wish: CloudTrail, arn: str, prefix: str) -> Rule:
    """Write the same in the older form, which has no names: it is ours by the keys that it is about."""
    resource = {"Type": "AWS::S3::Object", "Values": [f"{arn}/{root_of(prefix)}"]}
    return {
        "ReadWriteType": "All" if wish.reads else "WriteOnly",
        "IncludeManagementEvents": False,
        "DataResources": [resource],
    }
