"""The registry as tasks and flows: retries, transactions, artifacts, events, approval."""

from __future__ import annotations

import inspect
import pickle
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter
from prefect.exceptions import ParameterTypeError
from prefect.input import RunInput
from prefect.utilities.callables import parameter_schema

from flows.promote_model import promote_model as promote_flow
from flows.register_model import register_model as register_flow
from flows.rollback_model import rollback_model as rollback_flow
from mltrack_tasks import (
    copy_model,
    deprecate_version,
    download_model,
    list_models,
    load_model,
    model_history,
    promote_model,
    promotion_transaction,
    register_model,
    registry,
    remove_alias,
    remove_version,
    resolve_model,
    rollback_model,
    set_policy,
    tasking,
)
from mltrack_tasks.errors import GateError, InvalidInputError, TransientError
from mltrack_tasks.models import ModelVersion
from mltrack_tasks.resolve import open_store

PAGE = Path(__file__).parents[2] / "docs" / "registry.md"


def model(root: Path, number: int) -> Path:
    folder = root / f"model{number}"
    folder.mkdir(exist_ok=True)
    (folder / "weights.bin").write_bytes(b"w" * 1_000 + str(number).encode())
    return folder


def shown(flow_run_id: str, key: str = "mltrack-promotion") -> str:
    """The text of the artifact of one flow run."""
    chosen = ArtifactFilter(flow_run_id={"any_": [flow_run_id]}, key={"any_": [key]})
    with get_client(sync_client=True) as client:
        (found,) = client.read_artifacts(artifact_filter=chosen)
    return str(found.data)


def test_the_flows_register_promote_and_roll_back(where: str, tmp_path: Path) -> None:
    made = [
        register_flow(
            None, "churn", str(model(tmp_path, number)), metrics={"auc": 0.8 + number / 10}, store=where
        )
        for number in range(2)
    ]
    gate = {"kind": "not_worse", "metric": "auc"}
    promote_flow("churn", made[0].version, store=where)
    registry.register_model(open_store(where), None, "churn", model(tmp_path, 1), metrics={"f1": 0.25})
    done = promote_flow("churn", gates=[gate], reason="better", store=where)
    assert (done.number, done.version, done.previous) == (2, made[1].version, made[0].version)
    assert done.flow_run_id
    text = shown(done.flow_run_id)
    assert made[0].version in text
    assert "+0.1" in text
    assert "| f1 |  | 0\\.25 | new |" in text, "what was measured later, and gates judge by, is shown too"
    back = rollback_flow("churn", reason="drift", store=where)
    assert back.version == made[0].version


def test_tasks_submitted_mapped_and_copied(where: str, tmp_path: Path) -> None:
    folders = [str(model(tmp_path, number)) for number in range(3)]
    other = str(tmp_path / "other")

    @flow
    def pipeline() -> Any:
        made = register_model.map(None, "churn", folders, store=where).result()
        done = promote_model.submit("churn", made[2].version, store=where).result()
        path = download_model.submit("churn", "production", tmp_path / "out", store=where).result()
        copied = copy_model.submit("churn", "production", other, store=where).result()
        return made, done, path, copied, list_models(store=where)

    made, done, path, copied, listed = pipeline()
    assert len({version.version for version in made}) == 3
    assert (path / "weights.bin").read_bytes().endswith(b"2")
    assert copied.version == done.version == made[2].version
    assert copied.tree_digest == made[2].tree_digest
    assert listed[0].aliases == {"production": done.version}
    assert resolve_model.fn("churn", copied.version, store=other).source_runs == copied.source_runs


def test_a_transaction_takes_the_alias_back(where: str, tmp_path: Path) -> None:
    one, two = (register_model.fn(None, "m", model(tmp_path, n), store=where).version for n in range(2))
    promote_model.fn("m", one, store=where)

    @flow
    def deploy(somebody_else: str | None) -> None:
        with promotion_transaction():
            promote_model("m", two, store=where)
            if somebody_else:
                registry.promote_model(open_store(where), "m", somebody_else)
            raise RuntimeError("the deployment failed")

    with pytest.raises(RuntimeError, match="the deployment failed"):
        deploy(None)
    assert resolve_model.fn("m", store=where).version == one
    assert [event.action for event in model_history.fn("m", store=where)] == [
        "promote",
        "promote",
        "rollback",
    ]
    three = register_model.fn(None, "m", model(tmp_path, 3), store=where).version
    with pytest.raises(RuntimeError):
        deploy(three)
    assert resolve_model.fn("m", store=where).version == three, "a newer promotion stays"
    with promotion_transaction():
        promote_model.fn("m", two, "champion", store=where)
    assert resolve_model.fn("m", "champion", store=where).version == two


