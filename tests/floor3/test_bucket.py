"""Provisioning a bucket of moto: plan, apply, drift and undo; what others configured stays as it is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from mltrack_tasks import events
from mltrack_tasks.bucket.provision import provision_bucket
from mltrack_tasks.bucket.reverting import undo_bucket_change
from mltrack_tasks.bucket.settings import Encryption, Lifecycle, Notifications, Replication
from mltrack_tasks.content import retrieve_data, store_data
from mltrack_tasks.errors import AccessError, ConflictError, InvalidInputError, NotFoundError
from mltrack_tasks.events import Event
from mltrack_tasks.stores import open_memory, open_s3
from mltrack_tasks.trust.verify import verify_store
from tests.floor3.buckets import LOGS_EXPIRE, OTHERS_QUEUE, Bucket
from tests.servers import S3Server
from tests.servers.faultproxy import FaultProxy
from tests.settings import settings_of


@pytest.fixture
def bucket(s3_server: S3Server) -> Bucket:
    return Bucket(s3_server)


def test_a_dry_run_writes_nothing(bucket: Bucket) -> None:
    report = bucket.look()
    assert report.to_change == ("versioning", "encryption", "public_access", "lifecycle")
    assert "would change" in str(report)
    assert "Status" not in bucket.client.get_bucket_versioning(Bucket=bucket.name)
    assert "Contents" not in bucket.client.list_objects_v2(Bucket=bucket.name)


def test_a_bucket_that_is_not_there_is_made(s3_server: S3Server) -> None:
    bucket = Bucket(s3_server, create=False)
    plan = bucket.look()
    assert plan.created
    assert "ownership" in plan.to_change
    with pytest.raises(ClientError):
        bucket.client.head_bucket(Bucket=bucket.name)
    done = provision_bucket(bucket.store, dry_run=False, plan=plan.plan)
    assert done.created
    assert bucket.client.get_bucket_versioning(Bucket=bucket.name)["Status"] == "Enabled"
    ownership = bucket.client.get_bucket_ownership_controls(Bucket=bucket.name)["OwnershipControls"]
    assert ownership["Rules"] == [{"ObjectOwnership": "BucketOwnerEnforced"}]
    assert retrieve_data(bucket.store, store_data(bucket.store, b"x")) == b"x"
    assert bucket.look().to_change == ()


def test_two_applies_change_nothing(bucket: Bucket) -> None:
    assert bucket.apply(lifecycle=Lifecycle(noncurrent_days=9)).changes == (1, 2, 3, 4)
    kept = [stat.key for stat in bucket.store.list("bucket/")]
    again = bucket.apply(lifecycle=Lifecycle(noncurrent_days=9))
    assert again.changes == again.to_change == ()
    assert [stat.key for stat in bucket.store.list("bucket/")] == kept
    assert bucket.apply().to_change == ()  # what is left out stays as it was applied


def test_the_second_apply_sends_no_write(bucket: Bucket, s3_server: S3Server, proxy: FaultProxy) -> None:
    bucket.apply()
    proxied = open_s3(settings_of(s3_server, bucket=bucket.name, prefix="mltrack", endpoint_url=proxy.url))
    proxy.forget()
    provision_bucket(proxied, dry_run=False)
    assert proxy.count("PUT") == proxy.count("POST") == proxy.count("DELETE") == 0
    # HEAD of the bucket, two listings for others' objects, six documents; format.json, the list of what was
    # applied, and its last record
    assert proxy.count("GET") + proxy.count("HEAD") <= 13


def test_rules_of_others_stay_byte_for_byte(bucket: Bucket) -> None:
    bucket.put_lifecycle(LOGS_EXPIRE)
    before = bucket.raw("get_bucket_lifecycle_configuration")
    theirs = before[before.index(b"<Rule>") : before.index(b"</Rule>")]
    bucket.apply()
    after = bucket.raw("get_bucket_lifecycle_configuration")
    assert theirs in after
    assert after.count(b"<Rule>") == 3
    bucket.apply(lifecycle=Lifecycle(abort_uploads_days=None, noncurrent_days=None))
    assert bucket.raw("get_bucket_lifecycle_configuration") == before


def element(body: bytes, tag: bytes) -> bytes:
    """The first element of that name, as it was sent."""
    return body[body.index(b"<" + tag + b">") : body.index(b"</" + tag + b">")]


def test_notifications_of_others_stay_byte_for_byte(bucket: Bucket) -> None:
    arns = {}
    for name in ("others", "ours"):
        sqs = bucket.service("sqs")
        url = sqs.create_queue(QueueName=f"{bucket.name}-{name}")["QueueUrl"]
        arns[name] = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"][
            "QueueArn"
        ]
    rules = [{"Name": "prefix", "Value": "logs/"}]
    theirs = {**OTHERS_QUEUE, "QueueArn": arns["others"], "Filter": {"Key": {"FilterRules": rules}}}
    bucket.client.put_bucket_notification_configuration(
        Bucket=bucket.name, NotificationConfiguration={"QueueConfigurations": [theirs]}
    )
    before = bucket.raw("get_bucket_notification_configuration")
    bucket.apply(notifications=Notifications(queue_arn=arns["ours"]))
    after = bucket.raw("get_bucket_notification_configuration")
    assert element(before, b"QueueConfiguration") in after
    assert after.count(b"<QueueConfiguration>") > 1
    bucket.apply(notifications=Notifications())
    assert bucket.raw("get_bucket_notification_configuration") == before


def test_replication_of_others_stays_byte_for_byte(bucket: Bucket, s3_server: S3Server) -> None:
    copies, role = Bucket(s3_server), "arn:aws:iam::123456789012:role/copies"
    for each in (bucket, copies):
        each.client.put_bucket_versioning(Bucket=each.name, VersioningConfiguration={"Status": "Enabled"})
    theirs = {
        "ID": "others",
        "Priority": 1,
        "Filter": {"Prefix": "logs/"},
        "Status": "Enabled",
        "DeleteMarkerReplication": {"Status": "Disabled"},
        "Destination": {"Bucket": f"arn:aws:s3:::{copies.name}"},
    }
    bucket.client.put_bucket_replication(
        Bucket=bucket.name, ReplicationConfiguration={"Role": role, "Rules": [theirs]}
    )
    before = bucket.raw("get_bucket_replication")
    bucket.apply(replication=Replication(target_bucket=copies.name, role_arn=role))
    after = bucket.raw("get_bucket_replication")
    assert element(before, b"Rule") in after
    assert after.count(b"<Rule>") == 2
    bucket.apply(replication=Replication())
    assert bucket.raw("get_bucket_replication") == before


def test_every_change_can_be_undone(bucket: Bucket) -> None:
    bucket.put_lifecycle(LOGS_EXPIRE)
    before = bucket.raw("get_bucket_lifecycle_configuration")
    changes = bucket.apply(encryption=Encryption(algorithm="aws:kms", kms_key_id="arn:aws:kms:k")).changes
    assert undo_bucket_change(bucket.store, changes[-1]).to_change == ("lifecycle",)
    assert bucket.raw("get_bucket_lifecycle_configuration") != before
    for change in reversed(changes):
        undo_bucket_change(bucket.store, change, dry_run=False)
    assert bucket.raw("get_bucket_lifecycle_configuration") == before
    for absent in ("get_bucket_encryption", "get_public_access_block"):
        with pytest.raises(ClientError):
            getattr(bucket.client, absent)(Bucket=bucket.name)
    assert bucket.client.get_bucket_versioning(Bucket=bucket.name)["Status"] == "Suspended"
    # An undoing can be undone.
    again = undo_bucket_change(bucket.store, changes[-1] + 1, dry_run=False)
    assert again.changes
    assert len(bucket.lifecycle()) == 3


def test_undoing_leaves_what_others_changed_since(bucket: Bucket) -> None:
    number = bucket.apply().changes[-1]
    bucket.put_lifecycle(*bucket.lifecycle(), LOGS_EXPIRE)
    undo_bucket_change(bucket.store, number, dry_run=False)
    assert bucket.lifecycle() == [LOGS_EXPIRE]
    assert undo_bucket_change(bucket.store, number, dry_run=False).changes == ()


def test_undoing_what_was_changed_again_is_refused(bucket: Bucket) -> None:
    number = bucket.apply().changes[-1]
    bucket.apply(lifecycle=Lifecycle(abort_uploads_days=3))
    with pytest.raises(ConflictError, match="changed again since change"):
        undo_bucket_change(bucket.store, number, dry_run=False)
    with pytest.raises(NotFoundError, match="no change 99"):
        undo_bucket_change(bucket.store, 99)


def test_a_change_by_hand_is_drift(bucket: Bucket) -> None:
    bucket.apply(versioning=True)
    assert bucket.look().drifted == ()
    rules = bucket.lifecycle()
    rules[0]["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"] = 90
    bucket.put_lifecycle(*rules)
    bucket.client.put_bucket_versioning(Bucket=bucket.name, VersioningConfiguration={"Status": "Suspended"})
    told: list[Event] = []
    report = bucket.look()
    assert report.drifted == report.to_change == ("versioning", "lifecycle")
    assert {row["document"] for row in report.rows() if row["drift"]} == set(report.drifted)
    provision_bucket(bucket.store, dry_run=False, observe=told.append)
    drifted = [event.details["document"] for event in told if event.name == events.BUCKET_DRIFTED]
    assert drifted == ["versioning", "lifecycle"]
    assert bucket.look().drifted == bucket.look().to_change == ()


def test_rules_of_others_are_no_drift(bucket: Bucket) -> None:
    bucket.apply()
    bucket.put_lifecycle(LOGS_EXPIRE, *reversed(bucket.lifecycle()))
    assert bucket.look().drifted == bucket.look().to_change == ()


def test_a_plan_is_applied_as_it_was_shown_or_not_at_all(bucket: Bucket) -> None:
    shown = bucket.look()
    bucket.put_lifecycle(LOGS_EXPIRE)
    with pytest.raises(ConflictError, match="Look at a new dry run"):
        provision_bucket(bucket.store, dry_run=False, plan=shown.plan)
    assert bucket.lifecycle() == [LOGS_EXPIRE]
    assert "Status" not in bucket.client.get_bucket_versioning(Bucket=bucket.name)


def test_another_administrator_at_the_same_time_is_not_overwritten(bucket: Bucket) -> None:
    """They write between our look and our write: ours is refused, theirs stays."""

    def interfere(event: Event) -> None:
        if event.name == events.BUCKET_CHANGED and event.details["document"] == "public_access":
            bucket.put_lifecycle(LOGS_EXPIRE)

    with pytest.raises(ConflictError, match="Somebody changed lifecycle") as caught:
        provision_bucket(bucket.store, dry_run=False, observe=interfere)
    assert "Changed before it" in "".join(caught.value.__notes__)
    assert bucket.lifecycle() == [LOGS_EXPIRE]
    assert bucket.apply().to_change == ("lifecycle",)  # the same call again finishes the work
    assert bucket.lifecycle()[0] == LOGS_EXPIRE


def test_the_guide_s_lifecycle_is_refused_with_what_is_safe(bucket: Bucket) -> None:
    guide = {
        "Id": "Archive old experiments",
        "Status": "Enabled",
        "Transitions": [{"Days": 90, "StorageClass": "GLACIER"}],
        "NoncurrentVersionTransitions": [{"NoncurrentDays": 30, "StorageClass": "STANDARD_IA"}],
    }
    with pytest.raises(
        InvalidInputError, match=r"(?s)Archive old experiments.*restored.*INTELLIGENT_TIERING"
    ):
        bucket.look(lifecycle=Lifecycle(rules=(guide,)))
    safe = bucket.apply(lifecycle=Lifecycle(transition_days=90, transition_class="GLACIER_IR"))
    assert any("90 days are billed" in note for note in safe.notes)


def test_others_rules_that_endanger_the_store_are_told(bucket: Bucket) -> None:
    bucket.put_lifecycle({**LOGS_EXPIRE, "Filter": {"Prefix": ""}, "ID": "tidy up"})
    report = bucket.apply()
    assert len(report.hazards) == 1
    assert "tidy up" in report.hazards[0]
    assert bucket.lifecycle()[0]["ID"] == "tidy up"


def test_a_bucket_of_others_too_is_changed_only_where_asked(bucket: Bucket) -> None:
    bucket.client.put_object(Bucket=bucket.name, Key="site/index.html", Body=b"x")
    report = bucket.apply()
    assert report.to_change == ("lifecycle",)
    assert report.row("versioning").state == "kept"
    assert "others use this bucket" in report.row("versioning").why
    assert bucket.apply(versioning=True).to_change == ("versioning",)


@pytest.mark.parametrize("key", ["a", "mltrack.x", "mltrack0", "z"])
def test_objects_of_others_are_seen_on_both_sides(bucket: Bucket, key: str) -> None:
    store_data(bucket.store, b"x")
    assert bucket.look().row("versioning").state == "change"
    bucket.client.put_object(Bucket=bucket.name, Key=key, Body=b"x")
    assert bucket.look().row("versioning").state == "kept"


def test_a_stronger_encryption_is_not_weakened(bucket: Bucket) -> None:
    kms: dict[str, Any] = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms"}}
    bucket.client.put_bucket_encryption(
        Bucket=bucket.name, ServerSideEncryptionConfiguration={"Rules": [kms]}
    )
    assert bucket.apply().row("encryption").state == "kept"
    assert bucket.apply(encryption=Encryption()).row("encryption").state == "kept"
    changed = bucket.apply(encryption=Encryption(), replace=("encryption",))
    assert changed.to_change == ("encryption",)


def test_a_directory_has_no_bucket() -> None:
    with pytest.raises(InvalidInputError, match="not in a bucket"):
        provision_bucket(open_memory())


def test_what_was_asked_for_and_is_not_there_is_an_error(bucket: Bucket, s3_server: S3Server) -> None:
    with pytest.raises(AccessError, match="no CloudTrail"):
        bucket.look(cloudtrail={"trail": "t"})


def test_the_audit_knows_the_records(bucket: Bucket) -> None:
    bucket.apply()
    report = verify_store(bucket.store)
    assert report.findings == ()
    key = "bucket/changes/00000001.json"
    record = json.loads(bucket.store.get(key))
    assert record["content"]["document"] == "versioning"
    assert record["content"]["before"] is None
    bucket.client.put_object(Bucket=bucket.name, Key=f"mltrack/{key}", Body=b"{")
    bucket.client.put_object(Bucket=bucket.name, Key="mltrack/bucket/other", Body=b"")
    found = {finding.key: finding.kind for finding in verify_store(bucket.store).findings}
    assert found == {key: "unreadable_record", "bucket/other": "foreign_object"}
    with pytest.raises(Exception, match="not valid JSON"):
        undo_bucket_change(bucket.store, 1)
