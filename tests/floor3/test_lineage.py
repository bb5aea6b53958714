"""Lineage as traced in a store: which records it reads, and what it makes of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pytest

from mltrack_tasks.content import store_data
from mltrack_tasks.digest import sha256_hex
from mltrack_tasks.errors import FormatError, IntegrityError, InvalidInputError, NotFoundError
from mltrack_tasks.lineage import Edge, Node, to_markdown, to_mermaid, trace_lineage
from mltrack_tasks.modelkeys import version_key
from mltrack_tasks.models import ModelVersion
from mltrack_tasks.records import Record
from mltrack_tasks.recordstore import create_record
from mltrack_tasks.refs import DataRef
from mltrack_tasks.runs import store_run
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.memory import MemoryStore
from mltrack_tasks.stores.observed import CountingStore
from tests.floor0.lineage_texts import in_pieces, parse_mermaid
from tests.floor0.lineages import a_version
from tests.floor3.conftest import Place


def register(store: Store, version: ModelVersion) -> ModelVersion:
    create_record(
        store, version_key(version.model, version.version), version.to_content(), what="the version"
    )
    return version


class Pipeline(NamedTuple):
    """raw -> prepare -> features -> train -> weights -> the version; evaluate reads the weights too."""

    raw: DataRef
    features: DataRef
    weights: DataRef
    version: ModelVersion


def a_pipeline(store: Store) -> Pipeline:
    raw = store_data(store, b"raw", "raw")
    prepare = store_run(
        store,
        "prepare",
        {"notes": b"notes"},
        inputs={"raw": raw},
        outputs={"features": b"f"},
        storage_mode="flat",
    )
    features = prepare.outputs["features"]
    train = store_run(
        store,
        "train",
        inputs={"x": features, "y": features},
        outputs={"weights": b"weights"},
        project="churn",
        started_at=datetime(2024, 1, 15, tzinfo=UTC),
    )
    weights = train.outputs["weights"]
    store_run(
        store,
        "evaluate",
        inputs={"model": weights},
        outputs={"score": 0.9},
        storage_mode="flat",
        status="failed",
    )
    store_run(store, "apart", inputs={"own": b"own"}, storage_mode="flat")
    files = {"MLmodel": store_data(store, b"about the model"), "data/weights.bin": weights}
    version = a_version("churn", files, source_runs=("train", "of mlflow"), training_data={"train": features})
    return Pipeline(raw, features, weights, register(store, version))


def ids(nodes: Sequence[Node]) -> list[str]:
    return [node.id for node in nodes]


# what is traced


def test_both_sides_of_a_run(place: Place) -> None:
    made = a_pipeline(place.store)
    found = trace_lineage(place.store, run_id="train")
    assert found.subject.key == "run:train"
    assert ids(found.upstream()) == [made.features.hash, "prepare", made.raw.hash]
    assert ids(found.upstream("run")) == ["prepare"]
    assert set(ids(found.downstream("run"))) == {"evaluate"}
    assert ids(found.downstream("model")) == [f"churn/{made.version.version}"]
    assert [found.steps_up[node.key] for node in found.upstream()] == [1, 2, 3]
    assert not found.truncated
    edges = {(edge.source, edge.target, edge.kind): edge.names for edge in found.edges}
    blob, model = f"blob:{made.features.hash}", f"model:churn/{made.version.version}"
    assert edges[blob, "run:train", "input"] == ("x", "y")
    assert edges[blob, model, "training"] == ("train",)
    assert edges["run:train", model, "source"] == ()
    assert edges[f"blob:{made.weights.hash}", model, "file"] == ("data/weights.bin",)
    assert edges["run:train", f"blob:{made.weights.hash}", "output"] == ("weights",)
    assert "run:of mlflow" not in {node.key for node in found.nodes}
    told = {node.key: node.details for node in found.nodes}
    assert told["run:train"]["project"] == "churn"
    assert told["run:train"]["started_at"] == "2024-01-15T00:00:00Z"
    assert told["run:evaluate"]["status"] == "failed"
    assert told[blob] == {"formats": ["bin"], "size_bytes": 1, "names": ["features", "train", "x", "y"]}
    assert told[model]["files"] == 2


def test_of_a_model_version(store: Store) -> None:
    made = a_pipeline(store)
    for direction in ("upstream", "both"):
        found = trace_lineage(store, model="churn", version=made.version.version, direction=direction)
        assert ids(found.upstream("run")) == ["of mlflow", "train", "prepare"]
        assert set(ids(found.upstream("blob"))) == {
            ref.hash for ref in (made.raw, made.features, made.weights)
        }
        assert found.downstream() == ()
        [foreign] = [node for node in found.nodes if node.id == "of mlflow"]
        assert foreign.details == {"stored": False}


def test_of_a_blob_however_it_is_named(store: Store) -> None:
    made = a_pipeline(store)
    found = [trace_lineage(store, ref=ref) for ref in (made.weights, str(made.weights), made.weights.hash)]
    assert found[0] == found[1] == found[2]
    assert ids(found[0].upstream("run")) == ["train", "prepare"]
    assert ids(found[0].downstream("run")) == ["evaluate"]
    assert ids(found[0].downstream("model")) == [f"churn/{made.version.version}"]


def test_a_file_that_no_run_made_leads_to_its_models(store: Store) -> None:
    made = a_pipeline(store)
    about = made.version.files[0].digest
    assert ids(trace_lineage(store, ref=about).downstream()) == [f"churn/{made.version.version}"]
    assert trace_lineage(store, ref=about).subject.label == "MLmodel"
    assert about not in ids(trace_lineage(store, run_id="train").nodes)


def test_depth_and_direction(store: Store) -> None:
    made = a_pipeline(store)
    assert ids(trace_lineage(store, run_id="train", depth=0).nodes) == ["train"]
    one = trace_lineage(store, run_id="train", depth=1)
    assert set(ids(one.nodes)) == {
        "train",
        made.features.hash,
        made.weights.hash,
        f"churn/{made.version.version}",
    }
    up = trace_lineage(store, run_id="train", direction="upstream")
    assert up.downstream() == ()
    assert ids(up.nodes) == ["train", made.features.hash, "prepare", made.raw.hash]
    down = trace_lineage(store, run_id="train", direction="downstream", depth=1)
    assert down.upstream() == ()
    assert set(ids(down.nodes)) == set(ids(one.nodes)) - {made.features.hash}


def test_data_hangs_beside_the_subject_and_leads_nowhere(store: Store) -> None:
    """Two runs that list one training set as data are not made from each other."""
    shared = store_data(store, b"training set")
    for run_id in ("a", "b"):
        store_run(
            store,
            run_id,
            {"train": shared, "also": shared},
            outputs={"out": run_id.encode()},
            storage_mode="flat",
        )
    store_run(store, "reads", {"train": shared}, inputs={"train": shared}, storage_mode="flat")
    of_run = trace_lineage(store, run_id="a")
    assert set(ids(of_run.nodes)) == {"a", shared.hash, sha256_hex(b"a")}
    assert ids(of_run.upstream()) == []
    [data] = [edge for edge in of_run.edges if edge.kind == "data"]
    assert data == Edge(f"blob:{shared.hash}", "run:a", "data", ("also", "train"))
    of_blob = trace_lineage(store, ref=shared)
    assert ids(of_blob.downstream()) == ["reads"]
    assert {(edge.target, edge.kind) for edge in of_blob.edges} == {
        ("run:a", "data"),
        ("run:b", "data"),
        ("run:reads", "input"),
    }
    assert ids(trace_lineage(store, ref=sha256_hex(b"a")).nodes) == [sha256_hex(b"a"), "a"]


def test_a_run_may_make_what_it_reads(store: Store) -> None:
    same = store_data(store, b"unchanged")
    store_run(store, "r", inputs={"in": same}, outputs={"out": same}, storage_mode="flat")
    found = trace_lineage(store, run_id="r")
    assert ids(found.upstream()) == ids(found.downstream()) == [same.hash]
    assert len(found.edges) == 2


def test_the_current_revision_counts(store: Store) -> None:
    old, new = (store_data(store, body) for body in (b"old", b"new"))
    store_run(store, "r", inputs={"x": old}, storage_mode="flat")
    store_run(store, "r", inputs={"x": new}, storage_mode="flat", if_exists="revise")
    assert ids(trace_lineage(store, run_id="r").upstream()) == [new.hash]
    assert trace_lineage(store, ref=old).downstream() == ()


def test_what_nothing_lists_but_the_store_holds(store: Store) -> None:
    ref = store_data(store, b"alone")
    found = trace_lineage(store, ref=ref)
    assert found.nodes == (
        Node("blob", ref.hash, ref.hash[:12], {"formats": ["bin"], "size_bytes": 5, "names": []}),
    )
    assert found.edges == ()


def test_subjects_that_are_not_there(place: Place) -> None:
    a_pipeline(place.store)
    nowhere = "ab" * 32
    for arguments, said in (
        ({"run_id": "none"}, "no run 'none'"),
        ({"run_id": nowhere}, f"no run '{nowhere}'"),
        ({"ref": nowhere}, f"blob {nowhere} is not in"),
        ({"ref": f"sha256:{nowhere}.bin"}, f"blob {nowhere} is not in"),
        ({"model": "churn", "version": "v20240115_000000"}, "no version 'v20240115_000000' of model 'churn'"),
        ({"model": "other", "version": "v20240115_000000"}, "of model 'other'"),
        ({"run_id": "of mlflow"}, "no run 'of mlflow'"),
    ):
        for direction in ("both", "upstream"):
            with pytest.raises(NotFoundError, match=re.escape(said)):
                trace_lineage(place.store, direction=direction, **arguments)  # type: ignore[arg-type]


def test_a_run_id_may_look_like_anything(store: Store) -> None:
    ref = store_data(store, b"x")
    for run_id in (ref.hash, str(ref), "model:churn/v20240115_000000", "run:x"):
        store_run(store, run_id, inputs={"x": ref}, storage_mode="flat")
        assert trace_lineage(store, run_id=run_id).subject.key == f"run:{run_id}"
    assert len(trace_lineage(store, ref=ref).downstream("run")) == 4


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"run_id": "r", "ref": "ab" * 32},
        {"run_id": "r", "model": "m", "version": "v20240115_a1b2c3"},
        {"run_id": "r", "version": "v20240115_a1b2c3"},
        {"model": "m"},
        {"version": "v20240115_a1b2c3"},
        {"model": "m", "version": "latest"},
        {"model": "..", "version": "v20240115_a1b2c3"},
        {"run_id": ""},
        {"run_id": 5},
        {"ref": "x"},
        {"ref": 5},
        {"run_id": "r", "direction": "up"},
        {"run_id": "r", "depth": -1},
        {"run_id": "r", "depth": True},
        {"run_id": "r", "depth": 1.0},
        {"run_id": "r", "max_nodes": 0},
        {"run_id": "r", "max_nodes": None},
    ],
    ids=repr,
)
def test_what_cannot_be_asked(store: Store, arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        trace_lineage(store, **arguments)


def test_damage_hides_nothing_else(memory_place: Place, caplog: pytest.LogCaptureFixture) -> None:
    store, raw = memory_place.store, memory_place.raw
    made = a_pipeline(store)
    damaged = a_version("damaged", {"w": made.weights})
    for model in ("damaged", "newer"):
        register(store, a_version(model, {"w": made.weights}))
    raw.put(version_key("damaged", damaged.version), b"{")
    raw.put(version_key("newer", damaged.version), b'{"format":2}')
    misplaced = Record(made.version.to_content(), {}).to_bytes()
    raw.put(version_key("misplaced", made.version.version), misplaced)
    raw.put("models/development/churn/readme.md", b"x")
    raw.put("manifests/evaluate.json", b"{")
    with caplog.at_level("WARNING", "mltrack_tasks"):
        found = trace_lineage(store, ref=made.weights)
    assert ids(found.downstream()) == [f"churn/{made.version.version}"]
    for named in (
        "manifests/evaluate.json",
        "development/damaged/",
        "development/newer/",
        "development/misplaced/",
    ):
        assert named in caplog.text
    for error, arguments in (
        (IntegrityError, {"run_id": "evaluate"}),
        (IntegrityError, {"model": "damaged", "version": damaged.version}),
        (FormatError, {"model": "newer", "version": damaged.version}),
        (IntegrityError, {"model": "misplaced", "version": made.version.version}),
    ):
        with pytest.raises(error):
            trace_lineage(store, **arguments)  # type: ignore[arg-type]


def test_requests() -> None:
    """Versions are read once, and not at all for what is upstream: nothing leads from them."""
    bare = MemoryStore()
    made = a_pipeline(bare)
    counting = CountingStore(bare)
    trace_lineage(counting, run_id="train", direction="upstream")
    runs = counting.calls.total()
    assert not [key for _, key in counting.log if key.startswith("models/")]
    counting = CountingStore(bare)
    trace_lineage(counting, run_id="train")
    assert counting.calls.total() == runs + 2
    counting = CountingStore(bare)
    trace_lineage(counting, model="churn", version=made.version.version)
    assert counting.calls.total() == runs + 1


def test_what_is_drawn(store: Store) -> None:
    made = a_pipeline(store)
    found = trace_lineage(store, run_id="train")
    chart = parse_mermaid(to_mermaid(found))
    assert chart.nodes["n0"] == ("run", "run train\nstatus finished, project churn")
    assert set(chart.nodes.values()) >= {
        ("blob", "blob raw\nbin 3 B"),
        ("model", f"model churn\nversion {made.version.version}"),
        ("run", "run evaluate\nstatus failed"),
    }
    said = {
        (chart.nodes[a][1].split("\n")[0], chart.nodes[b][1].split("\n")[0]): label
        for a, b, _, label in chart.edges
    }
    assert said["blob features", "run train"] == "input x, y"
    assert said["run train", "model churn"] == "source"
    assert len(chart.edges) == len(found.edges)
    assert chart.note == ""
    sentence, drawing, rows = in_pieces(to_markdown(found))
    assert sentence == "Lineage of run **train**: 3 upstream, 4 downstream."
    assert drawing == to_mermaid(found)
    assert rows[0][1:6] == ["0", "run", "train", "train", "status finished, project churn"]
    by_id = {row[4]: row for row in rows}
    assert by_id["prepare"][1] == "-2"
    assert by_id["evaluate"][1] == "+2"
    number = by_id[made.features.hash][0]
    assert by_id["train"][6] == f"{number} (input x, y)"


def test_data_is_drawn_without_an_arrow(store: Store) -> None:
    store_run(store, "r", {"train": b"x"}, storage_mode="flat")
    found = trace_lineage(store, run_id="r")
    chart = parse_mermaid(to_mermaid(found))
    assert chart.edges == [("n1", "n0", "-.-", "data train")]
    markdown = to_markdown(found)
    assert in_pieces(markdown)[2][1][1] == "data"
    assert "Listed as *data*" in markdown
