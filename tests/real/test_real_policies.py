"""A second user with the policy of a role: the server lets do what the role is for, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pytest

from mltrack_tasks import registry
from mltrack_tasks.access import check_access
from mltrack_tasks.collecting.removing import remove_run
from mltrack_tasks.content import forget_data, list_data, retrieve_data, store_data
from mltrack_tasks.errors import AccessError, NotFoundError
from mltrack_tasks.layout import blob_key
from mltrack_tasks.permissions import Permission as Wanted
from mltrack_tasks.permissions import permissions_of
from mltrack_tasks.roles import DOCUMENTS, ROLES, role_policy
from mltrack_tasks.runs import list_runs, store_run
from mltrack_tasks.stores import Store, open_s3
from mltrack_tasks.stores.retry import RetryingStore
from mltrack_tasks.stores.s3 import S3Store
from mltrack_tasks.stores.s3_settings import Keys, S3Settings
from tests.real.conftest import RealServer
from tests.real.expectations import Expected
from tests.s3calls import Asked
from tests.test_roles import Permission
from tests.test_roles import permissions as taken_apart

As = Callable[[str], S3Settings]


UNKNOWN_TO_CEPH = ("cloudtrail:", "OwnershipControls", "EncryptionConfiguration", "IntelligentTiering")
"""Ceph 16.2 takes no policy with an action that it has not."""


def for_ceph(policy: dict[str, Any], bucket: str) -> dict[str, Any]:
    """Make a policy one for Ceph: to delete several keys, it wants s3:DeleteObject on the bucket, too."""
    statements = []
    for each in policy["Statement"]:
        actions = [each["Action"]] if isinstance(each["Action"], str) else each["Action"]
        known = [action for action in actions if not any(word in action for word in UNKNOWN_TO_CEPH)]
        statements += [{**each, "Action": known}] if known else []
        if "s3:DeleteObject" in known:
            more = {"Effect": "Allow", "Action": "s3:DeleteObject", "Resource": f"arn:aws:s3:::{bucket}"}
            statements.append(more)
    return {**policy, "Statement": statements}


OWN_WAYS = {
    ("ceph", "s3:GetBucketNotification"),  # refused to all but the bucket's owner
}
"""Where a server decides otherwise than the policy says: what counts is what it does."""


@pytest.fixture
def as_role(server: RealServer, settings: S3Settings) -> Iterator[As]:
    """Settings of a store for a user who has the policy of a role in it, and no other rights."""
    assert server.denied
    alt = server.denied
    iam = _service("iam", settings)

    def give(role: str) -> Keys:
        policy = for_ceph(role_policy(role, settings.bucket, settings.prefix), settings.bucket)
        document = json.dumps(policy)
        iam.put_user_policy(UserName=alt.access_key, PolicyName="role", PolicyDocument=document)
        return alt

    yield lambda role: replace(settings, keys=give(role))
    iam.delete_user_policy(UserName=alt.access_key, PolicyName="role")


def _service(name: str, settings: S3Settings) -> Any:
    return boto3.client(
        name,  # type: ignore[call-overload]
        endpoint_url=settings.endpoint_url,
        region_name=settings.region,
        aws_access_key_id=settings.keys.access_key,
        aws_secret_access_key=settings.keys.secret_key,
    )


@pytest.fixture
def filled(store: Store, tmp_path: Path) -> Store:
    """The owner's store: data, a run, and a model of which one version is in production."""
    ref = store_data(store, {"a": 1}, "kept")
    store_run(store, "r1", {"x": ref}, project="p")
    for number in range(2):
        (tmp_path / str(number)).write_text(f"model {number}")
        version = registry.register_model(store, "r1", "m", tmp_path / str(number)).version
        if number == 0:
            registry.promote_model(store, "m", version)
    return store


def _bare(settings: S3Settings) -> RetryingStore:
    return RetryingStore(S3Store(settings))


def _refused(call: Callable[[], object]) -> None:
    with pytest.raises(AccessError, match="Grant s3:"):
        call()


def _registry_is_closed(bare: Store, promoted: str) -> None:
    for key in (promoted, f"{promoted}.new"):
        _refused(lambda key=key: bare.create(key, b"x"))  # type: ignore[misc]
        _refused(lambda key=key: bare.delete([key]))  # type: ignore[misc]
    _refused(lambda: bare.upload(f"{promoted}.new", 1))


def test_readers_read(filled: Store, as_role: As, expected: Expected) -> None:
    settings = as_role("reader")
    store, bare = open_s3(settings), _bare(settings)
    [found] = list_data(store)
    assert retrieve_data(store, found.ref) == {"a": 1}
    assert [run.run_id for run in list_runs(store)] == ["r1"]
    assert registry.resolve_model(store, "m").version
    with pytest.raises(NotFoundError):  # and not AccessError: who may list is told that there is nothing
        bare.get("manifests/none.json")
    assert bare.head("manifests/none.json") is None
    assert bare.head(blob_key("0" * 64, "bin"), checksum=True) is None
    promoted = next(bare.list("models/registry/")).key
    for key in (found.ref.storage_path, "names/new", "format.json", promoted):
        _refused(lambda key=key: bare.create(key, b"x"))  # type: ignore[misc]
        _refused(lambda key=key: bare.delete([key]))  # type: ignore[misc]
    _refused(lambda: bare.upload("data/new", 1))
    _refused(lambda: bare.copy(promoted, "data/new", 1))
    _refused(lambda: store_data(store, {"b": 2}))
    assert retrieve_data(filled, found.ref) == {"a": 1}


