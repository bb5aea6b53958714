"""The task and the flow that read messages about new data, with real messages and deployments of a server."""

from __future__ import annotations

import json
import threading
import traceback
from typing import Any

import httpx
import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_URL
from prefect.states import Completed, Failed
from pydantic import TypeAdapter

from flows.process_new_data import process_new_data as process_flow
from mltrack_tasks import (
    AccessError,
    ArrivalReport,
    InvalidInputError,
    MLTrackError,
    NotFoundError,
    PartialTransferError,
    TransientError,
    events,
    process_new_data,
    store_data,
)
from mltrack_tasks.arrivals.batches import Batch
from mltrack_tasks.arrivals.keys import claim_key, is_arrival_key, subscription_of
from mltrack_tasks.starting import Starter, prefect_errors
from mltrack_tasks.tasking import _EMITTED
from tests.floor3.buckets import Bucket
from tests.floor3.queues import Queues
from tests.floor4.conftest import block_of
from tests.floor4.test_trust_tasks import shown
from tests.servers import S3Server
from tests.settings import settings_of


@flow
def train(refs: list[str], rate: float = 0.1) -> None:
    """A user's flow; its runs are only scheduled here, as no worker runs."""


class Place:
    """A bucket whose notifications go to a queue, and a deployment for what arrives."""

    def __init__(self, server: S3Server, deployment: str) -> None:
        self.bucket = Bucket(server)
        self.queues = Queues(self.bucket)
        self.block = block_of(settings_of(server, bucket=self.bucket.name, prefix="mltrack"))
        self.bucket.apply(recommended=False, notifications={"queue_arn": self.queues.arn})
        self.deployment = f"train/{deployment}"
        with get_client(sync_client=True) as client:
            made = train.to_deployment(deployment)
            client.create_deployment(
                client.create_flow(train),
                deployment,
                entrypoint=made.entrypoint,
                parameter_openapi_schema=made._parameter_openapi_schema.model_dump(),
                enforce_parameter_schema=True,
            )

    def runs(self) -> list[FlowRun]:
        """The flow runs of the deployment."""
        name = DeploymentFilterName(any_=[self.deployment.partition("/")[2]])
        with get_client(sync_client=True) as client:
            return client.read_flow_runs(deployment_filter=DeploymentFilter(name=name))

    def process(self, **options: Any) -> ArrivalReport:
        return process_flow(
            **{
                "queue": self.queues.name,
                "deployment": self.deployment,
                "wait_s": 0,
                "store": self.block,
                **options,
            }
        )


@pytest.fixture
def place(s3_server: S3Server, request: pytest.FixtureRequest) -> Place:
    return Place(s3_server, request.node.name.replace("_", "-")[:60])


def test_new_data_runs_a_deployment_once(place: Place) -> None:
    ref = store_data.fn({"a": 1}, "a", store=place.block)
    found = place.process(parameters={"rate": 0.5})
    [run] = place.runs()
    assert found.begun == (str(run.id),)
    assert run.parameters == {"refs": [str(ref)], "rate": 0.5}
    store_data.fn({"a": 1}, "again", store=place.block)
    assert place.process().known == 1
    # What was remembered in the bucket is lost: Prefect knows the batch by its id all the same.
    store = place.block.open()
    store.delete([stat.key for stat in store.list("arrivals/")])
    store_data.fn({"a": 1}, "once more", store=place.block)
    again = place.process()
    assert (again.new, again.begun) == (1, found.begun)
    assert len(place.runs()) == 1
    rows = {row["what"]: row["number"] for row in json.loads(shown("mltrack-arrivals")["data"])}
    assert rows["new data, acted upon"] == "1"


def test_an_event_is_emitted_and_dead_letters_are_shown(place: Place) -> None:
    ref = store_data.fn([1], "a", store=place.block)
    place.queues.send("{<not> JSON}")
    found = place.process(deployment=None, subscription="watch")
    assert (found.new, found.buried, found.begun) == (1, 1, ())
    assert "JSON" in shown("mltrack-dead-letters")["data"]
    assert place.runs() == []
    assert {events.DATA_ARRIVED, events.MESSAGE_BURIED} <= set(_EMITTED)
    told = emitted(events.DATA_ARRIVED, "mltrack.watch")
    assert told["payload"]["refs"] == [str(ref)]


def emitted(name: str, resource: str) -> dict[str, Any]:
    """The newest event of a name about a resource, which the server takes in a while after it was emitted."""
    asked = {
        "filter": {"event": {"name": [name]}, "resource": {"id": [resource]}, "order": "DESC"},
        "limit": 1,
    }
    pause = threading.Event()
    for _ in range(100):
        answer = httpx.post(f"{PREFECT_API_URL.value()}/events/filter", json=asked).raise_for_status().json()
        if answer["events"]:
            return dict(answer["events"][0])
        pause.wait(0.2)
    raise AssertionError(f"no {name} was emitted")


