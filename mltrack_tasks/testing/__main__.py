"""``python -m mltrack_tasks.testing s3://bucket/prefix``: the store's contract, run against your own bucket.

Everything is written below ``<prefix>/.probe/`` and removed again; versions stay where a bucket keeps them.
"""

from __future__ import annotations

import argparse
import secrets
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.probe import PROBE_FOLDER, probe_capabilities
from mltrack_tasks.stores.retry import RetryingStore
from mltrack_tasks.stores.s3 import S3Store
from mltrack_tasks.stores.s3_settings import S3Settings
from mltrack_tasks.testing import Raw, RawS3, StoreContract

_NAME = "mltrack-contract"


class TestYourBucket(StoreContract):
    """What the server does is asked first; that it is enough, and the rest of the contract, is checked."""

    @pytest.fixture(scope="session")
    @classmethod
    def s3(cls, request: pytest.FixtureRequest) -> S3Store:
        given: Any = request.config.pluginmanager.get_plugin(_NAME)
        return S3Store(given.settings)

    @pytest.fixture(autouse=True)
    def expectations(self, s3: S3Store) -> None:
        if "expects" not in vars(type(self)):
            type(self).expects = probe_capabilities(s3)
            type(self).replaces_parts_by_etag = bool(self.expects.create_only_parts)

    @pytest.fixture
    def store(self, s3: S3Store, raw: Raw) -> Store:
        return RetryingStore(s3)

    @pytest.fixture
    def raw(self, s3: S3Store) -> Iterator[Raw]:
        raw = RawS3(s3.client, s3.settings.bucket, s3.settings.prefix)
        yield raw
        raw.clear()

    def test_a_key_that_is_there_is_never_overwritten(self) -> None:
        """Without this, racing writers replace each other's records: no store can be kept there."""
        assert self.expects.create_only is True


class _Given:
    """Tells the tests, which pytest imports once more, the bucket."""

    def __init__(self, settings: S3Settings) -> None:
        self._settings = settings

    def pytest_configure(self, config: pytest.Config) -> None:
        config.pluginmanager.register(SimpleNamespace(settings=self._settings), _NAME)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the contract -> the exit code of pytest."""
    parser = argparse.ArgumentParser(prog="python -m mltrack_tasks.testing", description=__doc__)
    parser.add_argument("address", help="s3://bucket or s3://bucket/prefix; credentials as with any AWS tool")
    parser.add_argument("--endpoint-url", help="of an S3-compatible server")
    parser.add_argument("--region")
    parser.add_argument("-k", default="", help="only the checks of such names, as pytest has it")
    given = parser.parse_args(arguments)
    bucket, _, prefix = given.address.removeprefix("s3://").partition("/")
    if not bucket or not given.address.startswith("s3://"):
        parser.error(f"{given.address!r} is no address such as s3://bucket/prefix")
    settings = S3Settings(
        bucket, prefix=prefix.strip("/") or "mltrack", region=given.region, endpoint_url=given.endpoint_url
    )
    below = f"{settings.prefix}/{PROBE_FOLDER}contract-{secrets.token_hex(4)}"
    options = ["-q", "-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir", ".", "-k", given.k, __file__]
    return int(pytest.main(options, plugins=[_Given(replace(settings, prefix=below))]))


if __name__ == "__main__":
    sys.exit(main())
