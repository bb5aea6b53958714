"""Artifacts as Prefect keeps them, from every kind of run, and without Prefect's API."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import httpx
import pytest
from prefect import flow, task
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from mltrack_tasks import events
from mltrack_tasks.artifacts import MAX_ROWS, Progress, image, markdown, plain, render_usage, table
from mltrack_tasks.chart import Chart, draw
from mltrack_tasks.content import store_data
from mltrack_tasks.errors import InvalidInputError, MLTrackError
from mltrack_tasks.events import Event
from mltrack_tasks.runs import store_run
from mltrack_tasks.stores.guard import GuardedStore
from mltrack_tasks.stores.memory import MemoryStore
from mltrack_tasks.usage import data_usage_stats
from mltrack_tasks.usage_stats import UsageStats, usage_chart
from tests.servers.faultproxy import Answer, Fault, FaultProxy

ROWS = [{"n": 1, "name": "<b>|x"}, {"n": None, "name": "y"}]
ARTIFACTS = r"/artifacts/\?$"
"""Where Prefect's API takes artifacts, as the proxy reads an address."""


def post(path: str, body: dict[str, Any]) -> Any:
    return httpx.post(f"{PREFECT_API_URL.value()}/{path}", json=body).raise_for_status().json()


def kept(key: str) -> list[dict[str, Any]]:
    """All artifacts of a key, oldest first."""
    found = post("artifacts/filter", {"artifacts": {"key": {"any_": [key]}}, "sort": "CREATED_DESC"})
    return list(reversed(found))


@pytest.fixture
def api() -> Iterator[FaultProxy]:
    """A proxy in front of Prefect's API, which runs in this test go through, and ask once only."""
    url = httpx.URL(PREFECT_API_URL.value())
    with FaultProxy(str(url.copy_with(path="/"))) as proxy:
        changed = {PREFECT_API_URL: f"{proxy.url}{url.path}", PREFECT_CLIENT_MAX_RETRIES: 0}
        with temporary_settings(changed):
            yield proxy


@pytest.fixture
def stats() -> UsageStats:
    store = GuardedStore(MemoryStore())
    store_run(store, "r1", {"x": b"1" * 2000, "y": b"1" * 2000}, project="p|<b>")
    store_data(store, b"2" * 3000, "na|me")
    return data_usage_stats(store)