def test_writers_write_and_cannot_touch_the_registry(filled: Store, as_role: As, tmp_path: Path) -> None:
    settings = as_role("writer")
    store, bare = open_s3(settings), _bare(settings)
    ref = store_data(store, {"b": 2}, "theirs")
    store_run(store, "r2", {"x": ref}, project="p", storage_mode="by_project")
    (tmp_path / "model").write_text("another model")
    version = registry.register_model(store, "r2", "m", tmp_path / "model").version
    assert forget_data(store, "theirs")
    promoted = next(bare.list("models/registry/")).key
    _registry_is_closed(bare, promoted)
    _refused(lambda: registry.promote_model(store, "m", version))
    for key in (ref.storage_path, "manifests/r1.json", f"models/development/m/{version}.json"):
        _refused(lambda key=key: bare.delete([key]))  # type: ignore[misc]
    _refused(lambda: remove_run(store, "r1"))
    history = registry.model_history(filled, "m")
    assert [each.number for each in history] == [1]


def test_promoters_promote_and_cannot_write(filled: Store, as_role: As) -> None:
    settings = as_role("promoter")
    store, bare = open_s3(settings), _bare(settings)
    before = registry.resolve_model(store, "m").version
    [other] = {each for model in registry.list_models(store) for each in model.versions} - {before}
    registry.promote_model(store, "m", other)
    # Not through the owner's eyes: what another account writes to Ceph is that account's.
    assert registry.resolve_model(store, "m").version == other
    assert registry.rollback_model(store, "m").version == before
    for key in ("data/new", "manifests/r9.json", "models/development/m/new", "runs/by_project/p/r9"):
        _refused(lambda key=key: bare.create(key, b"x"))  # type: ignore[misc]
    _refused(lambda: store_data(store, {"b": 2}))
    _refused(lambda: bare.delete([next(bare.list("models/registry/")).key]))


def test_admins_do_all_of_it_in_this_store(filled: Store, as_role: As, settings: S3Settings) -> None:
    store = open_s3(as_role("admin"))
    assert remove_run(store, "r1").revisions == (1,)
    assert list_runs(filled) == []
    beside = replace(store.inner.inner.settings, prefix=f"{settings.prefix}-beside")  # type: ignore[attr-defined]
    _bare(replace(beside, keys=settings.keys)).create("x", b"x")
    _refused(lambda: _bare(beside).create("y", b"y"))
    _refused(lambda: _bare(beside).get("x"))


@pytest.mark.parametrize("role", ROLES)
def test_check_access_says_what_the_policy_allows(
    filled: Store, as_role: As, role: str, client: Any, settings: S3Settings, server: RealServer
) -> None:
    """Whatever role it is asked about, with the keys of whichever; and nothing remains of the asking."""
    before = _everything(client, settings)
    own = list(taken_apart(role_policy(role, settings.bucket, settings.prefix)))
    store = open_s3(as_role(role))
    for asked in ROLES:
        report = check_access(store, role=asked)
        wanted = permissions_of(asked, settings.bucket, settings.prefix)
        for said, each in zip(report.permissions, wanted, strict=True):
            expected = "allowed" if _allows(own, each, settings) else "refused"
            if said.verdict == "not probed":
                assert _needs_no_probe(each, server.name, expected), (role, asked, said)
            elif (server.name, each.action) not in OWN_WAYS:
                assert said.verdict == expected, (role, asked, said)
        if asked == role:
            ways = {f"permission {action}" for name, action in OWN_WAYS if name == server.name}
            assert {each.name for each in report.failed} <= ways, report.rows()
        assert _everything(client, settings) == before, (role, asked)


def _allows(own: list[Permission], wanted: Wanted, settings: S3Settings) -> bool:
    bucket = f"arn:aws:s3:::{settings.bucket}"
    key = wanted.key(settings.bucket, settings.prefix, "probe-x")
    listing = None if wanted.unprefixed or not wanted.action.startswith("s3:List") else f"{settings.prefix}/x"
    request = Asked(wanted.action, bucket if key is None else f"{bucket}/{key}", None if key else listing)
    return any(each.covers(request) for each in own)


def _needs_no_probe(wanted: Wanted, server: str, expected: str) -> bool:
    """What cannot be asked without a trace, what these servers lack, and a key in use without a trial."""
    name = wanted.action.removeprefix("s3:")
    if name.startswith(("Put", "Get")) and name[3:] in DOCUMENTS:
        return name.startswith("Put") or server == "ceph"
    if name in ("CreateBucket", "DeleteBucketPolicy") or name.startswith("cloudtrail:"):
        return True
    if name == "RestoreObject":
        return server == "ceph"
    # Without permission for a trial, what no server is known to leave alone is not tried.
    return expected == "refused" and (wanted.exact or name == "DeleteObject")


def _everything(client: Any, settings: S3Settings) -> list[tuple[str, ...]]:
    where = {"Bucket": settings.bucket, "Prefix": f"{settings.prefix}/"}
    versions, uploads = client.list_object_versions(**where), client.list_multipart_uploads(**where)
    said = [*versions.get("Versions", ()), *versions.get("DeleteMarkers", ()), *uploads.get("Uploads", ())]
    return sorted((each["Key"], each.get("VersionId") or each["UploadId"]) for each in said)
