"""What tasks tell Prefect of objects: assets with what they were made from, and links in reports."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect import flow
from prefect.events.clients import AssertingEventsClient
from prefect.events.worker import EventsWorker

from mltrack_tasks import MLTrackStore, register_model, retrieve_data, store_data, store_run
from mltrack_tasks.objectlinks import console_url, links
from mltrack_tasks.stores import open_directory, open_s3
from mltrack_tasks.stores.s3_settings import Keys, S3Settings

MADE = "prefect.asset.materialization.succeeded"
AWS = S3Settings("bucket", prefix="team a", keys=Keys("key", "secret"), region="eu-central-1")


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], dict[str, set[str]]]]:
    """What was made, and of each what it was made from."""
    worker = EventsWorker.instance(AssertingEventsClient)
    monkeypatch.setattr(EventsWorker, "instance", lambda *_: worker)

    def assets() -> dict[str, set[str]]:
        worker.wait_until_empty()
        # A client that was just made has none yet: it gets the list when it is entered.
        found = [event for client in AssertingEventsClient.all for event in getattr(client, "events", ())]
        return {
            event.resource.id: {each.id for each in event.related if each.role == "asset"}
            for event in found
            if event.event == MADE
        }

    yield assets
    worker.drain()
    AssertingEventsClient.reset()


@flow
def pipeline(store: MLTrackStore | str, folder: Path) -> dict[str, Any]:
    raw = store_data({"a": [1, 2]}, "raw", store=store)
    doubled = {"a": [2 * each for each in retrieve_data(raw, store=store)["a"]]}
    run = store_run("r1", {"doubled": doubled}, inputs={"raw": raw}, project="p", store=store)
    model = register_model(run, "churn", folder, training_data={"raw": raw}, store=store)
    return {"raw": raw, "run": run, "model": model}


def test_a_flow_tells_what_it_made_from_what(
    block: MLTrackStore, told: Callable[[], dict[str, set[str]]], tmp_path: Path
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_text("w")
    done = pipeline(block, tmp_path / "model")
    raw = f"{block.location}/{done['raw'].storage_path}"
    assert told() == {
        raw: set(),
        f"{block.location}/manifests/r1.json": {raw},
        f"{block.location}/models/development/churn/{done['model'].version}.json": {
            raw,
            f"{block.location}/manifests/r1.json",
        },
    }
    assert raw.startswith("s3://")


def test_a_directory_has_no_assets(
    told: Callable[[], dict[str, set[str]]], tmp_path: Path, where: str
) -> None:
    (tmp_path / "weights").write_text("w")
    pipeline(where, tmp_path / "weights")
    assert told() == {}


def test_links_lead_to_the_console_of_aws() -> None:
    store = open_s3(AWS)
    assert console_url(store, "manifests/r 1.json") == (
        "https://console.aws.amazon.com/s3/object/bucket?region=eu-central-1&prefix=team+a%2Fmanifests%2Fr+1.json"
    )
    assert console_url(store, "models/").startswith("https://console.aws.amazon.com/s3/buckets/bucket?")
    shown = links(store, [f"{number}.json" for number in range(25)])
    assert shown.count("](https://") == 20
    assert shown.endswith("- and 5 more\n")
    assert links(store, []) == ""


def test_other_places_are_named_without_a_link(block: MLTrackStore, tmp_path: Path) -> None:
    for store in (block.open(), open_directory(tmp_path / "store")):
        assert console_url(store, "a.json") is None
        assert "](" not in links(store, ["abc"])
        assert "abc" in links(store, ["abc"])
