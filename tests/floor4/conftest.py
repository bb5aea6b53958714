"""One Prefect API for all tests of this floor, and a store in moto behind a block."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.settings import (
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    PREFECT_LOGGING_TO_API_ENABLED,
    PREFECT_SERVER_ANALYTICS_ENABLED,
    temporary_settings,
)
from prefect_aws import AwsCredentials

from mltrack_tasks import MLTrackStore, registry
from mltrack_tasks.resolve import open_store
from mltrack_tasks.stores.s3_settings import S3Settings

_SURROUNDINGS = ("MLTRACK_STORE", "MLTRACK_S3_BUCKET", "MLTRACK_S3_PREFIX")


@pytest.fixture(scope="session", autouse=True)
def prefect_api() -> Iterator[None]:
    """A Prefect server on a database of its own: it takes 20 s to start, so there is one for all."""
    from prefect.testing.utilities import prefect_test_harness  # Prefect's whole server: not in each process

    settings = {
        PREFECT_SERVER_ANALYTICS_ENABLED: False,
        PREFECT_LOGGING_TO_API_ENABLED: False,
        # A flow run waits at its end for the thread that sends them, which sleeps a second at a time.
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,
    }
    with temporary_settings(settings), prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory where nothing names a store."""
    for name in _SURROUNDINGS:
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def where(tmp_path: Path) -> str:
    """A store in a folder, as tasks are told of one."""
    return str(tmp_path / "store")


@pytest.fixture
def versions(where: str, tmp_path: Path) -> list[str]:
    """Four versions of the model `m` there, oldest first."""
    made = []
    for number in range(4):
        (tmp_path / str(number)).write_text(f"model {number}")
        made.append(registry.register_model(open_store(where), None, "m", tmp_path / str(number)).version)
    return made


@pytest.fixture
def block(s3_settings: S3Settings) -> MLTrackStore:
    """A block of a fresh prefix in moto."""
    return block_of(s3_settings)


@pytest.fixture
def proxied_block(proxied: S3Settings) -> MLTrackStore:
    """A block of a fresh prefix in moto, behind ``proxy``."""
    return block_of(proxied)


def block_of(settings: S3Settings) -> MLTrackStore:
    """The block that opens a store with these settings."""
    return MLTrackStore(
        bucket=settings.bucket,
        prefix=settings.prefix,
        endpoint_url=settings.endpoint_url,
        region_name=settings.region,
        credentials=AwsCredentials(
            aws_access_key_id=settings.keys.access_key,
            aws_secret_access_key=settings.keys.secret_key,
            aws_session_token=settings.keys.session_token,
        ),
    )
