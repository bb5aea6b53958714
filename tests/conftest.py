"""Shared ground of all tests: nothing of this machine's cloud or Prefect settings reaches them."""

from __future__ import annotations

import functools
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from hypothesis import HealthCheck, settings

pytest.register_assert_rewrite("mltrack_tasks.testing")

from mltrack_tasks.stores.s3_settings import S3Settings  # noqa: E402
from tests.servers import S3Server, create_bucket, moto  # noqa: E402
from tests.servers.faultproxy import FaultProxy  # noqa: E402
from tests.settings import BUCKET, GIVEN, PROFILE, examples, settings_of  # noqa: E402

_GIVEN = GIVEN
MEMORY = Path("/dev/shm")
ROOM = 1 << 30  # [bytes]; all tests together write 0.9 GB, and what passed is removed at once

settings.register_profile(
    "default",
    max_examples=20,
    deadline=None,  # machines differ; no test asserts on seconds
    derandomize=True,  # the same examples in every run: what is new is sought by the profile below
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.register_profile(
    "thorough", parent=settings.get_profile("default"), derandomize=False, max_examples=2_000
)
settings.register_profile("brief", parent=settings.get_profile("default"), max_examples=examples(30))
settings.load_profile(PROFILE)


def pytest_configure(config: pytest.Config) -> None:
    """Take the user's settings out of the environment, before anything reads them."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # So does a shell start what is in its background, and all that we start would inherit it: a worker of
        # Prefect's that is told to end sends itself a Ctrl-C.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # Each boto3 session reads the same megabytes of JSON: 0.1 s of every S3 store that a test opens.
    botocore.session.create_loader = functools.cache(botocore.session.create_loader)
    for name in GIVEN:
        os.environ.pop(name, None)
    if "TMPDIR" not in os.environ and _has_room(MEMORY):
        # Ten thousand fsyncs: on a disk they take as long as everything else.
        os.environ["TMPDIR"] = tempfile.tempdir = str(MEMORY)
    home = tempfile.TemporaryDirectory(prefix="mltrack-tests-")
    config.add_cleanup(home.cleanup)
    nowhere = str(Path(home.name) / "none")
    os.environ.update(
        AWS_CONFIG_FILE=nowhere,
        AWS_SHARED_CREDENTIALS_FILE=nowhere,
        AWS_EC2_METADATA_DISABLED="true",
        MLTRACK_CACHE_DIR=str(Path(home.name) / "cache"),
        PREFECT_HOME=str(Path(home.name) / "prefect"),
        PREFECT_PROFILES_PATH=str(Path(home.name) / "profiles.toml"),
        # Other stages may keep the cores busy: Prefect's own limits, 20 and 60 s, are for machines at rest.
        PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS="180",
        PREFECT_API_REQUEST_TIMEOUT="180",
        # Prefect before 3.8.6 keeps these in the user's home whatever PREFECT_HOME says.
        PREFECT_LOCAL_STORAGE_PATH=str(Path(home.name) / "storage"),
        PREFECT_MEMO_STORE_PATH=str(Path(home.name) / "memo.toml"),
    )


def _has_room(folder: Path) -> bool:
    return os.access(folder, os.W_OK | os.X_OK) and shutil.disk_usage(folder).free > ROOM


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give files to processes, and floor 4 to one alone: the Prefect server that it starts is dear."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling  # not where the oldest dependencies are tried

    class Files(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file: str = super()._split_scope(nodeid)
            return "tests/floor4" if file.startswith("tests/floor4/") else file

        def _assign_work_unit(self, node: Any) -> None:
            """What takes longest first, so that none is left with much when the others have finished."""
            floor = len("tests/floor0")
            dearest = max(self.workqueue, key=lambda scope: (scope[:floor], len(self.workqueue[scope])))
            self.workqueue.move_to_end(dearest, last=False)
            super()._assign_work_unit(node)

    return Files(config, log)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One process more than cores: a good part of the tests is waiting for a server, or for a disk."""
    return len(os.sched_getaffinity(0)) + 1


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what speaks to a server, and leave out the tests of a real one when none is named.

    A test that did not run did not pass, so those are deselected and not skipped.
    """
    for item in items:
        if _uses_server(item):
            item.add_marker("network")
    if GIVEN.get("MLTRACK_TEST_S3_BUCKET"):
        return
    real = [item for item in items if "real" in item.path.parent.parts]
    if real:
        items[:] = [item for item in items if item not in set(real)]
        config.hook.pytest_deselected(items=real)


def _uses_server(item: pytest.Item) -> bool:
    """Whether a test speaks to moto: through a fixture, or a parameter that names one of S3."""
    call = getattr(item, "callspec", None)
    named = [value for value in call.params.values() if isinstance(value, str)] if call else []
    return "s3_server" in getattr(item, "fixturenames", ()) or any(name.startswith("s3") for name in named)


@pytest.fixture(scope="session")
def given() -> Mapping[str, str]:
    """The settings that the tests were started with."""
    return GIVEN


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """moto in this process, with the bucket BUCKET."""
    with moto.serve() as server:
        create_bucket(server, BUCKET)
        yield server


@pytest.fixture
def s3_settings(s3_server: S3Server) -> S3Settings:
    """A fresh prefix of the bucket in moto."""
    return settings_of(s3_server)


@pytest.fixture
def proxy(s3_server: S3Server) -> Iterator[FaultProxy]:
    """A proxy in front of moto that can be told to fail."""
    with FaultProxy(s3_server.endpoint) as running:
        yield running


@pytest.fixture
def proxied(proxy: FaultProxy, s3_server: S3Server) -> S3Settings:
    """A fresh prefix of the bucket in moto, behind ``proxy``."""
    return settings_of(s3_server, endpoint_url=proxy.url)
