"""Files of a file store as anybody may have made them: read as MLflow reads them, or refused for that run."""

from __future__ import annotations

import math
import string
from collections.abc import ItemsView, Iterator
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from mltrack_tasks.errors import IntegrityError
from mltrack_tasks.mlflowdata import yamls
from mltrack_tasks.mlflowdata.facts import Experiment
from mltrack_tasks.mlflowdata.filestore import (
    Datasets,
    read_experiment,
    read_logged_model,
    read_registered_model,
    read_registered_models,
    read_run,
)

RUN = "484c17cb57494d3ea6999fb9bc6e14c4"
META = {
    "run_id": RUN,
    "experiment_id": "7",
    "run_name": "first",
    "user_id": "ana",
    "status": 3,
    "lifecycle_stage": "active",
    "start_time": 1_700_000_000_123,
    "end_time": None,
    "artifact_uri": "file:///data/mlruns/7/x/artifacts",
    "tags": [],
}
MODEL = {"model_id": "m-1", "experiment_id": "7", "name": "clf", "status": 2, "creation_timestamp": 5}


def dumped(value: Any) -> bytes:
    """YAML as MLflow writes it."""
    text: str = yaml.safe_dump(value, default_flow_style=False, allow_unicode=True, sort_keys=True)
    return text.encode()


def run_files(files: dict[str, bytes] | None = None, **fields: Any) -> dict[str, bytes]:
    return {"meta.yaml": dumped({**META, **fields}), **(files or {})}


def meta_without(key: str) -> dict[str, bytes]:
    return {"meta.yaml": dumped({name: value for name, value in META.items() if name != key})}


def history(lines: bytes) -> list[list[Any]]:
    return read_run(run_files({"metrics/m": lines}), what="a run").history["m"]


# YAML


_TEXTS = st.text(max_size=120) | st.sampled_from(
    [
        "yes",
        "NO",
        "null",
        "~",
        "1e3",
        "0b11",
        "0x1f",
        "012",
        "1_000",
        "1:30",
        "2001-01-01",
        ".inf",
        "<<",
        "=",
        "!x",
    ]
)
_SCALARS = st.none() | st.integers(-(2**63), 2**63) | _TEXTS | st.booleans() | st.floats(allow_nan=False)
_KEYS = st.text(string.ascii_letters + string.digits + "_./ ", min_size=1, max_size=12)
_MAPPINGS = st.dictionaries(
    _KEYS, _SCALARS | st.builds(list) | st.dictionaries(_KEYS, _SCALARS, max_size=3), max_size=6
)


@given(_MAPPINGS)
def test_what_mlflow_writes_is_read_as_pyyaml_reads_it(mapping: dict[str, Any]) -> None:
    data = dumped(mapping)
    assert yamls.load_mapping(data, "a file") == yaml.safe_load(data.decode()) or not mapping


_LINES = st.lists(
    st.builds(
        str.__add__,
        st.sampled_from(["", "  ", "key: ", "  key: ", "other:", "  other: ", "- ", "on: ", "k.2: '"]),
        st.text("ab01xe_./:@+- '\"#&*!|>[]{}~=\u2028é", max_size=12) | _TEXTS,
    ),
    max_size=5,
).map(lambda lines: "".join(f"{line}\n" for line in lines))


@given(_LINES)
@example("a:\n")
@example("a:\n  b: c\n")
@example("on: 1\n")
@example("a:\n  No: 1\n")
@example("a: b: c\n")
@example(f"a: {'0b' * 16}\n")
@example(f"a: 0b{'1' * 30}\n")
@example(f"a: {'1' * 32}\n")
@example(f"a: {'1' * 17}\n")
@example("a: x -y :z\nb: ''\n")
def test_lines_are_read_as_pyyaml_reads_them_or_not_at_all(content: str) -> None:
    value = yamls.load_lines(content)
    if value is not None:
        assert (value, str(value)) == (yaml.safe_load(content), str(yaml.safe_load(content)))


def test_the_usual_meta_yaml_needs_no_parser() -> None:
    assert yamls.load_lines(run_files()["meta.yaml"].decode()) == META
    vertex = {"source_id": RUN, "source_type": "DATASET", "tags": {"mlflow.data.context": "training"}}
    assert yamls.load_lines(dumped(vertex).decode()) == vertex


