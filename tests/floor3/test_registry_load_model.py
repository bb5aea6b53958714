"""Models loaded by name: from the store into memory, over a folder that does not outlive them."""

from __future__ import annotations

import gc
import os
import pickle
import tempfile
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from mltrack_tasks.errors import InvalidInputError, NotFoundError
from mltrack_tasks.registry import load_model, promote_model, register_model
from mltrack_tasks.stores.base import Store

X = pd.DataFrame({"a": np.arange(20.0), "b": np.arange(20.0) % 3})
Y = [0] * 10 + [1] * 10


@pytest.fixture(scope="module")
def estimator() -> LogisticRegression:
    return LogisticRegression().fit(X, Y)


@pytest.fixture(scope="module")
def folder(estimator: LogisticRegression, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "model"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder.parent)
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        mlflow.sklearn.save_model(estimator, str(folder), pip_requirements=["scikit-learn"])
    return folder


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made: this test's own."""
    made = tmp_path / "temporary"
    made.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(made))
    return made


def left(temporary: Path) -> list[str]:
    return [path.name for path in temporary.glob("mltrack-model-*")]


def test_a_model_predicts_as_before_and_its_folder_goes_with_it(
    store: Store, estimator: LogisticRegression, folder: Path, temporary: Path
) -> None:
    promote_model(store, "churn", register_model(store, None, "churn", folder).version)
    loaded = load_model(store, "churn")
    assert type(loaded) is LogisticRegression
    assert np.array_equal(loaded.predict_proba(X), estimator.predict_proba(X))
    assert len(left(temporary)) == 1
    child = os.fork()
    if child == 0:
        del loaded
        gc.collect()
        os._exit(0)
    os.waitpid(child, 0)
    assert len(left(temporary)) == 1  # a fork is not the last that has it
    del loaded
    gc.collect()
    assert left(temporary) == []


def test_by_version_and_flavor(store: Store, folder: Path) -> None:
    version = register_model(store, None, "churn", folder).version
    loaded = load_model(store, "churn", version, flavor="python_function")
    assert isinstance(loaded, mlflow.pyfunc.PyFuncModel)
    assert loaded.predict(X).tolist() == load_model(store, "churn", "latest").predict(X).tolist()


def test_a_pickle_is_loaded_by_its_digest_alone(store: Store, tmp_path: Path, temporary: Path) -> None:
    file = tmp_path / "model.pkl"
    file.write_bytes(pickle.dumps({"weights": [1, 2]}))
    made = register_model(store, None, "m", file)
    with pytest.raises(InvalidInputError, match="may run code"):
        load_model(store, "m", made.version)
    assert load_model(store, "m", made.version, trusted_digest=made.tree_digest) == {"weights": [1, 2]}
    other = tmp_path / "other.pkl"
    other.write_bytes(pickle.dumps([3]))
    promote_model(store, "m", register_model(store, None, "m", other).version)
    with pytest.raises(InvalidInputError, match="somebody looked at another model"):
        load_model(store, "m", trusted_digest=made.tree_digest)  # the alias is at another version now
    assert left(temporary) == []


def test_nothing_is_left_of_a_model_that_is_not_there(store: Store, folder: Path, temporary: Path) -> None:
    with pytest.raises(NotFoundError):
        load_model(store, "churn")
    register_model(store, None, "churn", folder)
    with pytest.raises(NotFoundError):
        load_model(store, "churn", "production")
    assert left(temporary) == []
