"""``capture``: runs of the user's own code, as a with-block and as a decorator, with and without Prefect."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cloudpickle
import pandas as pd
import pytest
from prefect import flow, runtime, task, unmapped
from prefect.exceptions import TerminationSignal
from prefect.settings import PREFECT_API_URL
from prefect.states import Cancelled, Completed, Failed
from prefect.task_runners import ProcessPoolTaskRunner

from mltrack_tasks import (
    AccessError,
    DataRef,
    InvalidInputError,
    MLTrackStore,
    NotFoundError,
    RunManifest,
    capture,
    codeversion,
    current_capture,
    retrieve_data,
    store_data,
)
from mltrack_tasks.manifests import read_manifest
from mltrack_tasks.runs import get_run
from mltrack_tasks.stores import open_directory
from tests.floor3 import invariants
from tests.floor4.conftest import block_of
from tests.servers import S3Server
from tests.servers.process import free_ports, running
from tests.settings import settings_of
from tests.together import together

ROOT = Path(__file__).parents[2]
FRAME = pd.DataFrame({"x": [1, 2, 3]})


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory store that the surroundings name; at the end it is checked."""
    folder = tmp_path / "store"
    monkeypatch.setenv("MLTRACK_STORE", str(folder))
    yield folder
    if folder.is_dir():
        invariants.check_finished(open_directory(folder))


def runs(place: Path) -> list[RunManifest]:
    """Every revision of every run that is stored, by run id."""
    keys = [stat.key for stat in open_directory(place).list("manifests/")]
    ids = dict.fromkeys(
        key.removeprefix("manifests/").removesuffix(".json").partition("~")[0] for key in keys
    )
    return [get_run(open_directory(place), each) for each in sorted(ids)]


def the_run(place: Path) -> RunManifest:
    [manifest] = runs(place)
    return manifest


def fetch(ref: DataRef) -> Any:
    return retrieve_data.fn(ref)


# as a with-block


def test_a_block_is_a_run(place: Path) -> None:
    with capture("r", project="p", tags={"team": "a"}) as run:
        run.log_param("depth", 3)
        run.log_metric("accuracy", 0.9)
        run.log_input("train", FRAME)
        assert (run.run_id, run.manifest) == ("r", None)
    manifest = the_run(place)
    assert run.manifest == manifest
    assert (manifest.run_id, manifest.status, manifest.revision) == ("r", "finished", 1)
    assert (manifest.project, manifest.storage_modes) == ("p", ("by_project",))
    assert (manifest.params, manifest.metrics, manifest.tags) == (
        {"depth": 3},
        {"accuracy": 0.9},
        {"team": "a"},
    )
    assert fetch(manifest.inputs["train"]).equals(FRAME)


def test_without_an_id_each_is_a_new_run(place: Path) -> None:
    ids = set()
    for _ in range(2):
        with capture() as run:
            ids.add(run.run_id)
    assert {manifest.run_id for manifest in runs(place)} == ids
    assert all(len(each) == 32 for each in ids)


def test_the_store_may_be_named(block: MLTrackStore) -> None:
    with capture("r", store=block):
        pass
    assert get_run(block.open(), "r").status == "finished"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError("mine"), "failed"),
        (KeyboardInterrupt(), "killed"),
        (SystemExit(2), "killed"),
        (SystemExit(0), "finished"),
        (asyncio.CancelledError(), "killed"),
        (TerminationSignal(signal=signal.SIGTERM), "killed"),
    ],
    ids=repr,
)
def test_the_error_goes_on_and_the_run_is_stored(place: Path, error: BaseException, status: str) -> None:
    @capture("decorated")
    def fail() -> None:
        current_capture().log_metric("steps", 1)
        raise error

    def fail_in_a_block() -> None:
        with capture("block") as run:
            run.log_metric("steps", 1)
            raise error

    for call in (fail, fail_in_a_block):
        with pytest.raises(type(error)) as raised:
            call()
        assert raised.value is error
    assert [(each.status, each.metrics) for each in runs(place)] == [(status, {"steps": 1})] * 2


