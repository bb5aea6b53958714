"""Every public task at work in one bucket of moto, each by the role that it needs; who asked S3 for what.

The access key is the role's name, so a request says who sent it. What moto has no idea of, such as the age
of objects, is told to it directly.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pandas as pd
import pytest
from moto.s3.models import s3_backends
from prefect_aws import AwsCredentials

from mltrack_tasks import (
    BucketSettings,
    ConflictError,
    InvalidInputError,
    MLTrackStore,
    RetentionPolicy,
    tasks,
)
from mltrack_tasks.bucket.settings import (
    AccessLogging,
    ArchiveTiers,
    CloudTrail,
    Notifications,
    Policy,
    Replication,
)
from mltrack_tasks.digest import sha256_hex
from mltrack_tasks.roles import ROLES
from tests.floor3.limits import LARGE
from tests.floor3.migrationtrees import small_registry
from tests.s3calls import Asked, asked, asked_elsewhere, request_of
from tests.servers import S3Server, client

BUCKET, PREFIX = "mltrack-roles", "team/mltrack"
OTHER, COPIES, FRESH = "other/mltrack", "copies/mltrack", "mltrack-roles-new"
PLAYERS: Mapping[str, tuple[str, ...]] = {
    **{role: (role,) for role in ROLES},
    "migrator": ("writer", "promoter"),
}
"""Who plays, by access key, and the roles of each."""
_KEY = re.compile(r"Credential=([a-z-]+)/")


NO_STORE = object()
"""For the tasks that have none."""


class Calls:
    """What each player asked for, and by which task it was asked first."""

    def __init__(self) -> None:
        self.by_player: dict[str, dict[Asked, str]] = defaultdict(dict)
        self.task = ""
        self.odd: list[str] = []
        self.before: tuple[str, Callable[[], object]] | None = None
        """What is done, once, before a PUT whose path ends so."""

    def see(self, environ: dict[str, Any]) -> None:
        """Take a request."""
        found = _KEY.search(environ.get("HTTP_AUTHORIZATION", ""))
        if found is None or found[1] not in PLAYERS:
            return
        try:
            request = request_of(environ)
            needs = tuple(asked_elsewhere(environ) if request is None else asked(request))
        except AssertionError as error:
            self.odd.append(f"{self.task}: {error}")
            return
        if (
            self.before
            and environ["REQUEST_METHOD"] == "PUT"
            and environ["PATH_INFO"].endswith(self.before[0])
        ):
            _, act = self.before
            self.before = None
            act()
        for each in needs:
            self.by_player[found[1]].setdefault(each, self.task)


class Team:
    """Roles that work in one bucket."""

    def __init__(self, server: S3Server, calls: Calls, folder: Path) -> None:
        self.server, self.calls, self.folder = server, calls, folder
        self.owner: Any = client(server)
        self.done: dict[str, set[str]] = defaultdict(set)
        self.deprecated = ""

    def block(self, role: str, prefix: str = PREFIX, bucket: str = BUCKET) -> MLTrackStore:
        """The store as a role opens it."""
        return MLTrackStore(
            bucket=bucket,
            prefix=prefix,
            endpoint_url=self.server.endpoint,
            region_name=self.server.region,
            credentials=AwsCredentials(aws_access_key_id=role, aws_secret_access_key="any"),
        )

    def do(self, role: str, name: str, /, *arguments: Any, **options: Any) -> Any:
        """Let a role call a task."""
        self.calls.task = name
        self.done[name].add(role)
        options.setdefault("store", self.block(role))
        if options["store"] is NO_STORE:
            del options["store"]
        return getattr(tasks, name).fn(*arguments, **options)

    def service(self, name: str) -> Any:
        """A boto3 client of the owner for another service."""
        keys = {"aws_access_key_id": "owner", "aws_secret_access_key": "any"}
        where = {"endpoint_url": self.server.endpoint, "region_name": self.server.region}
        return boto3.client(name, **where, **keys)  # type: ignore[call-overload]

    def key(self, key: str) -> dict[str, str]:
        """An object of the store, as boto3 names it."""
        return {"Bucket": BUCKET, "Key": f"{PREFIX}/{key}"}

    def later(self, days: int) -> None:
        """Make every object as much older."""
        for backend in s3_backends["123456789012"].values():
            if BUCKET in backend.buckets:
                for _, versions in backend.buckets[BUCKET].keys.lists():
                    for each in versions:
                        each.last_modified -= timedelta(days=days)


def play(team: Team) -> None:
    """Let everybody do their work."""
    team.owner.create_bucket(Bucket=BUCKET)
    team.owner.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    for act in (_data, _models, _migration, _look, _trust, _clean, _elsewhere, _bucket):
        act(team)


def _data(team: Team) -> None:
    do, folder = team.do, team.folder
    (folder / "file.bin").write_bytes(LARGE)
    ref = do("writer", "store_data", [{"a": 1}], "json")
    do("writer", "store_data", [{"a": 1}], "json")
    large = do("writer", "store_file", folder / "file.bin", "large")
    do("writer", "store_file", folder / "file.bin", "large again")
    do(
        "writer",
        "store_run",
        "r1",
        {"x": ref, "y": large},
        project="p",
        model="m",
        storage_mode=["by_project", "by_date", "by_type", "by_model"],
    )
    do("writer", "store_run", "r1", {"x": ref}, project="q", if_exists="revise")
    do(
        "writer",
        "store_run",
        "r2",
        {"x": ref},
        project="p",
        tags={"temporary": True},
        started_at=datetime(2024, 1, 1, tzinfo=UTC),
        status="finished",
    )
    team.owner.put_object(**team.key("runs/by_project/p/r9"), Body=b"")
    do("writer", "rebuild_views")
    for number in range(3):  # a snapshot stays for some time after its successor was written
        do("writer", "store_run", f"more {number}", {"x": ref}, storage_mode="flat")
        do("writer", "compact_catalog")
        team.later(3)
    _send_message(team)
    assert do("writer", "process_new_data", "arrivals", wait_s=0).batches == 1
    do("writer", "forget_data", "large again")


def _send_message(team: Team) -> None:
    """Make a queue in which a message tells of the record of the name `json`."""
    sqs = team.service("sqs")
    sqs.create_queue(QueueName="dead")
    redrive = {"deadLetterTargetArn": "arn:aws:sqs:us-east-1:123456789012:dead", "maxReceiveCount": "3"}
    made = sqs.create_queue(QueueName="arrivals", Attributes={"RedrivePolicy": json.dumps(redrive)})
    found = team.owner.list_objects_v2(Bucket=BUCKET, Prefix=f"{PREFIX}/names/json/")["Contents"][0]
    told = {"bucket": {"name": BUCKET}, "object": {"key": found["Key"], "size": found["Size"]}}
    record = {"eventName": "ObjectCreated:Put", "eventSource": "aws:s3", "s3": told}
    sqs.send_message(QueueUrl=made["QueueUrl"], MessageBody=json.dumps({"Records": [record]}))


def _models(team: Team) -> None:
    do, folder = team.do, team.folder
    made = []
    for number in range(3):
        (folder / f"m{number}").mkdir()
        (folder / f"m{number}" / "weights").write_bytes(LARGE + bytes([number]))
        (folder / f"m{number}" / "note").write_text(f"m{number}")
        made.append(do("writer", "register_model", "r1", "m", folder / f"m{number}").version)
    a, b, c = made
    do("writer", "register_model", "r2", "m", folder / "m0")
    team.deprecated = do("writer", "deprecate_version", "m", c).version
    # Somebody promotes a version while it is being deprecated, which then takes back its record.
    team.calls.before = (f"_deprecated/{b}.json", lambda: do("promoter", "promote_model", "m", b, "champion"))
    with pytest.raises(ConflictError):
        do("writer", "deprecate_version", "m", b)
    do("promoter", "set_policy", "m", "staging", [])
    do("promoter", "promote_model", "m", a)
    do("promoter", "promote_model", "m", b)
    do("promoter", "rollback_model", "m")
    do("promoter", "remove_alias", "m", "champion")
    do("writer", "copy_model", "m", a, team.block("writer", OTHER), store=team.block("reader"))


def _migration(team: Team) -> None:
    do, tree = team.do, small_registry(team.folder / "tree")
    small = {f"small/{number}": b"%d" % number for number in range(3)}
    for path, body in small.items():
        (tree / path).parent.mkdir(exist_ok=True)
        (tree / path).write_bytes(body)
    scan = do("writer", "scan_source", tree, name="tree", store=NO_STORE)
    plan = do("writer", "plan_migration", scan)
    origin = scan.origin
    sent = [do("writer", "upload_batch", each, origin=origin) for each in plan.batches]
    sent = do("writer", "verify_batches", plan.batches, sent, origin=origin)
    sent = [
        do("writer", "verify_batch", *each, origin=origin) for each in zip(plan.batches, sent, strict=True)
    ]
    work = do("writer", "plan_manifests", plan, sent, store=NO_STORE)
    written = [do("writer", "write_manifests", each, origin=origin) for each in work.batches]
    models = do("migrator", "write_models", work, written)
    done = do("writer", "finish_migration", work, written, models=models, delete_older_than=timedelta(0))
    for each in done.deletions:
        do("writer", "delete_local_batch", each, origin=origin)
    do("reader", "find_existing", [sha256_hex(LARGE)])
    restore = do("reader", "plan_restore")
    for each in restore.batches:
        do("reader", "restore_batch", each, team.folder / "back")
    do("reader", "finish_restore", restore, team.folder / "back")


def _look(team: Team) -> None:
    do, target = team.do, team.folder / "out"
    ref = do("reader", "list_data", "large")[0].ref
    do("reader", "retrieve_data", ref)
    do("reader", "retrieve_file", ref, target / "file.bin")
    do("reader", "get_run", "r1")
    do("reader", "list_runs")
    do("reader", "find_runs_by_data", ref)
    do("reader", "data_usage_stats")
    do("reader", "trace_lineage", ref=ref)
    do("reader", "query_runs", "select count(*) from runs")
    frame = do("writer", "store_data", pd.DataFrame({"n": [1, 2]}), "frame")
    do("reader", "query_data", frame, "select sum(n) from s3object")
    do("reader", "list_models")
    do("reader", "resolve_model", "m")
    do("reader", "model_history", "m")
    do("reader", "model_at", "m", "production", datetime.now(UTC))
    do("reader", "download_model", "m", "latest", target / "model")
    with pytest.raises(
        InvalidInputError
    ):  # it is no model that anything could load, as is seen when it is here
        do("reader", "load_model", "m")
    do("reader", "await_restore", [ref])
    team.owner.create_multipart_upload(**team.key("data/left"))
    do("reader", "estimate_costs")
    do("reader", "check_access", role="reader")
    do("reader", "verify_store", keep=False, level="attested")
    for role in ("writer", "promoter", "admin"):
        do(role, "check_access", role=role)


def _clean(team: Team) -> None:
    do = team.do
    do("writer", "store_data", b"to be forgotten", "gone")
    do("writer", "forget_data", "gone")
    do("admin", "apply_retention", [RetentionPolicy(tags={"temporary": True}, keep_days=1)], dry_run=False)
    do("writer", "store_run", "r3", {"z": b"z"}, project="old")
    do("writer", "store_run", "r4", {"z": b"z"}, project="old")
    do("admin", "remove_run", "r3")
    do("admin", "remove_runs", project="old", dry_run=False)
    do("admin", "remove_data", "frame", dry_run=False)
    do("admin", "remove_version", "m", team.deprecated, dry_run=False)
    do("admin", "remove_migration", "tree", with_runs=True, though_deleted_locally=True, dry_run=False)
    team.later(30)
    do("admin", "collect_garbage", dry_run=False)
    team.later(30)
    found = do("admin", "collect_garbage", dry_run=False)
    do("admin", "undo_collection", found.plan)


def _trust(team: Team) -> None:
    do = team.do
    ref = do("writer", "store_data", b"to be damaged", "damaged")
    key = team.key(ref.storage_path)
    team.owner.put_object(**key, Body=b"no longer it")
    do("writer", "verify_store", level="read")
    do("admin", "heal_store")
    team.owner.copy_object(**key, CopySource=key, StorageClass="GLACIER")
    do("admin", "restore_data", [ref])


def _elsewhere(team: Team) -> None:
    source = team.block("reader", OTHER)
    team.do("admin", "replicate_store", team.block("admin", COPIES), store=source)
    team.do("admin", "end_replication", "the source is lost", store=team.block("admin", COPIES))


def _bucket(team: Team) -> None:
    others = f"{FRESH}-others"
    team.owner.create_bucket(Bucket=others)
    team.owner.put_bucket_versioning(Bucket=others, VersioningConfiguration={"Status": "Enabled"})
    lets_logs_in = {
        "Effect": "Allow",
        "Principal": {"Service": "logging.s3.amazonaws.com"},
        "Action": "s3:PutObject",
        "Resource": f"arn:aws:s3:::{others}/*",
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [lets_logs_in]})
    team.owner.put_bucket_policy(Bucket=others, Policy=policy)
    block = team.block("admin", bucket=FRESH)
    wish = BucketSettings(
        versioning=True,
        ownership="BucketOwnerEnforced",
        acceleration=True,
        archive_tiers=ArchiveTiers(archive_days=90, accept_archived=True),
        logging=AccessLogging(target_bucket=others),
        notifications=Notifications(event_bridge=True),
        policy=Policy(tls_only=False, create_only_data=True),
        replication=Replication(target_bucket=others, role_arn="arn:aws:iam::123456789012:role/copies"),
    )
    done = team.do("admin", "provision_bucket", wish, dry_run=False, store=block)
    number = done.changes[done.to_change.index("policy")]
    team.do("admin", "undo_bucket_change", number, dry_run=False, store=block)
    team.service("cloudtrail").create_trail(Name="audit", S3BucketName=others)
    with pytest.MonkeyPatch.context() as patch:  # CloudTrail is of AWS alone: the endpoint is not said
        patch.setenv("AWS_ENDPOINT_URL", team.server.endpoint)
        there = block.model_copy(update={"endpoint_url": None, "prefix": OTHER})
        wish = BucketSettings(cloudtrail=CloudTrail(trail="audit"), recommended=False)
        team.do("admin", "provision_bucket", wish, dry_run=False, store=there)
