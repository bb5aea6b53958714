"""Which calls are one call made again, by a task that is retried or a flow run that starts again.

A call that moves an alias writes its request id into the promotion, and one with an id that stands there has
been carried out. The id says: in which flow run, what is asked for, and for which time. A task that is tried
again has its number; a flow that starts again counts from the beginning.
"""

from __future__ import annotations

import hashlib
import secrets
import weakref
from collections.abc import Sequence
from itertools import count
from threading import Lock
from typing import Any

from prefect.context import FlowRunContext, TaskRunContext

from mltrack_tasks.promotions import TAKEN_BACK, Promotion
from mltrack_tasks.registry.aliases import promotions_of
from mltrack_tasks.stores import Store

_lock = Lock()
_attempts: dict[int, dict[str, list[str]]] = {}
"""Of each flow run that is under way, by its context: who asked for what, in order."""


def request_id(store: Store, action: str, model_name: str, alias: str, *asked: object) -> str:
    """Say which call this is -> the same text when it is made again, and never that of another call.

    Equal calls within one task run are one call; so are the n-th equal calls of two attempts of a flow run,
    unless the flow itself has gone back on the earlier one: then the later is to be carried out anew. What
    cannot be recognised has an id of its own: a call outside of runs, and by another task run on a worker of
    Dask or in another process, which knows no numbers.
    """
    flow, task = FlowRunContext.get(), TaskRunContext.get()
    call = hashlib.sha256(repr((action, model_name, alias, *asked)).encode("utf-8", "replace")).hexdigest()[
        :16
    ]
    caller = secrets.token_hex(16) if task is None else str(task.task_run.id)
    if flow is None or flow.flow_run is None or flow.detached:
        return f"task-run:{caller}/{call}"
    run = flow.flow_run
    if task is not None and task.task_run.flow_run_id != run.id:
        caller = secrets.token_hex(16)  # a flow that a task has called: the task run is not of this flow run
    # The run of a subflow is another one when its parent is retried; the task run that stands for it is not.
    within = f"flow-run:{run.id}" if run.parent_task_run_id is None else f"subflow:{run.parent_task_run_id}"
    found = f"{within}/{call}/{_number(flow, call, caller)}"
    if run.run_count > 1 or run.parent_task_run_id is not None:
        return unrevoked(promotions_of(store, model_name, alias), found, within)
    return found


def unrevoked(history: Sequence[Promotion], wanted: str, within: str) -> str:
    """Choose the id under which a call still holds, or is carried out anew -> ``wanted``, maybe extended.

    A flow that promotes, fails, takes that back and is retried wants it promoted again. So a promotion does
    not count once a later event of the same flow (``within``), or of its transaction, has returned the alias
    to what it stood for before. What somebody else did meanwhile stays.
    """
    made = {f"{TAKEN_BACK}{one.number}" for one in history if one.request_id.startswith(f"{within}/")}
    own = [one for one in history if one.request_id in made or one.request_id.startswith(f"{within}/")]
    for again in count():
        chosen = f"{wanted}/{again}" if again else wanted
        place = next((index for index, one in enumerate(own) if one.request_id == chosen), None)
        if place is None:
            return chosen
        before = {one.previous for one in own[: place + 1]}
        if all(one.version not in before for one in own[place + 1 :]):
            return chosen
    raise AssertionError("unreachable")


def _number(flow: Any, call: str, caller: str) -> int:
    """Count the equal calls of an attempt of a flow run -> the place of this caller among them."""
    with _lock:
        if id(flow) not in _attempts:
            _attempts[id(flow)] = {}
            weakref.finalize(flow, _attempts.pop, id(flow), None)
        callers = _attempts[id(flow)].setdefault(call, [])
        if caller not in callers:
            callers.append(caller)
        return callers.index(caller)
