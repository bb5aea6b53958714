"""What a store costs, from what lies in it: against sums over the raw objects, done here by hand."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from mltrack_tasks import costs
from mltrack_tasks.content import store_data
from mltrack_tasks.costs.counting import OTHER
from mltrack_tasks.costs.estimate import save_chart
from mltrack_tasks.costs.owners import NOBODY
from mltrack_tasks.errors import InvalidInputError
from mltrack_tasks.layout import blob_key
from mltrack_tasks.pricing.figures import CostEstimate, OwnerCost, dollars
from mltrack_tasks.pricing.prices import load_prices
from mltrack_tasks.registry import register_model
from mltrack_tasks.runs import store_run
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.guard import GuardedStore
from mltrack_tasks.stores.retry import RetryingStore
from mltrack_tasks.stores.s3 import S3Store
from tests.floor3.conftest import Place
from tests.servers import S3Server
from tests.settings import settings_of

PRICE = Decimal("0.023") / 1024**3
"""[dollars] of a byte for a month in STANDARD."""


def near(found: Decimal, expected: Decimal) -> bool:
    return abs(found - expected) < Decimal("1e-12")


def owner(found: CostEstimate, name: str) -> OwnerCost:
    return next(each for each in found.owners if each.owner == name)


def test_every_kind_of_store_costs_its_bytes(place: Place) -> None:
    """Two projects share A; two runs of one of them have it, a name has B, nothing has C."""
    a, b, c = b"a" * 300_000, b"b" * 60_000, b"c" * 10_000
    for run_id, project in (("r1", "churn"), ("r2", "churn"), ("r3", "fraud")):
        store_run(place.store, run_id, {"x": a, "again": a}, project=project)
    store_data(place.store, b, "b")
    lost = store_data(place.store, c, "c")
    place.raw.delete(next(key for key in place.raw.list() if key.startswith("names/c/")))
    found = costs.estimate_costs(place.store)
    keys = place.raw.list()
    whole = sum(len(place.raw.get(key) or b"") for key in keys)
    assert near(found.monthly, whole * PRICE)
    assert sum(line.objects for line in found.lines) == len(keys)
    parts = {each.owner: each.size_bytes for each in found.owners}
    assert parts == {"churn": 200_000, "fraud": 100_000, "(named data)": 60_000, NOBODY: 10_000}
    assert near(owner(found, "churn").monthly, 200_000 * PRICE)
    assert (found.saved_bytes, near(found.saved, 600_000 * PRICE)) == (600_000, True)
    assert lost.size_bytes == 10_000
    blobs = sum(line.monthly for line in found.lines if line.place == "data")
    assert near(sum((each.monthly for each in found.owners), Decimal(0)), blobs)


def test_a_run_that_moved_counts_for_its_new_project(store: Store) -> None:
    store_run(store, "r", {"x": b"1" * 1000}, project="old")
    store_run(store, "r", {"x": b"1" * 1000}, project="new", if_exists="revise")
    found = costs.estimate_costs(store)
    assert {each.owner: each.size_bytes for each in found.owners} == {"new": 1000}
    assert found.saved_bytes == 0  # one run, however many revisions


def test_models_have_their_part(store: Store, tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"w" * 5000)
    store_run(store, "r", {"w": b"w" * 5000}, project="p")
    register_model(store, "r", "m", str(tmp_path / "weights"), materialize=False)
    found = costs.estimate_costs(store)
    assert {each.owner: each.size_bytes for each in found.owners} == {"p": 2500, "(models)": 2500}


def test_an_empty_store_costs_nothing(store: Store) -> None:
    found = costs.estimate_costs(store)
    assert (found.monthly, found.owners, found.saved, found.early_deletion) == (0, (), 0, 0)
    assert all(each.saved == 0 for each in found.whatifs)
    assert "no S3 store" in found.notes[0]


def test_folders_of_others_are_one_place(memory_place: Place) -> None:
    store_data(memory_place.store, 1, "x")
    for number in range(50):
        memory_place.raw.put(f"foreign{number}/x", b"12345")
    found = costs.estimate_costs(memory_place.store)
    assert [line.objects for line in found.lines if line.place == OTHER] == [50]


@pytest.fixture
def versioned(s3_server: S3Server) -> Iterator[tuple[Store, Any]]:
    """A store in a bucket of its own that keeps versions -> it, and a client."""
    settings = settings_of(s3_server, bucket="mltrack-costs", prefix="team/mltrack")
    bare = S3Store(settings)
    bare.client.create_bucket(Bucket="mltrack-costs")
    bare.client.put_bucket_versioning(Bucket="mltrack-costs", VersioningConfiguration={"Status": "Enabled"})
    yield GuardedStore(RetryingStore(bare)), bare.client
    found = bare.client.list_object_versions(Bucket="mltrack-costs")
    for each in [*found.get("Versions", ()), *found.get("DeleteMarkers", ())]:
        bare.client.delete_object(Bucket="mltrack-costs", Key=each["Key"], VersionId=each["VersionId"])
    bare.client.delete_bucket(Bucket="mltrack-costs")


def test_versions_uploads_and_classes_of_a_bucket(versioned: tuple[Store, Any]) -> None:
    """By hand: 200,000 bytes in STANDARD_IA; 1,000 in GLACIER, + 32 KB, + 8 KB in STANDARD; and so on."""
    store, client = versioned
    there = {"Bucket": "mltrack-costs"}
    for number, (storage_class, size) in enumerate([("STANDARD_IA", 200_000), ("GLACIER", 1_000)]):
        key = f"team/mltrack/{blob_key(str(number) * 64, 'bin')}"
        client.put_object(**there, Key=key, Body=b"x" * size, StorageClass=storage_class)
    replaced = f"team/mltrack/{blob_key('2' * 64, 'bin')}"
    for body in (b"1" * 30_000, b"2" * 7_000, b"3" * 500):
        client.put_object(**there, Key=replaced, Body=body)
    client.put_object(**there, Key="team/mltrack/runs/gone", Body=b"4" * 90)
    client.delete_object(**there, Key="team/mltrack/runs/gone")
    client.put_object(**there, Key="team/other", Body=b"of somebody else")
    upload = client.create_multipart_upload(**there, Key="team/mltrack/data/big", StorageClass="GLACIER_IR")
    for number in (1, 2):
        client.upload_part(
            **there,
            Key="team/mltrack/data/big",
            UploadId=upload["UploadId"],
            PartNumber=number,
            Body=b"y" * 250,
        )
    client.create_multipart_upload(**there, Key="team/others", StorageClass="GLACIER_IR")
    found = costs.estimate_costs(store, region="us-east-1")
    lines = {(line.place, line.state, line.storage_class): line for line in found.lines}
    assert {name: (line.objects, line.size_bytes) for name, line in lines.items()} == {
        ("data", "current", "STANDARD_IA"): (1, 200_000),
        ("data", "current", "GLACIER"): (1, 1_000),
        ("data", "current", "STANDARD"): (1, 500),
        ("data", "older version", "STANDARD"): (2, 37_000),
        ("runs", "older version", "STANDARD"): (1, 90),
        ("runs", "delete marker", "STANDARD"): (1, 0),
        # moto forgets that it was begun in GLACIER_IR, as other servers do
        ("data: descriptions", "unfinished upload", "STANDARD"): (1, 500),
    }
    prices = {name: load_prices().of(name).storage[0] / 1024**3 for name in load_prices().classes}
    by_hand = 200_000 * prices["STANDARD_IA"] + (1_000 + 32_768) * prices["GLACIER"]
    by_hand += (8_192 + 500 + 37_000 + 90 + 500) * prices["STANDARD"]
    assert near(found.monthly, by_hand)
    assert found.notes == ()
    policy = {
        "Rules": [{"ID": "x", "Status": "Enabled", "NoncurrentVersionExpiration": {"NoncurrentDays": 0}}]
    }
    whatif = costs.estimate_costs(store, lifecycle=policy, storage_classes=()).whatifs
    assert [(each.removed.objects, each.removed.size_bytes) for each in whatif] == [(3, 37_090)]


def test_one_listing_whatever_there_is(s3_server: S3Server, versioned: tuple[Store, Any]) -> None:
    store, client = versioned
    sent: list[str] = []
    bare = S3Store(settings_of(s3_server, bucket="mltrack-costs", prefix="team/mltrack"))
    store_run(store, "r", {"x": b"1", "y": b"2"}, project="p")
    counting = GuardedStore(RetryingStore(bare))
    bare.client.meta.events.register("before-send.s3", lambda request, **said: sent.append(request.url))
    costs.estimate_costs(counting)
    kinds = [url.partition("?")[2].partition("&")[0].partition("=")[0] for url in sent]
    assert sorted(kinds) == ["uploads", "versions", "versions"]  # one to see whether it is allowed
    assert client is not None


def test_what_goes_on_in_a_month(store: Store) -> None:
    store_data(store, b"x" * 1000, "x")
    found = costs.estimate_costs(store, monthly_puts=1_000_000, monthly_gets=1_000_000, monthly_read_bytes=10)
    assert dollars(found.traffic) == "$5.40"
    with pytest.raises(InvalidInputError, match="0 or more"):
        costs.estimate_costs(store, monthly_puts=-1)


def test_what_was_written_just_now_is_of_age_0(memory_place: Place) -> None:
    store_data(memory_place.store, 1, "x")
    rules = [{"Status": "Enabled", "Filter": {}, "Expiration": {"Days": 0}}]
    found = costs.estimate_costs(memory_place.store, lifecycle=rules, storage_classes=("GLACIER_IR",))
    assert found.whatifs[-1].removed.objects == len(memory_place.raw.list())


def test_the_chart_and_the_rows(store: Store, tmp_path: Path) -> None:
    store_run(store, "r", {"x": b"<&>" * 1000}, project="<script>")
    found = costs.estimate_costs(store)
    path = save_chart(found, tmp_path / "costs.svg")
    assert "<script" not in path.read_text()
    assert save_chart(found, path) == path
    assert found.rows()[0].keys() == {"folder", "state", "class", "objects", "size", "billed", "a month"}
    assert found.to_json()["monthly"] == f"{found.monthly:.10f}"
    assert str(found).startswith("memory:: under $0.0001 a month")
