"""What in a downloaded MLflow model could run code of its author, and what leads out of its folder.

``MLmodel`` decides which modules MLflow imports and which files it opens, so it is held against what MLflow
itself writes for the few formats that are data alone. A format that this list does not know may be as
harmless; then somebody has to look.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from importlib import import_module
from posixpath import basename
from typing import Any

Fields = Mapping[str, Any]
Admits = Callable[[Any], bool]

PYFUNC = "python_function"
_SKOPS_CLASS = re.compile(r"sklearn(?:\.\w+)*\._*[A-Z]\w*")
_NO_PART = frozenset({"externals", "datasets", "tests", "_testing", "conftest", "callback"})
"""Parts of scikit-learn that no estimator is made of; some of them touch files, or open connections."""
_SKOPS_NAMES = frozenset(
    {
        *("numpy.dtype", "numpy.mean", "numpy.median", "numpy.max", "numpy.min"),
        *("scipy.interpolate._bsplines.BSpline", "scipy.interpolate._interpolate.interp1d"),
        *("scipy.sparse._csr.csr_matrix", "scipy.sparse._csc.csc_matrix", "scipy.sparse._coo.coo_matrix"),
        *("sklearn.cluster._kmeans._kmeans_single_lloyd", "sklearn.cluster._kmeans._kmeans_single_elkan"),
        *(
            f"sklearn.feature_selection._univariate_selection.{name}"
            for name in ("chi2", "f_classif", "f_oneway", "f_regression", "r_regression")
        ),
    }
)
"""What models of scikit-learn 1.9 name beside its own classes. Not numpy's and scipy's classes in general:
``numpy.lib.npyio.DataSource`` deletes the folder that its state names when it is collected."""
_XGBOOST = frozenset(
    {
        "xgboost.core.Booster",
        *(
            f"xgboost.sklearn.XGB{name}"
            for name in ("Classifier", "Regressor", "Ranker", "RFClassifier", "RFRegressor", "Model")
        ),
    }
)
_LIGHTGBM = frozenset(f"lightgbm.sklearn.LGBM{name}" for name in ("Classifier", "Regressor", "Ranker"))
_BOOSTER = "lightgbm.basic.Booster"
_LIGHTGBM_TYPES = frozenset({*_LIGHTGBM, _BOOSTER, "collections.OrderedDict"})
"""What MLflow has skops trust for these. A ``Booster`` reads its state as the text of a model."""
_PREDICTING = frozenset({"predict", "predict_proba", "predict_log_proba", "predict_joint_log_proba", "score"})
_SESSION_NUMBERS = frozenset({"inter_op_num_threads", "intra_op_num_threads", "graph_optimization_level"})
_PATHS = frozenset(
    {
        *("data", "code", "model_path", "pickled_model", "model_data", "model_code_path", "python_model"),
        *("env", "conda", "virtualenv", "model_binary", "artifact_path", "serving_input_path", "path"),
        *("pipeline", "components", "tokenizer", "model_config_path", "extra_files"),
    }
)
"""Fields that MLflow appends to the folder's path."""
_FILES = frozenset({"data", "model_path", "pickled_model"})


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_nothing(value: Any) -> bool:
    return value in (None, [], {})


def _is_plain(value: Any) -> bool:
    """Values that MLflow only shows: of versions, of files beside the model."""
    return not isinstance(value, dict)


def _one_of(choices: Iterable[str]) -> Admits:
    allowed = frozenset(choices)
    return lambda value: isinstance(value, str) and value in allowed


def _are_skops_types(value: Any) -> bool:
    return value is None or (isinstance(value, list) and all(map(is_known_type, value)))


def _are_lightgbm_types(value: Any) -> bool:
    return value is None or (isinstance(value, list) and all(map(_one_of(_LIGHTGBM_TYPES), value)))


def _are_session_options(value: Any) -> bool:
    """Numbers of threads, the level of optimisation and the mode; not ``extra_session_config``."""
    return value is None or (
        isinstance(value, dict)
        and value.keys() <= _SESSION_NUMBERS | {"execution_mode"}
        and all(type(value[key]) is int for key in value.keys() & _SESSION_NUMBERS)
        and value.get("execution_mode", "sequential") in ("sequential", "parallel")
    )


def _are_providers(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(each, str) and re.fullmatch(r"[A-Za-z]+ExecutionProvider", each) for each in value
    )


def is_known_type(name: Any) -> bool:
    """Tell whether a type that skops is to trust is of those that models of scikit-learn are made of."""
    if not isinstance(name, str):
        return False
    return name in _SKOPS_NAMES or (
        _SKOPS_CLASS.fullmatch(name) is not None
        and _NO_PART.isdisjoint(name.split("."))
        and _is_own_class(name)
    )


def _is_own_class(name: str) -> bool:
    """Whether a name is a class that scikit-learn defines, not what one of its modules imports.

    skops calls what it is told to trust, and sets its fields: of a socket, that opens it or closes another.
    """
    module, _, attribute = name.rpartition(".")
    try:
        found = getattr(import_module(module), attribute, None)
    except ImportError as error:
        return error.name == "sklearn"  # loading will say that it is missing
    return isinstance(found, type) and found.__module__.split(".")[0] == "sklearn"


