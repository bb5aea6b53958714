"""``capture``: the run of a user's own program, recorded while it goes on, as a with-block or a decorator."""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from contextvars import ContextVar, Token
from dataclasses import dataclass
from itertools import count
from types import TracebackType
from typing import Any, ParamSpec, TypeVar, cast, overload

from prefect import Flow, Task
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext, TaskRunContext

from mltrack_tasks import codeversion, layout, provenance
from mltrack_tasks.blocks import MLTrackStore
from mltrack_tasks.captured import CapturedRun
from mltrack_tasks.errors import InvalidInputError, NotFoundError
from mltrack_tasks.resolve import open_store
from mltrack_tasks.signatures import CallNames, name_of, require_function
from mltrack_tasks.tasking import recorded, report

P = ParamSpec("P")
R = TypeVar("R")

_current: ContextVar[CapturedRun] = ContextVar("captured_run")
_numbering = threading.Lock()


@overload
def capture(run_id: Callable[P, R], /) -> Callable[P, R]:
    """Decorate a function, with nothing said."""


@overload
def capture(
    run_id: str | None = None,
    *,
    run_type: str = "experiment",
    storage_mode: str | Sequence[str] | None = None,
    project: str | None = None,
    model: str | None = None,
    tags: Mapping[str, Any] | None = None,
    inputs: str | Sequence[str] = (),
    outputs: str | Sequence[str] = (),
    params: str | Sequence[str] = (),
    store: MLTrackStore | str | None = None,
) -> Capture:
    """Make a with-block or a decorator."""


def capture(
    run_id: Any = None,
    *,
    run_type: str = "experiment",
    storage_mode: str | Sequence[str] | None = None,
    project: str | None = None,
    model: str | None = None,
    tags: Mapping[str, Any] | None = None,
    inputs: str | Sequence[str] = (),
    outputs: str | Sequence[str] = (),
    params: str | Sequence[str] = (),
    store: MLTrackStore | str | None = None,
) -> Any:
    """Record a run of your own code: ``with capture(...) as run:``, or ``@capture(...)`` above a function.

    When the block or the call ends, the run's manifest is written with its status: finished, failed (an
    exception) or killed (Ctrl-C, an exit with a code, a cancellation); the exception goes on unchanged. If
    the manifest cannot be written, that is raised, or noted on the exception that is under way. A process
    that is killed outright leaves no manifest.

    ``run_id=None`` takes the id of the Prefect task run, else of the flow run, else a new one. So a retry is
    a new revision of its run, and each task run of a ``.map`` a run of its own. Further captures in one
    attempt of a task or flow run get ``<id>-2``, ``<id>-3``, ... in the order in which they begin.

    In a with-block, ``run`` is a CapturedRun: ``log_param``, ``log_metric``, ``log_input``, ``log_output``,
    ``log_data``, ``set_tag``; in a decorated function, and in what it calls, ``current_capture()`` is. In
    async code, prefer the decorator: a with-block stops the event loop while it stores.

    As a decorator, ``inputs`` and ``params`` name parameters of the function, which are stored or noted
    before it is called, and ``outputs`` what it returns: one name the value itself, several a tuple of as
    many or a mapping with these very keys. Both may be refs. ``@task`` and ``@flow`` go above ``@capture``.

    ``storage_mode=None`` is ``by_project`` if there is a project, else ``flat``; ``store`` is as for tasks.
    Raises InvalidInputError for what cannot be recorded, where it is given and not at the end.
    """
    plan = _Plan(
        run_id=None if callable(run_id) else run_id,
        described={
            "run_type": run_type,
            "storage_mode": storage_mode,
            "project": project,
            "model": model,
            "tags": tags,
        },
        names=CallNames.of(inputs, outputs, params),
        store=store,
    )
    return Capture(plan)(run_id) if callable(run_id) else Capture(plan)


def current_capture() -> CapturedRun:
    """Give the innermost run that is captured here. Raises NotFoundError (a LookupError) outside of any."""
    try:
        return _current.get()
    except LookupError:
        raise NotFoundError(
            "No run is captured here. Call it inside `with capture(...)` or a function under @capture; "
            "a thread that was not given the context does not see it, so hand `run` over there."
        ) from None


def captured_run_id() -> str | None:
    """Id of the innermost run that is captured here, or None."""
    run = _current.get(None)
    return None if run is None else run.run_id


class Capture:
    """What ``capture(...)`` gives: good for one with-block, or as a decorator for any number of calls."""

    def __init__(self, plan: _Plan) -> None:
        self._plan = plan
        self._going: _Going | None = None

    def __enter__(self) -> CapturedRun:
        if self._going is not None:
            raise InvalidInputError(
                "This capture was used before; write capture(...) in each with-statement."
            )
        if named := self._plan.names.all():
            raise InvalidInputError(
                f"inputs, outputs and params ({', '.join(named)}) name parameters and results of a decorated "
                "function; in a with-block, call run.log_input, run.log_output and run.log_params."
            )
        self._going = _Going(self._plan.begin())
        return self._going.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._going is not None:
            self._going.__exit__(kind, error, trace)

    def __call__(self, function: Callable[P, R], /) -> Callable[P, R]:
        """Decorate a function or an async function; each call is a run of its own."""
        if isinstance(function, (Task, Flow)):
            kind = type(function).__name__.lower()
            raise InvalidInputError(
                f"{name_of(function)} is a Prefect {kind} already; put @capture below @{kind}, directly "
                "above the function."
            )
        require_function(function)
        self._plan.names.check(function)
        return cast("Callable[P, R]", functools.wraps(function)(_wrapper(self._plan, function)))


