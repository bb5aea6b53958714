"""What each document should say: the wish, against what is there. Pure; nothing is asked or written here.

A recommendation fills in what is not there. It changes nothing that somebody set, and nothing that concerns
the whole of a bucket that others use too: that needs to be said.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mltrack_tasks.bucket.merging import (
    LIFECYCLE,
    STATEMENTS,
    TIERS,
    Shape,
    merge,
    merge_policy,
    own,
    parse_policy,
)
from mltrack_tasks.bucket.naming import partition_of, rule_base, sid_base
from mltrack_tasks.bucket.policies import create_only, encrypted_as, encrypted_by, tls_only
from mltrack_tasks.bucket.rules import lifecycle_rules, tier_rules
from mltrack_tasks.bucket.settings import BucketSettings, Encryption, Lifecycle, Policy
from mltrack_tasks.errors import InvalidInputError


@dataclass(frozen=True)
class Place:
    """The bucket, and how the store speaks to it."""

    bucket: str
    prefix: str
    region: str | None = None
    new: bool = False
    """There is no such bucket yet."""
    shared: bool = False
    """It holds objects of others."""
    plain_http: bool = False
    """The store speaks to it without TLS."""
    encryption: str | None = None
    """What the store itself asks for when it writes."""
    kms_key_id: str | None = None

    @property
    def base(self) -> str:
        """What the ids of our rules begin with."""
        return rule_base(self.prefix)

    def arn_of(self, bucket: str) -> str:
        """The ARN of a bucket in the partition of this region."""
        return f"arn:{partition_of(self.region)}:s3:::{bucket}"

    @property
    def arn(self) -> str:
        """The bucket's ARN."""
        return self.arn_of(self.bucket)


@dataclass(frozen=True)
class Sight:
    """All that a decision may look at: settings, the place, what is there, and what of ours was applied."""

    settings: BucketSettings
    place: Place
    found: Mapping[str, Any]
    applied: Mapping[str, Any] = field(default_factory=dict)
    target_versioned: bool | None = None
    """Whether the bucket that objects are replicated to keeps versions; None if that is not known."""


@dataclass(frozen=True)
class Wish:
    """What a document should say, and why. ``kept`` says why it is left as it is although it differs."""

    after: Any
    why: str
    explicit: bool
    kept: str = ""
    notes: tuple[str, ...] = ()


def whole(sight: Sight, name: str, wished: Any, recommended: Any, why: str, same: bool) -> Wish | None:
    """Decide about a document that has one value. ``same`` tells that it says so already."""
    found = sight.found.get(name)
    explicit = wished is not None
    value = wished if explicit else recommended if sight.settings.recommended else None
    if value is None:
        return None
    if same:
        return Wish(found, why, explicit)
    if explicit or sight.place.new or name in sight.applied or (found is None and not sight.place.shared):
        return Wish(value, why, explicit)
    if found is not None:
        return Wish(found, why, False, kept="it is set to something else: say it to change it")
    return Wish(found, why, False, kept="others use this bucket too: say it to set it for all")


def versioning(sight: Sight) -> Wish | None:
    """Versions of what is overwritten or deleted."""
    found, wished = sight.found.get("versioning"), sight.settings.versioning
    status = "Suspended" if wished is False else "Enabled"
    is_on = (found or {}).get("Status") == "Enabled"
    same = is_on if wished is not False else not is_on
    value = {**(found or {}), "Status": status}
    why = "what is overwritten or deleted can be brought back"
    return whole(sight, "versioning", None if wished is None else value, value, why, same)


_STRENGTH = ("AES256", "aws:kms", "aws:kms:dsse")


