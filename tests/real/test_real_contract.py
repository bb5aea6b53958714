"""The contract of every store, kept on a real server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.retry import RetryingStore
from mltrack_tasks.stores.s3 import S3Store
from mltrack_tasks.stores.s3_settings import S3Settings
from mltrack_tasks.testing import Raw, RawS3, StoreContract
from tests.real.expectations import Expected

Fresh = Callable[..., S3Settings]


class TestStore(StoreContract):
    """With its retries: Ceph answers some of many racing writers with a 500."""

    @pytest.fixture(autouse=True)
    def expectations(self, expected: Expected) -> None:
        """Expect of the server what is written down of it."""
        self.known = expected
        self.expects = expected.capabilities
        self.replaces_parts_by_etag = expected.replaces_parts_by_etag

    @pytest.fixture(scope="class")
    @classmethod
    def s3(cls, fresh: Fresh) -> S3Store:
        """One for all tests of a class: to make its clients takes longer than most tests."""
        return S3Store(fresh())

    @pytest.fixture
    def store(self, s3: S3Store, raw: Raw) -> Store:
        return RetryingStore(s3)

    @pytest.fixture
    def raw(self, client: Any, s3: S3Store) -> Iterator[Raw]:
        raw = RawS3(client, s3.settings.bucket, s3.settings.prefix)
        yield raw
        raw.clear()

    def test_one_of_racing_uploads_wins(self, store: Store, raw: Raw, body: bytes) -> None:
        """Where two may win, what is stored is still whole: equal writers send equal bytes."""
        if not self.known.one_upload_wins:
            self.expects = replace(self.expects, create_only_parts=False)
        super().test_one_of_racing_uploads_wins(store, raw, body)


class TestStoreUnderAStrangePrefix(TestStore):
    """Names that a URL would spell otherwise."""

    many = 20

    def test_foreign_keys_do_not_break_a_listing(self, store: Store, raw: Raw) -> None:
        """LocalStack compares the encoded key to begin after with plain keys, and so leaves out some."""
        if self.known.lists_after_any_key:
            return super().test_foreign_keys_do_not_break_a_listing(store, raw)
        with pytest.raises(AssertionError, match="'a/b'"):
            super().test_foreign_keys_do_not_break_a_listing(store, raw)

    @pytest.fixture(scope="class")
    @classmethod
    def s3(cls, fresh: Fresh) -> S3Store:
        return S3Store(fresh(prefix=f"{fresh().prefix}/Größe 100%/a+b"))
