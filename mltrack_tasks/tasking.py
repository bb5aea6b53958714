"""What every task of this library shares: its Prefect settings, its reports, and where it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar
from uuid import UUID

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.concurrency.sync import concurrency
from prefect.context import FlowRunContext, TaskRunContext
from prefect.events import emit_event
from prefect.exceptions import MissingContextError
from prefect.logging import get_run_logger
from prefect.runtime import deployment
from prefect.tasks import exponential_backoff

from mltrack_tasks import events, provenance
from mltrack_tasks.errors import TransientError
from mltrack_tasks.events import Event

P = ParamSpec("P")
R = TypeVar("R")

RETRIES = 2
"""Further tries of a task, on TransientError only; each request was tried three times before."""

TRANSFERS = "mltrack-transfers"
"""The global concurrency limit that all deployments share for batches on their way, where one is set."""

_EMITTED = (
    *(events.BLOB_HEALED, events.DATA_STORED, events.DATA_FORGOTTEN, events.RUN_STORED),
    *(events.CATALOG_COMPACTED, events.MIGRATION_COMPLETED),
    *(events.STORE_VERIFIED, events.STORE_UNHEALTHY, events.STORE_HEALED, events.STORE_REPLICATED),
    *(events.GARBAGE_COLLECTED, events.RUN_REMOVED, events.RESTORE_STARTED),
    *(events.BUCKET_CHANGED, events.BUCKET_DRIFTED, events.DATA_ARRIVED, events.MESSAGE_BURIED),
    *(events.MODEL_REGISTERED, events.MODEL_PROMOTED, events.MODEL_ROLLED_BACK),
    *(events.MODEL_ALIAS_REMOVED, events.MODEL_POLICY_SET, events.MODEL_DEPRECATED, events.MODEL_COPIED),
    *(events.MODEL_VERSION_REMOVED, events.MIGRATION_REMOVED),
)


_LABELS = ("model", "alias", "version")


def mltrack_task(function: Callable[P, R]) -> Task[P, R]:
    """Make a Prefect task.

    Its inputs are not hashed and its result is not persisted: they may be large, and the store already is
    content-addressed.
    """
    return task(
        name=f"mltrack-{function.__name__.replace('_', '-')}",
        cache_policy=NO_CACHE,
        persist_result=False,
        retries=RETRIES,
        retry_delay_seconds=exponential_backoff(backoff_factor=2),
        retry_jitter_factor=0.5,
        retry_condition_fn=_is_transient,
    )(function)


def run_logger() -> Any:
    """The run's logger, or the library's where there is no run (``task.fn(...)``)."""
    try:
        return get_run_logger()
    except MissingContextError:
        return events.logger


def report(event: Event) -> None:
    """Log an event, and emit the ones that automations may wait for.

    What it tells of has been done: an event that cannot be emitted leaves a warning, and the work whole.
    """
    run_logger().log(events.level_of(event), "%s", event)
    if event.name not in _EMITTED or not in_run():
        return
    try:
        emit_event(
            event=event.name,
            resource={
                "prefect.resource.id": f"mltrack.{event.subject}",
                "prefect.resource.name": event.subject,
                # What automations may want to match beside the name: a promotion to a certain alias.
                **{f"mltrack.{key}": str(event.details[key]) for key in _LABELS if event.details.get(key)},
            },
            payload=dict(event.details),
            id=UUID(event.id) if event.id else None,
        )
    except Exception as failed:  # of pydantic, of Prefect's own, or of whatever carries events
        run_logger().warning("The event %s could not be emitted: %r.", event.name, failed)


def in_run() -> bool:
    """Whether this is inside a flow run or task run."""
    return TaskRunContext.get() is not None or FlowRunContext.get() is not None


def flow_run_id() -> str | None:
    """Id of the flow run that this is part of, if any."""
    return _facts().get("flow_run_id")


@contextmanager
def transfer_slot() -> Iterator[None]:
    """Wait for a place under the limit TRANSFERS, in a run of a deployment; no limit, no waiting.

    Asking takes 0.3 s, so this is for batches. The place of a process that died is free after 5 minutes.
    """
    if deployment.id is None:
        yield
        return
    with concurrency(TRANSFERS, occupy=1):
        yield


@contextmanager
def recorded() -> Iterator[None]:
    """Let records written in this block say which flow and task run they came from."""
    with provenance.within(**_facts()):
        yield


def _facts() -> dict[str, str]:
    facts: dict[str, str] = {}
    flow, run = FlowRunContext.get(), TaskRunContext.get()
    if flow is not None and flow.flow_run is not None:
        facts["flow_run_id"], facts["flow_run"] = str(flow.flow_run.id), flow.flow_run.name
        if flow.flow is not None:
            facts["flow"] = flow.flow.name
        if flow.flow_run.deployment_id is not None:
            facts["deployment_id"] = str(flow.flow_run.deployment_id)
    if run is not None:
        facts["task_run_id"], facts["task_run"] = str(run.task_run.id), run.task_run.name
        if run.task_run.flow_run_id is not None:
            facts.setdefault("flow_run_id", str(run.task_run.flow_run_id))
    return facts


def _is_transient(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    return isinstance(state.result(raise_on_failure=False), TransientError)
