"""A process that lives for days: credentials that were written anew are used by the next task."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mltrack_tasks import MLTrackStore
from mltrack_tasks.stores.base import Store, WrapperStore


@pytest.fixture(scope="session")
def prefect_api() -> Iterator[None]:
    """Spare these tests the server of this floor: a block that is not saved needs none."""
    return


Write = Callable[[str], None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write the credentials file that the environment names, as `aws configure` would."""
    path = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(path))
    written = iter(range(1, 100))

    def write(text: str) -> None:
        path.write_text(text)
        os.utime(path, ns=(0, next(written)))  # a clock may tick slower than a test runs

    return write


def profile(key: str, name: str = "default") -> str:
    return f"[{name}]\naws_access_key_id = {key}\naws_secret_access_key = secret\n"


def key_of(store: Store) -> str:
    inner: Any = store
    while isinstance(inner, WrapperStore):
        inner = inner.inner
    return str(inner.session.get_credentials().access_key)


BLOCKS: dict[str, dict[str, Any]] = {
    "default chain": {},
    "profile": {"credentials": {"profile_name": "work", "region_name": "us-east-1"}},
}


@pytest.mark.parametrize("kind", BLOCKS)
def test_a_file_that_was_written_anew_is_read_anew(kind: str, write: Write) -> None:
    block = MLTrackStore(bucket="bucket", region_name="us-east-1", **BLOCKS[kind])
    write(profile("AKIAFIRST") + profile("AKIAFIRST", "work"))
    first = block.open()
    assert key_of(first) == "AKIAFIRST"
    assert block.open() is first
    assert MLTrackStore(**block.model_dump(exclude={"credentials"}), **BLOCKS[kind]).open() is first
    write(profile("AKIAOTHER") + profile("AKIAOTHER", "work"))
    second = block.open()
    assert second is not first
    assert key_of(second) == "AKIAOTHER"
    assert block.open() is second


def test_a_file_that_comes_later_is_found(write: Write) -> None:
    block = MLTrackStore(bucket="bucket", region_name="us-east-1")
    with pytest.raises(Exception, match="AWS_PROFILE or AWS_ACCESS_KEY_ID"):
        block.open()
    write(profile("AKIALATER"))
    assert key_of(block.open()) == "AKIALATER"


def test_a_file_that_goes_while_it_is_looked_at_is_no_file(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some tools remove the file and write a new one."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAENVIRONMENT")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setattr("os.path.exists", lambda path: True)  # it was, a moment ago
    assert key_of(MLTrackStore(bucket="bucket", region_name="us-east-1").open()) == "AKIAENVIRONMENT"


def test_a_configuration_that_was_written_anew_is_read_anew(
    tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config"
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    write(profile("AKIAFIRST"))
    block = MLTrackStore(bucket="bucket")
    regions = []
    for stamp, region in enumerate(["eu-west-1", "eu-west-1", "eu-north-1"]):
        config.write_text(f"[default]\nregion = {region}\n")
        os.utime(config, ns=(0, max(stamp, 1)))
        inner: Any = block.open()
        while isinstance(inner, WrapperStore):
            inner = inner.inner
        regions.append((inner.client.meta.region_name, inner))
    assert [region for region, _ in regions] == ["eu-west-1", "eu-west-1", "eu-north-1"]
    assert regions[0][1] is regions[1][1] is not regions[2][1]
