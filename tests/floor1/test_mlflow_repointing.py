"""Addresses of artifacts for a new place: only those that led into the tree, and never out of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from mlflow.utils.file_utils import local_file_uri_to_path

from mltrack_tasks.errors import IntegrityError, InvalidInputError
from mltrack_tasks.mlflowdata.addresses import base_of, moved, read_address
from mltrack_tasks.mlflowdata.repointing import MAX_META, metas_of, repointed, with_field
from mltrack_tasks.mlflowdata.repointrows import repoint_database
from mltrack_tasks.mlflowdata.treelayout import TreeLayout, layout_of

ROOT = Path("/new/place")
RUN, OTHER, MODEL = "a" * 32, "b" * 32, f"m-{'c' * 32}"
META_OF_RUN = f"mlruns/1/{RUN}/meta.yaml"
OLD = "file:///old/mlruns"


def meta(**fields: object) -> bytes:
    """As MLflow writes it."""
    return yaml.safe_dump(fields, default_flow_style=False, allow_unicode=True).encode()


def store(**changed: bytes) -> dict[str, bytes]:
    """Files of a store with a run, a logged model and a registered one; ``changed`` by their short names."""
    files = {
        "experiment": ("mlruns/1/meta.yaml", meta(artifact_location=f"{OLD}/1", experiment_id="1", name="e")),
        "run": (META_OF_RUN, meta(artifact_uri=f"{OLD}/1/{RUN}/artifacts", run_id=RUN, status=3)),
        "model": (
            f"mlruns/1/models/{MODEL}/meta.yaml",
            meta(artifact_location=f"{OLD}/1/models/{MODEL}/artifacts", model_id=MODEL),
        ),
        "registered": ("mlruns/models/churn/meta.yaml", meta(name="churn")),
        "version": (
            "mlruns/models/churn/version-1/meta.yaml",
            meta(source=f"models:/{MODEL}", storage_location=f"{OLD}/1/models/{MODEL}/artifacts", version=1),
        ),
    }
    return {path: changed.get(name, data) for name, (path, data) in files.items()}


def run_with(uri: object) -> dict[str, bytes]:
    return store(run=meta(artifact_uri=uri, run_id=RUN, status=3))


def moved_files(files: dict[str, bytes], **options: Iterable[str]) -> dict[str, dict[str, object]]:
    """What changes -> the new fields."""
    changed = repointed(files, layout_of(sorted(files)), ROOT, **options)  # type: ignore[arg-type]
    return {path: yaml.safe_load(data) for path, data in changed.items()}


def test_each_kind_of_address_is_moved() -> None:
    files = store()
    assert metas_of(files, layout_of(sorted(files))) == [path for path in files if "churn/meta" not in path]
    new = moved_files(files)
    to_model = f"file:///new/place/mlruns/1/models/{MODEL}/artifacts"
    assert new == {
        "mlruns/1/meta.yaml": {
            "artifact_location": "file:///new/place/mlruns/1", "experiment_id": "1", "name": "e"
        },
        META_OF_RUN: {
            "artifact_uri": f"file:///new/place/mlruns/1/{RUN}/artifacts", "run_id": RUN, "status": 3
        },
        f"mlruns/1/models/{MODEL}/meta.yaml": {"artifact_location": to_model, "model_id": MODEL},
        "mlruns/models/churn/version-1/meta.yaml": {
            "source": f"models:/{MODEL}", "storage_location": to_model, "version": 1
        },
    }  # fmt: skip


def test_in_its_place_nothing_changes() -> None:
    files = store()
    assert not repointed(files, layout_of(sorted(files)), Path("/old"))
    changed = repointed(files, layout_of(sorted(files)), ROOT)
    assert not repointed({**files, **changed}, layout_of(sorted(files)), ROOT)


def test_what_is_in_the_trash_gets_the_address_it_has_when_it_is_taken_out() -> None:
    files = {path.replace("mlruns/1/", "mlruns/.trash/1/"): data for path, data in store().items()}
    new = moved_files(files)
    trashed = f"mlruns/.trash/1/{RUN}/meta.yaml"
    assert new[trashed]["artifact_uri"] == f"file:///new/place/mlruns/1/{RUN}/artifacts"


HOSTILE = [
    f"{OLD}/1/{OTHER}/artifacts",
    f"{OLD}/2/{RUN}/artifacts",
    f"{OLD}/1/{RUN}/artifacts/..",
    f"{OLD}/1/{RUN}/artifacts/more",
    f"{OLD}/../1/{RUN}/artifacts",
    f"{OLD}/%2e%2e/1/{RUN}/artifacts",
    f"{OLD}/.%2e%2f1/{RUN}/artifacts",
    f"{OLD}//1/{RUN}/artifacts",
    f"{OLD}/./1/{RUN}/artifacts",
    f"file://server/old/mlruns/1/{RUN}/artifacts",
    f"file:////server/mlruns/1/{RUN}/artifacts",
    f"{OLD}/1/{RUN}/artifacts?x=1",
    f"{OLD}/1/{RUN}/artifacts#x",
    f"FILE:///old/mlruns/1/{RUN}/artifacts",
    f"s3://bucket/mlruns/1/{RUN}/artifacts",
    f"mlflow-artifacts:/1/{RUN}/artifacts",
    f"runs:/1/{RUN}/artifacts",
    f"models:/1/{RUN}/artifacts",
    f"https://host/mlruns/1/{RUN}/artifacts",
    f"dbfs:/mlruns/1/{RUN}/artifacts",
    f"../mlruns/1/{RUN}/artifacts",
    f"\\old\\mlruns\\1\\{RUN}\\artifacts",
    f"/old/ml\nruns/1/{RUN}/artifacts",
    f"/old/ml\0runs/1/{RUN}/artifacts",
    f"/old/%00/1/{RUN}/artifacts",
    f"/{'x/' * 3_000}1/{RUN}/artifacts",
    f"/old/1/{RUN}/artifacts" * 100_000,
    "",
    "/",
    "file:",
    7,
    None,
    ["/old"],
    {"a": f"/old/1/{RUN}/artifacts"},
]


@pytest.mark.parametrize("uri", HOSTILE, ids=lambda value: str(value)[:60].encode("unicode_escape").decode())
def test_an_address_that_is_not_of_the_tree_stays(uri: object) -> None:
    files = run_with(uri)
    assert META_OF_RUN not in repointed(files, layout_of(sorted(files)), ROOT)


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        (f"/old/mlruns/1/{RUN}/artifacts", f"/new/place/mlruns/1/{RUN}/artifacts"),
        (f"./mlruns/1/{RUN}/artifacts", f"/new/place/mlruns/1/{RUN}/artifacts"),
        (f"mlruns/1/{RUN}/artifacts/", f"/new/place/mlruns/1/{RUN}/artifacts"),
        (f"file:/old/1/{RUN}/artifacts", f"file:///new/place/mlruns/1/{RUN}/artifacts"),
        (f"file:./mlruns/1/{RUN}/artifacts", f"file:///new/place/mlruns/1/{RUN}/artifacts"),
        (f"file://localhost/old/1/{RUN}/artifacts", f"file:///new/place/mlruns/1/{RUN}/artifacts"),
        (f"file:///C:/old/mlruns/1/{RUN}/artifacts", f"file:///new/place/mlruns/1/{RUN}/artifacts"),
        (f"file:///old place/ü/1/{RUN}/artifacts", f"file:///new/place/mlruns/1/{RUN}/artifacts"),
        (f"file:///old%20place/%C3%BC/1/{RUN}/artifacts", f"file:///new/place/mlruns/1/{RUN}/artifacts"),
    ],
)
def test_forms_of_addresses(uri: str, expected: str) -> None:
    assert moved_files(run_with(uri))[META_OF_RUN]["artifact_uri"] == expected


TRICKS = {
    "twice": f"artifact_uri: {OLD}/1/{RUN}/artifacts\nartifact_uri: {OLD}/1/{RUN}/artifacts\n",
    "anchor": f"artifact_uri: &a {OLD}/1/{RUN}/artifacts\n",
    "alias": f"a: &a {OLD}/1/{RUN}/artifacts\nartifact_uri: *a\n",
    "tag": f"artifact_uri: !!python/object/apply:os.system [{OLD}/1/{RUN}/artifacts]\n",
    "text": f"artifact_uri: !!str {OLD}/1/{RUN}/artifacts\n",
    "merge": f"a: &a {{artifact_uri: {OLD}/1/{RUN}/artifacts}}\n<<: *a\n",
    "flow": f"{{artifact_uri: '{OLD}/1/{RUN}/artifacts'}}\n",
    "below": f"a:\n  artifact_uri: {OLD}/1/{RUN}/artifacts\n",
    "in a text": f"a: |\n  x\nb: 'x\n\nartifact_uri: {OLD}/1/{RUN}/artifacts'\n",
    "key": f"? artifact_uri\n: {OLD}/1/{RUN}/artifacts\n",
    "quoted key": f"'artifact_uri': {OLD}/1/{RUN}/artifacts\n",
    "documents": f"artifact_uri: {OLD}/1/{RUN}/artifacts\n---\na: 1\n",
    "broken": f"artifact_uri: {OLD}/1/{RUN}/artifacts\na: [\n",
    "no text": f"artifact_uri: {OLD}/1/{RUN}/artifacts\n\x00\n",
    "list": f"- artifact_uri: {OLD}/1/{RUN}/artifacts\n",
    "huge": f"artifact_uri: {OLD}/1/{RUN}/artifacts\na: {'x' * MAX_META}\n",
    "empty": "",
}


@pytest.mark.parametrize("name", TRICKS)
def test_a_file_with_tricks_stays(name: str) -> None:
    files = store(run=TRICKS[name].encode())
    assert META_OF_RUN not in repointed(files, layout_of(sorted(files)), ROOT)


def test_files_that_are_no_text_stay() -> None:
    files = store(run=b"\xff\xfe" + meta(artifact_uri=f"{OLD}/1/{RUN}/artifacts"))
    assert META_OF_RUN not in repointed(files, layout_of(sorted(files)), ROOT)


@pytest.mark.parametrize(
    "form",
    [
        b"b: 1\r\nartifact_uri: %s\r\nc: 2\r\n",
        b"# said\nartifact_uri:   '%s'   \nc: 2",
        b'artifact_uri: "%s"\n# said\n\n\nc: {a: [1,  2]}\n',
        b"---\nb:  x\nartifact_uri:\n    %s\nc: 2\n...\n",
        b"artifact_uri: >-\n  %s\nmore: |\n  artifact_uri: x\n",
    ],
)
def test_no_other_byte_changes(form: bytes) -> None:
    old = f"/old place/1/{RUN}/artifacts"
    data = form % old.encode()
    new = with_field(data, "artifact_uri", "file:///new%20place")
    assert yaml.safe_load(new) == {**yaml.safe_load(data), "artifact_uri": "file:///new%20place"}
    before, after = form.split(b"artifact_uri:", 1)
    assert new.startswith(before + b"artifact_uri: file:///new%20place")
    ending = after[after.index(b"%s") + 2 :].lstrip(b"'\" ")
    assert new.endswith(ending)
    assert len(new) == len(before) + len(b"artifact_uri: file:///new%20place") + len(ending)


def test_a_value_that_mlflow_folded_is_replaced_as_a_whole() -> None:
    long = f"file:///old {'words of a long name ' * 12}/1/{RUN}/artifacts"
    files = run_with(long)
    assert files[META_OF_RUN].count(b"\n") > 3
    assert moved_files(files)[META_OF_RUN]["artifact_uri"] == f"file:///new/place/mlruns/1/{RUN}/artifacts"


class TestArtifactsKeptApart:
    """A store whose artifacts were never in it, with addresses that look as if they had been."""

    APART = "file:///data/artifacts"

    def files(self) -> dict[str, bytes]:
        return store(
            experiment=meta(artifact_location=f"{self.APART}/1", experiment_id="1"),
            run=meta(artifact_uri=f"{self.APART}/1/{RUN}/artifacts", run_id=RUN),
        )

    def test_stay_if_none_are_in_the_tree(self) -> None:
        new = moved_files(self.files(), artifacts=())
        assert sorted(new) == [
            f"mlruns/1/models/{MODEL}/meta.yaml",
            "mlruns/models/churn/version-1/meta.yaml",
        ]

    def test_are_moved_if_they_are_in_the_tree(self) -> None:
        assert len(moved_files(self.files(), artifacts=[f"mlruns/1/{RUN}/artifacts"])) == 4


def test_a_copy_of_a_store_goes_to_its_own_place() -> None:
    files = {**store(), **{f"copy/{path}": data for path, data in store().items()}}
    new = moved_files(files)
    for folder in ("", "copy/"):
        root = f"file:///new/place/{folder}mlruns"
        assert new[f"{folder}{META_OF_RUN}"]["artifact_uri"] == f"{root}/1/{RUN}/artifacts"
        version = new[f"{folder}mlruns/models/churn/version-1/meta.yaml"]
        assert version["storage_location"] == f"{root}/1/models/{MODEL}/artifacts"


def test_a_folder_that_mlflow_cannot_name_is_refused() -> None:
    files = store()
    with pytest.raises(InvalidInputError, match="UTF-8"):
        repointed(files, layout_of(sorted(files)), Path("/new/\udcff"))
    with pytest.raises(InvalidInputError, match="absolute"):
        repointed(files, layout_of(sorted(files)), Path("new"))


names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\x00"), min_size=1).filter(
    lambda name: name not in (".", "..")
)


@given(st.lists(names, min_size=1, max_size=3), st.lists(names, max_size=3), st.booleans())
def test_mlflow_reads_the_new_address_as_the_new_place(
    root: list[str], below: list[str], plain: bool
) -> None:
    old = read_address("/a/b" if plain else "file:///a/b")
    assert old is not None
    place = Path("/", *root)
    new = moved(old, place, below)
    assert new is None or local_file_uri_to_path(new) == str(place.joinpath(*below))


@given(st.text(max_size=40) | st.from_regex(r"(file:/{0,3})?([./%2eE5cCa#?]|\\){0,20}/1/a/artifacts"))
def test_no_address_leads_out(text: str) -> None:
    address = read_address(text)
    base = base_of(address, ("1", "a", "artifacts"))
    assert address is None or not {"..", "."} & set(address.segments)
    assert base is None or unquote(text).rstrip("/").endswith("/1/a/artifacts")


# databases


def database(path: Path, *statements: str) -> Path:
    """Make a database with MLflow's columns of addresses; then do ``statements``."""
    with closing(sqlite3.connect(path)) as made:
        made.executescript(
            "CREATE TABLE experiments (experiment_id INTEGER PRIMARY KEY, artifact_location TEXT);"
            "CREATE TABLE runs (run_uuid TEXT PRIMARY KEY, experiment_id INTEGER, artifact_uri TEXT);"
            "CREATE TABLE logged_models (model_id TEXT, experiment_id INTEGER, artifact_location TEXT);"
            "CREATE TABLE model_versions (name TEXT, version INTEGER, source TEXT, storage_location TEXT);"
        )
        add = made.execute
        add("INSERT INTO experiments VALUES (1, '/old/mlruns/1'), (2, 's3://b/2'), (3, '/other/mlruns/3')")
        add("INSERT INTO runs VALUES (?, 1, ?)", (RUN, f"/old/mlruns/1/{RUN}/artifacts"))
        add("INSERT INTO runs VALUES (?, 1, ?)", (OTHER, f"/old/mlruns/1/{OTHER}/artifacts"))
        add("INSERT INTO logged_models VALUES (?, 1, ?)", (MODEL, f"/old/mlruns/1/models/{MODEL}/artifacts"))
        inside, model = f"/old/mlruns/1/{RUN}/artifacts/sub", f"file:///old/mlruns/1/models/{MODEL}/artifacts"
        add("INSERT INTO model_versions VALUES ('m', 1, ?, ?)", (f"models:/{MODEL}", model))
        add("INSERT INTO model_versions VALUES ('m', 2, ?, ?)", (inside, inside))
        made.commit()
        for statement in statements:
            made.executescript(statement)
    return path