_LAUGHS = "a: &a {k: v}\n" + "".join(
    f"{name}: &{name} {{<<: [{', '.join([f'*{before}'] * 9)}]}}\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"- a\n- b\n",
        b"plain",
        b"\xff\xfe: 1\n",
        b"a: [1, 2\n",
        b"a: \x00\n",
        b"a: 2001-99-99\n",
        b"? [a, b]\n: c\n",
        b"a: !!python/object/apply:os.system ['true']\n",
        b"a: !!binary aGk=\n",
        b"a: &x 1\nb: *x\n",
        b"a: " + b"[" * 100_000,
        b"a: " + b"[" * 50 + b"]" * 50,
        b"a: [" + b"{}, " * 200_000 + b"]\n",
        b"a: " + b"9" * 5_000 + b"\n",
        _LAUGHS.encode(),
    ],
    ids=lambda content: str(content[:24]),
)
def test_yaml_that_mlflow_did_not_write_is_refused(content: bytes) -> None:
    with pytest.raises(IntegrityError, match="the file"):
        yamls.load_mapping(content, "the file")


def test_a_file_beyond_all_measure_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yamls, "MAX_BYTES", 100)
    with pytest.raises(IntegrityError, match="limit"):
        read_run(run_files(), what="the run")


# Runs


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("run_id", None),
        ("run_id", "../../etc"),
        ("run_id", ["a"]),
        ("run_id", True),
        ("experiment_id", "a/b"),
        ("experiment_id", ""),
        ("status", 9),
        ("status", "FINISHED"),
        ("lifecycle_stage", "gone"),
        ("start_time", "yesterday"),
        ("start_time", 10**18),
        ("start_time", 1.5),
        ("end_time", 10**40),
        ("run_name", {"a": 1}),
        ("user_id", 3.5),
        ("artifact_uri", ["x"]),
    ],
)
def test_a_field_that_mlflow_would_not_write_is_refused(field: str, value: Any) -> None:
    with pytest.raises(IntegrityError, match=field):
        read_run(run_files(**{field: value}), what="the run")


def test_files_of_old_versions() -> None:
    old = {key: value for key, value in META.items() if key in ("user_id", "start_time", "artifact_uri")}
    meta = dumped({**old, "run_uuid": RUN, "experiment_id": 0, "name": ""})
    facts = read_run(
        {"meta.yaml": meta, "tags/mlflow.runName": b"by tag", "metrics/m": b"5 1.5\n6 2.5\n"}, what="a run"
    )
    assert (facts.run_id, facts.experiment_id, facts.name) == (RUN, "0", "by tag")
    assert (facts.status, facts.lifecycle, facts.ended_at) == ("running", "active", None)
    assert (facts.history, facts.metrics) == ({"m": [[5, 1.5, 0], [6, 2.5, 0]]}, {"m": 2.5})


def test_lines_of_a_metric() -> None:
    assert history(b"5 1.0 0\n") == [[5, 1.0, 0]]
    assert history(b"5 -inf -3\r\n6 1e-320 4") == [[5, -math.inf, -3], [6, 1e-320, 4]]
    assert history(b"5 0.5 3 train abc\n") == [[5, 0.5, 3, "train", "abc"]]
    assert math.isnan(history(b"5 nan 0\n")[0][1])
    assert history(b"") == []


def test_an_empty_metric_has_no_value() -> None:
    facts = read_run(run_files({"metrics/m": b"", "metrics/n": b"1 2 3\n"}), what="a run")
    assert facts.metrics == {"n": 2.0}


@pytest.mark.parametrize(
    "lines",
    [
        *(b"5\n", b"\n", b"5 1 2 3\n", b"a 1 0\n", b"5 b 0\n", b"5 1 c\n", b"5 1 1.5\n", b"\xff 1 0\n"),
        *(b"5 1 0 a b c\n", f"{2**63} 1 0\n".encode(), f"1 1 {'9' * 5000}\n".encode()),
    ],
    ids=lambda line: str(line[:12]),
)
def test_lines_that_mlflow_could_not_read_are_refused(lines: bytes) -> None:
    with pytest.raises(IntegrityError, match="metrics/loss"):
        read_run(run_files({"metrics/loss": lines}), what="the run")


@pytest.mark.parametrize("folder", ["params", "tags"])
def test_bytes_that_are_no_text_are_refused(folder: str) -> None:
    with pytest.raises(IntegrityError, match=f"{folder}/a.*UTF-8"):
        read_run(run_files({f"{folder}/a": b"caf\xe9"}), what="the run")
    with pytest.raises(IntegrityError, match="Unicode"):
        read_run(run_files({f"{folder}/caf\udce9": b"x"}), what="the run")


def test_files_that_are_nothing_of_mlflow_are_left_alone() -> None:
    files = {
        "notes.txt": b"\xff",
        "inputs/x/other.bin": b"\xff",
        "outputs/a/b/meta.yaml": b"\xff",
        "params": b"",
    }
    assert read_run(run_files(files), what="a run") == read_run(run_files(), what="a run")


