"""Types of flow parameters: what Prefect's UI makes a form of, and what refuses wrong input before any work.

Prefect reads descriptions from the flow's docstring and bounds from the annotation; a block among the types
of a parameter becomes a drop-down of the saved ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, TypeVar, cast

from prefect.context import FlowRunContext
from prefect.runtime import flow_run
from prefect.states import Completed
from pydantic import BeforeValidator, Field

from mltrack_tasks.blocks import MLTrackStore

R = TypeVar("R")


def _none_if_empty(value: Any) -> Any:
    """A field that was emptied arrives as an empty text."""
    return None if value == "" else value


StoreChoice = Annotated[MLTrackStore | str | None, BeforeValidator(_none_if_empty)]
"""The store of a flow: in the UI a drop-down of blocks, or a text as ``find_store`` takes it, or nothing."""

OptionalText = Annotated[str | None, BeforeValidator(_none_if_empty)]
"""A text, or nothing."""

RequestsInFlight = Annotated[int, Field(ge=1, le=64)]
"""As ``MLTrackStore.max_workers``."""


MAX_MESSAGE = 500
"""Characters of a state's message: the UI shows it on one line."""


def run_name(template: str) -> Callable[[], str]:
    """Name flow runs by a template of their parameters, and say of a dry run that it is one."""

    def name() -> str:
        parameters = flow_run.get_parameters()
        said = template.format(**parameters)
        return f"{said} (dry run)" if parameters.get("dry_run") else said

    return name


def completed(result: R, message: str) -> R:
    """End a flow with ``message`` as its state's message; whoever called the flow gets ``result``.

    Outside a run (``flow.fn(...)``) it is the result and nothing else.
    """
    if FlowRunContext.get() is None:
        return result
    return cast(R, Completed(message=message[:MAX_MESSAGE], data=result))