@pytest.mark.parametrize("way", ["block", "function", "coroutine"])
def test_a_manifest_that_cannot_be_written_is_an_error(place: Path, way: str) -> None:
    @capture("r")
    def work(error: Exception | None) -> None:
        place.write_text("a file where the store would be")
        if error:
            raise error

    @capture("r")
    async def work_async(error: Exception | None) -> None:
        work.__wrapped__(error)  # type: ignore[attr-defined]

    def block(error: Exception | None) -> None:
        with capture("r"):
            work.__wrapped__(error)  # type: ignore[attr-defined]

    call = {"block": block, "function": work, "coroutine": lambda error: asyncio.run(work_async(error))}[way]
    with pytest.raises(InvalidInputError, match="Check the path"):
        call(None)
    place.unlink()
    mine = ValueError("mine")
    with pytest.raises(ValueError, match="mine") as raised:
        call(mine)
    assert raised.value is mine
    assert [note[:41] for note in mine.__notes__] == ["The run 'r' could not be stored as failed"]
    place.unlink()


def test_a_store_that_cannot_be_reached_is_told_at_the_beginning(s3_server: S3Server) -> None:
    [closed] = free_ports(1)
    unreachable = block_of(settings_of(s3_server, endpoint_url=f"http://127.0.0.1:{closed}"))
    begun = []
    with pytest.raises(AccessError), capture("r", store=unreachable):
        begun.append(1)
    assert not begun


@pytest.mark.parametrize(
    "wrong",
    [
        {"run_type": "x"},
        {"storage_mode": "by_model"},
        {"tags": {"a": {1}}},
        {"run_id": "a\nb"},
        {"run_id": 3},
    ],
)
def test_what_cannot_be_recorded_is_told_at_the_beginning(place: Path, wrong: Any) -> None:
    begun = []
    with pytest.raises(InvalidInputError), capture(**wrong):
        begun.append(1)
    assert not begun


def test_a_block_is_used_once(place: Path) -> None:
    once = capture("r")
    with once, pytest.raises(InvalidInputError, match="used before"), once:
        pass
    with pytest.raises(InvalidInputError, match="used before"), once:
        pass
    assert the_run(place).revision == 1


@pytest.mark.parametrize("names", [{"inputs": "a"}, {"outputs": ("a",)}, {"params": ["a"]}])
def test_names_are_for_functions(place: Path, names: Any) -> None:
    with pytest.raises(InvalidInputError, match="in a with-block, call run"), capture(**names):
        pass


def test_the_code_is_that_of_the_beginning(place: Path, nowhere: Path) -> None:
    """A run goes on for hours, and meanwhile its author works on the next one."""
    identity = ("-c", "user.name=tests", "-c", "user.email=tests@example.invalid")
    (nowhere / "train.py").write_text("1\n")
    for words in (("init", "--quiet"), ("add", "."), ("commit", "--quiet", "--message=first")):
        subprocess.run(["git", *identity, *words], check=True)
    with capture() as run:
        (nowhere / "train.py").write_text("2\n")
        codeversion._last = None
    assert run.manifest is not None
    assert run.manifest.provenance["code"]["dirty"] is False
    with capture() as later:
        pass
    assert later.manifest is not None
    assert later.manifest.provenance["code"]["dirty"] is True


# the current one


def test_the_current_capture_is_the_innermost(place: Path) -> None:
    with pytest.raises(LookupError, match="No run is captured here"):
        current_capture()
    with capture("outer") as outer:
        with capture("inner") as inner:
            assert current_capture() is inner
        assert current_capture() is outer
        with pytest.raises(ValueError, match="x"), capture("failed"):
            raise ValueError("x")
        assert current_capture() is outer
    with pytest.raises(NotFoundError):
        current_capture()


def test_a_thread_sees_it_with_the_context(place: Path) -> None:
    seen: list[Any] = []

    def look() -> None:
        try:
            seen.append(current_capture())
        except NotFoundError as error:
            seen.append(error)

    with capture() as run:
        for target in (look, functools.partial(contextvars.copy_context().run, look)):
            thread = threading.Thread(target=target)
            thread.start()
            thread.join()
    assert isinstance(seen[0], NotFoundError)
    assert seen[1] is run


