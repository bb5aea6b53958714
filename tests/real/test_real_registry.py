"""Models on a real server: promotions that race, are killed, move nothing; and MLflow reading the folder."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mltrack_tasks import layout, modelkeys
from mltrack_tasks.digest import sha256_hex
from mltrack_tasks.errors import NotFoundError
from mltrack_tasks.models import ModelVersion
from mltrack_tasks.registry import (
    copy_model,
    download_model,
    model_history,
    promote_model,
    register_model,
    resolve_model,
)
from mltrack_tasks.stores import Store, open_s3
from mltrack_tasks.stores.observed import CountingStore
from mltrack_tasks.stores.s3_settings import S3Settings
from mltrack_tasks.testing import RawS3
from tests.real import promoting
from tests.real.promoting import MODEL
from tests.servers.faultproxy import Fault, FaultProxy, Request

PROMOTERS, TIMES = 16, 2
MiB = 1024 * 1024
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["tests.real.promoting"])


def register(store: Store, folder: Path, number: int) -> ModelVersion:
    """A version of three files, of which others have two as well. Its folder is made by its promotion."""
    folder.mkdir(exist_ok=True)
    (folder / "metadata.json").write_text('{"the model": "has one of its own"}')
    (folder / "shared.bin").write_bytes(b"s" * 10_000)
    (folder / f"weights {number}.bin").write_bytes(random.Random(number).randbytes(5_000))
    made = register_model(store, None, MODEL, folder, materialize=False)
    (folder / f"weights {number}.bin").unlink()
    return made


def require_complete(store: Store, version: ModelVersion) -> None:
    """The folder that an alias stands for holds each file of the version, byte for byte, and its record."""
    folder = modelkeys.promoted_folder(version.model, version.version)
    assert store.head(modelkeys.promoted_key(version.model, version.version)) is not None
    for file in version.files:
        assert sha256_hex(store.get(folder + file.path)) == file.digest, file.path
    assert {stat.key.removeprefix(folder) for stat in store.list(folder)} == {f.path for f in version.files}


def read_on(store: Store, ended: threading.Event) -> list[str]:
    """Read the alias until all is over, each time with its folder -> the versions seen, in order."""
    seen: list[str] = []
    while not ended.is_set():
        try:
            version = resolve_model(store, MODEL)
        except NotFoundError:
            continue  # nothing is promoted yet
        require_complete(store, version)
        seen.append(version.version)
    return seen


def test_sixteen_processes_promote_to_one_alias(store: Store, settings: S3Settings, tmp_path: Path) -> None:
    versions = [register(store, tmp_path / "model", number).version for number in range(PROMOTERS)]
    start, ended = _PROCESSES.Barrier(PROMOTERS), threading.Event()
    with ThreadPoolExecutor(2) as threads:
        readers = [threads.submit(read_on, store, ended) for _ in range(2)]
        try:
            with ProcessPoolExecutor(PROMOTERS, _PROCESSES, promoting.prepare, (start,)) as pool:
                jobs = [pool.submit(promoting.promote_often, settings, name, TIMES) for name in versions]
                said = [appended for job in jobs for appended in job.result(300)]
        finally:
            ended.set()
        seen = [reader.result(60) for reader in readers]
    history = model_history(store, MODEL)
    assert sorted(said) == [(event.number, event.version) for event in history]
    assert [event.number for event in history] == list(range(1, len(history) + 1))
    assert [event.previous for event in history] == [None, *(event.version for event in history[:-1])]
    assert {event.version for event in history} == set(versions)
    in_force = [event.version for event in history]
    for names in seen:
        assert names
        require_order(names, in_force)
    assert resolve_model(store, MODEL).version == in_force[-1]


def require_order(seen: list[str], in_force: list[str | None]) -> None:
    """What a reader saw came into force in that order; it may have missed some."""
    after = iter(in_force)
    changes = [name for number, name in enumerate(seen) if number == 0 or name != seen[number - 1]]
    assert all(name in after for name in changes), (seen, in_force)


def test_killed_at_each_request_of_a_promotion(
    store: Store, settings: S3Settings, proxy: FaultProxy, tmp_path: Path
) -> None:
    """kill -9 leaves the earlier version in force, or the new one complete; the same call ends the work."""
    through = replace(settings, endpoint_url=proxy.url)

    def attempt(version: str, moment: int) -> int | None:
        """Promote in a process, killed as its ``moment``-th request is on its way -> its exit code."""
        born = threading.Event()
        child: Any = None

        def kill(request: Request) -> None:
            born.wait(60)
            os.kill(child.pid, signal.SIGKILL)

        proxy.clear()
        proxy.forget()
        proxy.script(Fault("custom", after=moment, action=kill))
        child = _PROCESSES.Process(target=promoting.promote, args=(through, version))
        child.start()
        born.set()
        child.join(120)
        return child.exitcode  # type: ignore[no-any-return]

    old = register(store, tmp_path / "model", 0)
    promote_model(store, MODEL, old.version)
    outcomes, moment = set(), 0
    while True:
        new = register(store, tmp_path / "model", moment + 1)
        code = attempt(new.version, moment)
        if code == 0:
            break  # it has no such request any more
        assert code == -signal.SIGKILL
        now = resolve_model(store, MODEL)
        assert now.version in (old.version, new.version)
        require_complete(store, now)
        outcomes.add(now.version == new.version)
        assert promote_model(store, MODEL, new.version).version == new.version
        require_complete(store, resolve_model(store, MODEL))
        history = model_history(store, MODEL)
        assert [event.version for event in history].count(new.version) == 1
        old, moment = new, moment + 1
    assert outcomes == {False, True}
    assert moment >= 8


@pytest.fixture(scope="session")
def gigabyte(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A model of 1 GiB in four files and a small one. It is holes, with a different beginning each."""
    folder = tmp_path_factory.mktemp("gigabyte")
    for number in range(4):
        with (folder / f"shard {number}.bin").open("wb") as file:
            file.write(random.Random(number).randbytes(4_096))
            file.truncate(256 * MiB)
    (folder / "metadata.json").write_text("{}")
    yield folder
    for file in folder.iterdir():
        os.truncate(file, 0)


