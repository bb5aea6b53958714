"""What describes an MLflow model: read as MLflow reads it, or refused, whoever wrote it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from mlflow.models import Model, ModelSignature
from mlflow.types.schema import Array, ColSpec, DataType, Object, ParamSchema, ParamSpec, Property, Schema

from mltrack_tasks import canonical
from mltrack_tasks.errors import IntegrityError
from mltrack_tasks.mlflowdata import mlmodel
from mltrack_tasks.mlflowdata.mlmodel import read_mlmodel

FLAVORS = {"sklearn": {"sklearn_version": "1.9", "code": None}, "python_function": {"env": {"conda": "c"}}}


def dumped(value: Any) -> bytes:
    """YAML as MLflow writes it."""
    text: str = yaml.safe_dump(value, default_flow_style=False)
    return text.encode()


def read(body: bytes, requirements: bytes | None = None) -> dict[str, Any]:
    files = {} if requirements is None else {"requirements.txt": requirements}
    return read_mlmodel({"MLmodel": body, **files}, what="the MLmodel")


def test_what_mlflow_writes(tmp_path: Path) -> None:
    signature = ModelSignature(
        inputs=Schema(
            [
                ColSpec("double", "größe"),
                ColSpec(Array(DataType.string), "words", required=False),
                ColSpec(Object([Property("x", DataType.long)]), "deep"),
            ]
        ),
        params=ParamSchema(
            [ParamSpec("limit", DataType.double, math.inf), ParamSpec("n", "long", [3], (-1,))]
        ),
    )
    model = Model("sub/model", run_id="a" * 32, signature=signature, model_id="m-1")
    for name, fields in FLAVORS.items():
        model.add_flavor(name, **fields)
    model.save(str(tmp_path / "MLmodel"))
    found = read((tmp_path / "MLmodel").read_bytes(), b"mlflow==3\nscikit-learn==1.9\n")
    schema = {part: text and json.loads(text) for part, text in signature.to_dict().items()}
    assert found == {
        "flavors": FLAVORS,
        "signature": schema,
        "requirements": ["mlflow==3", "scikit-learn==1.9"],
        "model_id": "m-1",
        "run_id": "a" * 32,
        "mlflow_version": model.mlflow_version,
        "model_uuid": model.model_uuid,
        "utc_time_created": str(model.utc_time_created),
        "artifact_path": "sub/model",
    }
    assert found["signature"]["params"][0]["default"] == math.inf
    assert canonical.loads_value(canonical.dumps_value(found)) == found


def test_a_model_of_old_mlflow() -> None:
    old = b"flavors:\n  keras: {version: 2.2.4}\nrun_id: abc\nutc_time_created: 2019-01-02 03:04:05.678\n"
    assert read(old) == {
        "flavors": {"keras": {"version": "2.2.4"}},
        "signature": None,
        "requirements": [],
        "run_id": "abc",
        "utc_time_created": "2019-01-02T03:04:05.678000",
    }


def test_without_an_mlmodel_there_is_nothing() -> None:
    assert read_mlmodel({"requirements.txt": b"\xff", "sub/MLmodel": b"\xff"}, what="a folder") == {}


@pytest.mark.parametrize("nothing", [b"run_id: null\n", b"flavors: {}\nmodel_id: null\nsignature: null\n"])
def test_fields_without_a_value_are_left_out(nothing: bytes) -> None:
    assert read(nothing) == {"flavors": {}, "signature": None, "requirements": []}


def test_values_that_are_no_json_become_text() -> None:
    body = b"flavors:\n  x: {day: 2020-02-03, at: 2020-02-03T04:05:06Z, 2: a, true: b, null: c}\n"
    assert read(body)["flavors"]["x"] == {
        "day": "2020-02-03",
        "at": "2020-02-03T04:05:06+00:00",
        "2": "a",
        "true": "b",
        "null": "c",
    }
    assert math.isnan(read(b"flavors:\n  x: {y: .nan}\n")["flavors"]["x"]["y"])


def test_requirements_are_those_that_a_reader_looks_for() -> None:
    text = (
        "# made by hand\r\n-r other.txt\n  --extra-index-url https://me:secret@pypi.org\n\nnumpy>=2 # so\n"
        "pandas[s3] == 2.3 ; python_version < '3.12'\ntorch==2 \\\n    --hash=a:b \\\n    --hash=a:c\n"
        "mine @ git+https://me:se@cret@git.example/mine.git@v1#egg=mine\n-e .\n"
    )
    assert read(b"flavors: {}\n", text.encode())["requirements"] == [
        "numpy>=2",
        "pandas[s3] == 2.3 ; python_version < '3.12'",
        "torch==2",
        "mine @ git+https://git.example/mine.git@v1#egg=mine",
    ]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"- a\n",
        b"\xff: 1\n",
        b"flavors: [a]\n",
        b"flavors: {a: b}\n",
        b"flavors: 0x" + b"f" * 20_000 + b"\n",
        b"flavors:\n  a: {b: 0x" + b"f" * 20_000 + b"}\n",
        b"flavors:\n  a: {0x" + b"f" * 20_000 + b": 1}\n",
        b"flavors:\n  a: {1: x, '1': y}\n",
        b'flavors:\n  a: {b: "\\ud800"}\n',
        b"flavors: &a {b: {}}\nx: *a\n",
        b"flavors: !!python/object/apply:os.system ['true']\n",
        b"flavors: " + b"[" * 1_000,
        b"a: 1" + b":1" * 2_000_000 + b"\n",
        b"run_id: 12\n",
        b"run_id: [a]\n",
        b"model_id: 0x" + b"f" * 20_000 + b"\n",
        b"signature: text\n",
        b"signature: {inputs: 3}\n",
        b"signature: {inputs: [1]}\n",
        b"signature: {inputs: '{}'}\n",
        b"signature: {inputs: '[1'}\n",
        b"signature: {inputs: '[" + b"9" * 5_000 + b"]'}\n",
        b"signature: {inputs: '" + b"[" * 200 + b"]" * 200 + b"'}\n",
        b"signature: {inputs: '" + b"[" * 200_000 + b"'}\n",
        b"signature: {inputs: '" + b'{"a":' * 900 + b"1" + b"}" * 900 + b"'}\n",
        b"signature: {params: '[\"\\ud800\"]'}\n",
    ],
    ids=lambda body: str(body[:32]),
)
def test_what_mlflow_could_not_have_written_is_refused(body: bytes) -> None:
    with pytest.raises(IntegrityError, match="the MLmodel"):
        read(body)


def test_requirements_that_are_no_text_are_refused() -> None:
    with pytest.raises(IntegrityError, match=r"requirements\.txt"):
        read(b"flavors: {}\n", b"caf\xe9")


def test_files_beyond_all_measure_are_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlmodel, "MAX_BYTES", 20)
    for files in ((b"flavors: {}\n" * 2,), (b"flavors: {}\n", b"numpy\n" * 4)):
        with pytest.raises(IntegrityError, match="limit"):
            read(*files)


_WORDS = st.sampled_from(
    [
        *(b"flavors:", b"signature:", b"inputs:", b"run_id:", b"  ", b"\n", b" ", b"- ", b"? ", b"'", b'"'),
        *(b": ", b"{", b"}", b"[", b"]", b"null", b"1e999", b".inf", b"0x1f", b"2020-02-03", b"|", b"\t"),
        *(b"2020-02-03 1:2:3 +99:99", b"<<", b"=", b"&a", b"*a", b"!!set", b"\\ud800", b"\\u0000", b"0b_"),
        *(b"1:2:3.5", b"~", b"on"),
    ]
)
_BODIES = st.binary(max_size=40) | st.lists(_WORDS, max_size=24).map(b"".join)
_SCHEMAS = st.text(max_size=20) | st.recursive(
    st.none() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
).map(json.dumps)


@given(_BODIES, _BODIES)
@example(b"=: 1\n", b"")
@example(b"<<: 1\n", b"")
@example(b"flavors: {a: {2001-99-99: 1}}\n", b"")
def test_any_bytes_are_read_or_refused(body: bytes, requirements: bytes) -> None:
    try:
        found = read(body, requirements)
    except IntegrityError:
        return
    again = canonical.loads_value(canonical.dumps_value(found))
    assert repr(sorted(again)) == repr(sorted(found))


@given(_SCHEMAS, _SCHEMAS)
def test_any_text_is_a_signature_or_refused(inputs: str, outputs: str) -> None:
    body = dumped({"flavors": FLAVORS, "signature": {"inputs": inputs, "outputs": outputs}})
    try:
        signature = read(body)["signature"]
    except IntegrityError:
        return
    assert repr([signature["inputs"], signature["outputs"], signature["params"]]) == repr(
        [json.loads(inputs), json.loads(outputs), None]
    )
