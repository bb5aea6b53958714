"""Every store, and every store around a store, keeps the contract."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from moto.s3 import models as moto_models

from mltrack_tasks.errors import InvalidInputError
from mltrack_tasks.stores.base import Level, Stat, Store, WrapperStore
from mltrack_tasks.stores.cache import CachedStore
from mltrack_tasks.stores.directory import DirectoryStore
from mltrack_tasks.stores.guard import GuardedStore
from mltrack_tasks.stores.memory import MemoryStore
from mltrack_tasks.stores.observed import CountingStore
from mltrack_tasks.stores.probe import Capabilities
from mltrack_tasks.stores.retry import RetryingStore
from mltrack_tasks.stores.s3 import S3Store
from mltrack_tasks.testing import Raw, RawFolder, RawObjects, RawS3, StoreContract
from tests.servers import S3Server
from tests.settings import settings_of

LOCAL = Capabilities(
    create_only=True,
    create_only_parts=True,
    refuses_damage=None,
    keeps_checksums=True,
    conditional_delete=None,
    versioning=False,
)
MOTO = Capabilities(
    create_only=True,
    create_only_parts=True,
    refuses_damage=False,
    keeps_checksums=False,
    conditional_delete=True,
    versioning=False,
)


class TestMemory(StoreContract):
    expects = LOCAL
    part_size = 1_000

    @pytest.fixture
    def objects(self) -> MemoryStore:
        return MemoryStore()

    @pytest.fixture
    def store(self, objects: MemoryStore) -> Store:
        return objects

    @pytest.fixture
    def raw(self, objects: MemoryStore) -> Raw:
        return RawObjects(objects.objects)


class TestDirectory(StoreContract):
    expects = LOCAL
    part_size = 1_000

    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return DirectoryStore(tmp_path / "store")

    @pytest.fixture
    def raw(self, tmp_path: Path) -> Raw:
        return RawFolder(tmp_path / "store")


class TestS3(StoreContract):
    expects = MOTO
    many = 200
    part_size = 300
    replaces_parts_by_etag = False

    @pytest.fixture(autouse=True)
    def small_parts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let moto take parts below 5 MiB."""
        monkeypatch.setattr(moto_models, "S3_UPLOAD_PART_MIN_SIZE", 256)

    @pytest.fixture(scope="class")
    @classmethod
    def s3(cls, s3_server: S3Server) -> S3Store | Iterator[S3Store]:
        """One for all tests of a class: to make its clients takes longer than most tests."""
        return S3Store(settings_of(s3_server))

    @pytest.fixture
    def store(self, s3: S3Store, raw: Raw) -> Store:
        return s3

    @pytest.fixture
    def raw(self, s3: S3Store) -> Iterator[Raw]:
        raw = RawS3(s3.client, s3.settings.bucket, s3.settings.prefix)
        yield raw
        raw.clear()


class _WithoutFormat(WrapperStore):
    """Hides the guard's own record, which the contract knows nothing of."""

    def list(self, prefix: str, *, after: str = "") -> Iterator[Stat]:
        return (stat for stat in self.inner.list(prefix, after=after) if stat.key != "format.json")

    def level(self, prefix: str) -> Level:
        objects, folders = self.inner.level(prefix)
        return [stat for stat in objects if stat.key != "format.json"], folders


class _RawWithoutFormat(RawObjects):
    def list(self) -> list[str]:
        return [key for key in super().list() if key != "format.json"]


class _RawS3WithoutFormat(RawS3):
    def list(self) -> list[str]:
        return [key for key in super().list() if key != "format.json"]


def _wrapped(store: Store, cache: Path) -> Store:
    """Every wrapper at once, in the order in which stores are opened."""
    return _WithoutFormat(CountingStore(GuardedStore(CachedStore(RetryingStore(store), cache, 10_000_000))))


class TestWrappersOverMemory(TestMemory):
    @pytest.fixture
    def store(self, objects: MemoryStore, tmp_path: Path) -> Store:
        return _wrapped(objects, tmp_path / "cache")

    @pytest.fixture
    def raw(self, objects: MemoryStore) -> Raw:
        return _RawWithoutFormat(objects.objects)


class TestWrappersOverS3InTheRoot(TestS3):
    """A store without a prefix: the bucket is all its own."""

    many = 20

    @pytest.fixture(scope="class")
    @classmethod
    def s3(cls, s3_server: S3Server) -> Iterator[S3Store]:
        store = S3Store(settings_of(s3_server, bucket="all-its-own", prefix=""))
        store.client.create_bucket(Bucket="all-its-own")
        yield store
        store.client.delete_bucket(Bucket="all-its-own")

    @pytest.fixture
    def store(self, s3: S3Store, raw: Raw, tmp_path: Path) -> Store:
        return _wrapped(s3, tmp_path / "cache")

    @pytest.fixture
    def raw(self, s3: S3Store) -> Iterator[Raw]:
        raw = _RawS3WithoutFormat(s3.client, s3.settings.bucket, s3.settings.prefix)
        yield raw
        raw.clear()
        raw.delete("format.json")


def test_a_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    with pytest.raises(InvalidInputError, match="is a file"):
        DirectoryStore(tmp_path / "f")