def dump(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as made:
        return list(made.iterdump())


FOUND = layout_of(["mlflow.db", f"mlruns/1/{RUN}/artifacts/x", f"mlruns/1/models/{MODEL}/artifacts/x"])


def test_rows_are_moved(tmp_path: Path) -> None:
    path = database(tmp_path / "mlflow.db")
    before = dump(path)
    assert repoint_database(path, FOUND, ROOT) == 6
    expected = [line.replace("/old/mlruns", "/new/place/mlruns") for line in before]
    assert dump(path) == expected
    assert repoint_database(path, FOUND, ROOT) == 0
    assert [item.name for item in tmp_path.iterdir()] == ["mlflow.db"]


def test_a_write_ahead_log_leaves_nothing_beside(tmp_path: Path) -> None:
    path = database(tmp_path / "mlflow.db", "PRAGMA journal_mode = WAL")
    assert repoint_database(path, FOUND, ROOT) == 6
    assert [item.name for item in tmp_path.iterdir()] == ["mlflow.db"]


@pytest.mark.parametrize(
    "found",
    [
        layout_of(["mlflow.db"]),
        layout_of(["mlflow.db", f"mlruns/1/{'d' * 32}/artifacts/x"]),
        layout_of([f"one/1/{RUN}/artifacts/x", f"two/1/{RUN}/artifacts/x"]),
    ],
    ids=["no artifacts", "of another run", "in two places"],
)
def test_rows_stay_if_it_is_not_known_where_their_artifacts_are(tmp_path: Path, found: TreeLayout) -> None:
    path = database(tmp_path / "mlflow.db")
    before = path.read_bytes()
    assert repoint_database(path, found, ROOT) == 0
    assert path.read_bytes() == before


@pytest.mark.parametrize("uri", [uri for uri in HOSTILE if isinstance(uri, str)], ids=lambda uri: uri[:50])
def test_rows_of_runs_that_are_not_of_the_tree_stay(tmp_path: Path, uri: str) -> None:
    path = database(tmp_path / "mlflow.db")
    with closing(sqlite3.connect(path)) as made:
        made.execute("UPDATE runs SET artifact_uri = ? WHERE run_uuid = ?", (uri, RUN))
        made.commit()
    repoint_database(path, FOUND, ROOT)
    with closing(sqlite3.connect(path)) as made:
        ((kept,),) = made.execute("SELECT artifact_uri FROM runs WHERE run_uuid = ?", (RUN,))
    assert kept == uri


@pytest.mark.parametrize(
    ("statement", "changed"),
    [
        ("DROP TABLE model_versions; DROP TABLE logged_models", 3),
        ("ALTER TABLE model_versions DROP COLUMN storage_location", 5),
        ("DROP TABLE runs; DROP TABLE logged_models", 0),
        ("ALTER TABLE runs RENAME TO r; CREATE VIEW runs AS SELECT * FROM r", 4),
        ("CREATE TRIGGER t AFTER UPDATE ON RUNS BEGIN DELETE FROM experiments; END", 4),
        ("UPDATE runs SET artifact_uri = CAST(x'ff2f' AS TEXT)", 4),
        (f"UPDATE runs SET run_uuid = x'{'61' * 32}', experiment_id = 1.5 WHERE run_uuid = '{RUN}'", 5),
        ("UPDATE experiments SET artifact_location = x'2f6f6c64'", 5),
    ],
)
def test_a_database_that_is_unlike_mlflows(tmp_path: Path, statement: str, changed: int) -> None:
    path = database(tmp_path / "mlflow.db", statement)
    with closing(sqlite3.connect(path)) as made:
        ((before,),) = made.execute("SELECT count(*) FROM experiments")
    assert repoint_database(path, FOUND, ROOT) == changed
    with closing(sqlite3.connect(path)) as made:
        assert made.execute("SELECT count(*) FROM experiments").fetchone() == (before,)
        assert made.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_damaged_database_is_refused_and_stays(tmp_path: Path) -> None:
    path = database(tmp_path / "mlflow.db")
    damaged = path.read_bytes()[:-4096].ljust(path.stat().st_size, b"\xff")
    path.write_bytes(damaged)
    with pytest.raises(IntegrityError, match="database"):
        repoint_database(path, FOUND, ROOT)
    assert path.read_bytes() == damaged
    (tmp_path / "other").write_bytes(b"no database" * 100)
    with pytest.raises(IntegrityError, match="database"):
        repoint_database(tmp_path / "other", FOUND, ROOT)