def encryption(sight: Sight) -> Wish | None:
    """Default encryption; other fields of the rule (such as blocked kinds) stay."""
    found, wish = sight.found.get("encryption"), sight.settings.encryption
    asked = wish or Encryption()
    rules = (found or {}).get("Rules") or [{}]
    now = rules[0].get("ApplyServerSideEncryptionByDefault") or {}
    default: dict[str, str] = {"SSEAlgorithm": asked.algorithm}
    if asked.kms_key_id:
        default["KMSMasterKeyID"] = asked.kms_key_id
    with_kms = asked.algorithm != "AES256"
    same = now == default and (not with_kms or rules[0].get("BucketKeyEnabled", False) is asked.bucket_key)
    rule = {
        **rules[0],
        "ApplyServerSideEncryptionByDefault": default,
        "BucketKeyEnabled": with_kms and asked.bucket_key,
    }
    value = {**(found or {}), "Rules": [rule, *rules[1:]]}
    decided = whole(
        sight, "encryption", wish and value, value, f"new objects are encrypted ({asked.algorithm})", same
    )
    weaker = _STRENGTH.index(asked.algorithm) < _strength(now.get("SSEAlgorithm"))
    if decided and decided.after is value and weaker and "encryption" not in sight.settings.replace:
        kept = f"{now.get('SSEAlgorithm')} is stronger: name encryption in `replace` to weaken it"
        return Wish(found, decided.why, decided.explicit, kept)
    return decided


def _strength(algorithm: str | None) -> int:
    return _STRENGTH.index(algorithm) if algorithm in _STRENGTH else -1


def public_access(sight: Sight) -> Wish | None:
    """No access by the public."""
    names = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
    found, wished = sight.found.get("public_access"), sight.settings.block_public_access
    value = dict.fromkeys(names, wished is not False)
    why = "nobody makes data public by mistake" if wished is not False else "asked for"
    return whole(
        sight, "public_access", None if wished is None else value, value, why, spoken_of(found, value)
    )


def spoken_of(found: Any, value: Mapping[str, Any]) -> bool:
    """Tell whether a document says these values; what it leaves out is off."""
    return found is not None and all(found.get(key, False) == item for key, item in value.items())


def ownership(sight: Sight) -> Wish | None:
    """Who owns objects. What exists is changed only if asked: without ACLs, others may lose their access."""
    found, wished = sight.found.get("ownership"), sight.settings.ownership
    value = {"Rules": [{"ObjectOwnership": wished or "BucketOwnerEnforced"}]}
    same = found is not None and found.get("Rules") == value["Rules"]
    why = "the bucket's owner owns all objects; access is by policies alone"
    decided = whole(sight, "ownership", wished and value, value, why, same)
    if decided and not decided.explicit and decided.after is value and not sight.place.new:
        return Wish(found, why, False, kept="access by ACLs would end: say it to set it")
    return decided


def acceleration(sight: Sight) -> Wish | None:
    """Transfer acceleration."""
    found, wished = sight.found.get("acceleration"), sight.settings.acceleration
    if wished and "." in sight.place.bucket:
        raise InvalidInputError(
            f"S3 accelerates no bucket with a dot in its name, as {sight.place.bucket!r} has. Leave "
            "acceleration out, or use another bucket."
        )
    is_on = (found or {}).get("Status") == "Enabled"
    value = {"Status": "Enabled" if wished else "Suspended"}
    why = "transfers from far away go through the nearest edge (billed per GB)" if wished else "asked for"
    return whole(sight, "acceleration", None if wished is None else value, None, why, is_on is bool(wished))


def logging(sight: Sight) -> Wish | None:
    """Server access logs: one target a bucket, so that of somebody else is not replaced unless told."""
    wish = sight.settings.logging
    if wish is None:
        return None
    found, why = sight.found.get("logging"), "who asked for what is written down"
    if wish.target_bucket == sight.place.bucket:
        raise InvalidInputError(
            f"Access logs of {sight.place.bucket} in itself would be logged again, without end. Name another "
            "bucket of the same region in logging.target_bucket."
        )
    now = (found or {}).get("LoggingEnabled")
    if wish.target_bucket is None:
        mine = "logging" in sight.applied or now is None
        return Wish(None if mine else found, "asked for", True, "" if mine else "others set it up")
    target = {"TargetBucket": wish.target_bucket, "TargetPrefix": wish.target_prefix}
    if now is not None and all(now.get(key) == value for key, value in target.items()):
        return Wish(found, why, True)
    if now is not None and "logging" not in sight.applied and "logging" not in sight.settings.replace:
        kept = (
            f"others log into {now.get('TargetBucket')}: name logging in `replace` to log elsewhere instead"
        )
        return Wish(found, why, True, kept)
    return Wish({"LoggingEnabled": target}, why, True)