def test_a_gigabyte_is_promoted_without_moving_it(
    store: Store, settings: S3Settings, proxied: Store, proxy: FaultProxy, gigabyte: Path
) -> None:
    """Counted on the wire: what goes to the server and what comes back are records and lists alone."""
    made = register_model(store, None, "large", gigabyte, materialize=False)
    assert made.size_bytes > 1024 * MiB
    counting = CountingStore(proxied)
    promote_model(counting, "large", made.version, observe=lambda event: None)
    totals = proxy.totals().values()
    assert sum(total.sent for total in totals) + sum(total.received for total in totals) < 256 * 1024
    assert counting.sent.total() + counting.received.total() < 16 * 1024
    sizes = {
        stat.key.rpartition("/")[2]: stat.size
        for stat in store.list(modelkeys.promoted_folder("large", made.version))
    }
    assert sizes == {file.path: file.size_bytes for file in made.files}


def test_a_model_goes_to_another_store(
    store: Store, fresh: Callable[..., S3Settings], tmp_path: Path
) -> None:
    made = register(store, tmp_path / "model", 1)
    target = open_s3(fresh())
    first = copy_model(store, MODEL, made.version, target)
    counting = CountingStore(target)
    again = copy_model(store, MODEL, made.version, counting)
    assert (first.version, first.tree_digest) == (made.version, made.tree_digest)
    assert (first.created, again.created) == (True, False)
    assert not counting.calls["upload"]
    assert not [
        key for verb, key in counting.log if verb in ("create", "replace") and layout.parse_blob_key(key)
    ]
    version, folder = download_model(target, MODEL, made.version, tmp_path / "there")
    assert {f.path for f in version.files} == {p.name for p in folder.iterdir()}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_mlflow_loads_the_promoted_folder(
    store: Store, settings: S3Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow
    import numpy as np
    import pandas as pd
    from sklearn.ensemble import RandomForestClassifier

    features = pd.DataFrame({"a": np.arange(40.0), "b": np.arange(40.0) % 3})
    model = RandomForestClassifier(5, random_state=0).fit(features, [0] * 20 + [1] * 20)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    mlflow.sklearn.save_model(
        model, "saved", pip_requirements=["scikit-learn"], serialization_format="cloudpickle"
    )
    made = register_model(store, None, "forest", tmp_path / "saved")
    promote_model(store, "forest", made.version)
    location = resolve_model(store, "forest").s3_location
    assert location == f"{settings.location}/models/registry/forest/{made.version}"
    if settings.endpoint_url:
        monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", settings.endpoint_url)
    for name, value in (
        ("AWS_ACCESS_KEY_ID", settings.keys.access_key),
        ("AWS_SECRET_ACCESS_KEY", settings.keys.secret_key),
        ("AWS_DEFAULT_REGION", settings.region),
    ):
        if value:
            monkeypatch.setenv(name, value)
    loaded = mlflow.pyfunc.load_model(location)
    assert np.array_equal(loaded.predict(features), model.predict(features))


def test_the_raw_folder_is_what_the_version_says(store: Store, raw: RawS3, tmp_path: Path) -> None:
    """Any S3 tool finds the real files, a metadata.json of the model's own among them."""
    made = register(store, tmp_path / "model", 7)
    promote_model(store, MODEL, made.version)
    folder = modelkeys.promoted_folder(MODEL, made.version)
    assert raw.get(folder + "metadata.json") == b'{"the model": "has one of its own"}'
