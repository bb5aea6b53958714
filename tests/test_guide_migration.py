"""What the guide promises of migrations: from a local folder to S3, and back for offline work.

Runs on the bucket that tests/test_s3_integration.py uses, chosen in the same way.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mltrack_tasks.errors import NotFoundError
from mltrack_tasks.migration import download_from_s3, migrate_to_s3
from mltrack_tasks.registry import resolve_model
from mltrack_tasks.runs import list_runs
from mltrack_tasks.stores import Store, open_s3
from mltrack_tasks.stores.directory import DirectoryStore
from mltrack_tasks.stores.guard import GuardedStore
from mltrack_tasks.testing import RawS3
from tests.floor3.migrationtrees import small_registry
from tests.servers import S3Server
from tests.settings import chosen_settings

FILES = {
    "exp_001/params.json": b'{"depth": 3}',
    "exp_001/model/weights.bin": bytes(range(256)) * 400,
    "exp_002/params.json": b'{"depth": 5}',
    "exp_003/params.json": b'{"depth": 7}',
    "README": b"three experiments",
}


@pytest.fixture
def store(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A fresh prefix of the bucket that the environment names, or of one in this process."""
    settings = chosen_settings(s3_server, monkeypatch)
    store = open_s3(settings)
    yield store
    client = store.inner.inner.client  # type: ignore[attr-defined]
    RawS3(client, settings.bucket, settings.prefix).clear()


@pytest.fixture
def mlruns(tmp_path: Path) -> Path:
    """A folder of experiments."""
    for path, body in FILES.items():
        file = tmp_path / "mlruns" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(body)
    return tmp_path / "mlruns"


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_local_data_goes_to_s3_and_the_local_copy_stays(store: Store, mlruns: Path) -> None:
    report = migrate_to_s3(store, local_path=mlruns, delete_after_upload=False)
    assert report.files == len(FILES)
    assert _files(mlruns) == FILES
    assert sorted(run.run_id for run in list_runs(store)) == ["exp_001", "exp_002", "exp_003"]


def test_all_of_it_comes_back_for_offline_work(store: Store, mlruns: Path, tmp_path: Path) -> None:
    migrate_to_s3(store, local_path=mlruns)
    download_from_s3(store, local_path=tmp_path / "mltrack_backup")
    assert _files(tmp_path / "mltrack_backup") == FILES


def test_run_ids_choose_what_comes_back(store: Store, mlruns: Path, tmp_path: Path) -> None:
    migrate_to_s3(store, local_path=mlruns)
    download_from_s3(store, local_path=tmp_path / "some", run_ids=["exp_001", "exp_002"])
    wanted = {path: body for path, body in FILES.items() if path.startswith(("exp_001", "exp_002"))}
    assert _files(tmp_path / "some") == wanted
    with pytest.raises(NotFoundError):
        download_from_s3(store, local_path=tmp_path / "none", run_ids=["exp_001", "exp_999"])
    assert not (tmp_path / "none").exists()


def test_the_same_tasks_work_offline(store: Store, mlruns: Path, tmp_path: Path) -> None:
    migrate_to_s3(store, local_path=mlruns)
    download_from_s3(store, local_path=tmp_path / "offline", layout="store")
    offline = GuardedStore(DirectoryStore(tmp_path / "offline"))
    assert [run.run_id for run in list_runs(offline)] == [run.run_id for run in list_runs(store)]
    download_from_s3(offline, local_path=tmp_path / "back")
    assert _files(tmp_path / "back") == FILES


def test_registered_models_of_mlflow_come_along(store: Store, tmp_path: Path) -> None:
    report = migrate_to_s3(store, local_path=small_registry(tmp_path / "mlruns"))
    assert [(model, number) for model, number, _ in report.registered] == [("churn", 1), ("churn", 2)]
    assert resolve_model(store, "churn", "champion").tags["mlflow.version"] == "2"
    assert resolve_model(store, "churn", "staging").s3_location
