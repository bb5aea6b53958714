"""Models of XGBoost, LightGBM, CatBoost and ONNX: their fields and files as MLflow 3.17 writes them.

The libraries themselves are not installed for the tests. Each of these was made and loaded with them once:
xgboost 3.2, lightgbm 4.7, catboost 1.2.10, onnx 1.23 and onnxruntime.
"""

from __future__ import annotations

from typing import Any

import pytest

from mltrack_tasks.registry.modeltrust import objections

BESIDE = ["MLmodel", "conda.yaml", "python_env.yaml", "requirements.txt"]
EXAMPLE = ["input_example.json", "serving_input_example.json"]
ENV = {"conda": "conda.yaml", "virtualenv": "python_env.yaml"}
TYPES = [
    "lightgbm.basic.Booster",
    "lightgbm.sklearn.LGBMRegressor",
    "collections.OrderedDict",
    "lightgbm.sklearn.LGBMClassifier",
]
LIGHTGBM = {
    "code": None,
    "lgb_version": "4.7.0",
    "serialization_format": "skops",
    "skops_trusted_types": TYPES,
}
BOOSTER = {**LIGHTGBM, "data": "model.lgb", "model_class": "lightgbm.basic.Booster"}
CLASSIFIER = {**LIGHTGBM, "data": "model.skops", "model_class": "lightgbm.sklearn.LGBMClassifier"}
ONNX = {"code": None, "data": "model.onnx", "onnx_session_options": None, "onnx_version": "1.23.2"}
PROVIDERS = ["CUDAExecutionProvider", "CPUExecutionProvider"]
OPTIONS = {"execution_mode": "sequential", "intra_op_num_threads": 2, "graph_optimization_level": 99}


def xgboost(ending: str, model_class: str) -> dict[str, Any]:
    return {
        **{"code": None, "data": f"model.{ending}", "model_class": f"xgboost.{model_class}"},
        **{"model_format": ending, "xgb_version": "3.2.0"},
    }


def catboost(model_type: str, save_format: str) -> dict[str, Any]:
    return {
        **{"catboost_version": "1.2.10", "code": None, "data": "model.cb"},
        **{"model_type": model_type, "save_format": save_format},
    }


def found(name: str, fields: dict[str, Any], files: list[str] | None = None) -> list[list[str]]:
    """What stands against loading natively, and as a Python function."""
    data = str(fields["data"])
    function = {
        **{"data": data, "env": ENV, "loader_module": f"mlflow.{name}", "python_version": "3.11.7"},
    }
    flavors = {name: fields, "python_function": function}
    return [objections(each, flavors, [*BESIDE, data, *(files or [])]) for each in flavors]


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        *(("xgboost", xgboost(ending, "core.Booster")) for ending in ("xgb", "json", "ubj")),
        *(
            ("xgboost", xgboost("ubj", f"sklearn.XGB{kind}"))
            for kind in ("Classifier", "Regressor", "Ranker", "RFClassifier", "RFRegressor")
        ),
        ("lightgbm", BOOSTER),
        ("lightgbm", {**BOOSTER, "serialization_format": "cloudpickle", "skops_trusted_types": None}),
        ("lightgbm", {"data": "model.lgb", "lgb_version": "4.7.0", "model_class": "lightgbm.basic.Booster"}),
        *(
            ("lightgbm", {**CLASSIFIER, "model_class": f"lightgbm.sklearn.LGBM{kind}"})
            for kind in ("Classifier", "Regressor", "Ranker")
        ),
        *(("catboost", catboost(f"CatBoost{kind}", "cbm")) for kind in ("", "Classifier", "Regressor")),
        *(("catboost", catboost("CatBoostRanker", form)) for form in ("json", "onnx")),
        ("onnx", {**ONNX, "providers": PROVIDERS}),
        ("onnx", {**ONNX, "providers": PROVIDERS[1:], "onnx_session_options": OPTIONS}),
    ],
)
def test_models_as_mlflow_writes_them_are_data_alone(name: str, fields: dict[str, Any]) -> None:
    assert found(name, fields) == [[], []]
    assert found(name, fields, EXAMPLE) == [[], []]


def test_weights_beside_an_onnx_model_are_data_too() -> None:
    assert found("onnx", {**ONNX, "providers": PROVIDERS}, ["ebb9eebc-ebde-11f1.data"]) == [[], []]


@pytest.mark.parametrize(
    ("name", "fields", "change"),
    [
        ("lightgbm", CLASSIFIER, {"serialization_format": "pickle"}),
        ("lightgbm", CLASSIFIER, {"serialization_format": "cloudpickle", "skops_trusted_types": None}),
        ("lightgbm", CLASSIFIER, {"serialization_format": None}),
        ("lightgbm", CLASSIFIER, {"skops_trusted_types": [*TYPES, "os.system"]}),
        ("lightgbm", CLASSIFIER, {"skops_trusted_types": "os.system"}),
        ("lightgbm", CLASSIFIER, {"model_class": "lightgbm.sklearn.os.system"}),
        ("lightgbm", CLASSIFIER, {"model_class": ["lightgbm.sklearn.LGBMClassifier"]}),
        ("lightgbm", CLASSIFIER, {"data": "below/model.skops"}),
        ("lightgbm", BOOSTER, {"skops_trusted_types": ["os.system"]}),
        ("lightgbm", BOOSTER, {"code": "code"}),
        ("onnx", ONNX, {"onnx_session_options": {"extra_session_config": {"a": "b"}}}),
        ("onnx", ONNX, {"onnx_session_options": {"intra_op_num_threads": "2"}}),
        ("onnx", ONNX, {"onnx_session_options": {"execution_mode": ["sequential"]}}),
        ("onnx", ONNX, {"onnx_session_options": ["sequential"]}),
    ],
)
def test_what_they_never_are(name: str, fields: dict[str, Any], change: dict[str, Any]) -> None:
    assert all(found(name, {**fields, **change}))


def test_a_class_of_lightgbm_without_its_format_is_a_pickle() -> None:
    fields = {key: value for key, value in CLASSIFIER.items() if key != "serialization_format"}
    natively, as_function = found("lightgbm", fields)
    assert natively == as_function == ["no serialization_format in the flavor 'lightgbm'"]