def test_a_block_may_end_in_another_context(place: Path) -> None:
    """As the generator of a fixture or a dependency does, of which each step runs in a context of its own."""

    def steps() -> Iterator[None]:
        with capture("r"):
            yield

    generator = steps()
    contextvars.copy_context().run(next, generator)
    assert contextvars.copy_context().run(next, generator, "over") == "over"
    assert the_run(place).status == "finished"


# as a decorator


class Pair(NamedTuple):
    model: Any
    report: Any


def test_a_function_keeps_what_it_is_told_to(place: Path) -> None:
    @capture(project="p", inputs=("frame", "extra"), params=("depth", "rate"), outputs=("model", "report"))
    def train(frame: Any, /, depth: int = 3, *rest: Any, extra: Any = None, rate: float, **more: Any) -> Any:
        """Train."""
        frame.loc[0, "x"] = 99
        return b"weights", {"rows": len(frame)}

    frame = FRAME.copy()
    assert train(frame, rate=0.1, other=1) == (b"weights", {"rows": 3})
    manifest = the_run(place)
    assert (manifest.params, manifest.project) == ({"depth": 3, "rate": 0.1}, "p")
    assert fetch(manifest.inputs["frame"]).equals(FRAME)  # as it came
    assert fetch(manifest.inputs["extra"]) is None
    assert fetch(manifest.outputs["model"]) == b"weights"
    assert fetch(manifest.outputs["report"]) == {"rows": 3}


def test_it_looks_like_the_function(place: Path) -> None:
    def train(frame: Any, depth: int = 3) -> bytes:
        """Train."""
        return b""

    for decorated in (capture(train), capture()(train), capture(params="depth")(train)):
        assert (decorated.__name__, decorated.__doc__) == ("train", "Train.")
        assert inspect.signature(decorated) == inspect.signature(train)
        assert decorated(FRAME) == b""
    assert [each.params for each in runs(place) if each.params] == [{"depth": 3}]


@pytest.mark.parametrize(
    ("outputs", "returned", "stored"),
    [
        ((), object(), {}),
        ("model", (1, 2), None),
        ("model", b"w", {"model": b"w"}),
        (["model"], {"model": 1}, {"model": {"model": 1}}),
        (("model", "report"), (b"w", [1]), {"model": b"w", "report": [1]}),
        (("model", "report"), Pair(b"w", [1]), {"model": b"w", "report": [1]}),
        (("model", "report"), {"report": [1], "model": b"w"}, {"model": b"w", "report": [1]}),
        (("model", "report"), (b"w",), None),
        (("model", "report"), [b"w", [1]], None),
        (("model", "report"), {"model": 1}, None),
        (("model", "report"), {"model": 1, "report": 2, "more": 3}, None),
        (("model", "report"), {}, None),
        (("model", "report"), None, None),
        (("model", "report"), "ab", None),
        ("model", object(), None),
    ],
)
def test_results_by_name(place: Path, outputs: Any, returned: Any, stored: Any) -> None:
    @capture("r", outputs=outputs)
    def work() -> Any:
        current_capture().log_metric("done", 1)
        return returned

    if stored is None:
        with pytest.raises(InvalidInputError):
            work()
    else:
        assert work() is returned
    manifest = the_run(place)
    assert manifest.status == ("failed" if stored is None else "finished")
    assert {name: fetch(ref) for name, ref in manifest.outputs.items()} == (stored or {})
    assert manifest.metrics == {"done": 1}


def test_a_wrong_result_is_described(place: Path) -> None:
    said = {
        None: "outputs names a, b, but the function returned a NoneType. Return a tuple of 2 values",
        (1, 2, 3): "a tuple of 3",
    }
    for returned, part in said.items():
        with pytest.raises(InvalidInputError, match=part):
            capture(outputs=("a", "b"))(lambda returned=returned: returned)()
    with pytest.raises(InvalidInputError, match="a mapping with the keys 'a', 3"):
        capture(outputs=("a", "b"))(lambda: {"a": 1, 3: 2})()


