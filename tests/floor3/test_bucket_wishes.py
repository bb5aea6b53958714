"""What is wished of each document against what is there: decided without any server."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from pydantic import ValidationError

from mltrack_tasks.bucket.planning import Row, hazards, plan
from mltrack_tasks.bucket.policies import queue_policy
from mltrack_tasks.bucket.settings import (
    AccessLogging,
    ArchiveTiers,
    BucketSettings,
    CloudTrail,
    Encryption,
    Lifecycle,
    Notifications,
    Policy,
    Replication,
    Temporary,
)
from mltrack_tasks.bucket.wishing import Place, Sight
from mltrack_tasks.errors import ConflictError, InvalidInputError

PLACE = Place("b", "mltrack", "us-east-1")
ON = {"Status": "Enabled"}
ROLE, QUEUE = "arn:aws:iam::1:role/r", "arn:aws:sqs:us-east-1:1:q"
REPLICATION = Replication(target_bucket="copies", role_arn=ROLE)
OTHERS_RULE = {"ID": "o", "Priority": 7, "Filter": {"Prefix": "x/"}, "Status": "Enabled", "Destination": {}}


def rows(
    found: Mapping[str, Any] | None = None, place: Place = PLACE, sure: bool | None = True, **settings: Any
) -> dict[str, Row]:
    """Plan with nothing recommended -> rows by document."""
    wish = BucketSettings(**{"recommended": False, **settings})
    return {row.document: row for row in plan(Sight(wish, place, found or {}, {}, sure))}


def test_nothing_said_is_nothing_done() -> None:
    assert rows() == {}
    assert set(rows(recommended=True)) == {
        *("versioning", "encryption", "public_access", "ownership", "lifecycle", "policy"),
    }


def test_the_policy_of_a_new_store_refuses_plain_http_for_its_keys_alone() -> None:
    (statement,) = json.loads(rows(recommended=True)["policy"].after)["Statement"]
    assert statement["Resource"] == "arn:aws:s3:::b/mltrack/*"
    assert statement["Effect"] == "Deny"
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    china = Place("b", "mltrack", "cn-north-1")
    assert "arn:aws-cn:s3:::b/mltrack/*" in rows(place=china, policy=Policy())["policy"].after


def test_a_policy_that_would_lock_the_store_out_is_refused() -> None:
    plain = Place("b", "mltrack", plain_http=True)
    assert "policy" not in rows(place=plain, recommended=True)
    with pytest.raises(InvalidInputError, match="lock it out"):
        rows(place=plain, policy=Policy())
    other = Place("b", "mltrack", encryption="AES256")
    kms = Encryption(algorithm="aws:kms", kms_key_id="arn:aws:kms:us-east-1:1:key/k")
    with pytest.raises(InvalidInputError, match="would refuse what this store writes"):
        rows(place=other, policy=Policy(deny_other_encryption=True), encryption=kms)


def test_all_statements_are_denials_and_others_stay() -> None:
    theirs = '{ "Version":"2012-10-17", "Statement": [{"Sid":"Theirs","Effect":"Allow"}] }'
    kms = Encryption(algorithm="aws:kms", kms_key_id="arn:aws:kms:us-east-1:1:key/k")
    wish = Policy(deny_other_encryption=True, create_only_data=True, whole_bucket=True)
    after = json.loads(rows({"policy": theirs}, policy=wish, encryption=kms)["policy"].after)
    assert after["Statement"][0] == {"Sid": "Theirs", "Effect": "Allow"}
    ours = after["Statement"][1:]
    assert {each["Effect"] for each in ours} == {"Deny"}
    assert len({each["Sid"] for each in ours}) == 4
    none = Policy(tls_only=False)
    assert rows({"policy": theirs}, policy=none)["policy"].state == "same"
    assert rows({"policy": json.dumps({"Statement": ours})}, policy=none)["policy"].after is None


def test_blobs_are_written_only_under_a_condition() -> None:
    wish = Policy(tls_only=False, create_only_data=True)
    (statement,) = json.loads(rows(policy=wish)["policy"].after)["Statement"]
    assert statement["Resource"] == "arn:aws:s3:::b/mltrack/data/*"
    assert statement["Condition"]["Null"] == {"s3:if-none-match": "true", "s3:if-match": "true"}
    assert statement["Condition"]["Bool"] == {"s3:ObjectCreationOperation": "true"}


def test_other_fields_of_the_encryption_stay() -> None:
    blocked = {"BlockedEncryptionTypes": {"EncryptionType": ["SSE-C"]}}
    now = {"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}, **blocked}]}
    assert rows({"encryption": now}, encryption=Encryption())["encryption"].state == "same"
    kms = Encryption(algorithm="aws:kms", kms_key_id="k")
    (rule,) = rows({"encryption": now}, encryption=kms)["encryption"].after["Rules"]
    assert rule == {
        "ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": "k"},
        "BucketKeyEnabled": True,
        **blocked,
    }


def test_logging_of_others_is_not_replaced_unless_told() -> None:
    theirs = {"LoggingEnabled": {"TargetBucket": "theirs", "TargetPrefix": ""}}
    wish = AccessLogging(target_bucket="logs")
    assert rows({"logging": theirs}, logging=wish)["logging"].state == "kept"
    replaced = rows({"logging": theirs}, logging=wish, replace=("logging",))["logging"]
    assert replaced.after["LoggingEnabled"]["TargetBucket"] == "logs"
    assert rows({"logging": theirs}, logging=AccessLogging())["logging"].state == "kept"
    assert rows({"logging": replaced.after}, logging=wish)["logging"].state == "same"
    with pytest.raises(InvalidInputError, match="without end"):
        rows(logging=AccessLogging(target_bucket="b"))


def test_acceleration() -> None:
    assert rows(acceleration=True)["acceleration"].after == ON
    assert rows(acceleration=False)["acceleration"].state == "same"
    assert rows({"acceleration": ON}, acceleration=False)["acceleration"].after == {"Status": "Suspended"}
    with pytest.raises(InvalidInputError, match="dot in its name"):
        rows(place=Place("a.b", "mltrack"), acceleration=True)


def test_archive_tiers_are_accepted_or_refused() -> None:
    with pytest.raises(InvalidInputError, match="accept_archived"):
        rows(archive_tiers=ArchiveTiers(archive_days=90))
    wish = ArchiveTiers(archive_days=90, deep_archive_days=180, accept_archived=True)
    (made,) = rows(archive_tiers=wish)["archive_tiers"].after["Configurations"]
    assert made["Filter"] == {"Prefix": "mltrack/data/"}
    assert [tier["Days"] for tier in made["Tierings"]] == [90, 180]


def test_replication_of_new_objects() -> None:
    row = rows({"versioning": ON}, replication=REPLICATION)["replication"]
    assert row.after["Role"] == ROLE
    (rule,) = row.after["Rules"]
    assert (rule["Priority"], rule["Filter"]) == (1, {"Prefix": "mltrack/"})
    assert rule["DeleteMarkerReplication"] == {"Status": "Disabled"}
    assert any("not replicated" in note for note in row.notes)
    again = rows({"versioning": ON, "replication": row.after}, replication=REPLICATION)
    assert again["replication"].state == "same"
    off = rows({"versioning": ON, "replication": row.after}, replication=Replication())["replication"]
    assert off.after is None
    unknown = rows({"versioning": ON}, sure=None, replication=REPLICATION)["replication"]
    assert any("is not known" in note for note in unknown.notes)


def test_replication_beside_rules_of_others() -> None:
    theirs = {"Role": ROLE, "Rules": [OTHERS_RULE]}
    row = rows({"versioning": ON, "replication": theirs}, replication=REPLICATION)["replication"]
    assert row.after["Rules"][0] == OTHERS_RULE
    assert row.after["Rules"][1]["Priority"] == 8
    off = rows({"versioning": ON, "replication": row.after}, replication=Replication())["replication"]
    assert off.after == theirs


@pytest.mark.parametrize(
    ("found", "wish", "sure", "said"),
    [
        ({}, REPLICATION, True, "keeps no versions: set versioning"),
        ({"versioning": ON}, REPLICATION, False, "copies keeps no versions"),
        ({"versioning": ON}, Replication(target_bucket="b", role_arn=ROLE), True, "into itself"),
    ],
)
def test_replication_that_cannot_be(found: Any, wish: Replication, sure: bool, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        rows(found, sure=sure, replication=wish)


def test_objects_of_kms_are_not_left_out_in_silence() -> None:
    kms = Encryption(algorithm="aws:kms")
    with pytest.raises(InvalidInputError, match="without saying so"):
        rows({"versioning": ON}, replication=REPLICATION, encryption=kms)
    default = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms"}}
    with pytest.raises(InvalidInputError, match="without saying so"):
        rows({"versioning": ON, "encryption": {"Rules": [default]}}, replication=REPLICATION)
    keyed = REPLICATION.model_copy(update={"target_kms_key_arn": "k"})
    (rule,) = rows({"versioning": ON}, replication=keyed, encryption=kms)["replication"].after["Rules"]
    assert rule["SourceSelectionCriteria"]["SseKmsEncryptedObjects"] == {"Status": "Enabled"}
    assert rule["Destination"]["EncryptionConfiguration"] == {"ReplicaKmsKeyID": "k"}


def test_replication_that_others_leave_no_room_for() -> None:
    theirs = {"Role": "arn:aws:iam::1:role/theirs", "Rules": [OTHERS_RULE]}
    with pytest.raises(ConflictError, match="one role a bucket"):
        rows({"versioning": ON, "replication": theirs}, replication=REPLICATION)
    old = {"Role": ROLE, "Rules": [{"ID": "old", "Prefix": "x", "Status": "Enabled", "Destination": {}}]}
    with pytest.raises(ConflictError, match="no mixture"):
        rows({"versioning": ON, "replication": old}, replication=REPLICATION)


def queue(name: str, prefix: str, *events: str) -> dict[str, Any]:
    rules = [{"Name": "Prefix", "Value": prefix}]
    return {"Id": name, "QueueArn": QUEUE, "Events": list(events), "Filter": {"Key": {"FilterRules": rules}}}


def test_messages_about_new_records() -> None:
    theirs = {"QueueConfigurations": [queue("theirs", "mltrack/manifests/", "s3:ObjectRemoved:*")]}
    wish = Notifications(queue_arn=QUEUE)
    after = rows({"notifications": theirs}, notifications=wish)["notifications"].after
    assert after["QueueConfigurations"][0] == theirs["QueueConfigurations"][0]
    told = [each["Filter"]["Key"]["FilterRules"][0]["Value"] for each in after["QueueConfigurations"][1:]]
    assert told == ["mltrack/manifests/", "mltrack/names/"]
    # S3 gives the names of filters back with a capital.
    spelled = json.loads(json.dumps(after).replace('"prefix"', '"Prefix"'))
    assert rows({"notifications": spelled}, notifications=wish)["notifications"].state == "same"
    off = rows({"notifications": spelled}, notifications=Notifications())["notifications"]
    assert off.after == theirs


@pytest.mark.parametrize("prefix", ["", "mltrack/", "mltrack/names/a"])
def test_messages_that_others_get_already(prefix: str) -> None:
    theirs = {"QueueConfigurations": [queue("theirs", prefix, "s3:ObjectCreated:Put")]}
    with pytest.raises(ConflictError, match="sends each event once"):
        rows({"notifications": theirs}, notifications=Notifications(queue_arn=QUEUE))


def test_event_bridge_is_only_switched_on() -> None:
    on = rows(notifications=Notifications(event_bridge=True))["notifications"].after
    assert on == {"EventBridgeConfiguration": {}}
    assert rows({"notifications": on}, notifications=Notifications())["notifications"].state == "same"


def test_trails_of_both_forms() -> None:
    wish = CloudTrail(trail="t", reads=False)
    basic = {"ReadWriteType": "All", "IncludeManagementEvents": True, "DataResources": []}
    found = {"TrailARN": "arn", "EventSelectors": [basic]}
    after = rows({"cloudtrail": found}, cloudtrail=wish)["cloudtrail"].after
    assert after["EventSelectors"][0] == basic
    assert after["EventSelectors"][1]["ReadWriteType"] == "WriteOnly"
    assert rows({"cloudtrail": after}, cloudtrail=wish)["cloudtrail"].state == "same"
    off = CloudTrail(trail="t", enabled=False)
    assert rows({"cloudtrail": after}, cloudtrail=off)["cloudtrail"].after == found
    named = {"TrailARN": "arn", "AdvancedEventSelectors": [{"Name": "theirs", "FieldSelectors": []}]}
    both = rows({"cloudtrail": named}, cloudtrail=wish)["cloudtrail"].after
    assert [each["Name"] for each in both["AdvancedEventSelectors"]] == [
        "theirs",
        "mltrack-mltrack:data-events",
    ]
    assert rows({"cloudtrail": both}, cloudtrail=off)["cloudtrail"].after == named


def test_temporary_runs_go_by_retention() -> None:
    policy = Temporary(days=14).policy()
    assert (policy.tags, policy.keep_days) == ({"temporary": True}, 14)


def test_further_rules_are_about_the_store() -> None:
    abort = {"Status": "Enabled", "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 9}}
    given = {**abort, "Id": "mine", "Filter": {"Prefix": "mltrack/data/"}}
    made = rows(lifecycle=Lifecycle(rules=(given,)))["lifecycle"].after["Rules"]
    assert made[-1]["ID"] == "mltrack-mltrack:mine"
    assert "Id" not in made[-1]
    with pytest.raises(InvalidInputError, match="not about this store"):
        rows(lifecycle=Lifecycle(rules=(abort,)))


def test_tiers_of_others_over_the_store_are_told() -> None:
    tiers = {"Configurations": [{"Id": "theirs", "Status": "Enabled", "Tierings": []}]}
    assert ["theirs" in each for each in hazards({"archive_tiers": tiers}, PLACE)] == [True]


def test_what_is_left_out_stays_as_it_was_applied() -> None:
    applied = BucketSettings(versioning=True, lifecycle=Lifecycle(transition_days=3), recommended=False)
    now = BucketSettings(lifecycle=Lifecycle()).over(applied)
    assert now.versioning is True
    assert now.lifecycle == Lifecycle()
    assert BucketSettings.model_validate(applied.to_content()).over(None).to_content() == applied.to_content()


@pytest.mark.parametrize(
    "wrong",
    [
        {"encryption": {"kms_key_id": "k"}},
        {"replication": {"target_bucket": "t"}},
        {"lifecycle": {"abort_uploads_days": 0}},
        {"versionning": True},
        {"archive_tiers": {"archive_days": 30}},
    ],
)
def test_settings_that_cannot_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        BucketSettings.model_validate(wrong)


def test_what_a_queue_needs() -> None:
    (statement,) = queue_policy(QUEUE, PLACE.arn, "1")["Statement"]
    assert statement["Resource"] == QUEUE
    assert statement["Condition"]["ArnLike"] == {"aws:SourceArn": "arn:aws:s3:::b"}
