"""Which calls are one call made again: retries of tasks and flows, reruns, subflows, equal calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.flow_engine import run_flow
from prefect.states import Scheduled

from flows.rollback_model import rollback_model as rollback_flow
from mltrack_tasks import promote_model, promotion_transaction, registry, remove_alias, rollback_model
from mltrack_tasks.promotions import Promotion
from mltrack_tasks.resolve import open_store


class _LaterError(Exception):
    """What fails after the alias has moved."""


def history(where: str, alias: str = "production") -> list[Promotion]:
    return registry.model_history(open_store(where), "m", alias)


def moves(where: str) -> list[tuple[str, str | None]]:
    return [(event.action, event.version) for event in history(where)]


def promoted(where: str, *versions: str) -> None:
    for version in versions:
        registry.promote_model(open_store(where), "m", version)


def fails_once(body: Callable[[], Any]) -> Any:
    """A flow with one retry, whose first attempt fails after all of ``body``."""
    attempts: list[int] = []

    @flow(retries=1)
    def pipeline() -> Any:
        attempts.append(1)
        made = body()
        if len(attempts) == 1:
            raise _LaterError
        return made

    made = pipeline()
    assert len(attempts) == 2
    return made


def test_different_calls_in_one_task_run_are_two_and_equal_ones_are_one(
    where: str, versions: list[str]
) -> None:
    a, b, *_ = versions

    @task
    def release() -> list[Promotion]:
        return [promote_model.fn("m", version, store=where) for version in (a, b, b)] + [
            promote_model.fn("m", a, "champion", store=where),
            rollback_model.fn("m", store=where),
            rollback_model.fn("m", store=where),
        ]

    @flow
    def pipeline() -> list[Promotion]:
        return release()

    made = pipeline()
    assert moves(where) == [("promote", a), ("promote", b), ("rollback", a)]
    assert [one.number for one in made] == [1, 2, 2, 1, 3, 3]
    assert [one.version for one in history(where, "champion")] == [a]


def test_plain_functions_in_a_task_are_calls_of_their_own(where: str, versions: list[str]) -> None:
    @task
    def release() -> None:
        promoted(where, *versions[:3])
        registry.rollback_model(open_store(where), "m")
        registry.rollback_model(open_store(where), "m")

    @flow
    def pipeline() -> None:
        release()

    pipeline()
    assert moves(where)[3:] == [("rollback", versions[1]), ("rollback", versions[0])]


def test_a_task_that_is_retried_goes_back_once(where: str, versions: list[str]) -> None:
    promoted(where, *versions[:3])
    tries = []

    @task(retries=1, retry_delay_seconds=0)
    def release() -> None:
        rollback_model.fn("m", store=where)
        tries.append(1)
        if len(tries) == 1:
            raise _LaterError

    @flow
    def pipeline() -> None:
        release()

    pipeline()
    assert len(tries) == 2
    assert moves(where)[3:] == [("rollback", versions[1])]


@pytest.mark.parametrize("how", ["called", "submitted", "mapped", "in the flow itself"])
def test_a_flow_that_is_retried_appends_nothing_twice(where: str, versions: list[str], how: str) -> None:
    promoted(where, *versions[:4])
    calls: dict[str, Callable[[], Promotion]] = {
        "called": lambda: rollback_model("m", store=where),
        "submitted": lambda: rollback_model.submit("m", store=where).result(),
        "mapped": lambda: rollback_model.map(["m"], store=where).result()[0],
        "in the flow itself": lambda: rollback_model.fn("m", store=where),
    }
    made = fails_once(lambda: [calls[how](), calls[how]()])
    # Two equal calls of a flow are two rollbacks, and the second attempt finds both.
    assert moves(where)[4:] == [("rollback", versions[2]), ("rollback", versions[1])]
    assert [one.number for one in made] == [5, 6]


def test_every_kind_of_call_is_recognised_in_the_second_attempt(where: str, versions: list[str]) -> None:
    promoted(where, versions[0])

    def body() -> list[int]:
        done = [
            promote_model("m", versions[1], store=where),
            promote_model("m", versions[2], store=where),
            remove_alias("m", "production", store=where),
        ]
        return [one.number for one in done]

    assert fails_once(body) == [2, 3, 4]
    assert len(history(where)) == 4


def test_what_somebody_else_did_between_the_attempts_stays(
    where: str, versions: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    a, b, *_ = versions
    promoted(where, a)
    attempts = []

    @flow(retries=1)
    def pipeline() -> Promotion:
        attempts.append(1)
        done = promote_model("m", b, store=where)
        if len(attempts) == 1:
            registry.rollback_model(open_store(where), "m")  # an operator, whose flow run this is not
            raise _LaterError
        return done

    assert pipeline().number == 2
    assert moves(where)[1:] == [("promote", b), ("rollback", a)]
    assert f"'production' was moved since, and stands for {a}" in caplog.text


@pytest.mark.parametrize("how", ["a transaction", "two moves in a transaction", "a rollback of its own"])
def test_what_the_flow_took_back_is_done_again(where: str, versions: list[str], how: str) -> None:
    a, b, c, *_ = versions
    promoted(where, a)
    attempts = []

    def deploy() -> None:
        attempts.append(1)
        if len(attempts) == 1:
            raise _LaterError

    @flow(retries=1)
    def pipeline() -> None:
        if how == "a rollback of its own":
            promote_model("m", b, store=where)
            try:
                deploy()
            except _LaterError:
                rollback_model("m", store=where)
                raise
            return
        with promotion_transaction():
            promote_model("m", b, store=where)
            if how.startswith("two"):
                promote_model("m", c, store=where)
            deploy()

    pipeline()
    wanted = c if how.startswith("two") else b
    assert [one for one in moves(where) if one[0] == "rollback"] == [("rollback", a)]
    assert registry.resolve_model(open_store(where), "m").version == wanted


def test_a_subflow_of_a_retried_flow_goes_back_once(where: str, versions: list[str]) -> None:
    promoted(where, *versions[:3])
    fails_once(lambda: rollback_flow("m", store=where))
    assert moves(where)[3:] == [("rollback", versions[1])]


def test_a_flow_run_that_is_run_again_appends_nothing_twice(where: str, versions: list[str]) -> None:
    """As from the UI: the same flow run, which failed, is scheduled anew."""
    promoted(where, *versions[:3])
    attempts = []

    @flow
    def pipeline() -> None:
        attempts.append(1)
        rollback_model("m", store=where)
        if len(attempts) == 1:
            raise _LaterError

    with get_client(sync_client=True) as client:
        run = client.create_flow_run(pipeline)
        with pytest.raises(_LaterError):
            run_flow(pipeline, client.read_flow_run(run.id))
        client.set_flow_run_state(run.id, Scheduled(), force=True)
        run_flow(pipeline, client.read_flow_run(run.id))
    assert len(attempts) == 2
    assert moves(where)[3:] == [("rollback", versions[1])]


def test_two_runs_of_a_flow_are_two(where: str, versions: list[str]) -> None:
    promoted(where, *versions[:3])

    @flow
    def pipeline() -> None:
        rollback_model("m", store=where)

    pipeline()
    pipeline()
    assert moves(where)[3:] == [("rollback", versions[1]), ("rollback", versions[0])]
