"""Finding MLflow's stores in a tree, from its paths."""

from __future__ import annotations

import os

from hypothesis import given
from hypothesis import strategies as st

from mltrack_tasks.mlflowdata.treelayout import StoreLayout, TreeLayout, layout_of

RUN, OTHER, THIRD = "a" * 32, "0b" * 16, "1" * 32
MODEL = "m-" + "c" * 32
DRAWN = "663831567594995677"

STORE = [
    "0/meta.yaml",
    f"{DRAWN}/meta.yaml",
    f"{DRAWN}/tags/team",
    f"{DRAWN}/datasets/{THIRD}/meta.yaml",
    f"{DRAWN}/models/{MODEL}/meta.yaml",
    f"{DRAWN}/models/{MODEL}/artifacts/MLmodel",
    f"{DRAWN}/{RUN}/meta.yaml",
    f"{DRAWN}/{RUN}/metrics/a/b",
    f"{DRAWN}/{RUN}/inputs/{OTHER}/meta.yaml",
    f"{DRAWN}/{RUN}/artifacts/model/MLmodel",
    f".trash/12/{OTHER}/meta.yaml",
    ".trash/12/meta.yaml",
    "models/churn/meta.yaml",
    "models/churn/version-1/meta.yaml",
]


def found(*paths: str) -> TreeLayout:
    return layout_of(sorted(paths, key=os.fsencode))


def test_a_store() -> None:
    layout = found(*STORE)
    assert layout == TreeLayout(
        stores=[
            StoreLayout(
                root="",
                experiments={"0": "0", DRAWN: DRAWN, "12": ".trash/12"},
                runs={f"{DRAWN}/{RUN}": RUN, f".trash/12/{OTHER}": OTHER},
                trashed={f".trash/12/{OTHER}"},
                logged_models={f"{DRAWN}/models/{MODEL}": MODEL},
                registered_models={"models/churn": "churn"},
            )
        ],
        databases=[],
        bare_artifacts=[],
    )
    assert layout.stores[0].models_folder == "models"


def test_several_stores_in_one_tree() -> None:
    layout = found(*(f"{root}/{path}" for root in ("mlruns", "old/mlruns", "old") for path in STORE))
    assert [store.root for store in layout.stores] == ["mlruns", "old", "old/mlruns"]
    assert {len(store.runs) for store in layout.stores} == {2}
    assert {len(store.registered_models) for store in layout.stores} == {1}


def test_what_lies_among_artifacts_makes_no_run() -> None:
    hidden = f"{DRAWN}/{RUN}/artifacts/mlruns"
    inside_model = f"{DRAWN}/models/{MODEL}/artifacts"
    forged = [f"{folder}/{path}" for folder in (hidden, inside_model) for path in (*STORE, "mlflow.db")]
    assert found(*STORE, *forged) == found(*STORE)


def test_what_lies_in_an_experiment_with_a_name_belongs_to_it() -> None:
    run = f"named/{RUN}"
    layout = found(
        "named/meta.yaml", f"{run}/meta.yaml", f"{run}/artifacts/1/{OTHER}/artifacts/x", f"{run}/a.db"
    )
    assert layout.bare_artifacts == layout.databases == []


def test_an_experiment_goes_before_one_of_the_same_id_in_the_trash() -> None:
    layout = found(f"7/{RUN}/meta.yaml", "7/meta.yaml", f".trash/7/{OTHER}/meta.yaml", ".trash/7/meta.yaml")
    (store,) = layout.stores
    assert store.experiments == {"7": "7"}
    assert store.runs == {f"7/{RUN}": RUN, f".trash/7/{OTHER}": OTHER}


def test_numbered_folders_alone_are_no_store() -> None:
    assert found("2024/meta.yaml", "2024/01/meta.yaml", "2025/meta.yaml", "meta.yaml").stores == []
    assert found("models/3/meta.yaml", "0/notes.txt").stores == []


def test_an_experiment_without_runs_counts_beside_others() -> None:
    (store,) = found("0/meta.yaml", "3/meta.yaml").stores
    assert store.experiments == {"0": "0", "3": "3"}
    (store,) = found(f"named/{RUN}/meta.yaml", "named/meta.yaml", "3/meta.yaml").stores
    assert store.experiments == {"named": "named", "3": "3"}


