"""A bucket of a real server is provisioned: what it has, keeps and lacks; nothing of others changes."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from mltrack_tasks.bucket.provision import provision_bucket
from mltrack_tasks.bucket.reverting import undo_bucket_change
from mltrack_tasks.bucket.settings import BucketSettings, Lifecycle, Policy, Replication
from mltrack_tasks.content import retrieve_data, store_data
from mltrack_tasks.errors import InvalidInputError
from mltrack_tasks.stores import Store, open_s3
from mltrack_tasks.stores.s3_settings import S3Settings
from tests.real.conftest import RealServer

LOGS: dict[str, Any] = {
    "ID": "logs expire",
    "Filter": {"Prefix": "logs/"},
    "Status": "Enabled",
    "Expiration": {"Days": 3},
}
STATES = {
    "localstack": {
        **dict.fromkeys(("versioning", "lifecycle"), "change"),
        **dict.fromkeys(("encryption", "public_access", "ownership"), "same"),
    },
    "ceph": {
        **dict.fromkeys(("versioning", "lifecycle"), "change"),
        "encryption": "unsupported",
        **dict.fromkeys(("public_access", "ownership"), "kept"),
    },
    "minio": {
        "versioning": "change",
        **dict.fromkeys(("encryption", "public_access", "ownership", "lifecycle"), "unsupported"),
    },
    "aws": {
        **dict.fromkeys(("versioning", "lifecycle", "policy"), "change"),
        **dict.fromkeys(("encryption", "public_access", "ownership"), "same"),
    },
}
"""What an apply without settings makes of each document."""


class Own:
    """A bucket made for one test."""

    def __init__(self, server: RealServer, client: Any) -> None:
        self.server, self.client = server, client
        self.settings: S3Settings = replace(
            server.settings, bucket=f"mltrack-tests-{secrets.token_hex(8)}", prefix="mltrack"
        )
        self.bucket = self.settings.bucket
        self.store: Store = open_s3(self.settings)

    def raw(self, method: str) -> bytes:
        """The very bytes that the server answers."""
        bodies: list[bytes] = []
        self.client.meta.events.register(
            "before-parse.s3", keep := (lambda response_dict, **_: bodies.append(response_dict["body"]))
        )
        getattr(self.client, method)(Bucket=self.bucket)
        self.client.meta.events.unregister("before-parse.s3", keep)
        return bodies[-1]

    def lifecycle(self) -> list[dict[str, Any]]:
        found: Any = self.client.get_bucket_lifecycle_configuration(Bucket=self.bucket)
        return sorted(found["Rules"], key=lambda rule: str(rule["ID"]))  # Ceph sorts them

    def put_lifecycle(self, *rules: dict[str, Any], **options: Any) -> None:
        self.client.put_bucket_lifecycle_configuration(
            Bucket=self.bucket, LifecycleConfiguration={"Rules": list(rules)}, **options
        )


@pytest.fixture
def own(server: RealServer, client: Any) -> Iterator[Own]:
    made = Own(server, client)
    provision_bucket(made.store, {"recommended": False}, dry_run=False)
    yield made
    client.delete_bucket_policy(Bucket=made.bucket)
    for page in client.get_paginator("list_object_versions").paginate(Bucket=made.bucket):
        for each in (*page.get("Versions", ()), *page.get("DeleteMarkers", ())):
            client.delete_object(Bucket=made.bucket, Key=each["Key"], VersionId=each["VersionId"])
    client.delete_bucket(Bucket=made.bucket)


def test_without_settings(own: Own) -> None:
    done = provision_bucket(own.store, dry_run=False)
    assert {row.document: row.state for row in done.documents} == STATES[own.server.name]
    again = provision_bucket(own.store, dry_run=False)
    assert again.changes == ()
    assert again.drifted == ()
    assert retrieve_data(own.store, store_data(own.store, b"x")) == b"x"


def test_rules_of_others_drift_and_undo(own: Own) -> None:
    own.put_lifecycle(LOGS)
    if own.server.name == "minio":  # it knows no rule for uploads
        with pytest.raises(InvalidInputError, match=r"LifecycleConfiguration"):
            provision_bucket(own.store, {"lifecycle": {}}, dry_run=False)
        assert own.lifecycle() == [LOGS]
        return
    before = own.lifecycle()
    wish = BucketSettings(lifecycle=Lifecycle(), recommended=False)
    done = provision_bucket(own.store, wish, dry_run=False)
    assert done.to_change == ("lifecycle",)
    assert done.notes == ()
    assert before[0] in own.lifecycle()
    assert provision_bucket(own.store, wish, dry_run=False).changes == ()
    own.put_lifecycle(*(rule for rule in own.lifecycle() if "noncurrent" not in rule["ID"]))
    assert provision_bucket(own.store).drifted == ("lifecycle",)
    mended = provision_bucket(own.store, dry_run=False, settings={"recommended": False})
    assert mended.to_change == ("lifecycle",)
    for change in done.changes:
        undo_bucket_change(own.store, change, dry_run=False)
    assert own.lifecycle() == before


def test_a_policy_that_lets_only_conditional_writes_through(own: Own) -> None:
    """MinIO does not know the condition, and says so."""
    wish = BucketSettings(policy=Policy(tls_only=False, create_only_data=True), recommended=False)
    if own.server.name == "minio":
        with pytest.raises(InvalidInputError, match=r"s3:if-none-match"):
            provision_bucket(own.store, wish, dry_run=False)
        return
    done = provision_bucket(own.store, wish, dry_run=False)
    assert provision_bucket(own.store, wish, dry_run=False).changes == ()
    undo_bucket_change(own.store, done.changes[0], dry_run=False)
    with pytest.raises(own.client.exceptions.ClientError):
        own.client.get_bucket_policy(Bucket=own.bucket)


def test_the_minimum_size_of_transitions_stays(own: Own, server: RealServer) -> None:
    """Left out of the request, S3 would set it back."""
    option = {"TransitionDefaultMinimumObjectSize": "varies_by_storage_class"}
    if server.name not in ("aws", "localstack"):
        return
    own.put_lifecycle(LOGS, **option)
    wish = BucketSettings(lifecycle=Lifecycle(transition_days=30), recommended=False)
    done = provision_bucket(own.store, wish, dry_run=False)
    assert provision_bucket(own.store, wish, dry_run=False).changes == ()
    undo_bucket_change(own.store, done.changes[0], dry_run=False)
    found = own.client.get_bucket_lifecycle_configuration(Bucket=own.bucket)
    assert {key: found[key] for key in option} == option
    assert found["Rules"] == [LOGS]


def test_replication_to_another_bucket(own: Own, server: RealServer, client: Any) -> None:
    if server.name != "localstack":
        return  # AWS needs a role of the account, MinIO its own kind of target
    target = Own(server, client)
    provision_bucket(target.store, {"versioning": True}, dry_run=False)
    other = {
        "ID": "others",
        "Priority": 3,
        "Filter": {"Prefix": "theirs/"},
        "Status": "Enabled",
        "Destination": {"Bucket": f"arn:aws:s3:::{target.bucket}"},
        "DeleteMarkerReplication": {"Status": "Disabled"},
    }
    role = "arn:aws:iam::000000000000:role/copies"
    provision_bucket(own.store, {"versioning": True}, dry_run=False)
    client.put_bucket_replication(
        Bucket=own.bucket, ReplicationConfiguration={"Role": role, "Rules": [other]}
    )
    before = own.raw("get_bucket_replication")
    wish = BucketSettings(replication=Replication(target_bucket=target.bucket, role_arn=role))
    done = provision_bucket(own.store, wish, dry_run=False)
    assert done.to_change == ("replication",)
    found = client.get_bucket_replication(Bucket=own.bucket)["ReplicationConfiguration"]
    assert found["Rules"][0] == other
    assert found["Rules"][1]["Priority"] == 4
    applied = own.raw("get_bucket_replication")
    assert provision_bucket(own.store, wish, dry_run=False).changes == ()
    found["Rules"][1]["Status"] = "Disabled"
    client.put_bucket_replication(Bucket=own.bucket, ReplicationConfiguration=found)
    assert provision_bucket(own.store, wish).drifted == ("replication",)
    assert provision_bucket(own.store, wish, dry_run=False).to_change == ("replication",)
    assert own.raw("get_bucket_replication") == applied
    undo_bucket_change(own.store, done.changes[0], dry_run=False)
    assert own.raw("get_bucket_replication") == before
