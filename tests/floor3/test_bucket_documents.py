"""Each document of a bucket: applied twice, changed by hand, undone; whatever others wrote into it before."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from botocore.exceptions import ClientError

from mltrack_tasks.bucket.reverting import undo_bucket_change
from mltrack_tasks.stores import open_s3
from tests.floor3.buckets import LOGS_EXPIRE, Bucket
from tests.floor3.queues import Queues
from tests.servers import S3Server
from tests.settings import settings_of

ROLE = "arn:aws:iam::123456789012:role/copies"
KMS = {"algorithm": "aws:kms", "kms_key_id": "arn:aws:kms:us-east-1:123456789012:key/k"}
ON, OFF = {"Status": "Enabled"}, {"Status": "Suspended"}


@dataclass(frozen=True)
class Case:
    """A document: how it is wished, read, and changed by hand. ``theirs`` is what others wrote before."""

    wish: Callable[[Bucket], Mapping[str, Any]]
    get: str
    put: str
    member: str
    by_hand: Callable[[Any], Any]
    theirs: Callable[[Bucket], Any] | None = None
    suspends: bool = False
    """It cannot be taken away again, only suspended."""
    prefix: str = "mltrack"
    """Of the store. moto gives every rule of replication the prefix "", whatever it was sent."""


def encrypted(algorithm: str) -> dict[str, Any]:
    return {"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": algorithm}}]}


def their_rules(bucket: Bucket) -> dict[str, Any]:
    """Rules of all forms, one switched off, one about keys of the store."""
    archived = [{"Days": 30, "StorageClass": "STANDARD_IA"}, {"Days": 60, "StorageClass": "GLACIER"}]
    tagged = {"And": {"Prefix": "raw/", "Tags": [{"Key": "k", "Value": "<ü & ä>"}]}}
    return {
        "Rules": [
            LOGS_EXPIRE,
            {"ID": "", "Filter": {"Prefix": "x/"}, "Status": "Disabled", "Expiration": {"Days": 1}},
            {"ID": "tagged", "Filter": tagged, "Status": "Enabled", "Transitions": archived},
            {
                "ID": "mltrack-other:uploads",  # of another store in this bucket
                "Filter": {"Prefix": "other/"},
                "Status": "Enabled",
                "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 2},
                "NoncurrentVersionExpiration": {"NoncurrentDays": 5},
            },
        ]
    }


def their_notifications(bucket: Bucket) -> dict[str, Any]:
    topic = bucket.service("sns").create_topic(Name=f"{bucket.name}-topic")["TopicArn"]
    rules = [{"Name": "prefix", "Value": "in/"}, {"Name": "suffix", "Value": ".csv"}]
    return {
        "TopicConfigurations": [{"Id": "t", "TopicArn": topic, "Events": ["s3:ObjectRemoved:*"]}],
        "QueueConfigurations": [
            {
                "Id": "q",
                "QueueArn": Queues(bucket).arn,
                "Events": ["s3:ObjectCreated:Put", "s3:ObjectCreated:Copy"],
                "Filter": {"Key": {"FilterRules": rules}},
            }
        ],
    }


def their_replication(bucket: Bucket) -> dict[str, Any]:
    target = Bucket(bucket.server)
    for each in (bucket, target):
        each.client.put_bucket_versioning(Bucket=each.name, VersioningConfiguration=ON)
    tagged = {"And": {"Prefix": "b/", "Tags": [{"Key": "k", "Value": "v"}]}}
    rules = [
        {
            "ID": f"others {number}",
            "Priority": number,
            "Filter": chosen,
            "Status": status,
            "DeleteMarkerReplication": {"Status": "Disabled"},
            "Destination": {"Bucket": f"arn:aws:s3:::{target.name}", "StorageClass": "STANDARD_IA"},
        }
        for number, (chosen, status) in enumerate(((tagged, "Enabled"), ({"Prefix": "a/"}, "Disabled")), 4)
    ]
    return {"Role": ROLE, "Rules": rules}


def their_policy(bucket: Bucket) -> str:
    """As they wrote it, which is not how we would."""
    return (
        '{ "Statement" : [ {"Sid":"Theirs", "Effect":"Deny",\n "Principal":{"AWS":"*"},'
        f' "Action":"s3:DeleteBucket", "Resource":"arn:aws:s3:::{bucket.name}"}} ],'
        ' "Version":"2012-10-17","Id": "ü" }'
    )


def replicated(bucket: Bucket) -> Mapping[str, Any]:
    target = Bucket(bucket.server)
    for each in (bucket, target):
        each.client.put_bucket_versioning(Bucket=each.name, VersioningConfiguration=ON)
    return {"replication": {"target_bucket": target.name, "role_arn": ROLE}}


def without_ours(list_name: str, mark: str) -> Callable[[Any], Any]:
    """Somebody takes one of our rules away."""

    def change(found: dict[str, Any]) -> dict[str, Any]:
        ours = next(each for each in found[list_name] if str(each.get("ID", each.get("Id"))).startswith(mark))
        return {**found, list_name: [each for each in found[list_name] if each is not ours]}

    return change


def weaker_policy(text: str) -> str:
    said = json.loads(text)
    [ours] = [each for each in said["Statement"] if each["Sid"].startswith("mltrack")]
    ours["Resource"] = "arn:aws:s3:::elsewhere/*"
    return json.dumps(said)


RULES = "mltrack-mltrack:"
LIFECYCLE = Case(
    lambda _: {"lifecycle": {"noncurrent_days": 9}},
    "get_bucket_lifecycle_configuration",
    "put_bucket_lifecycle_configuration",
    "LifecycleConfiguration",
    without_ours("Rules", RULES),
)
NOTIFICATIONS = Case(
    lambda bucket: {"notifications": {"queue_arn": Queues(bucket).arn}},
    "get_bucket_notification_configuration",
    "put_bucket_notification_configuration",
    "NotificationConfiguration",
    without_ours("QueueConfigurations", RULES),
)
REPLICATION = Case(
    replicated,
    "get_bucket_replication",
    "put_bucket_replication",
    "ReplicationConfiguration",
    lambda found: {**found, "Rules": [*found["Rules"][:-1], {**found["Rules"][-1], "Status": "Disabled"}]},
    prefix="",
)
POLICY = Case(
    lambda _: {"policy": {"tls_only": False, "create_only_data": True}},
    "get_bucket_policy",
    "put_bucket_policy",
    "Policy",
    weaker_policy,
)
CASES: dict[str, Case] = {
    "versioning": Case(
        lambda _: {"versioning": True},
        "get_bucket_versioning",
        "put_bucket_versioning",
        "VersioningConfiguration",
        lambda _: OFF,
        suspends=True,
    ),
    "encryption": Case(
        lambda _: {"encryption": KMS},
        "get_bucket_encryption",
        "put_bucket_encryption",
        "ServerSideEncryptionConfiguration",
        lambda _: encrypted("AES256"),
    ),
    "public_access": Case(
        lambda _: {"block_public_access": True},
        "get_public_access_block",
        "put_public_access_block",
        "PublicAccessBlockConfiguration",
        lambda found: {**found, "BlockPublicAcls": False},
    ),
    "ownership": Case(
        lambda _: {"ownership": "BucketOwnerEnforced"},
        "get_bucket_ownership_controls",
        "put_bucket_ownership_controls",
        "OwnershipControls",
        lambda _: {"Rules": [{"ObjectOwnership": "ObjectWriter"}]},
    ),
    "acceleration": Case(
        lambda _: {"acceleration": True},
        "get_bucket_accelerate_configuration",
        "put_bucket_accelerate_configuration",
        "AccelerateConfiguration",
        lambda _: OFF,
        suspends=True,
    ),
    "lifecycle": LIFECYCLE,
    "notifications": NOTIFICATIONS,
    "replication": REPLICATION,
    "policy": POLICY,
    "lifecycle of others": Case(**{**vars(LIFECYCLE), "theirs": their_rules}),
    "notifications of others": Case(**{**vars(NOTIFICATIONS), "theirs": their_notifications}),
    "replication of others": Case(**{**vars(REPLICATION), "theirs": their_replication}),
    "policy of others": Case(**{**vars(POLICY), "theirs": their_policy}),
}


def said_by(bucket: Bucket, case: Case) -> bytes:
    """The very bytes of a document; nothing where there is none."""
    try:
        return bucket.raw(case.get)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
            raise
        return b""


def write(bucket: Bucket, case: Case, document: Any) -> None:
    getattr(bucket.client, case.put)(Bucket=bucket.name, **{case.member: document})


def read(bucket: Bucket, case: Case) -> Any:
    found = getattr(bucket.client, case.get)(Bucket=bucket.name)
    unwritten = ("ResponseMetadata", "TransitionDefaultMinimumObjectSize")
    bare = {key: value for key, value in found.items() if key not in unwritten}
    return bare.get(case.member, bare)


@pytest.mark.parametrize("name", CASES)
def test_applied_twice_changed_by_hand_and_undone(s3_server: S3Server, name: str) -> None:
    case, document, bucket = CASES[name], name.partition(" ")[0], Bucket(s3_server)
    bucket.store = open_s3(settings_of(s3_server, bucket=bucket.name, prefix=case.prefix))
    wish = {"recommended": False, **case.wish(bucket)}
    if case.theirs:
        write(bucket, case, case.theirs(bucket))
    before = said_by(bucket, case)
    assert bucket.look(**wish).to_change == (document,)
    assert said_by(bucket, case) == before

    done = bucket.apply(**wish)
    assert (done.to_change, done.changes) == ((document,), (1,))
    applied, kept = said_by(bucket, case), [stat.key for stat in bucket.store.list("bucket/")]
    assert applied != before
    again = bucket.apply(**wish)
    assert (again.to_change, again.changes, again.drifted) == ((), (), ())
    assert said_by(bucket, case) == applied
    assert [stat.key for stat in bucket.store.list("bucket/")] == kept

    assert undo_bucket_change(bucket.store, 1, dry_run=False).changes == (2,)
    if case.suspends:
        assert read(bucket, case)["Status"] == "Suspended"
    else:
        assert said_by(bucket, case) == before
    assert undo_bucket_change(bucket.store, 2, dry_run=False).changes == (3,)
    assert said_by(bucket, case) == applied
    assert bucket.apply(**wish).changes == ()

    write(bucket, case, case.by_hand(read(bucket, case)))
    by_hand = said_by(bucket, case)
    assert by_hand != applied
    assert bucket.look(**wish).drifted == (document,)
    assert said_by(bucket, case) == by_hand
    mended = bucket.apply(**wish)
    assert (mended.to_change, mended.changes) == ((document,), (4,))
    assert bucket.look(**wish).drifted == ()
    assert undo_bucket_change(bucket.store, 4, dry_run=False).changes == (5,)
    assert said_by(bucket, case) == by_hand
