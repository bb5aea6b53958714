"""Models loaded from their folders: real ones of scikit-learn, and such as try to run something meanwhile."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import mlflow
import numpy as np
import pandas as pd
import pytest
import skops.io
import yaml
from mlflow.models import infer_signature
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mltrack_tasks.errors import IntegrityError, InvalidInputError
from mltrack_tasks.models import ModelFile, ModelVersion, tree_digest
from mltrack_tasks.registry import loading, register_model
from mltrack_tasks.registry.downloading import download_model
from mltrack_tasks.registry.loading import FLAVORS, load_folder
from mltrack_tasks.registry.modeltrust import is_known_type, leading_out, objections
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.files import hash_file

X = pd.DataFrame({"a": np.arange(20.0), "b": np.arange(20.0) % 3})
Y = [0] * 10 + [1] * 10
TREE = "sklearn.tree._tree.Tree"
Edit = Callable[[dict[str, Any]], object]


class Saved(NamedTuple):
    """A model, and the folders that MLflow made of it."""

    model: Any
    skops: Path
    pickled: Path


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    folder = tmp_path_factory.mktemp("saved")
    forest = RandomForestClassifier(3, random_state=0)
    model = make_pipeline(StandardScaler(), forest).fit(X, Y)
    common: dict[str, Any] = {
        "signature": infer_signature(X, model.predict(X)),
        "pip_requirements": ["scikit-learn"],
        "input_example": X[:2],
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        mlflow.sklearn.save_model(model, "skops", skops_trusted_types=[TREE], **common)
        mlflow.sklearn.save_model(model, "pickled", serialization_format="cloudpickle", **common)
    return Saved(model, folder / "skops", folder / "pickled")


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")


def version_of(folder: Path) -> ModelVersion:
    files = tuple(
        ModelFile(str(path.relative_to(folder)), hash_file(path), "bin", path.stat().st_size)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    )
    return ModelVersion("churn", "v20240115_a1b2c3", tree_digest(files), files)


def load(folder: Path, **options: Any) -> Any:
    return load_folder(folder, version_of(folder), **options)


def trusting(folder: Path, **options: Any) -> Any:
    return load(folder, trusted_digest=version_of(folder).tree_digest, **options)


def edited(source: Path, folder: Path, edit: Edit) -> Path:
    """A copy whose MLmodel was changed."""
    shutil.copytree(source, folder)
    model = yaml.safe_load((folder / "MLmodel").read_text())
    edit(model)
    (folder / "MLmodel").write_text(yaml.safe_dump(model))
    return folder


# honest models


def test_a_registered_model_predicts_as_before(saved: Saved, store: Store, tmp_path: Path) -> None:
    made = register_model(store, None, "churn", saved.skops)
    version, folder = download_model(store, "churn", made.version, tmp_path / "here")
    loaded = load_folder(folder, version)
    assert type(loaded) is type(saved.model)
    assert np.array_equal(loaded.predict_proba(X), saved.model.predict_proba(X))
    assert list(Path.cwd().iterdir()) == []


def test_as_a_python_function(saved: Saved) -> None:
    loaded = load(saved.skops, flavor="python_function")
    assert isinstance(loaded, mlflow.pyfunc.PyFuncModel)
    assert np.array_equal(loaded.predict(X), saved.model.predict(X))
    assert list(Path.cwd().iterdir()) == []


def test_a_pickled_model_needs_trust(saved: Saved) -> None:
    version = version_of(saved.pickled)
    for flavor in (None, "sklearn", "python_function"):
        with pytest.raises(InvalidInputError, match=r"model\.pkl.*Look at it") as caught:
            load_folder(saved.pickled, version, flavor=flavor)
        assert f"trusted_digest={version.tree_digest!r}" in str(caught.value)
        loaded = load_folder(saved.pickled, version, trusted_digest=version.tree_digest, flavor=flavor)
        assert np.array_equal(loaded.predict(X), saved.model.predict(X))


@pytest.mark.parametrize("installed", ["0.12.0", "0.9", "0.13rc1"])
def test_a_skops_that_runs_what_it_is_not_to_trust(
    saved: Saved, installed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "installed_version", lambda name: installed)
    with pytest.raises(InvalidInputError, match=r"Upgrade it to 0\.13"):
        load(saved.skops)
    monkeypatch.setattr(loading, "installed_version", lambda name: "1.0")
    assert np.array_equal(load(saved.skops).predict(X), saved.model.predict(X))


def test_trust_is_in_one_tree(saved: Saved) -> None:
    for digest in (version_of(saved.skops).tree_digest, "", "0" * 64):
        with pytest.raises(InvalidInputError, match="another model"):
            load(saved.pickled, trusted_digest=digest)


@pytest.mark.parametrize("change", ["more", "less", "other", "link"])
def test_the_folder_is_that_of_the_version(change: str, saved: Saved, tmp_path: Path) -> None:
    version = version_of(saved.skops)
    folder = shutil.copytree(saved.skops, tmp_path / "m")
    if change == "more":
        (folder / "sklearn.py").write_text("")
    elif change == "less":
        (folder / "conda.yaml").unlink()
    elif change == "other":
        (folder / "model.skops").write_bytes((saved.pickled / "model.pkl").read_bytes())
    else:
        (folder / "link").symlink_to("MLmodel")
    with pytest.raises(IntegrityError, match="Download it again"):
        load_folder(folder, version, trusted_digest=version.tree_digest)
    with pytest.raises(InvalidInputError, match="no folder"):
        load_folder(tmp_path / "none", version)


def test_flavors_that_are_not_there(saved: Saved, tmp_path: Path) -> None:
    for flavor in ("os", "pyfunc", "xgboost"):
        with pytest.raises(InvalidInputError, match="'sklearn', 'python_function'"):
            trusting(saved.skops, flavor=flavor)
    only = edited(saved.skops, tmp_path / "m", lambda model: model.update(flavors={"os": {}, "server": {}}))
    for flavor in (None, "os", "server"):
        with pytest.raises(InvalidInputError, match="it has none"):
            trusting(only, flavor=flavor)


def test_every_flavor_is_a_module_of_mlflow() -> None:
    for name in FLAVORS:
        assert hasattr(mlflow, name), name


def test_libraries_that_are_missing_are_named(saved: Saved, tmp_path: Path) -> None:
    flavors = {"xgboost": {"data": "model.skops", "model_class": "xgboost.core.Booster"}}
    folder = edited(saved.skops, tmp_path / "m", lambda model: model.update(flavors=flavors))
    with pytest.raises(InvalidInputError, match=r"xgboost|model\.skops"):
        load(folder)


# pickles alone


class _Touch:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["model.pkl", "model", "model.joblib", "model.z"])
def test_one_pickle(name: str, saved: Saved, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    if name == "model.pkl":
        (tmp_path / "m" / name).write_bytes(pickle.dumps(saved.model))
    else:
        joblib.dump(saved.model, tmp_path / "m" / name, compress=3 if name == "model.z" else 0)
    with pytest.raises(InvalidInputError, match="trusted_digest"):
        load(tmp_path / "m")
    assert np.array_equal(trusting(tmp_path / "m").predict(X), saved.model.predict(X))


def test_a_pickle_runs_only_when_it_is_trusted(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "data").write_bytes(pickle.dumps(_Touch(tmp_path / "touched")))
    for digest in (None, "0" * 64):
        with pytest.raises(InvalidInputError):
            load(tmp_path / "m", trusted_digest=digest)
        assert not (tmp_path / "touched").exists()
    trusting(tmp_path / "m")
    assert (tmp_path / "touched").exists()


@pytest.mark.parametrize(
    "body", [b"\x80\x04\x95", b"\x80\x04cno_such_module\nname\n.", b"\x80\x04cos\nnothing\n."]
)
def test_pickles_that_cannot_be_read(body: bytes, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "model.pkl").write_bytes(body)
    with pytest.raises(InvalidInputError, match="v20240115_a1b2c3"):
        trusting(tmp_path / "m")


@pytest.mark.parametrize(
    "files", [{"data.json": b"{}"}, {"a.pkl": b"N.", "b.pkl": b"N."}, {"sub/MLmodel": b"x: 1\n"}]
)
def test_what_nothing_here_knows_how_to_load(files: dict[str, bytes], tmp_path: Path) -> None:
    for path, body in files.items():
        (tmp_path / "m" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "m" / path).write_bytes(body)
    with pytest.raises(InvalidInputError, match="download_model"):
        trusting(tmp_path / "m")


# hostile models


def _set(flavor: str, **fields: Any) -> Edit:
    return lambda model: model["flavors"][flavor].update(fields)


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (_set("sklearn", skops_trusted_types=["builtins.eval"]), "builtins.eval"),
        (_set("sklearn", skops_trusted_types=[TREE, "numpy.lib.npyio.DataSource"]), "DataSource"),
        (_set("sklearn", skops_trusted_types="all"), "all"),
        (_set("sklearn", serialization_format="cloudpickle"), "cloudpickle"),
        (lambda model: model["flavors"]["sklearn"].pop("serialization_format"), "serialization_format"),
        (_set("sklearn", code="code"), "code"),
        (_set("sklearn", pickled_model="MLmodel/../model.skops"), "leads out"),
        (_set("sklearn", new_field="x"), "new_field"),
        (_set("sklearn", pickled_model=["model.skops"]), "pickled_model"),
        (_set("sklearn", pickled_model="nothing"), "pickled_model"),
        (lambda model: model.update(flavors={"pytorch": {"model_data": "data"}}), "pytorch"),
        (lambda model: model.update(flavors={"statsmodels": {"data": "model.skops"}}), "statsmodels"),
    ],
)
def test_fields_that_could_run_code(edit: Edit, named: str, saved: Saved, tmp_path: Path) -> None:
    folder = edited(saved.skops, tmp_path / "m", edit)
    with pytest.raises(InvalidInputError, match=named):
        load(folder)


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (_set("python_function", loader_module="os"), "'os'"),
        (_set("python_function", loader_module="mlflow.pyfunc.model"), r"mlflow\.pyfunc\.model"),
        (_set("python_function", loader_module="mlflow.xgboost"), r"mlflow\.xgboost"),
        (_set("python_function", loader_module=None), "None"),
        (_set("python_function", code="code"), "code"),
        (_set("python_function", model_code_path="m.py"), "model_code_path"),
        (_set("python_function", python_model="m.bin"), "python_model"),
        (_set("python_function", predict_fn="__reduce__"), "__reduce__"),
        (_set("python_function", data="sub"), "data"),
        (_set("sklearn", skops_trusted_types=["os.system"]), "os.system"),
        (lambda model: model["flavors"].pop("sklearn"), r"mlflow\.sklearn"),
    ],
)
def test_python_functions_that_could_run_code(edit: Edit, named: str, saved: Saved, tmp_path: Path) -> None:
    folder = edited(saved.skops, tmp_path / "m", edit)
    with pytest.raises(InvalidInputError, match=named):
        load(folder, flavor="python_function")


@pytest.mark.parametrize("path", ["code/helper.py", "code/data", "x.py", "sub/x.so", "sub/x.PYC"])
def test_source_beside_a_model(path: str, saved: Saved, tmp_path: Path) -> None:
    folder = shutil.copytree(saved.skops, tmp_path / "m")
    (folder / path).parent.mkdir(exist_ok=True)
    (folder / path).write_text("raise SystemExit")
    with pytest.raises(InvalidInputError, match=f"source {path!r}"):
        load(folder)
    assert trusting(folder).predict(X).shape == (20,)


@pytest.mark.parametrize(
    ("flavor", "fields"),
    [
        ("sklearn", {"pickled_model": "/etc/passwd"}),
        ("sklearn", {"pickled_model": "../other/model.pkl"}),
        ("sklearn", {"code": "../code"}),
        ("python_function", {"model_path": "../../model.skops"}),
        ("python_function", {"data": "/tmp"}),
        ("python_function", {"env": "/etc/conda.yaml"}),
        ("python_function", {"env": {"conda": "../conda.yaml"}}),
        ("python_function", {"artifacts": {"x": {"path": "../x", "uri": "s3://b/x"}}}),
        ("python_function", {"code": "a/../../b"}),
    ],
)
def test_what_leads_out_is_refused_even_if_trusted(
    flavor: str, fields: dict[str, Any], saved: Saved, tmp_path: Path
) -> None:
    folder = edited(saved.skops, tmp_path / "m", _set(flavor, **fields))
    for how in (load, trusting):
        with pytest.raises(InvalidInputError, match="leads out"):
            how(folder)


def test_an_example_that_lies_elsewhere(saved: Saved, tmp_path: Path) -> None:
    example = {"artifact_path": "../secret.json", "type": "dataframe"}
    folder = edited(saved.skops, tmp_path / "m", lambda model: model.update(saved_input_example_info=example))
    with pytest.raises(InvalidInputError, match="leads out"):
        trusting(folder, flavor="python_function")


def test_another_mlmodel_further_down(saved: Saved, tmp_path: Path) -> None:
    """MLflow reads the one beside the file that ``data`` names."""
    folder = edited(saved.skops, tmp_path / "m", _set("python_function", data="sub/model.skops"))
    shutil.copytree(saved.skops, folder / "sub")
    with pytest.raises(InvalidInputError, match=r"data: sub/model\.skops"):
        load(folder, flavor="python_function")


@pytest.mark.parametrize(
    "body", [b"", b"\xff", b"- a\n", b"flavors: {a: b}\n", b"flavors: &a {b: *a}\n", b"x: 1\n"]
)
def test_an_mlmodel_that_mlflow_did_not_write(body: bytes, saved: Saved, tmp_path: Path) -> None:
    folder = shutil.copytree(saved.skops, tmp_path / "m")
    (folder / "MLmodel").write_bytes(body)
    with pytest.raises(IntegrityError, match="MLmodel"):
        trusting(folder)


def test_a_pickle_under_the_name_of_skops(saved: Saved, tmp_path: Path) -> None:
    folder = shutil.copytree(saved.skops, tmp_path / "m")
    (folder / "model.skops").write_bytes(pickle.dumps(_Touch(tmp_path / "touched")))
    with pytest.raises(InvalidInputError, match=r"model\.skops"):
        load(folder)
    with pytest.raises(InvalidInputError, match="cannot be loaded"):
        trusting(folder)
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("body", [b"", b"PK\x03\x04", b"no zip"])
def test_a_damaged_file_of_skops(body: bytes, saved: Saved, tmp_path: Path) -> None:
    folder = shutil.copytree(saved.skops, tmp_path / "m")
    (folder / "model.skops").write_bytes(body)
    with pytest.raises(InvalidInputError):
        load(folder)
    with pytest.raises(InvalidInputError, match="cannot be loaded"):
        trusting(folder)


def test_types_that_skops_was_not_told_to_trust(saved: Saved, tmp_path: Path) -> None:
    folder = edited(saved.skops, tmp_path / "m", _set("sklearn", skops_trusted_types=None))
    with pytest.raises(InvalidInputError, match=TREE):
        load(folder)


# the judgement, of what is not installed here too


@pytest.mark.parametrize(
    ("name", "known"),
    [
        (TREE, True),
        ("sklearn.calibration._CalibratedClassifier", True),
        ("numpy.dtype", True),
        ("sklearn.feature_selection._univariate_selection.f_classif", True),
        ("sklearn.utils._testing.TempMemmap", False),
        ("sklearn.externals.x.Y", False),
        ("sklearn.utils.check_array", False),
        ("sklearnx.Tree", False),
        ("sklearn.Tree.__init__.x", False),
        ("numpy.testing._private.utils.runstring", False),
        ("numpy.lib.npyio.DataSource", False),
        ("scipy.io.Anything", False),
        ("builtins.eval", False),
        ("sklearn.os.System\n", False),
        (3, False),
    ],
)
def test_types(name: Any, known: bool) -> None:
    assert is_known_type(name) is known


def test_types_of_real_models_are_known() -> None:
    for model in (LogisticRegression(), RandomForestClassifier(2)):
        data = skops.io.dumps(model.fit(X, Y))
        assert all(map(is_known_type, skops.io.get_untrusted_types(data=data)))


XGB = {"data": "m.json", "model_class": "xgboost.sklearn.XGBClassifier", "model_format": "json", "code": None}
LGB = {"data": "m.txt", "model_class": "lightgbm.basic.Booster", "lgb_version": "4", "code": None}
CAT = {"data": "m.cb", "model_type": "CatBoost", "save_format": "cbm", "catboost_version": "1"}
ONNX = {"data": "m.onnx", "providers": ["CPUExecutionProvider"], "onnx_session_options": None}


@pytest.mark.parametrize(
    ("name", "fields", "change"),
    [
        ("xgboost", XGB, {"model_class": "subprocess.Popen"}),
        ("xgboost", XGB, {"model_class": "xgboost.os.system"}),
        ("lightgbm", LGB, {"model_class": "lightgbm.sklearn.Unknown"}),
        ("lightgbm", LGB, {"skops_trusted_types": ["os.system"]}),
        ("catboost", CAT, {"save_format": "python"}),
        ("onnx", ONNX, {"onnx_session_options": {"custom_ops": "x.so"}}),
        ("onnx", ONNX, {"providers": [["TensorrtExecutionProvider", {"trt_engine_cache_path": "/"}]]}),
        ("onnx", ONNX, {"extra_files": ["x"]}),
    ],
)
def test_other_formats(name: str, fields: dict[str, Any], change: dict[str, Any]) -> None:
    files = [fields["data"]]
    function = {"loader_module": f"mlflow.{name}", "data": fields["data"], "env": {"conda": "c"}}
    for chosen in (name, "python_function"):
        assert objections(chosen, {name: fields, "python_function": function}, files) == []
        bad = {name: {**fields, **change}, "python_function": function}
        assert len(objections(chosen, bad, files)) == 1


def test_text_that_is_no_path_may_be_anything() -> None:
    flavors = {"transformers": {"source_model_name": "/models/bert", "task": "a/../b"}}
    assert leading_out({"flavors": flavors}) == []
