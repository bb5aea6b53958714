"""Stores of every kind, and sizes small enough for thousands of steps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from moto.s3 import models as moto_models

from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.directory import DirectoryStore
from mltrack_tasks.stores.guard import GuardedStore
from mltrack_tasks.stores.memory import MemoryStore
from mltrack_tasks.stores.retry import RetryingStore
from mltrack_tasks.stores.s3 import S3Store
from mltrack_tasks.testing import Raw, RawFolder, RawObjects, RawS3
from tests.floor3.limits import shrink
from tests.servers import S3Server
from tests.settings import settings_of


@dataclass(frozen=True)
class Place:
    """A store as it is opened, and raw access to the same root."""

    store: Store
    raw: Raw


@pytest.fixture(params=["memory", "directory", "s3"])
def place(request: pytest.FixtureRequest) -> Place:
    """Each kind of store in turn."""
    made: Place = request.getfixturevalue(f"{request.param}_place")
    return made


@pytest.fixture
def memory_place() -> Place:
    bare = MemoryStore()
    return Place(GuardedStore(bare), RawObjects(bare.objects))


@pytest.fixture
def directory_place(tmp_path: Path) -> Place:
    return Place(GuardedStore(DirectoryStore(tmp_path / "store")), RawFolder(tmp_path / "store"))


@pytest.fixture(scope="session")
def s3_store(s3_server: S3Server) -> S3Store:
    """One for all tests: to make its clients takes longer than most of them."""
    return S3Store(settings_of(s3_server))


@pytest.fixture
def s3_place(s3_store: S3Store) -> Iterator[Place]:
    raw = RawS3(s3_store.client, s3_store.settings.bucket, s3_store.settings.prefix)
    yield Place(GuardedStore(RetryingStore(s3_store)), raw)
    raw.clear()


@pytest.fixture
def store() -> Store:
    """An empty store in memory."""
    return GuardedStore(MemoryStore())


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a few thousand bytes a large blob, for the library and for moto."""
    monkeypatch.setattr(moto_models, "S3_UPLOAD_PART_MIN_SIZE", 256)
    shrink(monkeypatch.setattr)


@pytest.fixture(autouse=True)
def batches_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try a batch of a migration again without a pause."""
    monkeypatch.setattr("mltrack_tasks.migration.migrate.PAUSE", 0.0)


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pass over the pauses of the library -> how long they would have been [s]."""
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)
    return pauses
