"""One site for all tests of this folder: wheel, bootstraps and workers take longer than what they test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.prefect_server import shared_server
from tests.e2e.site import Site, store_settings, unpacked_wheel
from tests.servers import S3Server
from tests.servers.faultproxy import FaultProxy
from tests.settings import GIVEN


@pytest.fixture(scope="session")
def site(s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The server that the tests were given, or moto, behind a proxy; nothing is deployed yet."""
    folder = tmp_path_factory.mktemp("team")
    with FaultProxy(GIVEN.get("MLTRACK_TEST_S3_ENDPOINT") or s3_server.endpoint) as proxy:
        yield Site(shared_server(), proxy, store_settings(proxy.url), folder, unpacked_wheel(folder))
