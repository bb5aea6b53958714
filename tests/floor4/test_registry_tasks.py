"""The registry as tasks and flows: retries, transactions, artifacts, events, approval."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.input import RunInput

from flows.promote_model import promote_model as promote_flow
from flows.register_model import register_model as register_flow
from flows.rollback_model import rollback_model as rollback_flow
from mltrack_tasks import (
    copy_model,
    download_model,
    list_models,
    load_model,
    model_history,
    promote_model,
    promotion_transaction,
    register_model,
    registry,
    resolve_model,
    set_policy,
)
from mltrack_tasks.errors import InvalidInputError, TransientError
from mltrack_tasks.models import ModelVersion
from mltrack_tasks.resolve import open_store


@pytest.fixture
def where(tmp_path: Path) -> str:
    return str(tmp_path / "store")


def model(root: Path, number: int) -> Path:
    folder = root / f"model{number}"
    folder.mkdir(exist_ok=True)
    (folder / "weights.bin").write_bytes(b"w" * 1_000 + str(number).encode())
    return folder


def promotion_shown(flow_run_id: str) -> str:
    """The text of the artifact of one flow run: the client promises no order of several."""
    with get_client(sync_client=True) as client:
        every = [one for one in client.read_artifacts() if one.key == "mltrack-promotion"]
    (shown,) = [one.data for one in every if str(one.flow_run_id) == flow_run_id]
    return str(shown)


def test_the_flows_register_promote_and_roll_back(where: str, tmp_path: Path) -> None:
    made = [
        register_flow(
            "churn", model_path=str(model(tmp_path, number)), metrics={"auc": 0.8 + number / 10}, store=where
        )
        for number in range(2)
    ]
    gate = {"kind": "not_worse", "metric": "auc"}
    promote_flow("churn", made[0].version, store=where)
    done = promote_flow("churn", gates=[gate], reason="better", store=where)
    assert (done.number, done.version, done.previous) == (2, made[1].version, made[0].version)
    assert done.flow_run_id
    shown = promotion_shown(done.flow_run_id)
    assert made[0].version in shown
    assert "+0.1" in shown
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
    with pytest.raises(InvalidInputError, match="signature"):
        promote_flow("m", made.version, store=where)


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
