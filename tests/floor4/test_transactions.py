"""What is in a transaction of promotions, and what ends one: threads, subflows, signals, lost answers."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prefect import flow
from prefect.exceptions import TerminationSignal
from prefect.settings import PREFECT_API_URL
from prefect.states import Cancelled

from flows.promote_model import promote_model as promote_flow
from mltrack_tasks import promote_model, promotion_transaction, registry, remove_alias
from mltrack_tasks.errors import ConflictError, TransientError
from mltrack_tasks.models import ModelVersion
from mltrack_tasks.promotions import Promotion
from mltrack_tasks.resolve import open_store

TERMINATED = """
import sys, time
from prefect import flow
from mltrack_tasks import promote_model, promotion_transaction

@flow
def release(version, store):
    with promotion_transaction():
        promote_model("m", version, store=store)
        print("promoted", flush=True)
        time.sleep(60)

release(*sys.argv[1:])
"""


class _StoppedError(Exception):
    """What ends a transaction."""


@pytest.fixture
def versions(where: str, versions: list[str]) -> list[str]:
    """The first is in production."""
    registry.promote_model(open_store(where), "m", versions[0])
    return versions


def aliases(where: str) -> dict[str, str]:
    [model] = registry.list_models(open_store(where))
    return dict(model.aliases)


def moves(where: str) -> list[str]:
    return [event.action for event in registry.model_history(open_store(where), "m", "production")]


def stopped(step: Callable[[], object], error: BaseException | None = None) -> None:
    """A transaction that is ended after a step."""
    error = error or _StoppedError()

    def block() -> None:
        with promotion_transaction():
            step()
            raise error

    with pytest.raises(type(error)):
        block()


def test_tasks_in_threads_and_subflows_are_part_of_it(where: str, versions: list[str]) -> None:
    names = ("called", "submitted", "mapped-1", "mapped-2", "subflow")

    @flow
    def release() -> None:
        def step() -> None:
            promote_model("m", versions[1], "called", store=where)
            promote_model.submit("m", versions[1], "submitted", store=where).result()
            promote_model.map("m", versions[1], ["mapped-1", "mapped-2"], store=where).result()
            promote_flow("m", versions[1], "subflow", store=where)
            assert aliases(where) == {"production": versions[0], **dict.fromkeys(names, versions[1])}

        stopped(step)

    release()
    assert aliases(where) == {"production": versions[0]}


def test_threads_of_an_async_flow_are_part_of_it(where: str, versions: list[str]) -> None:
    @flow
    async def release() -> None:
        with promotion_transaction():
            await asyncio.to_thread(promote_model, "m", versions[1], store=where)
            raise _StoppedError

    with pytest.raises(_StoppedError):
        asyncio.run(release())
    assert aliases(where) == {"production": versions[0]}
    assert moves(where) == ["promote", "promote", "rollback"]


def test_a_task_that_is_still_at_it_is_waited_for(where: str, versions: list[str]) -> None:
    begun, may_end = threading.Event(), threading.Event()

    def slow(version: ModelVersion, current: ModelVersion | None) -> bool:
        begun.set()
        return may_end.wait(60)

    @flow
    def release() -> None:
        def step() -> None:
            promote_model.submit("m", versions[1], gates=[slow], store=where)
            assert begun.wait(60)
            threading.Timer(0.1, may_end.set).start()

        stopped(step)
        assert aliases(where) == {"production": versions[0]}

    release()
    assert moves(where) == ["promote", "promote", "rollback"]


def test_a_task_that_begins_when_the_block_has_failed_moves_nothing(where: str, versions: list[str]) -> None:
    kept: list[contextvars.Context] = []
    stopped(lambda: kept.append(contextvars.copy_context()))
    with pytest.raises(ConflictError, match="around this call has failed"):
        kept[0].run(promote_model.fn, "m", versions[1], store=where)
    assert aliases(where) == {"production": versions[0]}


def test_several_aliases_go_back_the_last_moved_first(
    where: str, versions: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    def step() -> None:
        promote_model.fn("m", versions[1], store=where)
        promote_model.fn("m", versions[1], "champion", store=where)
        promote_model.fn("m", versions[2], store=where)

    caplog.set_level("INFO")
    stopped(step)
    assert aliases(where) == {"production": versions[0]}
    undone = re.findall(r"mltrack\.model\.(?:rolled_back|alias_removed) .*?alias=(\w+)", caplog.text)
    assert undone == ["production", "champion"]
    assert moves(where) == ["promote", "promote", "promote", "rollback"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), TerminationSignal(15), SystemExit(1)])
def test_interrupts_end_it_like_errors(where: str, versions: list[str], error: BaseException) -> None:
    stopped(lambda: promote_model.fn("m", versions[1], store=where), error)
    stopped(lambda: remove_alias.fn("m", "production", store=where), error)
    assert aliases(where) == {"production": versions[0]}


def test_a_promotion_whose_answer_was_lost_is_taken_back(
    where: str, versions: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prefect's retries are over, or an interrupt came between the event and its answer."""
    promote = registry.promote_model

    @functools.wraps(promote)
    def lost(*arguments: Any, **options: Any) -> Promotion:
        promote(*arguments, **options)
        raise TransientError("the answer was lost")

    monkeypatch.setattr(registry, "promote_model", lost)

    def block() -> None:
        with promotion_transaction():
            promote_model.fn("m", versions[1], store=where)

    with pytest.raises(TransientError):
        block()
    assert aliases(where) == {"production": versions[0]}
    assert moves(where) == ["promote", "promote", "rollback"]


def test_names_that_none_can_have_leave_the_error_of_the_block_alone(where: str, versions: list[str]) -> None:
    def block() -> None:
        with promotion_transaction():
            promote_model.fn("m", versions[1], "latest", store=where)

    with pytest.raises(ValueError, match="latest") as caught:
        block()
    assert not hasattr(caught.value, "__notes__")


def test_the_state_of_a_flow_that_is_returned_is_no_failure(where: str, versions: list[str]) -> None:
    """Only what leaves the block by an exception ends it: a state that a flow returns does not."""

    @flow
    def release() -> Any:
        with promotion_transaction():
            promote_model("m", versions[1], store=where)
            return Cancelled()

    assert release(return_state=True).is_cancelled()
    assert aliases(where) == {"production": versions[1]}


def test_a_run_that_is_terminated_takes_its_promotion_back(
    where: str, versions: list[str], tmp_path: Path
) -> None:
    script = tmp_path / "release.py"
    script.write_text(TERMINATED)
    root = str(Path(__file__).parents[2])
    child = subprocess.Popen(
        [sys.executable, str(script), versions[1], where],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": root, "PREFECT_API_URL": PREFECT_API_URL.value()},
    )
    assert child.stdout is not None
    with child:
        assert child.stdout.readline() == "promoted\n"
        assert aliases(where) == {"production": versions[1]}
        child.send_signal(signal.SIGTERM)
    assert child.returncode != 0
    assert aliases(where) == {"production": versions[0]}
