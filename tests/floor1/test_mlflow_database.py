"""MLflow databases: taken while they are in use, of older schemas, damaged, or made up to do harm."""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from mltrack_tasks.errors import AccessError, IntegrityError, InvalidInputError, TransientError
from mltrack_tasks.mlflowdata import database
from mltrack_tasks.mlflowdata.database import Database, backup
from mltrack_tasks.mlflowdata.facts import RunFacts

RUN, OTHER = "a" * 32, "b" * 32
SCHEMA = """
CREATE TABLE experiments (experiment_id INTEGER PRIMARY KEY, name VARCHAR(256), lifecycle_stage VARCHAR(32));
CREATE TABLE runs (run_uuid VARCHAR(32) PRIMARY KEY, name VARCHAR(250), user_id VARCHAR(256),
    status VARCHAR(20), start_time BIGINT, end_time BIGINT, lifecycle_stage VARCHAR(20),
    artifact_uri VARCHAR(200), experiment_id INTEGER);
CREATE TABLE metrics (key VARCHAR(250), value FLOAT, timestamp BIGINT, run_uuid VARCHAR(32));
CREATE TABLE params (key VARCHAR(250), value VARCHAR(250), run_uuid VARCHAR(32));
CREATE TABLE tags (key VARCHAR(250), value VARCHAR(250), run_uuid VARCHAR(32));
INSERT INTO experiments VALUES (0, 'Default', 'active');
"""
"""The least that makes a database MLflow's: no steps, no NaN, no latest metrics, no datasets, no models."""


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """A writer's connection that commits each statement."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


def add_run(connection: sqlite3.Connection, run_id: object = RUN, **fields: object) -> None:
    row = {"run_uuid": run_id, "status": "FINISHED", "start_time": 5, "experiment_id": 0, **fields}
    names, marks = ", ".join(row), ", ".join("?" * len(row))
    connection.execute(f"INSERT INTO runs ({names}) VALUES ({marks})", tuple(row.values()))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "mlflow.db"
    with opened(path) as connection:
        connection.executescript(SCHEMA)
        add_run(connection)
    return path


def runs_of(path: Path) -> list[RunFacts]:
    with Database(path) as opened_database:
        return list(opened_database.runs())


# Taking a copy


def test_a_copy_has_what_was_committed_and_nothing_else(path: Path, tmp_path: Path) -> None:
    with opened(path) as writer:
        writer.execute("INSERT INTO tags VALUES ('a', 'kept', ?)", (RUN,))
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("INSERT INTO tags VALUES ('b', 'open', ?)", (RUN,))
        backup(path, tmp_path / "copy")
        writer.execute("COMMIT")
    (run,) = runs_of(tmp_path / "copy")
    assert run.tags == {"a": "kept"}


def test_a_copy_has_what_is_still_in_the_write_ahead_log(path: Path, tmp_path: Path) -> None:
    with opened(path) as writer:
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute("INSERT INTO tags VALUES ('a', 'in the log', ?)", (RUN,))
        assert b"in the log" not in path.read_bytes()
        backup(path, tmp_path / "copy")
    (run,) = runs_of(tmp_path / "copy")
    assert run.tags == {"a": "in the log"}


def test_a_copy_waits_for_a_writer(path: Path, tmp_path: Path) -> None:
    with opened(path) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        writer.execute("INSERT INTO tags VALUES ('a', 'late', ?)", (RUN,))
        copying = threading.Thread(target=backup, args=(path, tmp_path / "copy"))
        copying.start()
        copying.join(0.2)
        writer.execute("COMMIT")
        copying.join(60)
    (run,) = runs_of(tmp_path / "copy")
    assert run.tags == {"a": "late"}


def test_a_writer_that_never_ends_is_reported(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_WAIT_S", 0.01)
    monkeypatch.setattr(database, "_WAITS", 1)
    with opened(path) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        with pytest.raises(TransientError, match="locked by a writer"):
            backup(path, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_the_source_is_left_as_it_was(path: Path, tmp_path: Path) -> None:
    before = (path.read_bytes(), path.stat().st_mtime_ns)
    (tmp_path / "elsewhere").mkdir()
    backup(path, tmp_path / "elsewhere" / "copy")
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    assert {file.name for file in tmp_path.iterdir()} == {"mlflow.db", "elsewhere"}


def test_a_source_that_keeps_a_log_is_left_as_it_was(path: Path, tmp_path: Path) -> None:
    with opened(path) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
    before = path.read_bytes()
    (tmp_path / "elsewhere").mkdir()
    backup(path, tmp_path / "elsewhere" / "copy")
    assert path.read_bytes() == before
    assert {file.name for file in tmp_path.iterdir()} == {"mlflow.db", "elsewhere"}
    assert {file.name for file in (tmp_path / "elsewhere").iterdir()} == {"copy"}
    assert [run.run_id for run in runs_of(tmp_path / "elsewhere" / "copy")] == [RUN]


def test_a_log_that_is_begun_while_copying_is_not_missed(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(path) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
    copy, asked = database._copy, []

    def copy_and_write(source: Path, target: Path, options: str) -> None:
        copy(source, target, options)
        if not asked:
            with opened(path) as writer:
                writer.execute("INSERT INTO tags VALUES ('a', 'meanwhile', ?)", (RUN,))
        asked.append(options)

    monkeypatch.setattr(database, "_copy", copy_and_write)
    backup(path, tmp_path / "copy")
    (run,) = runs_of(tmp_path / "copy")
    assert (run.tags, len(asked)) == ({"a": "meanwhile"}, 2)


def test_names_that_mean_something_in_an_address(tmp_path: Path) -> None:
    for name in ("a?mode=rwc&x=1#y.db", "per%20cent.db", "größe.db", os.fsdecode(b"caf\xe9.db")):
        with opened(tmp_path / name) as connection:
            connection.executescript(SCHEMA)
            add_run(connection)
        backup(tmp_path / name, tmp_path / f"{name}.copy")
        assert [run.run_id for run in runs_of(tmp_path / f"{name}.copy")] == [RUN]


def test_a_target_that_exists_is_not_touched(path: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_bytes(b"mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("taken", "link"):
        with pytest.raises(InvalidInputError, match="exists"):
            backup(path, tmp_path / name)
    assert (tmp_path / "taken").read_bytes() == b"mine"
    assert not (tmp_path / "nowhere").exists()


def test_what_is_no_database_is_refused(tmp_path: Path, path: Path) -> None:
    (tmp_path / "text").write_text("SQLite format")
    (tmp_path / "empty").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(path)
    os.mkfifo(tmp_path / "pipe")
    for name in ("text", "empty", "folder", "link", "pipe", "missing"):
        with pytest.raises(InvalidInputError, match=name):
            backup(tmp_path / name, tmp_path / "copy")
        with pytest.raises(InvalidInputError, match=name):
            Database(tmp_path / name)
    assert not (tmp_path / "copy").exists()


def test_a_place_that_cannot_be_written_is_reported(path: Path, tmp_path: Path) -> None:
    with pytest.raises(AccessError, match="cannot be copied"):
        backup(path, tmp_path / "no" / "such" / "copy")


def test_a_damaged_database_is_refused(path: Path, tmp_path: Path) -> None:
    with opened(path) as connection:
        connection.executemany(
            "INSERT INTO tags VALUES (?, ?, ?)", [(f"{n}", "x" * 1_000, RUN) for n in range(200)]
        )
    whole = path.read_bytes()
    (tmp_path / "header").write_bytes(whole[:16] + b"\xff" * 200 + whole[216:])
    middle = len(whole) // 2
    (tmp_path / "pages").write_bytes(whole[:8192] + b"\xff" * (middle - 8192) + whole[middle:])
    with pytest.raises((IntegrityError, AccessError)):
        backup(tmp_path / "header", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    with pytest.raises(IntegrityError, match="cannot be read"):
        runs_of(tmp_path / "pages")


def test_the_copy_cannot_be_written_through(path: Path) -> None:
    mode = stat.S_IMODE(path.stat().st_mode)
    before = path.read_bytes()
    with Database(path) as opened_database:
        assert list(opened_database.runs())
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            opened_database._connection.execute("DELETE FROM runs")
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (before, mode)


# Schemas


def test_a_schema_without_what_came_later(path: Path) -> None:
    with opened(path) as connection:
        connection.executemany(
            "INSERT INTO metrics VALUES ('m', ?, ?, ?)", [(1.5, 7, RUN), (2.5, 9, RUN), (2.0, 9, RUN)]
        )
    with Database(path) as opened_database:
        assert opened_database.is_mlflow
        (run,) = opened_database.runs()
        assert [experiment.name for experiment in opened_database.experiments()] == ["Default"]
        assert list(opened_database.logged_models()) == list(opened_database.registered_models()) == []
    assert run.history == {"m": [[7, 1.5, 0], [9, 2.0, 0], [9, 2.5, 0]]}
    assert (run.metrics, run.experiment_name, run.lifecycle) == ({"m": 2.5}, "Default", "active")
    assert (run.datasets, run.models) == ([], [])


def test_a_database_of_something_else(tmp_path: Path) -> None:
    with opened(tmp_path / "other.db") as connection:
        connection.execute("CREATE TABLE runs (id INTEGER)")
    with Database(tmp_path / "other.db") as opened_database:
        assert not opened_database.is_mlflow
        with pytest.raises(IntegrityError, match="run_uuid"):
            list(opened_database.runs())


def test_names_are_used_once_in_each_workspace(path: Path) -> None:
    with opened(path) as connection:
        connection.executescript(
            """
            CREATE TABLE registered_models (name TEXT, description TEXT, workspace TEXT);
            CREATE TABLE registered_model_tags (name TEXT, key TEXT, value TEXT, workspace TEXT);
            CREATE TABLE registered_model_aliases (name TEXT, alias TEXT, version INTEGER, workspace TEXT);
            CREATE TABLE model_versions (name TEXT, version INTEGER, source TEXT, workspace TEXT);
            INSERT INTO registered_models VALUES ('m', 'of b', 'b'), ('m', 'of a', 'a'), ('l', NULL, 'a');
            INSERT INTO registered_model_tags VALUES ('m', 'k', 'a', 'a'), ('m', 'k', 'b', 'b');
            INSERT INTO registered_model_aliases VALUES ('m', 'best', 1, 'a'), ('m', 'best', 2, 'b');
            INSERT INTO model_versions VALUES ('m', 1, 'x', 'a'), ('m', 2, 'y', 'b'), ('none', 1, 'z', 'a');
            """
        )
    with Database(path) as opened_database:
        models = list(opened_database.registered_models())
    assert [(m.name, m.description, m.tags, m.aliases) for m in models] == [
        ("l", None, {}, {}),
        ("m", "of b", {"k": "b"}, {"best": 2}),
        ("m", "of a", {"k": "a"}, {"best": 1}),
    ]
    assert [[v.source for v in m.versions] for m in models] == [[], ["y"], ["x"]]


# Rows that anybody may have written


def test_one_damaged_run_costs_no_other(path: Path) -> None:
    with opened(path) as connection:
        add_run(connection, "../../etc")
        add_run(connection, "c" * 32, status="MAYBE")
        add_run(connection, "d" * 32, start_time="yesterday")
        add_run(connection, "e" * 32, end_time=2**62)
        add_run(connection, "f" * 32, name=b"bytes")
        add_run(connection, "g" * 32, experiment_id="a/b")
        add_run(connection, 5)
        connection.execute("INSERT INTO params VALUES ('a', CAST(x'ff' AS TEXT), ?)", ("h" * 32,))
        add_run(connection, "h" * 32)
        connection.execute("INSERT INTO metrics VALUES ('a', 'much', 5, ?)", ("i" * 32,))
        add_run(connection, "i" * 32)
        add_run(connection, OTHER)
        add_run(connection, None)
    left_out: dict[str, IntegrityError] = {}
    with Database(path) as opened_database:
        runs = list(opened_database.runs(damaged=left_out.__setitem__))
        with pytest.raises(IntegrityError):
            list(opened_database.runs())
    assert [run.run_id for run in runs] == ["5", RUN, OTHER]
    assert sorted(left_out) == ["../../etc", *(letter * 32 for letter in "cdefghi")]
    assert all(key[:8] in str(error) for key, error in left_out.items())


def test_rows_of_runs_that_are_gone_belong_to_none(path: Path) -> None:
    with opened(path) as connection:
        for run_id in ("0" * 32, "a" * 31, "b" * 31, "z"):
            connection.execute("INSERT INTO tags VALUES ('of', 'nobody', ?)", (run_id,))
        connection.execute("INSERT INTO tags VALUES ('of', 'a', ?)", (RUN,))
        connection.execute("INSERT INTO tags VALUES ('of', 'b', ?)", (OTHER,))
        add_run(connection, OTHER)
    assert [run.tags for run in runs_of(path)] == [{"of": "a"}, {"of": "b"}]


def test_a_table_that_computes_is_not_read(tmp_path: Path) -> None:
    with opened(tmp_path / "mlflow.db") as connection:
        connection.executescript(
            SCHEMA.replace("CREATE TABLE runs", "CREATE TABLE real_runs")
            + "CREATE VIEW runs AS WITH RECURSIVE n (run_uuid) AS"
            " (SELECT 1 UNION ALL SELECT run_uuid + 1 FROM n) SELECT * FROM n;"
        )
    with Database(tmp_path / "mlflow.db") as opened_database:
        assert not opened_database.is_mlflow
        assert list(opened_database.runs()) == []


def test_values_beyond_all_measure_are_not_loaded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "MAX_VALUE", 10_000)
    with opened(path) as connection:
        connection.execute("INSERT INTO tags VALUES ('a', zeroblob(20000), ?)", (RUN,))
    with pytest.raises(IntegrityError, match="too big"):
        runs_of(path)


def test_an_index_that_lies_is_noticed(path: Path) -> None:
    with opened(path) as connection:
        connection.execute("CREATE INDEX of_run ON tags (run_uuid)")
        for run_id in (RUN, OTHER, "c" * 32):
            connection.execute("INSERT INTO tags VALUES ('k', 'v', ?)", (run_id,))
            if run_id != RUN:
                add_run(connection, run_id)
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(
            "UPDATE sqlite_master SET sql = 'CREATE INDEX of_run ON tags (run_uuid DESC)'"
            " WHERE name = 'of_run'"
        )
    with pytest.raises(IntegrityError, match="out of order"):
        runs_of(path)


def test_infinities_come_back_as_mlflow_keeps_them(path: Path) -> None:
    largest = 1.7976931348623157e308
    with opened(path) as connection:
        connection.executemany(
            "INSERT INTO metrics VALUES ('m', ?, ?, ?)", [(largest, 1, RUN), (float("inf"), 2, RUN)]
        )
    (run,) = runs_of(path)
    assert run.history == {"m": [[1, largest, 0], [2, float("inf"), 0]]}
