"""Models of runs that MLflow tracked: in file stores, SQLite, S3 and on a server, made by MLflow itself."""

from __future__ import annotations

import math
import os
import re
import shutil
import sqlite3
import sys
import threading
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput, Metric

from mltrack_tasks.errors import (
    AccessError,
    IntegrityError,
    InvalidInputError,
    NotFoundError,
    TransientError,
)
from mltrack_tasks.registry.tracking import TrackedModel, is_installed, run_model
from mltrack_tasks.registry.trackingerrors import shown
from tests.floor3.migrationtrees import kept
from tests.floor3.mlflowserver import serving
from tests.servers import S3Server
from tests.settings import BUCKET, fresh_prefix

MODEL = {"MLmodel": "flavors: {}\n", "data/model.bin": "bytes", "data/odd name ü": "ü"}
PASSWORD = "ge%40heim"


class Made(NamedTuple):
    """A store that MLflow filled."""

    uri: str
    run: str
    model_id: str


def fill(client: MlflowClient, folder: Path, place: str | None = None) -> Made:
    """One run with artifacts, two logged models of one name, and another run that logged one as well."""
    for path, text in MODEL.items():
        (folder / "files" / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / "files" / path).write_text(text)
    experiment = client.create_experiment("fraud", artifact_location=place)
    run = client.create_run(
        experiment, run_name="first", tags={"team": "ü", "mlflow.user": "ana"}
    ).info.run_id
    client.log_artifacts(run, str(folder / "files"), "deep/model")
    client.log_param(run, "depth", 3)
    client.log_param(run, "own", "of the run")
    client.log_batch(run, [Metric("auc", value, 5, step) for step, value in ((2, 0.75), (1, 0.5))])
    client.log_metric(run, "odd", math.nan)
    other = client.create_run(experiment).info.run_id
    made = [_log(client, experiment, each, folder) for each in (run, run, other)]
    client.log_batch(run, [Metric("auc", 0.25, 9, 7, model_id=made[1], run_id=run)])
    client.log_metric(run, "auc", 0.875, step=8)
    return Made(client.tracking_uri, run, made[1])