def test_a_first_promotion_is_taken_back_to_nothing(where: str, tmp_path: Path) -> None:
    made = register_model.fn(None, "m", model(tmp_path, 1), store=where)

    def cancelled() -> None:
        with promotion_transaction():
            promote_model.fn("m", made.version, store=where)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cancelled()
    assert list_models.fn(store=where)[0].aliases == {}


def test_a_retried_task_appends_nothing_twice(where: str, tmp_path: Path) -> None:
    one, two = (register_model.fn(None, "m", model(tmp_path, n), store=where).version for n in range(2))
    tries = []

    @task
    def gate(version: ModelVersion, current: ModelVersion | None) -> bool:
        return True

    @flow
    def pipeline() -> Any:
        def failing(version: ModelVersion, current: ModelVersion | None) -> bool:
            tries.append(version)
            if len(tries) == 1:
                raise TransientError("the first try fails")
            return True

        return promote_model.with_options(retry_delay_seconds=0)("m", one, gates=[gate, failing], store=where)

    done = pipeline()
    assert (done.number, len(tries)) == (1, 2)
    assert [report["gate"]["name"] for report in done.gates] == ["gate", "failing"]
    assert len(model_history.fn("m", store=where)) == 1
    assert two


def test_a_policy_set_by_a_task_holds_in_the_flow(where: str, tmp_path: Path) -> None:
    made = register_model.fn(None, "m", model(tmp_path, 1), store=where)
    set_policy.fn("m", "production", [{"kind": "signature"}], store=where)
    with pytest.raises(GateError, match="signature"):
        promote_flow("m", made.version, store=where)


def test_what_the_gates_said_is_shown_before_the_run_fails(where: str, tmp_path: Path) -> None:
    made = register_model.fn(None, "m", model(tmp_path, 1), metrics={"auc": 0.7}, store=where)
    gates = [{"kind": "metric", "metric": "auc", "at_least": 0.9}, {"kind": "files"}]

    @flow
    def by_call() -> None:
        promote_model.fn("m", made.version, gates=gates, store=where)

    for refused in (by_call, partial(promote_flow, "m", made.version, gates=gates, store=where)):
        state = refused(return_state=True)
        with pytest.raises(GateError) as caught:
            state.result()
        assert [report["passed"] for report in caught.value.details["gates"]] == [False, True]
        text = shown(str(state.state_details.flow_run_id), "mltrack-promotion-refused")
        assert "| metric | **no** | auc is 0\\.7\\; allowed is 0\\.9 to inf |" in text
        assert "1 of 2 gates refused it" in text


def test_the_form_of_the_flow_offers_every_gate() -> None:
    schema = parameter_schema(promote_flow).model_dump()
    offered = schema["properties"]["gates"]["items"]["discriminator"]["mapping"]
    assert {*offered} == {"metric", "not_worse", "tags", "signature", "files", "pickle"}
    for reference in offered.values():
        gate = schema["definitions"][reference.rpartition("/")[2]]
        assert gate["description"]
        assert all(field["description"] for field in gate["properties"].values())
        assert gate["required"][0] == "kind"  # so that the server refuses a gate without, and no run fails
    with pytest.raises(ParameterTypeError, match="at_leest"):
        promote_flow("m", gates=[{"kind": "metric", "metric": "auc", "at_leest": 0.9}])


@pytest.mark.parametrize(
    ("of_flow", "of_task"),
    [(register_flow, register_model), (promote_flow, promote_model), (rollback_flow, rollback_model)],
)
def test_a_flow_takes_its_arguments_in_the_order_of_its_task(of_flow: Any, of_task: Any) -> None:
    ours, theirs = (list(inspect.signature(each.fn).parameters) for each in (of_flow, of_task))
    assert [name for name in theirs if name in ours] == [name for name in ours if name in theirs]
    assert ours[-1] == "store"


