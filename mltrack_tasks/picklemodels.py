"""What models say of themselves: an MLmodel that it is unpickled, a Keras model that it has bytecode."""

from __future__ import annotations

import json
import re
from typing import Any

from mltrack_tasks.mlflowdata import yamls

BY_LAMBDA, BY_MLMODEL = "a Keras Lambda layer", "MLmodel says so"

_LAMBDAS = ("Lambda", "__lambda__")
"""Classes whose ``config`` holds a function as marshalled bytecode, by Keras 2 and 3."""
_LAMBDA_TEXT = re.compile(rb'"class_name"\s*:\s*"(?:Lambda|__lambda__)"')
_PICKLING = frozenset({"pmdarima", "shap", "statsmodels"})
"""Flavours of MLflow 3.17 that know nothing but pickles, and do not say so."""


def mlmodel_says_so(data: bytes) -> bool:
    """Tell from an ``MLmodel`` whether MLflow unpickles files of it; IntegrityError if it cannot be read."""
    flavors = yamls.load_mapping(data, "MLmodel").get("flavors")
    if not isinstance(flavors, dict):
        return False
    return any(name in _PICKLING or _unpickles(flavor) for name, flavor in flavors.items())


def _unpickles(flavor: Any) -> bool:
    if not isinstance(flavor, dict):
        return False
    # `python_model` names what cloudpickle made of an object.
    if "python_model" in flavor:
        return True
    form = flavor.get("serialization_format")
    # `pickled_model` may name a file of skops; before there was a choice, there was no format.
    return "pickled_model" in flavor if form is None else "pickle" in str(form).lower()


def has_lambda(data: bytes) -> bool:
    """Tell from a Keras model's ``config.json`` whether it holds bytecode; ValueError if that is no JSON."""
    values = [json.loads(data)]
    while values:
        value = values.pop()
        if isinstance(value, dict):
            if value.get("class_name") in _LAMBDAS:
                return True
            values.extend(value.values())
        elif isinstance(value, list):
            values.extend(value)
    return False


def has_lambda_text(data: bytes) -> bool:
    """Tell the same from bytes that have such JSON in them, as HDF5 does, if it is written as Keras does."""
    return bool(_LAMBDA_TEXT.search(data))