class Clock:
    """Time that passes when it is told to [s]."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def progress(done: int, total: int | None = 10, unit: str = "runs", subject: str = "reading") -> Event:
    return Event(events.PROGRESS, subject, {"done": done, "total": total, "unit": unit})


# every kind of run


@task
def in_task(key: str) -> UUID | None:
    return table(key, ROWS, "rows of a task")


@task
async def in_async_task(key: str) -> UUID | None:
    return table(key, ROWS, "rows of a task")


def test_in_a_flow_and_in_a_task_of_it() -> None:
    @flow
    def look() -> list[UUID | None]:
        return [table("sync-flow", ROWS), markdown("sync-flow-text", "**x**", "d"), in_task("sync-task")]

    made = look()

    [rows], [text], [of_task] = kept("sync-flow"), kept("sync-flow-text"), kept("sync-task")
    assert [str(each) for each in made] == [each["id"] for each in (rows, text, of_task)]
    assert (rows["type"], json.loads(rows["data"]), rows["task_run_id"]) == ("table", ROWS, None)
    assert (text["type"], text["data"], text["description"]) == ("markdown", "**x**", "d")
    assert rows["flow_run_id"] == of_task["flow_run_id"] is not None
    assert of_task["task_run_id"] is not None
    assert of_task["description"] == "rows of a task"


def test_in_an_async_flow() -> None:
    """Made when the call returns, there too: no coroutine that somebody has to await."""

    @flow
    async def look() -> list[UUID | None]:
        return [
            table("async-flow", ROWS),
            in_task("async-sync-task"),
            await asyncio.to_thread(in_task, "async-thread"),
            await in_async_task("async-task"),
        ]

    made = asyncio.run(look())

    keys = ("async-flow", "async-sync-task", "async-thread", "async-task")
    assert [[str(each)] for each in made] == [[one["id"] for one in kept(key)] for key in keys]


def test_in_a_task_without_a_flow() -> None:
    assert str(in_task("lone-task")) == kept("lone-task")[0]["id"]


def test_outside_a_run_nothing_is_made(api: FaultProxy, stats: UsageStats) -> None:
    """And Prefect is not even asked: there may be none."""
    assert table("nowhere", ROWS) is None
    assert markdown("nowhere", "x") is None
    assert image("nowhere", "<svg/>", alt="x") is None
    render_usage(stats)
    assert api.requests == []


@pytest.mark.parametrize("key", ["", "Upper", "under_score", "-x", "x-", "a--b", "a b", "ä", "a\n", None])
def test_a_bad_key_is_refused_everywhere(key: Any) -> None:
    for call in (lambda: table(key, ROWS), lambda: markdown(key, "x"), lambda: Progress(key)):
        with pytest.raises(InvalidInputError, match="key of an artifact"):
            call()


def test_a_long_table_says_that_it_is_cut() -> None:
    @flow
    def look() -> None:
        table("long", [{"n": number} for number in range(MAX_ROWS + 1)], "Numbers")
        table("full", [{"n": number} for number in range(MAX_ROWS)])

    look()

    [long], [full] = kept("long"), kept("full")
    assert len(json.loads(long["data"])) == len(json.loads(full["data"])) == MAX_ROWS
    assert long["description"] == "Numbers (the first 1,000 of 1,001 rows)"
    assert full["description"] is None


def test_a_picture_is_inside_its_artifact() -> None:
    picture = draw(Chart("\u6f22 <&>", "", (), (), ()))

    @flow
    def look() -> None:
        image("picture", picture, alt="a [b](c)\n\nd", text="below")

    look()

    [made] = kept("picture")
    first, _, below = made["data"].partition("\n\n")
    alt, _, address = first.partition("](data:image/svg+xml;base64,")
    assert made["type"] == "markdown"  # not "image": see docs/adr/0009-charts.md
    assert alt == r"![a \[b\]\(c\) d"
    assert base64.b64decode(address.removesuffix(")")).decode() == picture
    assert below == "below"


def test_any_text_is_plain() -> None:
    assert plain("<script>*x*|`y`\n# z\t\\") == r"\<script\>\*x\*\|\`y\` \# z \\"
    assert plain("Stra\u00dfe 1") == "Stra\u00dfe 1"


# without Prefect's API


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault("reset", match=ARTIFACTS), "ReadError"),
        (Fault("status503", match=ARTIFACTS), "PrefectHTTPStatusError: Server error '503"),
        (
            Fault("answer", match=ARTIFACTS, answer=Answer(422, "No")),
            "PrefectHTTPStatusError: Client error '422",
        ),
    ],
    ids=lambda value: getattr(value, "kind", ""),
)
def test_an_artifact_that_is_not_taken_leaves_the_result(
    api: FaultProxy, caplog: pytest.LogCaptureFixture, fault: Fault, reason: str
) -> None:
    @flow
    def work() -> tuple[str, Any, Any]:
        return "the result", table("lost", ROWS), table("next", ROWS)

    api.script(fault)
    result, lost, following = work()

    assert (result, lost) == ("the result", None)
    assert str(following) == kept("next")[-1]["id"]
    [warning] = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert f"'lost' could not be shown: {reason}" in warning.getMessage()
    assert warning.name == "prefect.flow_runs"
    assert kept("lost") == []


def test_our_own_mistakes_are_not_hidden() -> None:
    @flow
    def work() -> None:
        table("odd", [{"n": object()}])

    with pytest.raises(TypeError, match="object"):
        work()


# progress


def test_progress_is_thinned_out(caplog: pytest.LogCaptureFixture) -> None:
    """100 events in 25 s: at most one state a second, a line in 10 s and one at the end."""
    clock, states = Clock(), []

    @flow
    def work() -> None:
        with Progress("thinned", clock=clock) as observe:
            for done in range(1, 101):
                clock.now += 0.25
                observe(progress(done, 100))
                states.append(tuple(each["data"] for each in kept("thinned")))

    work()

    [made] = kept("thinned")
    assert states[2] == ()
    assert len(set(states)) == 26  # none yet, then one each second
    assert (made["type"], made["data"], made["description"]) == (
        "progress",
        100,
        r"reading\: 100 of 100 runs",
    )
    lines = [record.getMessage() for record in caplog.records if record.getMessage().startswith("reading")]
    assert lines == [f"reading: {done} of 100 runs" for done in (40, 80, 100)]
    assert {record.name for record in caplog.records if record.getMessage() in lines} == {"prefect.flow_runs"}


def test_short_work_makes_no_artifact(caplog: pytest.LogCaptureFixture) -> None:
    @flow
    def work() -> None:
        with Progress("short", clock=Clock()) as observe:
            for done in range(10):
                observe(progress(done))

    work()

    assert kept("short") == []
    assert [m for m in caplog.messages if m.startswith("reading")] == ["reading: 9 of 10 runs"]


def test_the_last_state_is_shown_also_of_work_that_fails() -> None:
    clock = Clock()

    @flow
    def work() -> None:
        with Progress("failing", clock=clock) as observe:
            clock.now += 2
            observe(progress(1))
            observe(progress(7))
            raise MLTrackError("failed")

    with pytest.raises(MLTrackError, match="failed"):
        work()
    assert [each["data"] for each in kept("failing")] == [70]


@pytest.mark.parametrize(
    ("event", "percent", "told"),
    [
        (progress(1, 3), 33.3, "reading: 1 of 3 runs"),
        (progress(1234, None, "objects", "data/"), 0, "data/: 1,234 objects"),
        (progress(1536, 3072, "bytes"), 50, "reading: 1.50 KiB of 3.00 KiB"),
        (progress(5, None, "bytes"), 0, "reading: 5 B"),
        (progress(0, 0), 0, "reading: 0 runs"),
        (progress(9, 3), 100, "reading: 9 of 3 runs"),
    ],
)
def test_what_progress_says(event: Event, percent: float, told: str) -> None:
    clock = Clock()

    @flow
    def work() -> None:
        with Progress("said", clock=clock) as observe:
            clock.now += 1
            observe(event)

    work()

    made = kept("said")[-1]
    assert (made["data"], made["description"]) == (percent, plain(told))


def test_other_events_pass_at_once() -> None:
    seen: list[Event] = []
    event = Event(events.BLOB_CREATED, "data/x", {"bytes": 1})
    with Progress("passing", observe=seen.append, clock=Clock()) as observe:
        observe(event)
        observe(progress(1))
        assert seen == [event]
    assert seen == [event]


def test_progress_gives_up_on_an_api_that_is_gone(api: FaultProxy, caplog: pytest.LogCaptureFixture) -> None:
    """Each try may take a while: the work is not to wait for it again and again."""
    clock = Clock()

    @flow
    def work() -> str:
        with Progress("giving-up", clock=clock) as observe:
            for done in range(5):
                clock.now += 1
                observe(progress(done))
        return "the result"

    api.script(Fault("reset", match=ARTIFACTS, times=5))
    assert work() == "the result"
    assert caplog.text.count("could not be shown") == api.count(match=ARTIFACTS) == 1
    assert "reading: 4 of 10 runs" in caplog.text


def test_progress_gives_up_on_a_change_that_is_not_taken(
    api: FaultProxy, caplog: pytest.LogCaptureFixture
) -> None:
    """The proxy knows no PATCH, and answers 501."""
    clock = Clock()

    @flow
    def work() -> str:
        with Progress("half-way", clock=clock) as observe:
            for done in range(5):
                clock.now += 1
                observe(progress(done))
        return "the result"

    assert work() == "the result"
    assert caplog.text.count("'half-way' could not be shown") == 1
    assert [each["data"] for each in kept("half-way")] == [0]


def test_progress_outside_a_run_goes_to_the_log(api: FaultProxy, caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    with caplog.at_level(logging.INFO, "mltrack_tasks"), Progress("outside", clock=clock) as observe:
        clock.now += 5
        observe(progress(3))
    found = [(record.name, record.getMessage()) for record in caplog.records]
    assert found == [("mltrack_tasks", "reading: 3 of 10 runs")]
    assert api.requests == []


# the statistics


def test_usage_as_a_table_and_a_picture(stats: UsageStats) -> None:
    @flow
    def look() -> None:
        render_usage(stats)

    look()

    [rows], [picture] = kept("mltrack-usage"), kept("mltrack-usage-chart")
    month = stats.groups[0].month
    assert json.loads(rows["data"]) == [
        {
            **{"project": "p|<b>", "type": "experiment", "month": month, "runs": 1, "references": 2},
            **{"referenced": "3.91 KiB", "unique": "1.95 KiB", "saved": "1.95 KiB"},
        }
    ]
    image_line, text = picture["data"].split("\n\n", 1)
    shown = base64.b64decode(image_line.partition("base64,")[2].removesuffix(")")).decode()
    assert shown == usage_chart(stats)
    assert "| referenced by runs and names | 2 | 4.88 KiB |" in text
    assert "| unreferenced | 0 | 0 B |" in text
    largest = [line for line in text.splitlines() if line.startswith("- ")]
    assert largest[0].startswith(r"- 2.93 KiB, 1 references, na\|me: `sha256:")
    assert len(largest) == 2