def test_changes_of_a_model_are_events(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    emitted: list[dict[str, Any]] = []
    monkeypatch.setattr(tasking, "emit_event", lambda **event: emitted.append(event))
    one, two = (register_model.fn(None, "m", model(tmp_path, n), store=where).version for n in range(2))

    @flow
    def changes() -> None:
        set_policy("m", "production", [{"kind": "files"}], store=where)
        set_policy("m", "production", [{"kind": "files"}], store=where)  # the same again is no change
        deprecate_version("m", one, reason="old", store=where)
        copy_model("m", two, str(tmp_path / "other"), store=where)

    changes()
    told = {event["event"]: event for event in emitted if event["event"] != "mltrack.model.registered"}
    assert [event["event"] for event in emitted if event["event"] in told] == list(told)
    assert list(told) == ["mltrack.model.policy_set", "mltrack.model.deprecated", "mltrack.model.copied"]
    policy = told["mltrack.model.policy_set"]
    assert policy["payload"] == {
        **{"model": "m", "alias": "production", "number": 1},
        "gates": [{"kind": "files"}],
    }
    assert policy["resource"]["mltrack.alias"] == "production"
    assert told["mltrack.model.deprecated"]["payload"]["reason"] == "old"


def documented() -> dict[str, set[str]]:
    """The events of the page with the fields of their payloads."""
    found: dict[str, set[str]] = {}
    for names, payload in re.findall(
        r"^\| (`mltrack\.model\..*?) \| (.*) \|$", PAGE.read_text(), re.MULTILINE
    ):
        for name in re.findall(r"`[\w.]*\.(\w+)`", names):
            found[f"mltrack.model.{name}"] = set(re.findall(r"`(\w+)`", payload))
    return found


def test_the_page_names_all_that_events_say(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    emitted: list[dict[str, Any]] = []
    monkeypatch.setattr(tasking, "emit_event", lambda **event: emitted.append(event))

    @flow
    def changes() -> None:
        one, two = (register_model(None, "m", model(tmp_path, n), store=where).version for n in range(2))
        set_policy("m", "production", [{"kind": "files"}], store=where)
        for version in one, two:
            promote_model("m", version, store=where)
        rollback_model("m", store=where)
        remove_alias("m", "production", store=where)
        deprecate_version("m", two, store=where)
        copy_model("m", one, str(tmp_path / "other"), store=where)
        remove_version("m", two, though_promoted=True, dry_run=False, store=where)

    changes()
    said = {event["event"]: set(event["payload"]) for event in emitted}
    assert said == documented()
    registered = next(event["payload"] for event in emitted if event["event"] == "mltrack.model.registered")
    assert (registered["files"], registered["bytes"]) == (1, 1_001)


@pytest.mark.parametrize("approve", [True, False])
def test_approval_is_bound_to_the_bytes(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, approve: bool
) -> None:
    """The answer that a person gives in the UI, put in the place of the pause that waits for it."""
    made = register_model.fn(None, "m", model(tmp_path, 1), store=where)
    asked: list[type[RunInput]] = []

    def answered(wait_for_input: Any, timeout: int) -> Any:
        asked.append(wait_for_input)
        return wait_for_input(approve=approve, by="Ada", comment="looks right")

    monkeypatch.setattr("flows.promote_model.pause_flow_run", answered)
    if not approve:
        with pytest.raises(InvalidInputError, match="Ada did not approve"):
            promote_flow("m", approval=True, store=where)
        return
    done = promote_flow("m", approval=True, store=where)
    assert done.approval == {"by": "Ada", "comment": "looks right", "tree_digest": made.tree_digest}
    assert made.tree_digest in str(asked[0]._description)
    with pytest.raises(InvalidInputError, match="approval is not of"):
        promote_model.fn("m", made.version, "staging", approval={"by": "x"}, store=where)


def test_a_model_is_loaded_in_a_flow_and_passed_on(where: str, tmp_path: Path) -> None:
    file = tmp_path / "model.pkl"
    file.write_bytes(pickle.dumps({"weights": [1, 2]}))

    @task
    def predict(loaded: dict[str, list[int]]) -> int:
        return sum(loaded["weights"])

    @flow
    def scoring() -> list[int]:
        made = register_model(None, "m", str(file), store=where)
        loaded = load_model.submit("m", made.version, trusted_digest=made.tree_digest, store=where)
        return [future.result() for future in predict.map([loaded.result(), loaded.result()])]

    assert scoring() == [3, 3]


def test_an_alias_that_was_moved_before_the_answer_stays(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, three = (
        register_model.fn(None, "m", model(tmp_path, n), store=where).version for n in range(3)
    )
    promote_model.fn("m", one, store=where)

    def answered(wait_for_input: Any, timeout: int) -> Any:
        assert f"{two}** to **production**, in place of {one}" in str(wait_for_input._description)
        registry.promote_model(open_store(where), "m", three)
        return wait_for_input(approve=True, by="Ada")

    monkeypatch.setattr("flows.promote_model.pause_flow_run", answered)
    with pytest.raises(InvalidInputError, match=f"production stands for {three} now, and stood for {one}"):
        promote_flow("m", two, approval=True, store=where)
    assert resolve_model.fn("m", store=where).version == three
