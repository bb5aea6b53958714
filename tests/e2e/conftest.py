"""One site for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.site import Site, one_site
from tests.servers import S3Server


@pytest.fixture(scope="session")
def site(s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """As ``one_site``: what one test deploys, another finds."""
    with one_site(s3_server, tmp_path_factory.mktemp("team")) as shared:
        yield shared
