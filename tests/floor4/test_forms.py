"""What a form refuses, what a run is called, how it ends, and what its reports say of it."""

from __future__ import annotations

import json
import shlex
from types import SimpleNamespace
from typing import Any

import pytest
from prefect import flow
from prefect.context import FlowRunContext
from prefect.exceptions import ParameterTypeError
from prefect.runtime import deployment

from flows.collect_garbage import collect_garbage
from flows.migrate_to_s3 import migrate_to_s3
from mltrack_tasks import MLTrackStore
from mltrack_tasks.forms import MAX_MESSAGE, OptionalText, StoreChoice, completed, run_name
from mltrack_tasks.runlinks import MAX_LINE, footer, repeat_command


@flow(name="told", flow_run_name=run_name("tell {name}"))
def told(name: str, text: OptionalText = None, dry_run: bool = False, store: StoreChoice = None) -> Any:
    from prefect.runtime import flow_run

    return completed([name, text, store, flow_run.get_name(), footer()], "x" * 2 * MAX_MESSAGE)


def test_a_run_is_named_ends_with_a_message_and_gives_its_result() -> None:
    state = told("it", text="", store="", dry_run=True, return_state=True)
    name, text, store, run, below = state.result()
    assert (name, text, store, run) == ("it", None, None, "tell it (dry run)")
    assert state.is_completed()
    assert state.message == "x" * MAX_MESSAGE
    assert "This run in Prefect" in below
    assert "Run it again" not in below  # it has no deployment
    assert told("it")[3] == "tell it"
    assert told.fn("it")[3:] == [None, ""]


def test_a_block_stays_a_block() -> None:
    block = MLTrackStore(path="/somewhere")
    assert told("it", store=block)[2] is block


@pytest.mark.parametrize(
    ("call", "where"),
    [
        (lambda: migrate_to_s3(max_workers=65, store="./s"), "max_workers"),
        (lambda: migrate_to_s3(min_age_minutes=-1, store="./s"), "min_age_minutes"),
        (lambda: collect_garbage(grace_days=0.5, store="./s"), "grace_days"),
    ],
)
def test_wrong_input_is_refused_before_any_work(call: Any, where: str) -> None:
    with pytest.raises(ParameterTypeError, match=where):
        call()


def running(monkeypatch: pytest.MonkeyPatch, **parameters: Any) -> str | None:
    """The command of a run that has a deployment."""
    context = SimpleNamespace(
        flow=SimpleNamespace(name="mltrack-x"), flow_run=SimpleNamespace(parameters=parameters)
    )
    monkeypatch.setattr(FlowRunContext, "get", classmethod(lambda cls: context))
    monkeypatch.setattr(deployment, "name", "mltrack-x", raising=False)
    return repeat_command()


@pytest.mark.parametrize("value", ["it's", "`rm -rf`", "```\n# x", "$(id)", "ö\n", '"', "\\"])
def test_the_command_gives_a_shell_the_same_parameters(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    line = running(monkeypatch, local_path=value, store={"$ref": {"block_document_id": "1"}})
    assert line is not None
    assert "`" not in line  # it would end the block of code that the command stands in
    assert "\n" not in line
    *_, option, asked = shlex.split(line)
    assert option == "--params"
    assert json.loads(asked) == {"local_path": value, "store": {"$ref": {"block_document_id": "1"}}}


def test_a_command_that_nobody_could_read_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert running(monkeypatch, run_ids=["x" * MAX_LINE]) is None
