"""What check_access asks beside access itself: permissions, rules, clock, speed; and that nothing remains."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from mltrack_tasks import access
from mltrack_tasks.access import check_access
from mltrack_tasks.bucket.provision import provision_bucket
from mltrack_tasks.bucket.settings import BucketSettings, Lifecycle
from mltrack_tasks.checking import speed
from mltrack_tasks.checking.report import AccessCheck, AccessReport
from mltrack_tasks.checking.speed import SAMPLE, Line, clock_row, speed_row
from mltrack_tasks.content import store_data
from mltrack_tasks.errors import AccessError, InvalidInputError
from mltrack_tasks.permissions import Permission, permissions_of
from mltrack_tasks.roles import ROLES, role_policy
from mltrack_tasks.stores import Store, open_memory, open_s3, probe
from mltrack_tasks.stores.s3_settings import S3Settings
from mltrack_tasks.stores.traces import Traces
from tests.floor3.buckets import LOGS_EXPIRE, Bucket
from tests.servers import S3Server
from tests.servers.faultproxy import Answer, Fault, FaultProxy
from tests.settings import settings_of

NEAR, FAR = 0.01, 0.2  # [s]
QUICK, NARROW = SAMPLE / 50e6, SAMPLE / 1e6  # [s] of the sample at 50 and at 1 MB/s
EXPIRES = {"ID": "tidy", "Filter": {"Prefix": ""}, "Status": "Enabled", "Expiration": {"Days": 90}}
ARCHIVES = {
    "ID": "cold",
    "Filter": {"Prefix": "mltrack/data/"},
    "Status": "Enabled",
    "Transitions": [{"Days": 90, "StorageClass": "GLACIER"}],
}


@pytest.fixture
def bucket(s3_server: S3Server) -> Bucket:
    return Bucket(s3_server)


def rows(report: AccessReport, name: str) -> list[AccessCheck]:
    return [check for check in report.checks if check.name == name]


def everything(bucket: Bucket) -> dict[str, Any]:
    """All versions, delete markers and unfinished uploads of a bucket."""
    versions = bucket.client.list_object_versions(Bucket=bucket.name)
    uploads = bucket.client.list_multipart_uploads(Bucket=bucket.name)
    return {
        name: [(each["Key"], each.get("VersionId"), each.get("UploadId")) for each in said.get(name, ())]
        for said, name in ((versions, "Versions"), (versions, "DeleteMarkers"), (uploads, "Uploads"))
    }


def filled(settings: S3Settings, proxy: FaultProxy) -> Store:
    """A store in which something is, before what the proxy counts."""
    store = open_s3(settings)
    store_data(store, 1)
    proxy.forget()
    return store


def set_versioning(bucket: Bucket, status: str) -> None:
    bucket.client.put_bucket_versioning(Bucket=bucket.name, VersioningConfiguration={"Status": status})


@pytest.mark.parametrize(
    ("role", "versioning"), [*((role, "Enabled") for role in ROLES), ("writer", ""), ("writer", "Suspended")]
)
def test_nothing_remains(bucket: Bucket, role: str, versioning: str) -> None:
    if versioning:
        set_versioning(bucket, "Enabled")
    store_data(bucket.store, {"a": 1})
    if versioning:
        set_versioning(bucket, versioning)
    # moto says of every upload that it was begun in 2010, so not among the trials.
    bucket.client.create_multipart_upload(Bucket=bucket.name, Key="mltrack/.probe-of-others")
    before = everything(bucket)
    report = check_access(bucket.store, role=role)
    assert report.ok, report.rows()
    assert everything(bucket) == before
    assert not rows(report, "note")
    if role != "reader":
        assert rows(report, "nothing left behind")[0].ok


def test_what_a_killed_check_left_is_removed_a_day_later(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_versioning(bucket, "Enabled")
    before = everything(bucket)
    with monkeypatch.context() as killed:
        killed.setattr(access, "remove_traces", lambda *_, **__: Traces())
        killed.setattr(probe, "remove_traces", lambda *_, **__: Traces())
        check_access(bucket.store, role="writer")
    left = everything(bucket)
    assert len(left["Versions"]) > 3
    assert check_access(bucket.store, role="writer").ok
    assert everything(bucket) == left  # it might still be going on
    monkeypatch.setattr(access, "STALE", timedelta(days=-1))
    assert check_access(bucket.store, role="reader").ok
    assert everything(bucket) == left
    assert check_access(bucket.store, role="writer").ok
    assert everything(bucket) == before


def test_a_bucket_of_another_account_is_told(proxied: S3Settings, proxy: FaultProxy) -> None:
    """S3 refuses every request that names another owner, and does not say that this is why."""
    named = replace(proxied, expected_owner="999999999999")
    proxy.script(
        Fault(
            "answer",
            times=None,
            where=lambda request: "x-amz-expected-bucket-owner" in request.headers,
            answer=Answer(403, "AccessDenied"),
        )
    )
    report = check_access(open_s3(named), role="writer")
    [found] = rows(report, "bucket and region")
    assert found.ok is False
    assert "expected_bucket_owner" in found.fix
    assert report.permissions == ()


@pytest.mark.parametrize("role", ROLES)
def test_each_permission_of_a_role_is_asked_for(bucket: Bucket, role: str) -> None:
    store_data(bucket.store, 1)
    report = check_access(bucket.store, role=role)
    wanted = permissions_of(role, bucket.name, "mltrack")
    assert [(each.action, each.resource) for each in report.permissions] == [each[:2] for each in wanted]
    shown = [check.name for check in report.checks if check.name.startswith("permission ")]
    assert sorted(shown) == sorted({f"permission {each.action}" for each in wanted})
    silent = {each.action for each in report.permissions if each.verdict == "not probed"}
    assert {each.verdict for each in report.permissions} <= {"allowed", "not probed"}
    puts = {f"s3:Put{each}" for each in ("BucketPolicy", "LifecycleConfiguration", "BucketVersioning")}
    never = {"s3:CreateBucket", "s3:DeleteBucketPolicy", *puts, "cloudtrail:GetEventSelectors"}
    assert silent >= never if role == "admin" else silent == set()
    for each in report.checks:
        assert each.ok is None or not each.detail.startswith("not probed")


def test_what_would_leave_a_delete_marker_is_not_tried(bucket: Bucket) -> None:
    """moto makes one whatever the condition; where a server keeps it, deletions are asked for by it."""
    set_versioning(bucket, "Enabled")
    found = check_access(bucket.store, role="writer").permissions
    told = {each.verdict for each in found if each.action == "s3:DeleteObject"}
    assert told <= {"allowed", "not probed"}
    assert all("marker" in each.why for each in found if each.verdict == "not probed")


def test_without_write_only_reads_are_sent(proxied: S3Settings, proxy: FaultProxy) -> None:
    store = filled(proxied, proxy)
    report = check_access(store, role="writer", write=False)
    assert {each.method for each in proxy.requests} <= {"GET", "HEAD"}
    silent = {each.action for each in report.permissions if each.verdict == "not probed"}
    assert silent == {"s3:PutObject", "s3:DeleteObject", "s3:DeleteObjectVersion", "s3:AbortMultipartUpload"}
    assert "--write" in rows(report, "permission s3:PutObject")[0].detail


def test_a_reader_sends_nothing_but_reads(proxied: S3Settings, proxy: FaultProxy) -> None:
    report = check_access(filled(proxied, proxy), role="reader")
    assert report.ok
    assert {each.method for each in proxy.requests} <= {"GET", "HEAD"}
    assert {each.verdict for each in report.permissions} == {"allowed"}


def test_reading_is_not_probed_where_nothing_is_to_be_read(bucket: Bucket) -> None:
    """Who may list is told by some servers that an object is missing, whether it might be read or not."""
    found = check_access(bucket.store, role="reader").permissions
    silent = {each.action for each in found if each.verdict == "not probed"}
    assert silent == {"s3:GetObject", "s3:ListMultipartUploadParts"}


def test_a_server_that_ignores_conditions_is_not_asked_to_write_elsewhere(
    proxied: S3Settings, proxy: FaultProxy
) -> None:
    """moto looks at no Content-MD5. Nothing but the trials is written, and they are removed."""
    store = open_s3(proxied)
    before = [each.key for each in store.list("")]
    check_access(store, role="writer")
    assert [each.key for each in store.list("")] == before
    written = {each.path for each in proxy.requests if each.method == "PUT" and each.status == 200}
    assert written
    assert all("/.probe/" in path for path in written)


def test_what_cannot_be_removed_is_told(proxied: S3Settings, proxy: FaultProxy) -> None:
    refused = Answer(403, "AccessDenied")
    proxy.script(
        Fault("answer", method="DELETE", match=r"/\.probe/", times=None, answer=refused),
        Fault("answer", method="POST", match=r"\?delete", times=None, answer=refused),
    )
    report = check_access(open_s3(proxied), role="writer")
    [left] = rows(report, "nothing left behind")
    assert left.ok is False
    assert "/.probe/probe-" in left.detail
    assert "s3:DeleteObject" in left.fix


class Page(Answer):
    """A page for people, where S3 was asked."""

    def body(self) -> bytes:
        return b"<html><body>Please log in</body></html>"


@pytest.mark.parametrize(
    ("status", "row", "fix"),
    [
        (200, "list", "no S3 server"),
        (301, "bucket and region", "no S3 server"),
        (302, "bucket and region", "no S3 server"),
        (307, "bucket and region", "no S3 server"),
        (308, "bucket and region", "no S3 server"),
        (407, "bucket and region", "HTTPS_PROXY"),
        (511, "bucket and region", "HTTPS_PROXY"),
        (403, "permission s3:ListBucket", "iam_policy"),
    ],
)
def test_what_is_no_s3_is_told(
    proxied: S3Settings, proxy: FaultProxy, status: int, row: str, fix: str
) -> None:
    """A login page is no empty store, and a redirect to one ends."""
    proxy.script(Fault("answer", times=None, answer=Page(status, "")))
    report = check_access(open_s3(proxied), role="reader")
    [found] = rows(report, row)
    assert found.ok is False
    assert fix in found.fix
    assert "allowed" not in {each.verdict for each in report.permissions}


def test_tls_that_fails_is_told(proxied: S3Settings, proxy: FaultProxy) -> None:
    speaking_tls = replace(proxied, endpoint_url=proxy.url.replace("http:", "https:"))
    [found] = rows(check_access(open_s3(speaking_tls), role="reader"), "bucket and region")
    assert found.ok is False
    assert "ca_bundle" in found.fix


@pytest.mark.parametrize(("rule", "instead"), [(EXPIRES, "apply_retention"), (ARCHIVES, "GLACIER_IR")])
def test_a_rule_that_breaks_the_store_fails(bucket: Bucket, rule: dict[str, Any], instead: str) -> None:
    configuration = {"Rules": [LOGS_EXPIRE, rule]}
    bucket.client.put_bucket_lifecycle_configuration(Bucket=bucket.name, LifecycleConfiguration=configuration)
    told = rows(check_access(bucket.store, write=False), "lifecycle rules")
    [found] = [check for check in told if check.ok is False]
    assert not any(check.ok for check in told)
    assert rule["ID"] in found.detail
    assert instead in found.fix


def test_rules_that_the_store_survives_pass(bucket: Bucket) -> None:
    bucket.client.put_bucket_lifecycle_configuration(
        Bucket=bucket.name, LifecycleConfiguration={"Rules": [LOGS_EXPIRE]}
    )
    wish = BucketSettings(
        lifecycle=Lifecycle(transition_days=90, transition_class="GLACIER", accept_archived=True),
        recommended=False,
    )
    provision_bucket(bucket.store, wish, dry_run=False)
    [found] = rows(check_access(bucket.store, write=False), "lifecycle rules")
    assert found.ok
    assert "breaks the store" in found.detail


def test_who_may_not_read_the_rules_sees_what_expires(proxied: S3Settings, proxy: FaultProxy) -> None:
    store = open_s3(proxied)
    store_data(store, 1)
    denied = Fault("answer", match=r"\?lifecycle", times=None, answer=Answer(403, "AccessDenied"))
    proxy.script(denied)
    [found] = rows(check_access(store, write=False), "lifecycle rules")
    assert found.ok is None
    assert found.detail.startswith("not probed")
    expiring = {"x-amz-expiration": 'expiry-date="Fri, 01 Jan 2027 00:00:00 GMT", rule-id="tidy"'}
    told = Answer(200, "", headers=expiring)
    proxy.script(Fault("answer", method="HEAD", match=r"format\.json", after=0, times=None, answer=told))
    [found] = rows(check_access(store, write=False), "lifecycle rules")
    assert found.ok is False
    assert "tidy" in found.detail


@pytest.mark.parametrize(
    ("ahead", "ok", "said"),
    [
        (None, None, "not probed"),
        (3.0, True, "agrees"),
        (-59.0, True, "agrees"),
        (120.0, None, "120 s ahead of"),
        (-899.0, None, "899 s behind"),
        (900.0, False, "900 s ahead of"),
        (-86_400.0, False, "86,400 s behind"),
    ],
)
def test_clocks(ahead: float | None, ok: bool | None, said: str) -> None:
    row = clock_row(ahead)
    assert row.ok is ok
    assert said in row.detail
    assert bool(row.fix) is (ahead is not None and abs(ahead) >= 60)


@pytest.mark.parametrize("status", [200, 403])
def test_a_clock_that_is_off_is_seen_even_where_the_server_refuses_for_it(
    proxied: S3Settings, proxy: FaultProxy, status: int
) -> None:
    then = Answer(status, "", headers={"Date": "Mon, 01 Jan 2024 00:00:00 GMT"})
    proxy.script(Fault("answer", method="HEAD", match=r"^/mltrack-test\?", answer=then))
    [found] = rows(check_access(open_s3(proxied), write=False), "clock")
    assert found.ok is False
    assert "ahead of the server" in found.detail
    assert "NTP" in found.fix


@pytest.mark.parametrize(
    ("line", "cures", "not_these"),
    [
        (Line(FAR, QUICK, "eu-west-1"), ("eu-west-1", "acceleration=True", "max_workers above 8"), ("VPC",)),
        (Line(FAR, NARROW, accelerated=True), ("replicate_store",), ("acceleration=True",)),
        (Line(FAR, QUICK, endpoint="https://s3", workers=32), ("nearer",), ("acceleration", "max_workers")),
        (Line(NEAR, NARROW), ("VPC", "bandwidth"), ("acceleration", "max_workers")),
        (Line(NEAR, NARROW, accelerated=True), ("leave transfer_acceleration out",), ("VPC",)),
        (Line(NEAR, NARROW, endpoint="https://s3"), ("disks",), ("VPC", "acceleration")),
        (Line(NEAR, NARROW, proxy="proxy:3128"), ("proxy:3128", "NO_PROXY"), ()),
    ],
)
def test_a_slow_upload_is_told_with_the_cure_that_fits(
    line: Line, cures: tuple[str, ...], not_these: tuple[str, ...]
) -> None:
    row = speed_row(line)
    assert row.ok is None
    assert row.detail.startswith("slow: ")
    assert all(cure in row.fix for cure in cures), row.fix
    assert not any(cure in row.fix for cure in not_these), row.fix


def test_a_quick_upload_needs_no_cure() -> None:
    row = speed_row(Line(NEAR, QUICK))
    assert (row.ok, row.fix) == (True, "")
    assert row.detail == "10 ms to an answer, one upload at 50.0 MB/s"


def _ticks(step: float) -> Iterator[float]:
    now = 0.0
    while True:
        yield now
        now += step


@pytest.mark.parametrize(("step", "ok"), [(0.02, True), (0.5, None)])
def test_an_upload_is_measured(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, step: float, ok: bool | None
) -> None:
    """By a clock that goes on at each look: half a second for everything is far."""
    monkeypatch.setenv("HTTP_PROXY", "http://user:hidden-4711@proxy.example.org:3128")
    monkeypatch.setenv("NO_PROXY", "" if ok is None else "127.0.0.1")
    ticks = _ticks(step)
    monkeypatch.setattr(speed, "perf_counter", lambda: next(ticks))
    [found] = rows(check_access(bucket.store), "upload speed")
    assert found.ok is ok
    assert f"{step * 1e3:.0f} ms" in found.detail
    assert ("proxy.example.org:3128" in found.fix) is (ok is None)
    assert "hidden-4711" not in found.fix


def test_keys_that_a_permission_is_asked_by() -> None:
    def key(pattern: str, prefix: str = "a*b/mltrack") -> str | None:
        return Permission("s3:GetObject", f"arn:aws:s3:::b{pattern}").key("b", prefix, "NAME")

    assert key("/a${*}b/mltrack/names/*") == "a*b/mltrack/names/NAME"
    assert key("/a${*}b/mltrack/*") == "a*b/mltrack/data/NAME"
    assert key("/a${*}b/mltrack/x*/y/*") == "a*b/mltrack/xNAME/y/NAME"
    assert key("/format.json", "") == "format.json"
    assert key("/*", "") == "data/NAME"
    assert key("") is None


@pytest.mark.parametrize("role", ROLES)
def test_permissions_are_those_of_the_policy(role: str) -> None:
    policy = role_policy(role, "b", "p", kms_key="alias/k")
    found = permissions_of(role, "b", "p", kms_key="alias/k")
    said = [statement["Action"] for statement in policy["Statement"]]
    named = {action for each in said for action in ([each] if isinstance(each, str) else each)}
    assert {each.action for each in found} == named
    assert sum(each.unprefixed for each in found) == (role != "admin")


def test_an_unknown_role_is_an_error_and_a_report_can_be_one() -> None:
    store = open_memory()
    with pytest.raises(InvalidInputError, match="choose one of reader"):
        check_access(store, role="owner")
    report = check_access(store, role="admin")
    report.require_ok()
    assert report.permissions == ()
    bad = AccessReport("s3://b", (AccessCheck("read", False, "no", "Do this."),), role="reader")
    with pytest.raises(AccessError, match=r"(?s)s3://b as reader: 1 of 1 checks failed.*Do this\."):
        bad.require_ok()


def test_a_key_of_the_stores_own_is_seen_by_the_trial(bucket: Bucket, s3_server: S3Server) -> None:
    arn = bucket.service("kms").create_key()["KeyMetadata"]["Arn"]
    keyed = settings_of(s3_server, bucket=bucket.name, prefix="keyed", encryption="aws:kms", kms_key_id=arn)
    report = check_access(open_s3(keyed), role="writer")
    assert report.ok
    assert rows(report, "permission kms:GenerateDataKey")[0].ok
    assert rows(report, "permission kms:Decrypt")[0].ok
    [unseen] = rows(check_access(open_s3(keyed), role="reader"), "permission kms:Decrypt")
    assert unseen.ok is None