_PYFUNC: dict[str, Admits] = {
    "env": lambda value: isinstance(value, (str, dict)),
    "python_version": _is_text,
    "model_path": _is_text,
    "data": _is_text,
    "code": _is_nothing,
    "predict_fn": _one_of(_PREDICTING),
}
_HARMLESS: dict[str, dict[str, Admits]] = {
    "sklearn": {
        "pickled_model": _is_text,
        "serialization_format": _one_of(["skops"]),
        "skops_trusted_types": _are_skops_types,
        "sklearn_version": _is_plain,
    },
    "xgboost": {
        "data": _is_text,
        "model_class": _one_of(_XGBOOST),
        "model_format": _one_of(["xgb", "json", "ubj"]),
        "xgb_version": _is_plain,
    },
    "lightgbm": {
        "data": _is_text,
        "model_class": _one_of([_BOOSTER]),
        "serialization_format": _is_plain,  # and the types: MLflow writes both of what is plain text, unused
        "skops_trusted_types": _are_lightgbm_types,
        "lgb_version": _is_plain,
    },
    "catboost": {
        "data": _is_text,
        "model_type": _one_of(["CatBoost", "CatBoostClassifier", "CatBoostRegressor", "CatBoostRanker"]),
        "save_format": _one_of(["cbm", "json", "onnx"]),
        "catboost_version": _is_plain,
    },
    "onnx": {
        "data": _is_text,
        "providers": _are_providers,
        "onnx_session_options": _are_session_options,
        "onnx_version": _is_plain,
    },
}
"""Flavours whose files are data alone -> the fields that MLflow 3.17 writes, and what each may hold."""
_REQUIRED = {"sklearn": "serialization_format", "lightgbm": "model_class"}
"""Fields whose absence means a pickle, as in older MLflow."""
_LIGHTGBM_SKOPS: dict[str, Admits] = {
    **_HARMLESS["lightgbm"],
    "model_class": _one_of(_LIGHTGBM),
    "serialization_format": _one_of(["skops"]),
}
"""LightGBM's classes for scikit-learn, which are no text but skops, or a pickle."""


def objections(name: str, flavors: Mapping[str, Fields], paths: Iterable[str]) -> list[str]:
    """Name what could run code of the author if the flavor ``name`` is loaded; empty if nothing known can.

    ``paths`` are those of the model's files. Pickles are looked for elsewhere.
    """
    files = frozenset(paths)
    found = [f"the source {path!r}" for path in sorted(files) if _is_source(path)]
    if name != PYFUNC:
        return found + list(_of_flavor(name, flavors[name], files))
    loader = str(flavors[PYFUNC].get("loader_module"))
    found += _of_fields(PYFUNC, flavors[PYFUNC], {**_PYFUNC, "loader_module": _is_text}, files)
    native = loader.removeprefix("mlflow.")
    if loader != f"mlflow.{native}" or native not in _HARMLESS or native not in flavors:
        return [*found, f"the loader module {loader!r:.80}"]
    return found + list(_of_flavor(native, flavors[native], files))


def leading_out(model: Fields) -> list[str]:
    """Name the fields of an ``MLmodel`` that lead out of its folder."""
    parts = {key: model.get(key) for key in ("flavors", "saved_input_example_info", "resources")}
    return [
        f"{'.'.join(keys)}: {value!r:.80}" for keys, value in _texts(parts, ()) if _leads_out(keys, value)
    ]


def _of_flavor(name: str, fields: Fields, files: Collection[str]) -> Iterator[str]:
    if name not in _HARMLESS:
        yield f"the flavor {name!r:.80}, whose files may hold code"
        return
    known, required = _HARMLESS[name], _REQUIRED.get(name)
    if name == "lightgbm" and _one_of(_LIGHTGBM)(fields.get("model_class")):
        known, required = _LIGHTGBM_SKOPS, "serialization_format"
    if required is not None and required not in fields:
        yield f"no {required} in the flavor {name!r}"
    yield from _of_fields(name, fields, {**known, "code": _is_nothing}, files)


def _of_fields(
    flavor: str, fields: Fields, known: Mapping[str, Admits], files: Collection[str]
) -> Iterator[str]:
    for key, value in fields.items():
        # Beside a file that lies deeper MLflow reads another MLmodel, which nobody has looked at.
        elsewhere = key in _FILES and not (isinstance(value, str) and value in files and "/" not in value)
        if key not in known or not known[key](value) or elsewhere:
            yield f"{key}: {str(value)[:80]} in the flavor {flavor!r}"


def _is_source(path: str) -> bool:
    """Whether Python would import a file; MLflow puts a model's own code below ``code/``."""
    return path.startswith("code/") or basename(path).lower().endswith((".py", ".pyc", ".pyd", ".so"))


def _texts(value: Any, keys: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    if isinstance(value, str):
        yield keys, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _texts(item, (*keys, key))
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item, keys)


def _leads_out(keys: tuple[str, ...], value: str) -> bool:
    """Whether a path field is absolute, holds ``..``, or is an address."""
    if keys[0] == "flavors" and _PATHS.isdisjoint(keys[2:]):
        return False
    return value.startswith("/") or "\0" in value or ".." in value.split("/") or "://" in value
