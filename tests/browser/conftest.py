"""One site, made ready as a team does it, and one browser for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.browser.driving import Browser, chromium
from tests.e2e.site import Site, one_site
from tests.servers import S3Server


@pytest.fixture(scope="session")
def site(s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site with every deployment."""
    with one_site(s3_server, tmp_path_factory.mktemp("team")) as shared:
        shared.bootstrap()
        yield shared


@pytest.fixture(scope="session")
def browser(site: Site) -> Iterator[Browser]:
    with chromium(site.server.api_url.removesuffix("/api")) as driven:
        yield driven