def test_refs_in_and_out(place: Path) -> None:
    frame = store_data.fn(FRAME)

    @capture(inputs="frame", outputs="result")
    def work(frame: DataRef) -> DataRef:
        return frame

    assert work(frame) == frame
    manifest = the_run(place)
    assert (manifest.inputs["frame"], manifest.outputs["result"]) == (frame, frame)


def test_a_call_that_does_not_fit_is_no_run(place: Path) -> None:
    @capture(params="depth")
    def train(depth: int) -> None: ...

    with pytest.raises(TypeError, match="depth"):
        train()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="rate"):
        train(1, rate=2)  # type: ignore[call-arg]
    assert not place.exists()


def test_a_bad_argument_ends_the_run_before_the_function_begins(place: Path) -> None:
    begun = []

    @capture(params="depth")
    def train(depth: Any) -> None:
        begun.append(depth)

    with pytest.raises(InvalidInputError, match="depth"):
        train({1, 2})
    assert not begun
    assert the_run(place).status == "failed"


class Trainer:
    @capture(params="depth")
    def method(self, depth: int) -> int:
        return depth

    @staticmethod
    @capture(params="depth")
    def static(depth: int) -> int:
        return depth

    @classmethod
    @capture(params="depth")
    def of_class(cls, depth: int) -> int:
        return depth


@pytest.mark.parametrize(
    "call",
    [
        Trainer().method,
        Trainer.static,
        Trainer.of_class,
        capture(params="depth")(functools.partial(lambda rate, depth: depth, 0.1)),
        capture(params="depth")(lambda depth: depth),
    ],
    ids=["method", "static method", "class method", "partial", "lambda"],
)
def test_every_kind_of_function(place: Path, call: Any) -> None:
    assert call(depth=3) == 3
    assert the_run(place).params == {"depth": 3}


def test_each_call_is_a_run_of_its_own(place: Path) -> None:
    @capture(params="number", outputs="result")
    def work(number: int) -> list[int]:
        current_capture().log_metric("number", number)
        return [number]

    assert together(8, work) == [[number] for number in range(8)]
    found = runs(place)
    assert sorted(each.params["number"] for each in found) == list(range(8))
    for each in found:
        assert each.metrics == each.params
        assert fetch(each.outputs["result"]) == [each.params["number"]]


def generate() -> Iterator[int]:
    yield 1


async def generate_async() -> AsyncIterator[int]:
    yield 1


@task
def a_task() -> None: ...


@flow
def a_flow() -> None: ...


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (a_task, r"a_task is a Prefect task already; put @capture below @task"),
        (a_flow, r"a_flow is a Prefect flow already; put @capture below @flow"),
        (Trainer, "Trainer is a class; put @capture above the method"),
        (generate, "generate is a generator.*write `with capture"),
        (generate_async, "generate_async is a generator"),
        (functools.partial(generate), "is a generator"),
        (staticmethod(generate), "is a staticmethod; put @capture below @staticmethod"),
        (classmethod(generate), "is a classmethod; put @capture below @classmethod"),
        (3, "is not a function"),
        ("train", "is not a function"),
    ],
    ids=lambda part: part if isinstance(part, str) else type(part).__name__,
)
def test_what_is_no_function_is_refused(function: Any, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        capture(project="p")(function)
    if callable(function):
        with pytest.raises(InvalidInputError, match=said):
            capture(function)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ({"inputs": "frames"}, r"no parameter 'frames'; inputs and params may name frame, depth, and not"),
        ({"params": ("depth", "rest")}, "no parameter 'rest'"),
        ({"params": ["more"]}, "no parameter 'more'"),
        ({"outputs": ("a", "a")}, "outputs has a name twice: a, a"),
        ({"outputs": ("a", "")}, "The name ''"),
        ({"outputs": "a\nb"}, "control character"),
        ({"inputs": {"frame": FRAME}}, "inputs is a dict; give names"),
        ({"params": 3}, "params is a int"),
        ({"params": [3]}, "params holds 3, which is not a name"),
    ],
)
def test_names_that_mean_nothing_are_refused(names: Any, said: str) -> None:
    def train(frame: Any, depth: int, *rest: Any, **more: Any) -> None: ...

    with pytest.raises(InvalidInputError, match=said):
        capture(**names)(train)


