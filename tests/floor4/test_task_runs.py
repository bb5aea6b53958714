"""Tasks in every place from which they are called, and what they leave in Prefect."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pandas as pd
import pytest
from prefect import flow, runtime, task, unmapped
from prefect.cache_policies import INPUTS
from prefect.events.clients import AssertingEventsClient
from prefect.events.worker import EventsWorker
from prefect.exceptions import MappingLengthMismatch
from prefect.task_runners import ProcessPoolTaskRunner

from mltrack_tasks import (
    DataRef,
    InvalidInputError,
    MLTrackStore,
    RunManifest,
    check_access,
    forget_data,
    get_run,
    list_data,
    retrieve_data,
    retrieve_file,
    store_data,
    store_file,
    store_run,
)
from mltrack_tasks.recordstore import read_record
from mltrack_tasks.stores.s3_settings import S3Settings
from tests.servers import S3Server, client

FRAMES = [pd.DataFrame({"n": [number]}) for number in range(2)]


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """What tasks emit in the test: ``events()`` -> the events of this library so far, oldest first."""
    worker = EventsWorker.instance(AssertingEventsClient)
    monkeypatch.setattr(EventsWorker, "instance", lambda *_: worker)

    def emitted() -> list[Any]:
        worker.wait_until_empty()
        # A client that was just made has none yet: it gets the list when it is entered.
        found = [event for client in AssertingEventsClient.all for event in getattr(client, "events", ())]
        return [event for event in found if event.event.startswith("mltrack.")]

    yield emitted
    worker.drain()
    AssertingEventsClient.reset()


def test_in_a_flow(block: MLTrackStore, tmp_path: Any) -> None:
    """All tasks but check_access, as a flow calls them; refs cross, data does not."""
    (tmp_path / "in.bin").write_bytes(b"\0\1")

    @flow
    def pipeline() -> tuple[RunManifest, dict[str, Any]]:
        frame = store_data(FRAMES[1], name="frame", metadata={"k": [1]}, store=block)
        file = store_file(tmp_path / "in.bin", store=block)
        manifest = store_run(
            data={"frame": frame, "accuracy": 0.9}, inputs={"file": file}, project="p", store=block
        )
        return manifest, dict(runtime.flow_run.parameters, id=runtime.flow_run.id)

    manifest, run = pipeline()

    assert manifest.run_id == run["id"]
    assert get_run.fn(run["id"], store=block) == manifest
    pd.testing.assert_frame_equal(retrieve_data.fn(manifest.data_refs["frame"], store=block), FRAMES[1])
    out = retrieve_file.fn(manifest.inputs["file"], tmp_path / "out.bin", store=block)
    assert out.read_bytes() == b"\0\1"
    named = list_data.fn(store=block)
    assert [item.name for item in named] == ["frame", "in.bin"]
    assert named[0].ref.metadata == {"k": [1]}
    assert [item.name for item in forget_data.fn("frame", store=block)] == ["frame"]


def test_submitted_and_mapped(block: MLTrackStore) -> None:
    block.save("mapped", overwrite=True)

    @flow
    def pipeline() -> list[list[DataRef]]:
        submitted = [store_data.submit(frame, store=block) for frame in FRAMES]
        wrapped = store_data.map(FRAMES, name="data", store=unmapped(block))
        by_name = store_data.map(FRAMES, store="mapped", metadata=unmapped({"k": 1}))
        back = retrieve_data.map(by_name, store=unmapped(block)).result()
        assert [frame["n"].tolist() for frame in back] == [[0], [1]]
        return [[future.result() for future in futures] for futures in (submitted, wrapped, by_name)]

    submitted, wrapped, by_name = pipeline()
    assert [ref.hash for ref in submitted] == [ref.hash for ref in wrapped] == [ref.hash for ref in by_name]
    assert all(ref.metadata == {"k": 1} for ref in by_name)


def test_blocks_and_mappings_in_map_need_unmapped(block: MLTrackStore) -> None:
    """Both are iterable, so Prefect takes them apart: it counts their parts, or our task is given one."""
    fields = len(list(block))

    @flow
    def pipeline() -> bool:
        with pytest.raises(MappingLengthMismatch, match="'store'"):
            store_data.map(FRAMES, store=block)
        with pytest.raises(InvalidInputError, match=r"store is tuple.*unmapped"):
            store_data.map(list(range(fields)), store=block).result()
        with pytest.raises(InvalidInputError, match=r"not a mapping.*unmapped"):
            store_data.map([1, 2], metadata={"a": 1, "b": 2}, store=unmapped(block)).result()
        return True

    assert pipeline()


def test_in_an_async_flow(block: MLTrackStore) -> None:
    """Through asyncio.to_thread, which keeps the event loop running and the flow run known."""

    @flow
    async def pipeline() -> tuple[RunManifest, str, bool]:
        refs = await asyncio.gather(*(asyncio.to_thread(store_data, frame, store=block) for frame in FRAMES))
        data = {str(number): ref for number, ref in enumerate(refs)}
        manifest = await asyncio.to_thread(store_run, data=data, storage_mode="flat", store=block)
        report = check_access(store=block)  # called directly it works as well, but stops the loop
        return manifest, str(runtime.flow_run.id), report.ok

    manifest, run_id, ok = asyncio.run(pipeline())
    assert manifest.run_id == run_id
    assert len(manifest.data_refs) == 2
    assert ok


def test_outside_any_flow(block: MLTrackStore) -> None:
    as_task = store_data({"a": 1}, store=block)
    as_function = store_data.fn({"a": 1}, store=block)
    assert as_task == as_function
    assert (as_task.created, as_function.created) == (True, False)
    assert retrieve_data(str(as_task), store=block) == {"a": 1}


@pytest.mark.parametrize("call", [store_run, store_run.fn], ids=["task", "function"])
def test_a_run_without_id_needs_a_flow(block: MLTrackStore, call: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"run_id is missing.*outside a Prefect flow run"):
        call(data={"a": 1}, storage_mode="flat", store=block)


def test_records_and_events_say_which_run_wrote_them(
    block: MLTrackStore, s3_settings: S3Settings, s3_server: S3Server, events: Any
) -> None:
    @flow(name="nightly")
    def pipeline() -> tuple[RunManifest, str]:
        store_data({"a": 1}, name="kept", store=block)
        store_data({"a": 1}, name="forgotten", store=block)
        forget_data("forgotten", store=block)
        store_data({"a": 0}, name="healed", store=block)
        data = {"a": {"a": 1}}
        return store_run(data=data, storage_mode="flat", store=block), str(runtime.flow_run.name)

    damaged = store_data.fn({"a": 0}, store=block)
    assert events() == []  # outside a run nobody waits for any
    client(s3_server).put_object(
        Bucket=s3_settings.bucket, Key=f"{s3_settings.prefix}/{damaged.storage_path}", Body=b"cut"
    )

    manifest, run_name = pipeline()

    (named,) = [stat.key for stat in block.open().list("names/kept/")]
    for provenance in (manifest.provenance, read_record(block.open(), named).provenance):
        assert provenance["flow_run_id"] == manifest.run_id
        assert (provenance["flow"], provenance["flow_run"]) == ("nightly", run_name)
        assert provenance["task_run_id"]
    assert manifest.provenance["task_run"].startswith("mltrack-store-run")
    assert "flow_run_id" not in store_run.fn("alone", storage_mode="flat", store=block).provenance

    found = events()
    assert [each.event for each in found] == [
        *("mltrack.data.stored", "mltrack.data.stored", "mltrack.data.forgotten"),
        *("mltrack.blob.healed", "mltrack.data.stored", "mltrack.run.stored"),
    ]
    stored, again = found[:2]
    assert stored.resource.id == again.resource.id == f"mltrack.{manifest.data_refs['a']}"
    assert stored.payload == {"name": "kept", "bytes": 7, "created": True}
    assert again.payload == {"name": "forgotten", "bytes": 7, "created": False}
    for event in found:
        related = {resource.id for resource in event.related}
        assert f"prefect.flow-run.{manifest.run_id}" in related


def test_a_cached_task_of_the_user_does_not_care_whether_data_was_new(block: MLTrackStore) -> None:
    computed = []

    @task(cache_policy=INPUTS, persist_result=True)
    def mean(ref: DataRef, refs: dict[str, DataRef]) -> float:
        computed.append(ref.created)
        return float(retrieve_data.fn(ref, store=block)["n"].mean())

    @flow
    def pipeline() -> tuple[bool, float]:
        ref = store_data(FRAMES[1], store=block)
        return ref.created, mean(ref, {"again": ref})

    assert [pipeline(), pipeline()] == [(True, 1.0), (False, 1.0)]
    assert computed == [True]


def test_refs_cross_processes(block: MLTrackStore) -> None:
    @flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
    def pipeline() -> tuple[DataRef, RunManifest]:
        ref = store_data.submit({"a": 1}, store=block)
        run = store_run.submit(data={"a": ref}, storage_mode="flat", store=block)
        return ref.result(), run.result()

    ref, manifest = pipeline()
    assert ref.created
    assert manifest.data_refs == {"a": ref}
    assert manifest.provenance["flow_run_id"] == manifest.run_id
    assert retrieve_data.fn(ref, store=block) == {"a": 1}