def _log(client: MlflowClient, experiment: str, run: str, folder: Path) -> str:
    model = client.create_logged_model(experiment, name="clf", source_run_id=run, params={"own": run[:3]})
    client.log_model_artifacts(model.model_id, str(folder / "files"))
    client.log_outputs(run, [LoggedModelOutput(model.model_id, step=1)])
    client.finalize_logged_model(model.model_id, "READY")
    return str(model.model_id)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pytest.MonkeyPatch]:
    """MLflow without telemetry, long waits, and a place of its own to leave files in."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("cwd"))
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        yield patch


@pytest.fixture(scope="module")
def files(alone: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("files")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        return fill(MlflowClient(f"file://{folder}/mlruns"), folder)


@pytest.fixture(scope="module")
def sqlite(alone: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("sqlite")
    return fill(MlflowClient(f"sqlite:///{folder}/mlflow.db"), folder, str(folder / "kept here"))


@pytest.fixture(scope="module")
def server_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def server(alone: pytest.MonkeyPatch, server_folder: Path) -> Iterator[Made]:
    with serving(server_folder) as address:
        yield fill(MlflowClient(address), server_folder)


@pytest.fixture(scope="module")
def s3(
    sqlite: Made, alone: pytest.MonkeyPatch, s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory
) -> Made:
    """The database of ``sqlite`` with another experiment, whose artifacts are in a bucket."""
    alone.setenv("MLFLOW_S3_ENDPOINT_URL", s3_server.endpoint)
    alone.setenv("AWS_ACCESS_KEY_ID", s3_server.access_key)
    alone.setenv("AWS_SECRET_ACCESS_KEY", s3_server.secret_key)
    folder = tmp_path_factory.mktemp("s3")
    shutil.copy(sqlite.uri.removeprefix("sqlite:///"), folder / "mlflow.db")
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    client.rename_experiment(str(client.get_experiment_by_name("fraud").experiment_id), "before")
    return fill(client, folder, f"s3://{BUCKET}/{fresh_prefix()}")


@pytest.fixture(params=["files", "sqlite", "server", "s3"])
def made(request: pytest.FixtureRequest) -> Made:
    """Each kind of store in turn."""
    found: Made = request.getfixturevalue(request.param)
    return found


def contents(model: TrackedModel) -> dict[str, str]:
    paths = [path for path in model.folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(model.folder)): path.read_text() for path in paths}


def test_an_artifact_of_the_run(made: Made) -> None:
    before = sorted(os.listdir())
    with run_model(made.run, "deep/model", tracking_uri=made.uri) as model:
        assert contents(model) == MODEL
        assert (model.run_id, model.model_id) == (made.run, None)
        assert model.params == {"depth": "3", "own": "of the run"}
        assert model.metrics["auc"] == 0.875
        assert math.isnan(model.metrics["odd"])
        assert model.tags == {"team": "ü"}
    assert sorted(os.listdir()) == before


def test_a_logged_model_by_name_or_id(made: Made) -> None:
    for path in ("clf", made.model_id, f"models:/{made.model_id}"):
        with run_model(made.run, path, tracking_uri=made.uri) as model:
            assert contents(model) == MODEL
            assert (model.run_id, model.model_id) == (made.run, made.model_id)
            assert model.params == {"depth": "3", "own": made.run[:3]}
            assert model.metrics["auc"] == 0.25
    for path in ("clf/data", f"{made.model_id}/data"):
        with run_model(made.run, path, tracking_uri=made.uri) as model:
            assert contents(model) == {"model.bin": "bytes", "odd name ü": "ü"}


def test_a_single_file(made: Made) -> None:
    with run_model(made.run, "deep/model/data/model.bin", tracking_uri=made.uri) as model:
        assert model.folder.read_text() == "bytes"
        assert model.folder.name == "model.bin"


def test_what_is_not_there(made: Made) -> None:
    for path in ("nothing", "deep/nothing", "deep/model/MLmodel/x", "clf/nothing"):
        with (
            pytest.raises(NotFoundError, match=r"it has 'clf', 'deep'"),
            run_model(made.run, path, tracking_uri=made.uri),
        ):
            pass
    for run in ("0" * 32, "..", "no such run"):
        with pytest.raises(NotFoundError, match="run"), run_model(run, "clf", tracking_uri=made.uri):
            pass
    with (
        pytest.raises(NotFoundError, match="m-0"),
        run_model(made.run, "m-" + "0" * 32, tracking_uri=made.uri),
    ):
        pass


@pytest.mark.parametrize("path", ["", "..", "a/../b", "/etc", "models:/churn/3", "runs:/x/y", "models:/m-1"])
def test_paths_that_are_none(path: str, sqlite: Made) -> None:
    with pytest.raises(InvalidInputError), run_model(sqlite.run, path, tracking_uri=sqlite.uri):
        pass


def test_a_model_of_another_run(sqlite: Made) -> None:
    client = MlflowClient(sqlite.uri)
    experiment = client.get_run(sqlite.run).info.experiment_id
    other = next(run for run in client.search_runs([experiment]) if run.info.run_id != sqlite.run)
    with (
        pytest.raises(InvalidInputError, match=sqlite.run),
        run_model(other.info.run_id, sqlite.model_id, tracking_uri=sqlite.uri),
    ):
        pass


def test_local_artifacts_are_used_where_they_lie(files: Made, sqlite: Made) -> None:
    for made in (files, sqlite):
        with run_model(made.run, "clf", tracking_uri=made.uri) as model:
            place = MlflowClient(sqlite.uri).get_logged_model(sqlite.model_id).artifact_location
            assert made is files or str(model.folder) == place
        assert model.folder.is_dir()


def test_downloads_go_with_the_context(server: Made) -> None:
    with run_model(server.run, "clf", tracking_uri=server.uri) as model:
        assert model.folder.is_dir()
    assert not model.folder.exists()


def test_threads_at_once(server: Made) -> None:
    def read(path: str) -> dict[str, str]:
        with run_model(server.run, path, tracking_uri=server.uri) as model:
            return contents(model)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(read, ["clf", "deep/model"] * 4)) == [MODEL] * 8


# where to ask


def test_nothing_is_begun_where_nobody_said_where_to_ask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mlruns").mkdir()
    with pytest.raises(NotFoundError, match="MLFLOW_TRACKING_URI"), run_model("0" * 32, "model"):
        pass
    for uri in (f"sqlite:///{tmp_path}/x.db", "sqlite:///x.db", f"file://{tmp_path}/none", "none"):
        with pytest.raises(NotFoundError), run_model("0" * 32, "model", tracking_uri=uri):
            pass
    assert [path.name for path in tmp_path.rglob("*")] == ["mlruns"]


def test_addresses_that_were_set(
    sqlite: Made, files: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", sqlite.uri)
    with run_model(sqlite.run, "clf"):
        pass
    try:
        mlflow.set_tracking_uri(files.uri)
        with run_model(files.run, "clf"):
            pass
    finally:
        mlflow.set_tracking_uri(None)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copy(sqlite.uri.removeprefix("sqlite:///"), "mlflow.db")
    with run_model(sqlite.run, "clf"):
        pass
    shutil.copytree(files.uri.removeprefix("file://"), "mlruns")
    with run_model(files.run, "clf") as model:
        assert model.folder.is_relative_to(tmp_path)  # a tree that was moved has its own artifacts


def test_stores_are_left_as_they_were(files: Made, sqlite: Made) -> None:
    for made, folder in (
        (files, files.uri.removeprefix("file://")),
        (sqlite, sqlite.uri[10:].rpartition("/")[0]),
    ):
        before = kept(Path(folder))
        with run_model(made.run, "clf", tracking_uri=made.uri):
            pass
        assert kept(Path(folder)) == before


def test_a_database_of_an_older_mlflow_is_read_as_it_is(sqlite: Made, tmp_path: Path) -> None:
    old = tmp_path / "old.db"
    shutil.copy(sqlite.uri.removeprefix("sqlite:///"), old)
    with closing(sqlite3.connect(old)) as connection:
        tables = [
            name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        ]
        for table in tables:
            if table not in ("experiments", "runs", "params", "tags", "latest_metrics", "metrics"):
                connection.execute(f'DROP TABLE "{table}"')
        connection.commit()
    before = old.read_bytes()
    with run_model(sqlite.run, "deep/model", tracking_uri=f"sqlite:///{old}") as model:
        assert model.metrics["auc"] == 0.875
    assert old.read_bytes() == before


@pytest.mark.parametrize("body", [b"", b"no database at all", None])
def test_databases_of_others(body: bytes | None, tmp_path: Path) -> None:
    place = tmp_path / "other.db"
    if body is None:
        with closing(sqlite3.connect(place)) as connection:
            connection.execute("CREATE TABLE experiments (a)")
    else:
        place.write_bytes(body)
    with (
        pytest.raises((InvalidInputError, IntegrityError), match=r"other\.db"),
        run_model("0" * 32, "clf", tracking_uri=f"sqlite:///{place}"),
    ):
        pass


# without MLflow


def test_stores_of_this_machine_need_no_mlflow(
    files: Made, sqlite: Made, server: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert is_installed()
    monkeypatch.setitem(sys.modules, "mlflow", None)
    assert not is_installed()
    for made in (files, sqlite):
        with run_model(made.run, "clf", tracking_uri=made.uri) as model:
            assert contents(model) == MODEL
    with (
        pytest.raises(InvalidInputError, match=r"mltrack_tasks\[mlflow\]"),
        run_model(server.run, "clf", tracking_uri=server.uri),
    ):
        pass


# hostile stores


def test_links_in_a_file_store_are_not_followed(files: Made, tmp_path: Path) -> None:
    shutil.copytree(files.uri.removeprefix("file://"), tmp_path / "mlruns")
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key").write_text("private")
    [run] = (tmp_path / "mlruns").glob(f"*/{files.run}")
    (run / "artifacts" / "out").symlink_to(tmp_path / "secret")
    (run / "tags" / "stolen").symlink_to(tmp_path / "secret" / "key")
    (run / "params" / "stolen").symlink_to(tmp_path / "secret")
    uri = str(tmp_path / "mlruns")
    with run_model(files.run, "clf", tracking_uri=uri) as model:
        assert "private" not in str(model)
        assert "stolen" not in model.tags
    for path in ("out", "out/key"):
        with (
            pytest.raises(InvalidInputError, match="leads out"),
            run_model(files.run, path, tracking_uri=uri),
        ):
            pass


@pytest.mark.parametrize(
    "place", ["runs:/x/y", "models:/m-1", "http://[", "gopher://x/y", "/none/here", "\0"]
)
def test_addresses_of_artifacts_that_lead_nowhere(place: str, sqlite: Made, tmp_path: Path) -> None:
    shutil.copy(sqlite.uri.removeprefix("sqlite:///"), tmp_path / "m.db")
    with closing(sqlite3.connect(tmp_path / "m.db")) as connection:
        connection.execute("UPDATE runs SET artifact_uri = ?", (place,))
        connection.commit()
    with (
        pytest.raises((NotFoundError, InvalidInputError, IntegrityError)),
        run_model(sqlite.run, "deep", tracking_uri=f"sqlite:///{tmp_path}/m.db"),
    ):
        pass


@pytest.mark.parametrize("place", ["{}", "file://{}", "file://elsewhere{}", "//elsewhere{}"])
def test_files_of_this_machine_are_not_named_by_another(
    place: str, server: Made, server_folder: Path, tmp_path: Path
) -> None:
    """A server of this machine may share its folders; the address 0.0.0.0 reaches it, and does not say so."""
    secret = tmp_path / "private"
    (secret / "model").mkdir(parents=True)
    (secret / "model" / "key").write_text("secret")
    client = MlflowClient(server.uri)
    run = client.create_run("0").info.run_id
    with closing(sqlite3.connect(server_folder / "server.db")) as connection:
        connection.execute("UPDATE runs SET artifact_uri = ? WHERE run_uuid = ?", (place.format(secret), run))
        connection.commit()
    elsewhere = server.uri.replace("127.0.0.1", "0.0.0.0")
    with (
        pytest.raises(InvalidInputError, match="its own machine"),
        run_model(run, "model", tracking_uri=elsewhere),
    ):
        pass
    if "elsewhere" not in place:
        with run_model(run, "model", tracking_uri=server.uri) as found:
            assert contents(found) == {"key": "secret"}


# servers that do not answer as hoped


class _Answer(BaseHTTPRequestHandler):
    """Answers everything with the status that its server was given."""

    def do_GET(self) -> None:
        status: int = self.server.status  # type: ignore[attr-defined]
        self.send_response(status)
        self.end_headers()
        self.wfile.write(f"you came with {self.headers['Authorization']} to {self.path}".encode())

    do_POST = do_GET  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, AccessError),
        (403, AccessError),
        (404, NotFoundError),
        (500, TransientError),
        (503, TransientError),
    ],
)
def test_a_login_is_in_no_message(status: int, error: type[Exception], alone: pytest.MonkeyPatch) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Answer) as server:
        server.status = status  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        uri = f"http://ana:{PASSWORD}@127.0.0.1:{server.server_port}/p?token=abcdef"
        with pytest.raises(error) as caught, run_model("0" * 32, "clf", tracking_uri=uri):
            pass
        server.shutdown()
    for secret in (PASSWORD, "ge@heim", "abcdef"):
        assert secret not in f"{caught.value} {vars(caught.value)}"
    assert f"127.0.0.1:{server.server_port}" in str(caught.value)


def test_a_server_that_is_not_there(alone: pytest.MonkeyPatch) -> None:
    uri = f"http://ana:{PASSWORD}@127.0.0.1:9"
    with (
        pytest.raises(TransientError, match="Try again") as caught,
        run_model("0" * 32, "clf", tracking_uri=uri),
    ):
        pass
    assert PASSWORD not in str(caught.value)
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("uri", ["http://[", "http://127.0.0.1:port", f"gopher://a:{PASSWORD}@x/y", "uc"])
def test_addresses_that_are_none(uri: str, alone: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInputError) as caught, run_model("0" * 32, "clf", tracking_uri=uri):
        pass
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "scheme"),
    [
        ("postgresql://ana:ge/heim@db.example/x", "postgresql"),
        ("mysql+pymysql://ana:1/ge heim?heim@db.example:3306/x", "mysql+pymysql"),
        ("http://ana:ge/heim@127.0.0.1:9/p", "http"),
        ("http://ana:ge heim@127.0.0.1:9", "http"),
        ("http://ge/heim@127.0.0.1:9", "http"),
        ("http://127.0.0.1:9/?user=a@b&password=heim", "http"),
        ("bogus://ana:ge@heim#heim@x/y", "bogus"),
    ],
)
def test_a_login_that_nobody_encoded_is_in_no_message(
    uri: str, scheme: str, alone: pytest.MonkeyPatch
) -> None:
    with (
        pytest.raises((InvalidInputError, TransientError), match=f"{re.escape(scheme)}://") as caught,
        run_model("0" * 32, "clf", tracking_uri=uri),
    ):
        pass
    assert "heim" not in "".join(traceback.format_exception(caught.value))
    assert "heim" not in repr(vars(caught.value))


@pytest.mark.parametrize(
    ("address", "seen"),
    [
        ("http://ana:pw@host:5000/p?token=x", "http://host:5000/p"),
        ("postgresql://ana:p@w@host/db", "postgresql://host/db"),
        ("/mlruns/a@b", "/mlruns/a@b"),
        ("sqlite:////a/b.db?mode=ro", "sqlite:////a/b.db"),
        ("databricks", "databricks"),
    ],
)
def test_addresses_as_messages_show_them(address: str, seen: str) -> None:
    assert shown(address) == seen