def test_a_registry_alone() -> None:
    (store,) = found(
        "reg/models/a/meta.yaml", "reg/models/a/version-2/meta.yaml", "reg/models/b/meta.yaml"
    ).stores
    assert (store.root, store.models_folder) == ("reg", "reg/models")
    assert store.registered_models == {"reg/models/a": "a", "reg/models/b": "b"}


def test_a_registered_model_with_a_number_for_a_name() -> None:
    for name in ("0", "5", DRAWN):
        (store,) = found(*STORE, f"models/{name}/meta.yaml", f"models/{name}/version-1/meta.yaml").stores
        assert store.experiments == found(*STORE).stores[0].experiments
        assert store.registered_models[f"models/{name}"] == name


def test_artifacts_that_need_a_database() -> None:
    run, model = f"mlruns/1/{RUN}/artifacts", f"mlruns/1/models/{MODEL}/artifacts"
    layout = found(
        "mlflow.db", f"{run}/a.txt", f"{run}/0/{OTHER}/artifacts/x", f"{run}/x.db", f"{model}/MLmodel"
    )
    assert layout.stores == []
    assert layout.bare_artifacts == [run, model]
    assert layout.databases == ["mlflow.db"]
    assert layout.artifacts_by_id() == {RUN: run, MODEL: model}


def test_a_file_store_that_was_given_up_for_a_database() -> None:
    layout = found(*STORE, f"1/{THIRD}/artifacts/a.txt")
    assert layout.stores == found(*STORE).stores
    assert layout.bare_artifacts == [f"1/{THIRD}/artifacts"]


def test_databases_are_sought_by_name() -> None:
    names = ["a.db", "b/c.sqlite", "b/d.sqlite3", "e.db-wal", "f.database"]
    assert found(*names).databases == names[:3]


_SEGMENTS = st.sampled_from(
    [".trash", "models", "datasets", "artifacts", "0", "7", DRAWN, RUN, OTHER, MODEL, "version-1", "x"]
)
_PATHS = st.lists(
    st.builds(
        lambda folders, name: "/".join([*folders, name]),
        st.lists(_SEGMENTS, max_size=6),
        st.sampled_from(["meta.yaml", "a.db", "file", "caf\udce9"]),
    ),
    unique=True,
    max_size=25,
)


@given(_PATHS)
def test_of_any_tree_each_run_has_its_place(paths: list[str]) -> None:
    layout = found(*paths)
    there = set(paths)
    claimed: set[str] = set()
    for store in layout.stores:
        for folder in (*store.runs, *store.logged_models, *store.registered_models):
            assert f"{folder}/meta.yaml" in there
            assert folder not in claimed
            claimed.add(folder)
        for folder in store.runs:
            assert f"{folder.rpartition('/')[0]}/meta.yaml" in there
        assert all(f"{folder}/meta.yaml" in there for folder in store.experiments.values())
        assert store.trashed <= set(store.runs)
    for folder in claimed:
        assert not any(folder.startswith(f"{other}/") for other in claimed)
    assert set(layout.databases) <= there
    assert all(any(path.startswith(f"{folder}/") for path in there) for folder in layout.bare_artifacts)


@given(_PATHS.filter(lambda paths: "meta.yaml" not in paths))
def test_a_tree_deeper_down_has_the_same_stores(paths: list[str]) -> None:
    """An experiment's own folder is the exception: its id is the name that the tree does not show."""
    here, below = found(*paths), found(*(f"deep/er/{path}" for path in paths))
    assert [("deep/er/" + store.root).rstrip("/") for store in here.stores] == [s.root for s in below.stores]
    runs = [run for store in here.stores for run in store.runs]
    assert [f"deep/er/{run}" for run in runs] == [run for store in below.stores for run in store.runs]
    assert [f"deep/er/{folder}" for folder in here.bare_artifacts] == below.bare_artifacts
    assert [f"deep/er/{path}" for path in here.databases] == below.databases