def test_a_run_in_the_wrong_place_is_refused() -> None:
    home = Experiment("7", "here", "active", "7", {})
    assert read_run(run_files(), what="a run", run_id=RUN, experiment=home).experiment_name == "here"
    with pytest.raises(IntegrityError, match="lies in that of"):
        read_run(run_files(), what="a run", run_id="0" * 32)
    with pytest.raises(IntegrityError, match="experiment 7"):
        read_run(run_files(), what="a run", experiment=Experiment("8", "there", "active", "8", {}))


def test_a_run_without_meta_yaml_is_refused() -> None:
    with pytest.raises(IntegrityError, match=r"no meta\.yaml"):
        read_run({"params/a": b"x"}, what="the run")
    assert read_run(meta_without("lifecycle_stage"), what="a run").lifecycle == "active"
    with pytest.raises(IntegrityError, match="experiment_id"):
        read_run(meta_without("experiment_id"), what="the run")


def vertex(**fields: Any) -> bytes:
    return dumped({"source_type": "DATASET", "source_id": "d1", "tags": {}, **fields})


def test_datasets_of_a_run() -> None:
    known = Datasets(
        {
            "d1/meta.yaml": dumped({"name": "train", "digest": "x", "source_type": "local", "source": "{}"}),
            "d2/meta.yaml": b"\xff",
            "d3/meta.yaml": dumped({"name": "train"}),
        },
        what="datasets",
    )

    def inputs(**fields: Any) -> list[dict[str, Any]]:
        return read_run(
            run_files({"inputs/i/meta.yaml": vertex(**fields)}), what="run", datasets=known
        ).datasets

    (dataset,) = inputs(tags={"mlflow.data.context": "training"})
    assert dataset["tags"] == {"mlflow.data.context": "training"}
    assert (dataset["name"], dataset["schema"], dataset["profile"]) == ("train", None, None)
    assert inputs(source_id="unknown") == []
    for bad in (
        {"source_id": "d2"},
        {"source_id": "d3"},
        {"source_id": 1.5},
        {"tags": [1]},
        {"tags": {"a": [1]}},
    ):
        with pytest.raises(IntegrityError):
            inputs(**bad)


def test_models_of_a_run() -> None:
    given_back = dumped({"destination_type": "MODEL_OUTPUT", "destination_id": "m-1", "step": 4})
    taken = dumped({"source_type": "MODEL", "source_id": "m-2"})
    files = {"outputs/m-1/meta.yaml": given_back, "inputs/i/meta.yaml": taken}
    assert read_run(run_files(files), what="a run").models == [
        {"model_id": "m-1", "direction": "output", "step": 4},
        {"model_id": "m-2", "direction": "input", "step": None},
    ]
    for bad in ({"destination_id": "../x", "step": 1}, {"destination_id": "m-1", "step": "x"}):
        with pytest.raises(IntegrityError):
            read_run(
                run_files({"outputs/m/meta.yaml": dumped({"destination_type": "MODEL_OUTPUT", **bad})}),
                what="run",
            )


# Experiments, logged models, the registry


def test_experiments() -> None:
    files = {
        "meta.yaml": dumped({"experiment_id": 0, "name": "a"}),
        "tags/x/y": b"z",
        "abc/meta.yaml": b"\xff",
    }
    assert read_experiment(files, what="e", folder="0") == Experiment("0", "a", "active", "0", {"x/y": "z"})
    for fields in ({"name": "a"}, {"experiment_id": "1"}, {"experiment_id": "a b", "name": "a"}):
        with pytest.raises(IntegrityError):
            read_experiment({"meta.yaml": dumped(fields)}, what="e")


def test_logged_models() -> None:
    lines = b"8 0.25 2 r1 train abc\n9 0.5 3 r1\n"
    model = read_logged_model(
        {"meta.yaml": dumped(MODEL), "metrics/a/b": lines}, what="m", folder="x/artifacts"
    )
    assert model.metrics == [["a/b", 8, 0.25, 2, "r1", "train", "abc"], ["a/b", 9, 0.5, 3, "r1", None, None]]
    assert (model.status, model.lifecycle, model.folder) == ("ready", "active", "x/artifacts")
    for bad in ({"status": 7}, {"model_id": "a/b"}, {"source_run_id": "../x"}, {"creation_timestamp": "x"}):
        with pytest.raises(IntegrityError):
            read_logged_model({"meta.yaml": dumped({**MODEL, **bad})}, what="m")
    with pytest.raises(IntegrityError, match="4 or 6"):
        read_logged_model({"meta.yaml": dumped(MODEL), "metrics/a": b"8 0.25 2\n"}, what="m")


def registered(**files: bytes) -> dict[str, bytes]:
    version = {"version": 1, "status": "READY", "current_stage": "None", "source": "x", "run_id": RUN}
    return {
        "meta.yaml": dumped({"name": "churn"}),
        "version-1/meta.yaml": dumped(version),
        **{name.replace("_", "/"): data for name, data in files.items()},
    }