def test_waiting_for_runs_tells_of_those_that_fail(place: Place) -> None:
    """One of two runs fails; both are over, and their messages gone."""
    for value in (1, 2):
        store_data.fn(value, "n", store=place.block)

    def work() -> None:
        """Be the worker: end each run, the first with success."""
        ended: set[Any] = set()
        pause = threading.Event()
        with get_client(sync_client=True) as client:
            for _ in range(200):
                for run in [run for run in place.runs() if run.id not in ended]:
                    client.set_flow_run_state(run.id, Failed() if ended else Completed(), force=True)
                    ended.add(run.id)
                if len(ended) == 2:
                    return
                pause.wait(0.1)

    worker = threading.Thread(target=work)
    worker.start()
    with pytest.raises(PartialTransferError, match="1 of 2 runs") as failed:
        place.process(batch_size=1, wait=True)
    worker.join()
    assert len(failed.value.failed) == len(failed.value.done) == 1
    assert place.queues.count() == (0, 0)


def test_a_failed_run_is_told_of_though_the_reading_stops_after_it(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A retry would find its batch done, and say that all is well."""
    for value in (1, 2):
        store_data.fn(value, "n", store=place.block)
    begin = Starter._start

    def start(starter: Starter, deployment: str, batch: Batch) -> str:
        if starter.failed:
            raise TransientError("Prefect does not answer. Try again.")
        starter._wait = False
        run = begin(starter, deployment, batch)
        starter.waited, starter.failed = 1, [run]
        return run

    monkeypatch.setattr(Starter, "_start", start)
    with pytest.raises(PartialTransferError, match=r"1 of 1 runs.*Prefect does not answer") as failed:
        place.process(batch_size=1, wait=True)
    assert failed.value.failed == (str(place.runs()[0].id),)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, AccessError), (403, AccessError), (422, InvalidInputError), (503, TransientError)],
)
def test_an_address_with_a_password_is_in_no_error(status: int, kind: type[MLTrackError]) -> None:
    request = httpx.Request("POST", "http://user:hunter2@prefect.test/api")
    response = httpx.Response(status, request=request, text="the reason")
    with pytest.raises(kind) as caught, prefect_errors("a/b"):
        response.raise_for_status()
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))
    with pytest.raises(TransientError) as caught, prefect_errors("a/b"):
        raise httpx.ConnectError("http://user:hunter2@prefect.test does not answer")
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


def test_what_cannot_be_started_is_told_before_a_message_is_read(place: Place) -> None:
    place.queues.send("{}")
    before = place.queues.count()
    with pytest.raises(NotFoundError, match="flow/deployment"):
        process_new_data.fn(place.queues.name, "train/nothing", store=place.block)
    with pytest.raises(InvalidInputError, match="no parameter data, speed"):
        process_new_data.fn(
            place.queues.name, place.deployment, parameter="data", parameters={"speed": 1}, store=place.block
        )
    for wrong in ("train", "train/", "/x", "a/b/c", "/"):
        with pytest.raises(InvalidInputError, match="no deployment: write flow/deployment"):
            process_new_data.fn(place.queues.name, wrong, store=place.block)
    assert place.queues.count() == before


def test_other_errors_of_the_client_are_not_about_the_name(place: Place) -> None:
    start = Starter(place.deployment, parameters={"rate": object()})
    with pytest.raises(InvalidInputError, match="must be JSON"):
        start(Batch("0" * 64, "s", ("sha256:" + "0" * 64 + ".bin",)))
    with pytest.raises(AccessError, match="`prefect version`") as caught, prefect_errors("f/d"):
        TypeAdapter(int).validate_python("hidden-4711")
    assert "hidden-4711" not in "".join(traceback.format_exception(caught.value))


def test_a_long_deployment_has_a_subscription(place: Place) -> None:
    found = process_new_data.fn(place.queues.name, place.deployment, wait_s=0, store=place.block)
    assert found.subscription == place.deployment
    names = {subscription_of(f"train/{'ä' * 60}{number}") for number in range(3)}
    assert len(names) == 3
    for name in names:
        assert name.startswith("train/ää")
        assert is_arrival_key(claim_key(name, "0" * 64, "bin"))
        assert subscription_of(name) == name


def test_what_the_api_refuses(place: Place) -> None:
    start = Starter(place.deployment, parameters={"rate": "fast"})
    with pytest.raises(InvalidInputError, match="Check the parameters"):
        start(Batch("0" * 64, "s", ("sha256:" + "0" * 64 + ".bin",)))
    assert place.runs() == []
    with pytest.raises(TransientError, match="does not answer"), prefect_errors("f/d"):
        raise httpx.ConnectError("refused")
