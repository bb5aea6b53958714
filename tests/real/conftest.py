"""A real server, named by MLTRACK_TEST_S3_* and AWS_*: used under a fresh prefix that goes afterwards."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from mltrack_tasks.stores import Store
from mltrack_tasks.stores.guard import GuardedStore
from mltrack_tasks.stores.retry import RetryingStore
from mltrack_tasks.stores.s3 import S3Store
from mltrack_tasks.stores.s3_settings import Keys, S3Settings, build_client, build_session
from mltrack_tasks.testing import RawS3
from tests.real.expectations import EXPECTED, Expected
from tests.servers.faultproxy import FaultProxy
from tests.settings import GIVEN, fresh_prefix


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what needs the proxy where it cannot stand in between: AWS wants HTTPS and its own name.

    And what needs a user with a policy, where nobody can be given one: by us, or at all; and queues.
    """
    lacking = {"proxy"} if not GIVEN.get("MLTRACK_TEST_S3_ENDPOINT", "").startswith("http://") else set()
    known = EXPECTED.get(GIVEN.get("MLTRACK_TEST_S3_SERVER", ""))
    if known is None or not known.gives_policies:
        lacking.add("as_role")
    if known is not EXPECTED["localstack"]:
        lacking.add("queued")  # no other sends its notifications to queues that can be made here
    out = [item for item in items if lacking & set(getattr(item, "fixturenames", ()))]
    out = [item for item in out if Path(__file__).parent in item.path.parents]
    if out:
        items[:] = [item for item in items if item not in out]
        config.hook.pytest_deselected(items=out)


@dataclass(frozen=True)
class RealServer:
    """Where it is, whose keys these are, and the keys of a user without rights if there is one."""

    name: str
    settings: S3Settings
    denied: Keys | None


@pytest.fixture(scope="session")
def server() -> RealServer:
    """The server that the variables name; without an endpoint it is AWS."""
    endpoint = GIVEN.get("MLTRACK_TEST_S3_ENDPOINT") or None
    name = GIVEN.get("MLTRACK_TEST_S3_SERVER", "" if endpoint else "aws")
    if name not in EXPECTED:
        raise pytest.UsageError(
            f"MLTRACK_TEST_S3_SERVER is {name!r}; say which of {', '.join(EXPECTED)} it is"
        )
    settings = S3Settings(
        bucket=GIVEN["MLTRACK_TEST_S3_BUCKET"],
        prefix=fresh_prefix(),
        keys=Keys(
            GIVEN.get("AWS_ACCESS_KEY_ID"), GIVEN.get("AWS_SECRET_ACCESS_KEY"), GIVEN.get("AWS_SESSION_TOKEN")
        ),
        region=GIVEN.get("AWS_DEFAULT_REGION") or GIVEN.get("AWS_REGION"),
        endpoint_url=endpoint,
    )
    return RealServer(name, settings, _denied())


def _denied() -> Keys | None:
    found = [
        GIVEN.get(f"MLTRACK_TEST_S3_ALT_{part}") for part in ("ACCESS_KEY", "SECRET_KEY", "SESSION_TOKEN")
    ]
    return Keys(found[0], found[1], found[2] or None) if found[0] else None


@pytest.fixture(scope="session")
def expected(server: RealServer) -> Expected:
    return EXPECTED[server.name]


@pytest.fixture(scope="session")
def client(server: RealServer) -> Iterator[Any]:
    """A boto3 client of the owner. What the tests left under their prefix goes with it."""
    made: Any = build_client(build_session(server.settings), replace(server.settings, max_workers=16))
    yield made
    remove(made, server.settings.bucket, f"{server.settings.prefix}/")


@pytest.fixture(scope="session")
def fresh(server: RealServer, client: Any) -> Callable[..., S3Settings]:
    """Make settings of a fresh prefix, changed as asked."""

    def make(**changes: Any) -> S3Settings:
        prefix = f"{server.settings.prefix}/{secrets.token_hex(4)}"
        return replace(server.settings, **{"prefix": prefix, **changes})

    return make


@pytest.fixture
def settings(fresh: Callable[..., S3Settings]) -> S3Settings:
    """A fresh prefix of the server's bucket."""
    return fresh()


@pytest.fixture(scope="session")
def s3(server: RealServer) -> S3Store:
    """One for all tests: to make its clients takes longer than most of them."""
    return S3Store(server.settings)


@pytest.fixture
def store(s3: S3Store, settings: S3Settings) -> Store:
    """An empty store, furnished as a user's is."""
    return _moved(s3, settings)


def _moved(s3: S3Store, settings: S3Settings) -> Store:
    moved = copy(s3)  # session and clients are shared, as with the stores of ``outer``
    moved.settings, moved.location = settings, settings.location
    return GuardedStore(RetryingStore(moved))


@pytest.fixture
def raw(client: Any, settings: S3Settings) -> RawS3:
    """The same prefix past the store."""
    return RawS3(client, settings.bucket, settings.prefix)


@pytest.fixture(scope="session")
def standing_proxy(server: RealServer) -> Iterator[FaultProxy]:
    assert server.settings.endpoint_url
    with FaultProxy(server.settings.endpoint_url) as running:
        yield running


@pytest.fixture
def proxy(standing_proxy: FaultProxy) -> FaultProxy:
    """A proxy in front of the server that can be told to fail."""
    standing_proxy.clear()
    standing_proxy.forget()
    return standing_proxy


@pytest.fixture(scope="session")
def proxied_s3(server: RealServer, standing_proxy: FaultProxy) -> S3Store:
    return S3Store(replace(server.settings, endpoint_url=standing_proxy.url))


@pytest.fixture
def proxied(proxy: FaultProxy, proxied_s3: S3Store, settings: S3Settings) -> Store:
    """``store``'s prefix, opened through the proxy."""
    return _moved(proxied_s3, replace(settings, endpoint_url=proxy.url))


def remove(client: Any, bucket: str, prefix: str) -> None:
    """Remove every object, version and open upload under ``prefix``, and see that nothing is left."""
    target = {"Bucket": bucket, "Prefix": prefix}
    for upload in client.list_multipart_uploads(**target).get("Uploads", ()):
        client.abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
    with ThreadPoolExecutor(16) as pool:
        for page in client.get_paginator("list_object_versions").paginate(**target):
            found = [*page.get("Versions", ()), *page.get("DeleteMarkers", ())]
            list(pool.map(lambda one: _delete(client, bucket, one), found))
    assert not client.list_object_versions(**target).get("Versions"), f"{prefix} is not empty"


def _delete(client: Any, bucket: str, version: Mapping[str, Any]) -> None:
    client.delete_object(Bucket=bucket, Key=version["Key"], VersionId=version["VersionId"])
