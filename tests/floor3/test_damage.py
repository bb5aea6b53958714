"""Damaged blobs are noticed by every read and replaced by the next store of the same data."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from mltrack_tasks import events
from mltrack_tasks.content import resolve_ref, retrieve_data, retrieve_file, store_data, store_file
from mltrack_tasks.errors import ArchivedError, IntegrityError, NotFoundError, TransientError
from mltrack_tasks.events import Event
from mltrack_tasks.refs import DataRef
from mltrack_tasks.runs import store_run
from mltrack_tasks.stores.base import Stat, Store, WrapperStore
from mltrack_tasks.stores.cache import CachedStore
from mltrack_tasks.stores.memory import MemoryStore
from mltrack_tasks.stores.observed import CountingStore
from tests.floor3 import invariants
from tests.floor3.conftest import Place
from tests.floor3.limits import LARGE

SMALL = b"small enough for one PUT"
pytestmark = pytest.mark.usefixtures("small_parts")

DAMAGES = {
    "one bit": lambda body: bytes([body[0] ^ 1]) + body[1:],
    "truncated": lambda body: body[:-1],
    "longer": lambda body: body + b"\0",
    "emptied": lambda body: b"",
    "other bytes": lambda body: body[::-1],
}


@pytest.mark.parametrize("body", [SMALL, LARGE], ids=["small", "large"])
def test_damage_is_noticed_and_healed(place: Place, tmp_path: Path, body: bytes) -> None:
    ref = store_data(place.store, body, "n")
    for kind in DAMAGES:
        check_damage(kind, place, tmp_path, body, ref)
    invariants.check_finished(place.store)


def check_damage(kind: str, place: Place, tmp_path: Path, body: bytes, ref: DataRef) -> None:
    store = place.store
    assert place.raw.put(ref.storage_path, DAMAGES[kind](body))
    for found in (ref, ref.hash):
        with pytest.raises(IntegrityError, match=ref.hash):
            retrieve_data(store, found)
        with pytest.raises(IntegrityError, match=ref.hash):
            retrieve_file(store, found, tmp_path / "out")
        assert list(tmp_path.glob("*out*")) == []
    seen: list[Event] = []
    again = store_data(store, body, "n", observe=seen.append)
    assert (again, again.created) == (ref, True)
    assert [event.name for event in seen] == [events.BLOB_HEALED, events.DATA_STORED]
    assert place.raw.get(ref.storage_path) == body
    assert retrieve_data(store, ref) == body
    seen.clear()
    assert store_data(store, body, "n", observe=seen.append).created is False
    assert [event.name for event in seen] == [events.BLOB_PRESENT, events.DATA_STORED]


def test_a_damaged_blob_is_healed_by_a_file_and_by_a_run(place: Place, tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(LARGE)
    ref = store_file(place.store, path)
    for again in (
        lambda: store_file(place.store, path),
        lambda: store_run(place.store, "r", {"f": LARGE}, storage_mode="flat"),
    ):
        place.raw.put(ref.storage_path, LARGE[::-1])
        again()
        assert place.raw.get(ref.storage_path) == LARGE
    invariants.check_finished(place.store)


def test_a_run_does_not_refer_to_a_blob_of_the_wrong_size(place: Place) -> None:
    ref = store_data(place.store, SMALL)
    place.raw.put(ref.storage_path, SMALL[:-1])
    with pytest.raises(IntegrityError, match=ref.hash):
        store_run(place.store, "r", {"d": ref}, storage_mode="flat")
    place.raw.delete(ref.storage_path)
    with pytest.raises(NotFoundError, match=ref.hash):
        store_run(place.store, "r", {"d": ref}, storage_mode="flat")
    assert not [key for key in place.raw.list() if key.startswith(("manifests", "runs/log"))]


def test_every_blob_stands_under_its_own_digest(place: Place, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(LARGE)
    refs = [
        store_data(place.store, SMALL),
        store_data(place.store, {"a": [1, 2.5, None]}),
        store_file(place.store, tmp_path / "file"),
        store_data(place.store, b""),
    ]
    for ref in refs:
        body = place.raw.get(ref.storage_path)
        assert body is not None
        assert hashlib.sha256(body).hexdigest() == ref.hash
        assert ref.storage_path.split("/")[2] == ref.hash
        assert len(body) == ref.size_bytes
    invariants.check_finished(place.store)


def test_a_bad_copy_in_the_cache_is_not_the_stores_damage(tmp_path: Path) -> None:
    """Bytes that were cached from a damaged blob do not outlive its healing."""
    bare = MemoryStore()
    store = CachedStore(bare, tmp_path / "cache", 10**6)
    for body in (SMALL, LARGE):
        ref = store_data(bare, body)
        bare.delete([ref.storage_path])
        bare.create(ref.storage_path, body[::-1])
        with pytest.raises(IntegrityError):
            retrieve_data(store, ref)
        store_data(bare, body)  # healed by another process
        assert retrieve_data(store, ref) == body
        assert retrieve_file(store, ref, tmp_path / ref.hash).read_bytes() == body


def test_a_good_copy_in_the_cache_does_not_hide_the_stores_damage(tmp_path: Path) -> None:
    class KeepsNoChecksums(WrapperStore):
        """Like a bucket encrypted with KMS: nothing on a HEAD says what the bytes are."""

        def head(self, key: str, *, checksum: bool = False) -> Stat | None:
            stat = self.inner.head(key)
            return stat and Stat(stat.key, stat.size, stat.etag, stat.modified)

    bare = MemoryStore()
    store = CachedStore(KeepsNoChecksums(bare), tmp_path / "cache", 10**6)
    for body in (SMALL, LARGE):
        ref = store_data(store, body)
        assert retrieve_data(store, ref) == body
        assert store_data(store, body).created is False
        bare.delete([ref.storage_path])
        bare.create(ref.storage_path, body[::-1])
        assert store_data(store, body).created is True
        assert bare.get(ref.storage_path) == body


def test_an_archived_blob_cannot_be_referred_to() -> None:
    class Archives(WrapperStore):
        """Says of every blob that it lies in the archive."""

        restored = False

        def head(self, key: str, *, checksum: bool = False) -> Stat | None:
            stat = self.inner.head(key, checksum=checksum)
            return stat and Stat(
                stat.key,
                stat.size,
                stat.etag,
                stat.modified,
                storage_class="DEEP_ARCHIVE",
                restored=self.restored,
                sha256=stat.sha256,
            )

    store = Archives(MemoryStore())
    ref = store_data(store.inner, SMALL)
    with pytest.raises(ArchivedError, match="DEEP_ARCHIVE"):
        store_data(store, SMALL)
    store.restored = True
    assert store_data(store, SMALL) == ref


def test_a_blob_that_comes_and_goes_is_a_transient_error(no_pauses: list[float]) -> None:
    class Flickers(WrapperStore):
        """Refuses every create and shows nothing."""

        def create(self, key: str, body: bytes | memoryview) -> bool:
            return False

        def head(self, key: str, *, checksum: bool = False) -> Stat | None:
            return None

    with pytest.raises(TransientError, match="appears and disappears"):
        store_data(Flickers(MemoryStore()), SMALL)
    assert sum(no_pauses) < 4


def test_a_blob_that_was_deleted_after_the_refusal_is_sent_again(no_pauses: list[float]) -> None:
    class LosesOnce(WrapperStore):
        """Deletes a blob between the refused PUT and its HEAD, once."""

        lost = False

        def head(self, key: str, *, checksum: bool = False) -> Stat | None:
            if not self.lost:
                self.lost = True
                self.inner.delete([key])
            return self.inner.head(key, checksum=checksum)

    bare = MemoryStore()
    for body in (SMALL, LARGE):
        store_data(bare, body)
        ref = store_data(LosesOnce(bare), body)
        assert retrieve_data(bare, ref) == body
        assert ref.created is True
    invariants.check_finished(bare)


def test_a_new_blob_is_sent_without_waiting(no_pauses: list[float]) -> None:
    """A large one is asked for first: that it is missing is no reason to pause."""
    for body in (SMALL, LARGE):
        assert store_data(MemoryStore(), body).created
    assert no_pauses == []


def test_presence_costs_a_look_before_its_pin_and_one_after_and_no_body() -> None:
    """A whole collection may lie between the first look and the pin."""
    bare = MemoryStore()
    for body in (SMALL, LARGE):
        store_data(bare, body)
        store = CountingStore(bare)
        store_data(store, body)
        blob = [verb for verb, key in store.log if "/data." in key]
        assert blob == (["create", "head", "head"] if body is SMALL else ["head", "head"])
    assert store.sent["part"] == 0


def test_reading_without_verification_is_possible_and_says_nothing(tmp_path: Path) -> None:
    store = MemoryStore()
    ref = store_data(store, SMALL)
    store.delete([ref.storage_path])
    store.create(ref.storage_path, SMALL[::-1])
    store.verify_reads = False
    assert retrieve_data(store, ref) == SMALL[::-1]
    assert retrieve_file(store, ref, tmp_path / "f").read_bytes() == SMALL[::-1]


def test_the_digest_decides_and_not_the_size_that_a_ref_tells(store: Store, tmp_path: Path) -> None:
    for body in (SMALL, LARGE):
        ref = store_data(store, body)
        wrong = DataRef(ref.hash, ref.format, ref.size_bytes + 3_000, ref.storage_path)
        assert retrieve_file(store, wrong, tmp_path / str(len(body))).read_bytes() == body
        assert retrieve_data(store, wrong) == body
        assert resolve_ref(store, ref.hash).size_bytes == len(body)