class _Going:
    """A captured run as the current one, until its block or call ends."""

    def __init__(self, run: CapturedRun) -> None:
        self.run = run
        self._token: Token[CapturedRun] | None = None

    def __enter__(self) -> CapturedRun:
        self._token = _current.set(self.run)
        return self.run

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()
        self.run.conclude(error)

    def leave(self) -> None:
        if self._token is not None:
            with suppress(
                ValueError
            ):  # in another context than it began, as in generators: it ends with that
                _current.reset(self._token)


@dataclass(frozen=True)
class _Plan:
    """What was asked of ``capture``; it holds nothing of any call."""

    run_id: str | None
    described: Mapping[str, Any]
    names: CallNames
    store: MLTrackStore | str | None

    def begin(self) -> CapturedRun:
        """Begin a run, and see now rather than at its end whether the store can be reached."""
        code = codeversion.code_version()  # now: while a run goes on, its author may edit for the next one
        with recorded(), provenance.within(**({} if code is None else {"code": code})):
            opened = open_store(self.store)
            run_id = _default_id() if self.run_id is None else self.run_id
            run = CapturedRun(opened, run_id, observe=report, **self.described)
            opened.head(layout.manifest_key(run.run_id))
        return run

    def log_arguments(self, run: CapturedRun, inputs: Mapping[str, Any], params: Mapping[str, Any]) -> None:
        """Keep a call's arguments before the function can change them."""
        run.log_params(params)
        for name, value in inputs.items():
            run.log_input(name, value)

    def log_result(self, run: CapturedRun, returned: Any) -> None:
        """Store what a call returned, by the names of ``outputs``; a Prefect state may say that it failed."""
        if isinstance(returned, State) and returned.is_final() and not returned.is_completed():
            run.end("failed" if returned.is_failed() else "killed")
            return
        for name, value in self.names.results(returned).items():
            run.log_output(name, value)


def _wrapper(plan: _Plan, function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a function. Other processes get this by value, with the globals it names: only functions."""

    async def wrapper_async(*args: Any, **kwargs: Any) -> Any:
        return await _call_async(plan, function, args, kwargs)

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return _call(plan, function, args, kwargs)

    return wrapper_async if inspect.iscoroutinefunction(function) else wrapper


def _call(plan: _Plan, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    arguments = plan.names.arguments(function, args, kwargs)
    with _Going(plan.begin()) as run:
        plan.log_arguments(run, *arguments)
        returned = function(*args, **kwargs)
        if inspect.iscoroutine(returned):
            returned.close()
            raise InvalidInputError(
                f"{name_of(function)} returned a coroutine, whose work would begin after the run has ended. "
                "Put @capture directly above the `async def`."
            )
        plan.log_result(run, returned)
    return returned


async def _call_async(
    plan: _Plan, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Any:
    """As ``_call``, but all storing is done in threads, so that the event loop goes on."""
    arguments = plan.names.arguments(function, args, kwargs)
    going = _Going(await asyncio.to_thread(plan.begin))
    run = going.__enter__()
    try:
        await asyncio.to_thread(plan.log_arguments, run, *arguments)
        returned = await function(*args, **kwargs)
        await asyncio.to_thread(plan.log_result, run, returned)
    except GeneratorExit as error:  # the coroutine was dropped, and may not wait for anything
        going.leave()
        run.conclude(error)
        raise
    except BaseException as error:
        going.leave()
        await _conclude(run, error)
        raise
    going.leave()
    await _conclude(run, None)
    return returned


async def _conclude(run: CapturedRun, error: BaseException | None) -> None:
    """End the run in a thread, which goes on to its end even if waiting for it is cancelled."""
    await asyncio.shield(asyncio.to_thread(run.conclude, error))


def _default_id() -> str:
    """Id for a run that was given none: of the task run or flow run, numbered from the second on."""
    flow, task = FlowRunContext.get(), TaskRunContext.get()
    flow_run = None if flow is None else flow.flow_run
    task_run = None if task is None else task.task_run
    if flow_run is not None and task_run is not None and task_run.flow_run_id != flow_run.id:
        task_run = None  # the flow was called inside the task
    innermost = task_run or flow_run
    if innermost is None:
        return uuid.uuid4().hex
    with _numbering:
        number = next(_numbers(str(innermost.id), innermost.run_count))
    return str(innermost.id) if number == 1 else f"{innermost.id}-{number}"


@functools.lru_cache(maxsize=10_000)
def _numbers(run_id: str, attempt: int) -> count[int]:
    """Number the captures in one attempt of a Prefect run: a retry begins with the first again."""
    return count(1)