def test_registered_models() -> None:
    model = read_registered_model(registered(aliases_best=b"1"), what="m", name="churn")
    assert model.aliases == {"best": 1}
    assert [(v.version, v.stage, v.status) for v in model.versions] == [(1, None, "ready")]
    many = {f"{name}/{path}": data for name in ("churn", "x") for path, data in registered().items()}
    with pytest.raises(IntegrityError, match="lies in that of 'x'"):
        read_registered_models(many, what="m")


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("meta.yaml", b"\xff"),
        ("meta.yaml", dumped({"name": 5})),
        ("aliases/a", b"one"),
        ("aliases/a", b"9" * 5_000),
    ],
)
def test_a_damaged_registered_model_is_refused(path: str, data: bytes) -> None:
    with pytest.raises(IntegrityError):
        read_registered_model({**registered(), path: data}, what="m", name="churn")


@pytest.mark.parametrize(
    ("path", "data", "reason"),
    [
        ("version-2/meta.yaml", b"\xff", "version-2, meta.yaml"),
        ("version-2/meta.yaml", dumped({"version": 3}), "says to be version 3"),
        ("version-2/meta.yaml", dumped({"version": 2, "status": "MAYBE"}), "status should be"),
        ("version-2/meta.yaml", dumped({"version": 2, "run_id": "a/b"}), "run_id"),
        ("version-2/tags/a", b"no meta.yaml", "has no meta.yaml"),
    ],
)
def test_a_damaged_version_is_named_and_hides_no_other(path: str, data: bytes, reason: str) -> None:
    model = read_registered_model({**registered(), path: data}, what="m", name="churn")
    assert [version.version for version in model.versions] == [1]
    assert list(model.damaged) == [2]
    assert reason in model.damaged[2]


@pytest.mark.parametrize(
    ("model", "version", "latest"),
    [(None, None, None), (5, None, 5), (5, 7, 7), (9, 7, 9), ("x", 7, 7), (7, [1], 7), (2**62, 7, 7)],
)
def test_the_latest_change_is_of_the_model_or_a_version(
    model: object, version: object, latest: object
) -> None:
    files = registered()
    said = yaml.safe_load(files["version-1/meta.yaml"])
    files["meta.yaml"] = dumped({"name": "churn", "last_updated_timestamp": model})
    files["version-1/meta.yaml"] = dumped({**said, "last_updated_timestamp": version})
    read = read_registered_model(files, what="m")
    assert len(read.versions) == 1
    found = read.updated_at
    assert (None if found is None else round(found.timestamp() * 1000)) == latest


_ANY = st.binary(max_size=60) | st.sampled_from([dumped(META), dumped(MODEL), vertex(), b"5 1 0\n", b"1"])
_NAMES = st.sampled_from(
    [
        *(
            "meta.yaml",
            "params/a",
            "metrics/a/b",
            "tags/caf\udce9",
            "inputs/i/meta.yaml",
            "outputs/o/meta.yaml",
        ),
        *("aliases/a", "version-1/meta.yaml", "version-1/tags/a", "x"),
    ]
)


@given(st.dictionaries(_NAMES, _ANY))
def test_any_bytes_are_facts_or_refused(files: dict[str, bytes]) -> None:
    datasets = Datasets({"d1/meta.yaml": files.get("x", b"")}, what="d")
    for call in (
        lambda: read_run(files, what="r", datasets=datasets),
        lambda: read_experiment(files, what="e"),
        lambda: read_logged_model(files, what="m"),
        lambda: read_registered_model(files, what="m"),
    ):
        try:
            facts = call()
        except IntegrityError:
            continue
        assert "meta.yaml" in files, facts


class _Looked(dict[str, bytes]):
    """Files that count how often somebody goes through all of them."""

    looks = 0

    def __iter__(self) -> Iterator[str]:
        self.looks += 1
        return super().__iter__()

    def items(self) -> ItemsView[str, bytes]:
        self.looks += 1
        return super().items()


@pytest.mark.parametrize("versions", [1, 50])
def test_the_files_of_a_model_are_gone_through_as_often_for_many_versions_as_for_one(versions: int) -> None:
    """Else a nightly migration of a model with 10,000 versions looked at each file 10,000 times."""
    files = _Looked({"meta.yaml": b"name: churn"})
    for number in range(1, versions + 1):
        files[f"version-{number}/meta.yaml"] = f"version: {number}".encode()
        files[f"version-{number}/tags/own"] = str(number).encode()
    model = read_registered_model(files, what="churn")
    assert [version.tags for version in model.versions] == [{"own": str(n + 1)} for n in range(versions)]
    assert files.looks <= 3
