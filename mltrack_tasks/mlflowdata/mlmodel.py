"""The files that describe an MLflow model, ``MLmodel`` and ``requirements.txt`` -> plain JSON.

A model may come from anybody. What is read here is only shown and searched; nothing in it is loaded or run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import date
from typing import Any

from mltrack_tasks import canonical
from mltrack_tasks.errors import IntegrityError, InvalidInputError
from mltrack_tasks.mlflowdata import scalars
from mltrack_tasks.mlflowdata.textfiles import decode
from mltrack_tasks.mlflowdata.yamls import load_mapping

MLMODEL = "MLmodel"
REQUIREMENTS = "requirements.txt"
MAX_BYTES = 4 << 20
"""[bytes] of either file. A signature of 10,000 columns has about 1 MiB."""

_TEXTS = ("model_id", "run_id", "mlflow_version", "model_uuid", "utc_time_created", "artifact_path")
_SIGNATURE = ("inputs", "outputs", "params")
_MAX_BITS = 1024
"""Of a number; Python does not even print those above 14,000."""
_CONTINUED = re.compile(r"\\\r?\n")
_COMMENT = re.compile(r"(?:^|\s)#.*")
_OPTIONS = re.compile(r"(?:^\s*-|\s--).*")
_LOGIN = re.compile(r"(?<=://)[^/\s]*@")


def read_mlmodel(files: Mapping[str, bytes], *, what: str) -> dict[str, Any]:
    """Read a model's folder: paths relative to it -> what a version's record keeps of it; {} if no MLmodel.

    ``flavors``: name -> its fields; ``signature``: ``inputs``, ``outputs`` and ``params`` as lists, or None;
    ``requirements``: one per line of ``requirements.txt``, without comments, options, and the logins of
    addresses. ``model_id``, ``run_id``, ``mlflow_version``, ``model_uuid``, ``utc_time_created`` and
    ``artifact_path`` are there where the file has them. Dates become text, as do keys that are none.

    Raises IntegrityError for what MLflow could not have written, or JSON could not keep.
    """
    if MLMODEL not in files:
        return {}
    fields = load_model_yaml(files[MLMODEL], what=what)
    read = {
        "flavors": _flavors(fields.get("flavors"), what),
        "signature": _signature(fields.get("signature"), what),
        "requirements": _requirements(files.get(REQUIREMENTS, b""), f"{REQUIREMENTS} beside {what}"),
        **{key: scalars.text(fields[key], f"{what}: {key}") for key in _TEXTS if fields.get(key) is not None},
    }
    try:
        canonical.dumps_value(read, what=what)
    except InvalidInputError as error:
        raise IntegrityError(f"{error} MLflow does not write such a model.") from error
    return read


def load_model_yaml(data: bytes, *, what: str) -> dict[str, Any]:
    """Bytes of an ``MLmodel`` -> its mapping with plain JSON values; IntegrityError if there is none."""
    _check_size(data, what)
    return _plain_mapping(load_mapping(data, what), what)


def _check_size(data: bytes, what: str) -> None:
    if len(data) > MAX_BYTES:
        raise IntegrityError(f"{what} has {len(data)} bytes; the limit is {MAX_BYTES}.")


def _plain(value: Any, what: str) -> Any:
    """Turn what YAML gives into JSON. It is not deep: ``load_mapping`` has seen to that."""
    if isinstance(value, dict):
        return _plain_mapping(value, what)
    if isinstance(value, list):
        return [_plain(item, what) for item in value]
    if isinstance(value, int):
        return _printable(value, what)
    return value.isoformat() if isinstance(value, date) else value


def _plain_mapping(value: dict[Any, Any], what: str) -> dict[str, Any]:
    plain = {_key(key, what): _plain(item, what) for key, item in value.items()}
    if len(plain) != len(value):
        raise IntegrityError(f"{what} has keys that are the same text.")
    return plain


def _key(key: Any, what: str) -> str:
    """Write a key as JSON would, so that 1 and true differ as in other languages."""
    if isinstance(key, date):
        return key.isoformat()
    return key if isinstance(key, str) else json.dumps(_plain(key, what))


def _printable(number: int, what: str) -> int:
    if number.bit_length() > _MAX_BITS:
        raise IntegrityError(f"{what} holds a number of {number.bit_length()} bits; MLflow writes none.")
    return number


def _flavors(value: Any, what: str) -> dict[str, Any]:
    """Admit a mapping of names to mappings; a model without flavors has none."""
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(fields, dict) for fields in value.values()):
        raise scalars.refuse(value, f"{what}: flavors", "a mapping of names to fields")
    return value


def _signature(value: Any, what: str) -> dict[str, Any] | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise scalars.refuse(value, f"{what}: signature", "a mapping")
    return {part: _schema(value.get(part), f"{what}: signature, {part}") for part in _SIGNATURE}


def _schema(value: Any, what: str) -> list[Any] | None:
    """Parse the JSON that MLflow writes into YAML as text."""
    text = scalars.optional_text(value, what)
    if text is None:
        return None
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise IntegrityError(f"{what} is not JSON that can be read: {str(error)[:200]}.") from error
    if not isinstance(schema, list):
        raise IntegrityError(f"{what} should hold a list, not {type(schema).__name__}.")
    return schema


def _requirements(data: bytes, what: str) -> list[str]:
    _check_size(data, what)
    lines = _CONTINUED.sub(" ", decode(data, what)).splitlines()
    return list(filter(None, map(_requirement, lines)))


def _requirement(line: str) -> str:
    """Take away what is no part of a requirement; a password in an address is not for a record."""
    return _LOGIN.sub("", _OPTIONS.sub("", _COMMENT.sub("", line), count=1)).strip()
