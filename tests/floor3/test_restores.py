"""Archived data: what reading it says, and how it is made readable again. moto has the archives."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from moto.moto_api import state_manager

from mltrack_tasks.content import resolve_ref, retrieve_data, store_data, store_file
from mltrack_tasks.errors import ArchivedError, InvalidInputError, NotFoundError, PartialTransferError
from mltrack_tasks.events import Event
from mltrack_tasks.layout import blob_key
from mltrack_tasks.refs import DataRef
from mltrack_tasks.restores import await_restore, restore_data
from mltrack_tasks.runs import store_run
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.guard import GuardedStore
from mltrack_tasks.stores.retry import RetryingStore
from mltrack_tasks.stores.s3 import S3Store
from tests.servers import S3Server
from tests.settings import settings_of

SIZE = 3_000_000


class Bucket:
    """A store in moto whose blobs can be archived behind its back."""

    def __init__(self, server: S3Server) -> None:
        self.bare = S3Store(settings_of(server))
        self.store: Store = GuardedStore(RetryingStore(self.bare))
        self.sent: list[tuple[str, bytes]] = []
        self.bare.client.meta.events.register("before-send.s3.RestoreObject", self._note)

    def archive(self, ref: DataRef, storage_class: str = "GLACIER") -> DataRef:
        settings = self.bare.settings
        there = {"Bucket": settings.bucket, "Key": f"{settings.prefix}/{blob_key(ref.hash, ref.format)}"}
        self.bare.client.copy_object(**there, CopySource=there, StorageClass=storage_class)
        return ref

    def _note(self, request: Any, **said: Any) -> None:
        self.sent.append((request.url.partition("?")[2], request.body))


@pytest.fixture
def bucket(s3_server: S3Server) -> Bucket:
    return Bucket(s3_server)


@pytest.fixture
def slow(bucket: Bucket) -> Iterator[None]:
    """Restores that are under way for some looks, as in life for hours."""
    state_manager.set_transition("s3::keyrestore", {"progression": "manual", "times": 4})
    yield
    state_manager.unset_transition("s3::keyrestore")


def test_reading_says_what_restoring_costs(bucket: Bucket) -> None:
    ref = bucket.archive(store_data(bucket.store, b"x" * SIZE, "x"))
    with pytest.raises(ArchivedError, match=r"archived in GLACIER.*restore_data\('sha256:") as found:
        retrieve_data(bucket.store, ref)
    error = pickle.loads(pickle.dumps(found.value))
    gb = Decimal(SIZE) / 1024**3
    assert (error.storage_class, error.restoring) == ("GLACIER", False)
    assert error.prices["Standard"] == gb * Decimal("0.01") + Decimal("0.00005")
    assert error.prices["Bulk"] == 0
    assert error.prices["Expedited"] == gb * Decimal("0.03") + Decimal("0.01")
    assert "Standard: 3-5 hours" in str(error)
    assert str(ref) in error.how
    with pytest.raises(ArchivedError, match="DEEP_ARCHIVE") as deep:
        store_data(bucket.store, bucket_bytes(bucket), "again")
    assert set(deep.value.prices) == {"Standard", "Bulk"}


def bucket_bytes(bucket: Bucket) -> bytes:
    """Bytes that are in DEEP_ARCHIVE."""
    body = b"y" * 1000
    bucket.archive(store_data(bucket.store, body, "y"), "DEEP_ARCHIVE")
    return body


def test_a_run_is_restored_as_a_whole(bucket: Bucket) -> None:
    """Two blobs archived, one readable; the request has days and tier; the same call again starts nothing."""
    run = store_run(bucket.store, "r", {"a": b"1" * SIZE, "b": b"2" * 500, "c": b"3"}, project="p")
    refs = run.data_refs
    bucket.archive(refs["a"])
    bucket.archive(refs["b"], "DEEP_ARCHIVE")
    looked = restore_data(bucket.store, run_id="r", dry_run=True)
    assert (looked.readable, looked.archived, looked.started, looked.dry_run) == (1, 2, 0, True)
    assert bucket.sent == []
    told: list[Event] = []
    found = restore_data(bucket.store, run_id="r", days=3, tier="Bulk", observe=told.append)
    assert (found.readable, found.archived, found.started, found.done) == (1, 0, 2, False)
    assert found.cost == Decimal(500) / 1024**3 * Decimal("0.0025") + Decimal("0.000025")  # GLACIER: nothing
    assert found.takes == (("DEEP_ARCHIVE", "48 hours"), ("GLACIER", "5-12 hours"))
    assert [query for query, _ in bucket.sent] == ["restore", "restore"]
    assert all(b"<Days>3</Days>" in body and b"<Tier>Bulk</Tier>" in body for _, body in bucket.sent)
    assert [event.name for event in told] == ["mltrack.data.restore_started"]
    again = restore_data(bucket.store, run_id="r")
    assert (again.readable, again.done, again.cost) == (3, True, 0)
    assert len(bucket.sent) == 2
    assert retrieve_data(bucket.store, refs["a"]) == b"1" * SIZE


def test_what_is_under_way_is_waited_for(bucket: Bucket, slow: None, no_pauses: list[float]) -> None:
    ref = bucket.archive(store_data(bucket.store, b"slow" * 100, "slow"))
    assert restore_data(bucket.store, ref).started == 1
    found = restore_data(bucket.store, [ref, str(ref)])
    assert (found.under_way, found.started, found.archived) == (1, 0, 0)
    assert len(bucket.sent) == 1
    assert await_restore(bucket.store, ref.hash, poll_minutes=5).done
    assert set(no_pauses) == {300}
    assert retrieve_data(bucket.store, ref) == b"slow" * 100


def test_waiting_ends(bucket: Bucket, slow: None) -> None:
    ref = bucket.archive(store_data(bucket.store, b"never", "never"))
    with pytest.raises(ArchivedError, match="Start the restores"):
        await_restore(bucket.store, ref)
    restore_data(bucket.store, ref)
    with pytest.raises(ArchivedError, match="1 under way, after 0 hours") as found:
        await_restore(bucket.store, ref, timeout_hours=0)
    assert found.value.restoring
    with pytest.raises(InvalidInputError, match="poll_minutes is over 0"):
        await_restore(bucket.store, ref, poll_minutes=0)


def test_the_price_is_known_before(bucket: Bucket) -> None:
    ref = bucket.archive(store_data(bucket.store, b"z" * SIZE, "z"))
    with pytest.raises(InvalidInputError, match=r"would cost \$0.01,.*more than max_cost, \$0.01"):
        restore_data(bucket.store, ref, tier="Expedited", max_cost=0.01)
    assert bucket.sent == []
    assert restore_data(bucket.store, ref, tier="Expedited", max_cost=0.02).started == 1


def test_an_archived_manifest_comes_first(bucket: Bucket) -> None:
    store_run(bucket.store, "r", {"a": b"1"}, project="p")
    settings = bucket.bare.settings
    there = {"Bucket": settings.bucket, "Key": f"{settings.prefix}/manifests/r.json"}
    bucket.bare.client.copy_object(**there, CopySource=there, StorageClass="GLACIER")
    found = restore_data(bucket.store, run_id="r")
    assert (found.started, found.done) == (1, False)
    assert "manifest of the run is archived" in str(found)
    assert restore_data(bucket.store, run_id="r").done


def test_refusals_of_some_leave_the_others(bucket: Bucket) -> None:
    refs = [bucket.archive(store_data(bucket.store, bytes([n]) * 9, f"d{n}")) for n in range(3)]
    denied = f"{refs[1].hash}/data.bin"

    def deny(request: Any, **said: Any) -> Any:
        if denied not in request.url:
            return None
        from botocore.awsrequest import AWSResponse

        body = b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>"
        answer = AWSResponse(request.url, 403, {}, None)
        answer._content = body
        return answer

    bucket.bare.client.meta.events.register("before-send.s3.RestoreObject", deny)
    with pytest.raises(PartialTransferError, match=r"1 of 3 restores.*s3:RestoreObject") as found:
        restore_data(bucket.store, refs)
    assert (len(found.value.done), len(found.value.failed)) == (2, 1)
    bucket.bare.client.meta.events.unregister("before-send.s3.RestoreObject", deny)
    assert restore_data(bucket.store, refs).started == 1


def test_what_cannot_be_asked_for(bucket: Bucket, store: Store) -> None:
    for wrong, said in (
        ({}, "either refs or run_id"),
        ({"refs": "sha256:x", "run_id": "r"}, "either refs or run_id"),
        ({"run_id": "r", "days": 0}, "1 to 365"),
        ({"run_id": "r", "tier": "Soon"}, "Expedited"),
        ({"run_id": "r", "max_cost": -1}, "0 or more"),
    ):
        with pytest.raises(InvalidInputError, match=said):
            restore_data(bucket.store, **wrong)  # type: ignore[arg-type]
    with pytest.raises(NotFoundError, match="no run"):
        restore_data(bucket.store, run_id="unknown")
    gone = DataRef("0" * 64, "bin", 1, blob_key("0" * 64, "bin"))
    assert restore_data(bucket.store, gone).missing == (blob_key("0" * 64, "bin"),)
    with pytest.raises(NotFoundError, match="1 missing"):
        await_restore(bucket.store, gone)
    ref = store_data(store, 1, "x")
    assert restore_data(store, ref).done  # nothing is archived in memory
    deep = bucket.archive(store_data(bucket.store, b"deep", "deep"), "DEEP_ARCHIVE")
    with pytest.raises(InvalidInputError, match="no tier 'Expedited'"):
        restore_data(bucket.store, deep, tier="Expedited")


def test_a_storage_class_for_one_datum(bucket: Bucket, store: Store, tmp_path: Any) -> None:
    ref = store_data(bucket.store, b"cold", "cold", storage_class="GLACIER_IR")
    (tmp_path / "file").write_bytes(b"colder")
    file = store_file(bucket.store, tmp_path / "file", storage_class="STANDARD_IA")
    warm = store_data(bucket.store, b"warm", "warm")
    classes = [
        (stat.storage_class if (stat := bucket.store.head(each.storage_path, checksum=True)) else "")
        for each in (ref, file, warm)
    ]
    assert classes == ["GLACIER_IR", "STANDARD_IA", None]
    again = store_data(bucket.store, b"cold", "other", storage_class="STANDARD_IA")
    assert (again.created, retrieve_data(bucket.store, again)) == (False, b"cold")  # it stays where it is
    assert resolve_ref(bucket.store, ref.hash).hash == ref.hash
    for wrong in ("GLACIER", "WARM"):
        with pytest.raises(InvalidInputError, match="GLACIER_IR"):
            store_data(bucket.store, b"?", "x", storage_class=wrong)
    with pytest.raises(InvalidInputError, match="no storage classes"):
        store_data(store, b"?", "x", storage_class="GLACIER_IR")