# async


def test_coroutines_side_by_side(place: Path) -> None:
    both = asyncio.Event()

    @capture(params="number", inputs="frame", outputs="result")
    async def work(number: int, frame: Any) -> list[int]:
        mine = current_capture()
        if number:
            both.set()
        await both.wait()
        assert current_capture() is mine
        mine.log_metric("number", number)
        return [number]

    async def main() -> list[list[int]]:
        found = await asyncio.gather(*(work(number, FRAME) for number in range(3)))
        with pytest.raises(NotFoundError):
            current_capture()
        return found

    assert inspect.iscoroutinefunction(work)
    assert asyncio.run(main()) == [[0], [1], [2]]
    for each in runs(place):
        assert each.metrics == each.params
        assert (each.status, fetch(each.outputs["result"])) == ("finished", [each.params["number"]])


def test_the_loop_goes_on_while_data_is_stored(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The write waits for something that only the loop can do."""
    done = threading.Event()
    waited = []
    original = os.fsync

    def fsync(descriptor: int) -> None:
        waited.append(done.wait(30))
        original(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)

    @capture(inputs="data", outputs="result")
    async def work(data: bytes) -> bytes:
        return data

    async def main() -> None:
        running_work = asyncio.ensure_future(work(b"1"))
        asyncio.get_running_loop().call_later(0.2, done.set)
        await running_work

    asyncio.run(main())
    assert waited
    assert all(waited)
    assert the_run(place).status == "finished"


def test_a_cancelled_coroutine_is_killed(place: Path) -> None:
    async def main() -> None:
        begun = asyncio.Event()

        @capture("r")
        async def work() -> None:
            begun.set()
            await asyncio.Event().wait()

        waiting = asyncio.ensure_future(work())
        await begun.wait()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(main())
    assert the_run(place).status == "killed"


def test_a_coroutine_that_timed_out_is_killed(place: Path) -> None:
    @capture("r")
    async def work() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        async with asyncio.timeout(1.0):
            await work()

    with pytest.raises(TimeoutError):
        asyncio.run(main())
    assert the_run(place).status == "killed"


def test_a_coroutine_that_was_dropped_is_killed(place: Path) -> None:
    """Nobody runs it any more, so it can wait for nothing while it closes."""

    async def main() -> None:
        begun = asyncio.Event()

        @capture("r")
        async def work() -> None:
            begun.set()
            await asyncio.Event().wait()

        coroutine = work()
        while True:
            future = coroutine.send(None)
            if begun.is_set():
                break
            future._asyncio_future_blocking = False  # as a task does with what it is to wait for
            await asyncio.wait([future])
        coroutine.close()

    asyncio.run(main())
    assert the_run(place).status == "killed"


def test_a_block_in_a_coroutine(place: Path) -> None:
    async def main() -> None:
        with capture("r") as run:
            await asyncio.sleep(0)
            assert current_capture() is run

    asyncio.run(main())
    assert the_run(place).status == "finished"


def test_a_coroutine_in_disguise_is_refused(place: Path) -> None:
    async def work() -> None: ...

    with pytest.raises(InvalidInputError, match=r"returned a coroutine.*directly above the `async def`"):
        capture("r")(lambda: work())()
    assert the_run(place).status == "failed"


# in Prefect


def test_a_retried_task_is_a_revised_run(place: Path) -> None:
    tries = []

    @task(retries=1)
    @capture(inputs="frame", params="depth", outputs="result", project="p")
    def train(frame: Any, depth: int) -> list[str]:
        tries.append(str(runtime.task_run.id))
        current_capture().log_metric("try", len(tries))
        if len(tries) == 1:
            raise ValueError("the first time")
        return tries

    @flow(name="nightly")
    def pipeline() -> str:
        train(FRAME, depth=3)
        return str(runtime.flow_run.id)

    flow_run_id = pipeline()
    store = open_directory(place)
    [run_id] = set(tries)
    first, second = (get_revision(place, run_id, number) for number in (1, 2))
    assert get_run(store, run_id) == second
    assert (first.status, first.metrics, list(first.outputs)) == ("failed", {"try": 1}, [])
    assert (second.status, second.metrics, list(second.outputs)) == ("finished", {"try": 2}, ["result"])
    assert first.inputs == second.inputs
    assert first.started_at < second.started_at  # type: ignore[operator]
    for each in (first, second):
        assert each.provenance["flow_run_id"] == flow_run_id
        assert each.provenance["task_run_id"] == run_id
        assert each.provenance["flow"] == "nightly"
        assert each.provenance["versions"]["prefect"]


def get_revision(place: Path, run_id: str, revision: int) -> RunManifest:
    return read_manifest(open_directory(place), run_id, revision)


def test_each_task_run_of_a_map_is_a_run(place: Path) -> None:
    @task
    @capture(params="depth", inputs="frame")
    def train(depth: int, frame: Any) -> str:
        current_capture().log_metric("depth", depth)
        return str(runtime.task_run.id)

    @flow
    def pipeline() -> list[str]:
        return train.map([1, 2, 3], unmapped(FRAME)).result()

    ids = pipeline()
    assert len(set(ids)) == 3
    for depth, run_id in enumerate(ids, 1):
        manifest = get_run(open_directory(place), run_id)
        assert manifest.params == manifest.metrics == {"depth": depth}


def test_a_flow_keeps_its_parameters(place: Path) -> None:
    @flow
    @capture(params=("depth", "name"))
    def pipeline(depth: int, name: str = "x") -> str:
        """Train."""
        return str(runtime.flow_run.id)

    assert pipeline.parameters.required == ["depth"]
    assert pipeline.parameters.properties["depth"]["type"] == "integer"
    assert pipeline("3") == the_run(place).run_id  # type: ignore[arg-type]
    assert the_run(place).params == {"depth": 3, "name": "x"}


@pytest.mark.parametrize(
    ("state", "status"), [(Failed(), "failed"), (Cancelled(), "killed"), (Completed(), "finished")]
)
def test_a_state_that_is_returned_counts(place: Path, state: Any, status: str) -> None:
    @flow
    @capture()
    def pipeline() -> Any:
        return state

    assert pipeline(return_state=True).type == state.type
    assert the_run(place).status == status


def test_async_tasks_in_an_async_flow(place: Path) -> None:
    @task
    @capture(params="number", outputs="result")
    async def work(number: int) -> int:
        return number

    @flow
    @capture()
    async def pipeline() -> list[int]:
        assert current_capture().run_id == str(runtime.flow_run.id)
        return list(await asyncio.gather(*(work(number) for number in range(3))))

    assert asyncio.run(pipeline()) == [0, 1, 2]
    found = runs(place)
    assert {each.status for each in found} == {"finished"}
    assert sorted(each.params.get("number", 9) for each in found) == [0, 1, 2, 9]


def test_further_captures_of_one_run_are_numbered(place: Path) -> None:
    """And a retry, in which the numbers begin again, revises each."""
    attempts = []

    @capture(params="name")
    def step(name: str) -> str:
        return current_capture().run_id

    @flow(retries=1)
    def pipeline() -> list[str]:
        attempts.append([step("a"), step("b")])
        with capture() as outer, capture() as inner:
            attempts[-1] += [outer.run_id, inner.run_id]
        if len(attempts) == 1:
            raise ValueError("the first time")
        return [str(runtime.flow_run.id)]

    [run_id] = pipeline()
    expected = [run_id, f"{run_id}-2", f"{run_id}-3", f"{run_id}-4"]
    assert attempts == [expected, expected]
    assert [(each.run_id, each.revision) for each in runs(place)] == [(each, 2) for each in sorted(expected)]


def test_the_innermost_of_task_and_flow_gives_the_id(place: Path) -> None:
    @flow
    def below() -> list[str]:
        with capture() as run:
            return [run.run_id, str(runtime.flow_run.id)]

    @task
    def work() -> list[list[str]]:
        with capture() as run:
            return [[run.run_id, str(runtime.task_run.id)], below()]

    @flow
    def above() -> list[list[str]]:
        return [below(), *work()]

    found = [*above(), *work()]
    for run_id, expected in found:
        assert run_id == expected
    assert len(runs(place)) == len(found) == 5


def test_a_task_sees_the_capture_of_its_flow(place: Path) -> None:
    @task
    def work(number: int) -> None:
        current_capture().log_metric(f"m{number}", number)
        current_capture().log_output(f"o{number}", [number])

    @flow
    @capture()
    def pipeline() -> None:
        work.map([1, 2, 3]).wait()

    pipeline()
    manifest = the_run(place)
    assert manifest.metrics == {"m1": 1, "m2": 2, "m3": 3}
    assert sorted(manifest.outputs) == ["o1", "o2", "o3"]


@task
@capture(params="number", outputs="result")
def work_elsewhere(number: int) -> int:
    current_capture().log_metric("pid", os.getpid())
    return number


def test_in_other_processes(place: Path) -> None:
    @flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
    def pipeline() -> list[int]:
        return work_elsewhere.map([1, 2]).result()

    assert pipeline() == [1, 2]
    found = runs(place)
    assert sorted(each.params["number"] for each in found) == [1, 2]
    assert os.getpid() not in {each.metrics["pid"] for each in found}
    assert all(each.run_id == each.provenance["task_run_id"] for each in found)


@pytest.mark.parametrize("inside", [False, True], ids=["outside a capture", "inside one"])
def test_a_decorated_function_travels_by_value(place: Path, inside: bool) -> None:
    @capture(params="number", store=MLTrackStore(path=str(place)))
    def work(number: int) -> int:
        return number

    if inside:
        with capture("outer"):
            sent = cloudpickle.dumps(work)
    else:
        sent = cloudpickle.dumps(work)
    assert cloudpickle.loads(sent)(3) == 3
    assert [each.params for each in runs(place) if each.run_id != "outer"] == [{"number": 3}]


# processes that are ended

PROGRAM = """
    import os, signal, sys
    from mltrack_tasks import capture
    for number in range(int(sys.argv[1])):
        with capture("r") as run:
            run.log_input("data", [number])
            run.log_metric("number", number)
    with capture("r") as run:
        run.log_input("data", b"of the one that is ended")
        os.kill(os.getpid(), getattr(signal, sys.argv[2]))
        signal.pause()
"""


@pytest.mark.parametrize("before", [0, 2])
@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM"])
def test_a_process_that_is_ended_leaves_what_was_there(place: Path, before: int, name: str) -> None:
    command = [sys.executable, "-c", textwrap.dedent(PROGRAM), str(before), name]
    done = subprocess.run(command, env=surroundings(), capture_output=True, text=True)
    assert done.returncode == -signal.Signals[name], done.stderr
    store = open_directory(place)
    invariants.check_always(store)
    found = runs(place)
    assert [(each.revision, each.status, each.metrics) for each in found] == (
        [(2, "finished", {"number": 1})] if before else []
    )
    with capture("r") as run:
        run.log_input("data", b"of the one that is ended")
    assert the_run(place).revision == before + 1


FLOW = """
    import os, signal, time
    from prefect import flow
    from mltrack_tasks import capture
    @flow
    @capture("r")
    def pipeline():
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(1000):
            time.sleep(0.05)
    if __name__ == "__main__":
        pipeline()
"""


def test_a_flow_that_is_told_to_end_is_killed(place: Path, tmp_path: Path) -> None:
    """Prefect turns SIGTERM, as of a worker that shuts down, into an exception in the flow."""
    (tmp_path / "pipeline.py").write_text(textwrap.dedent(FLOW))
    command = [sys.executable, str(tmp_path / "pipeline.py")]
    env = {**surroundings(), "PREFECT_API_URL": str(PREFECT_API_URL.value())}
    with running("a flow", command, tmp_path / "log", env) as child:
        assert child.process.wait(60) != 0, child.tail()
    assert the_run(place).status == "killed"


def surroundings() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}