def ruled(sight: Sight, name: str, shape: Shape, wanted: Mapping[str, list[Any]]) -> Any:
    """What a document of rules says when ours are as wanted; None for one without anything."""
    found = sight.found.get(name)
    merged = merge(found, shape, sight.place.base, wanted)
    return merged if any(merged.get(each) for each in shape.lists) or merged == found else None


def lifecycle(sight: Sight) -> Wish | None:
    """Our rules of the lifecycle."""
    wish = sight.settings.lifecycle
    if wish is None and not sight.settings.recommended:
        return None
    ours = own(sight.found.get("lifecycle"), LIFECYCLE, sight.place.base)
    if wish is None and ours and "lifecycle" not in sight.applied:
        return Wish(sight.found["lifecycle"], "as it is", False)
    rules, warnings = lifecycle_rules(wish or Lifecycle(), sight.place.prefix)
    after = ruled(sight, "lifecycle", LIFECYCLE, {"Rules": rules})
    why = "leftovers and earlier versions go, and nothing that is in use"
    return Wish(after, why, wish is not None, notes=tuple(map(str, warnings)))


def archive_tiers(sight: Sight) -> Wish | None:
    """Archive tiers of INTELLIGENT_TIERING."""
    wish = sight.settings.archive_tiers
    if wish is None:
        return None
    rules = tier_rules(wish, sight.place.prefix)
    after = ruled(sight, "archive_tiers", TIERS, {"Configurations": rules})
    notes = ("Blobs in these tiers are an ArchivedError until restore_data brings them back.",)
    return Wish(after, "blobs that nobody reads cost less", True, notes=notes if rules else ())


def policy(sight: Sight) -> Wish | None:
    """Our statements of the policy."""
    wish, place = sight.settings.policy, sight.place
    if wish is None:
        if not sight.settings.recommended or place.plain_http:
            return None
        ours = own(parse_policy(sight.found.get("policy")), STATEMENTS, sid_base(place.prefix))
        if ours and "policy" not in sight.applied:
            return Wish(sight.found["policy"], "as it is", False)
    asked = wish or Policy()
    wanted = []
    if asked.tls_only:
        if place.plain_http:
            raise InvalidInputError(
                "The store itself speaks to this bucket without TLS (http://): policy.tls_only would lock it "
                "out. Use an https:// endpoint_url, or set tls_only to False."
            )
        wanted.append(tls_only(place.arn, place.prefix, whole_bucket=asked.whole_bucket))
    if asked.deny_other_encryption:
        wanted.extend(_encryption_statements(sight))
    if asked.create_only_data:
        wanted.append(create_only(place.arn, place.prefix))
    after = merge_policy(sight.found.get("policy"), sid_base(place.prefix), wanted)
    return Wish(after, "what must not be done is refused by S3 itself", wish is not None)


def _encryption_statements(sight: Sight) -> list[dict[str, Any]]:
    place, asked = sight.place, sight.settings.encryption or Encryption()
    other_kind = place.encryption not in (None, asked.algorithm)
    other_key = asked.kms_key_id and place.kms_key_id not in (None, asked.kms_key_id)
    if other_kind or other_key:
        raise InvalidInputError(
            f"policy.deny_other_encryption with {asked.algorithm} would refuse what this store writes: its "
            f"block asks for {place.encryption}. Set encryption to the same, or server_side_encryption of "
            "the block."
        )
    statements = [encrypted_as(place.arn, place.prefix, asked.algorithm)]
    if asked.kms_key_id:
        statements.append(encrypted_by(place.arn, place.prefix, asked.kms_key_id))
    return statements


Decide = Callable[[Sight], Wish | None]
