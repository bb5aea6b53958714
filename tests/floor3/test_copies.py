"""Copies of blobs are proven before they are relied on, and by the store's own account where it gives one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from mltrack_tasks import layout
from mltrack_tasks.content import store_data
from mltrack_tasks.copies import COPY_TRIES, copy_blob, is_copy
from mltrack_tasks.digest import sha256_hex
from mltrack_tasks.errors import ArchivedError, IntegrityError, InvalidInputError, NotFoundError
from mltrack_tasks.recordstore import read_record
from mltrack_tasks.refs import DataRef
from mltrack_tasks.stores.base import Stat, Store, WrapperStore
from mltrack_tasks.stores.cache import CachedStore
from mltrack_tasks.stores.memory import MemoryStore
from mltrack_tasks.stores.observed import CountingStore
from mltrack_tasks.stores.s3 import S3Store
from tests.floor3.conftest import Place
from tests.floor3.limits import LARGE

pytestmark = pytest.mark.usefixtures("small_parts")

SMALL = b"x" * 1_000
TARGET = "models/production/m/1/files/a b%20.bin"
MD5 = '"0123456789abcdef0123456789abcdef"'
BODIES = pytest.mark.parametrize("body", [b"", SMALL, LARGE], ids=["empty", "small", "large"])


def copy(store: Store, ref: DataRef, target: str = TARGET) -> int:
    return copy_blob(store, ref.hash, ref.format, ref.size_bytes, target)


def moved(store: CountingStore) -> int:
    """Bytes that came through this process, but for the record of a blob's parts."""
    records = [
        key for verb, key in store.log if verb in ("get", "get_range") and key.endswith("multipart.json")
    ]
    return store.received.total() - sum(len(store.inner.get(key)) for key in records)


@BODIES
def test_every_store_copies_without_moving_bytes(place: Place, body: bytes) -> None:
    ref = store_data(place.store, body)
    place.raw.put(TARGET, b"what was there before")
    store = CountingStore(place.store)
    assert copy(store, ref) == moved(store) == 0
    assert place.raw.get(TARGET) == place.raw.get(ref.storage_path) == body
    assert store.calls["copy"] == 1
    assert store.sent.total() == 0


def test_a_server_that_tells_the_digest_while_copying_is_asked_nothing_more(s3_place: Place) -> None:
    ref = store_data(s3_place.store, SMALL)
    store = CountingStore(s3_place.store)
    assert copy(store, ref) == 0
    assert store.log == [("copy", TARGET)]


class Says(WrapperStore):
    """Says of the blob and of its copies what a test wants it to, and counts copies."""

    def __init__(self, inner: Store, copied: Callable[[Stat], Stat], found: Callable[[Stat], Stat]) -> None:
        super().__init__(inner)
        self.copied, self.found, self.copies = copied, found, 0

    def copy(self, source: str, target: str, size: int) -> Stat:
        self.copies += 1
        return self.copied(self.inner.copy(source, target, size))

    def head(self, key: str, *, checksum: bool = False) -> Stat | None:
        stat = self.inner.head(key, checksum=checksum)
        return stat and self.found(stat)


def nothing(stat: Stat) -> Stat:
    """Like Ceph with encryption: no word about the bytes."""
    return replace(stat, sha256=None, composite=None)


def noted(store: Store, ref: DataRef) -> str:
    return str(read_record(store, layout.blob_parts_key(ref.hash)).content["composite"])


def test_without_an_account_the_copy_is_read() -> None:
    bare = MemoryStore()
    for body in (SMALL, LARGE):
        ref = store_data(bare, body)
        store = CountingStore(Says(bare, nothing, nothing))
        assert copy(store, ref) == moved(store) == len(body)
        assert {key for verb, key in store.log if verb in ("get", "get_range")} == {TARGET}


def test_the_composite_of_our_parts_is_proof_and_no_other() -> None:
    bare = MemoryStore()
    ref = store_data(bare, LARGE)
    composite = noted(bare, ref)
    for told, read in ((composite, 0), (f"{composite[:-1]}9", len(LARGE))):
        says = Says(bare, nothing, lambda stat, told=told: replace(nothing(stat), composite=told))  # type: ignore[misc]
        assert copy(says, ref) == read
        says = Says(bare, lambda stat, told=told: replace(nothing(stat), composite=told), nothing)  # type: ignore[misc]
        assert copy(says, ref) == read


def test_what_is_left_of_a_copy_that_was_proven() -> None:
    """Looked at without reading: what the store says of its bytes, else equal ETags, else the size."""
    bare = MemoryStore()
    ref = store_data(bare, LARGE)
    copy(bare, ref)
    composite, other = noted(bare, ref), MD5.replace("0", "1")
    for found, holds in (
        ({"composite": composite, "etag": None}, True),
        ({"composite": f"{composite[:-1]}9", "etag": None}, False),
        ({"sha256": ref.hash, "etag": other}, True),
        ({"sha256": "0" * 64, "etag": MD5}, False),
        ({"etag": MD5}, True),
        ({"etag": other}, False),
        ({"etag": "of a KMS key"}, True),
        ({"etag": "of a KMS key", "size": 1}, False),
        ({"composite": composite, "storage_class": "GLACIER"}, False),
    ):

        def says(stat: Stat, found: dict[str, Any] = found) -> Stat:
            return replace(nothing(stat), **({"etag": MD5} | (found if stat.key == TARGET else {})))

        store = CountingStore(Says(bare, nothing, says))
        assert is_copy(store, ref.hash, ref.format, ref.size_bytes, TARGET) is holds, found
        assert moved(store) == 0


@pytest.mark.parametrize("damage", [b"", b"{}", b'{"content":{"composite":"%s","part_size":1}}'])
def test_a_note_that_is_not_of_our_parts_proves_nothing(damage: bytes) -> None:
    bare = MemoryStore()
    ref = store_data(bare, LARGE)
    composite = noted(bare, ref)
    parts = layout.blob_parts_key(ref.hash)
    bare.delete([parts])
    if damage:
        bare.create(parts, damage.replace(b"%s", composite.encode()))
    says = Says(bare, nothing, lambda stat: replace(nothing(stat), composite=composite))
    assert copy(says, ref) == len(LARGE)


def test_equal_etags_are_proof_if_they_look_like_md5() -> None:
    bare = MemoryStore()
    for body in (SMALL, LARGE):
        ref = store_data(bare, body)
        for source, target, read in (
            (MD5, MD5, 0),
            (MD5, MD5.strip('"'), 0),
            (f'{MD5[:-1]}-3"', f'{MD5[:-1]}-3"', 0),
            (MD5, f'{MD5[:-1]}-3"', len(body)),
            ("same", "same", len(body)),
            (None, None, len(body)),
        ):

            def etag(stat: Stat, source: str | None = source, target: str | None = target) -> Stat:
                return replace(nothing(stat), etag=target if stat.key == TARGET else source)

            assert copy(Says(bare, nothing, etag), ref) == read, (source, target)


@BODIES
def test_a_damaged_blob_is_named_and_not_copied_thrice(place: Place, body: bytes) -> None:
    ref = store_data(place.store, body or b"-")
    body = body or b"-"
    for damage in (body[:-1] + b"?", body[:-1], b"more" + body, b"short"):
        place.raw.put(ref.storage_path, damage)
        store = CountingStore(place.store)
        with pytest.raises(IntegrityError, match=f"{ref.storage_path} .*is damaged"):
            copy(store, ref)
        assert store.calls["copy"] == 1


def test_a_damaged_blob_is_named_where_the_store_tells_nothing() -> None:
    bare = MemoryStore()
    for body in (SMALL, LARGE):
        ref = store_data(bare, body)
        bare.delete([ref.storage_path])
        bare.create(ref.storage_path, body[:-1] + b"?")
        with pytest.raises(IntegrityError, match=f"{ref.storage_path} .*is damaged"):
            copy(Says(bare, nothing, nothing), ref)


class Miscopies(WrapperStore):
    """Copies wrong so many times; ``told`` says whether it tells the checksums of what it holds."""

    def __init__(self, inner: Store, times: int, wrong: bytes | None, *, told: bool) -> None:
        super().__init__(inner)
        self.times, self.wrong, self.told, self.copies = times, wrong, told, 0

    def copy(self, source: str, target: str, size: int) -> Stat:
        self.copies += 1
        stat = self.inner.copy(source, target, size)
        if self.copies <= self.times:
            self.inner.delete([target])
            if self.wrong is not None:
                self.inner.create(target, self.wrong)
        return stat

    def head(self, key: str, *, checksum: bool = False) -> Stat | None:
        return self.inner.head(key, checksum=checksum and self.told)


@pytest.mark.parametrize("told", [True, False], ids=["told", "not told"])
@pytest.mark.parametrize("wrong", [None, b"", SMALL[:-1] + b"?"], ids=["gone", "empty", "one byte"])
def test_a_copy_that_came_out_wrong_is_made_again(wrong: bytes | None, told: bool) -> None:
    bare = MemoryStore()
    ref = store_data(bare, SMALL)
    store = Miscopies(bare, COPY_TRIES - 1, wrong, told=told)
    counting = CountingStore(store)
    assert copy(counting, ref) == moved(counting)
    assert store.copies == COPY_TRIES
    assert bare.get(TARGET) == SMALL
    store = Miscopies(bare, COPY_TRIES, wrong, told=told)
    with pytest.raises(IntegrityError, match=rf"{TARGET} .*differs from {ref.storage_path}, which is intact"):
        copy(store, ref)
    assert store.copies == COPY_TRIES


@BODIES
def test_a_missing_blob_is_not_found(place: Place, body: bytes) -> None:
    digest = sha256_hex(body)
    with pytest.raises(NotFoundError, match=digest):
        copy_blob(place.store, digest, "bin", len(body), TARGET)
    assert place.raw.get(TARGET) is None


def test_a_blob_that_goes_while_its_copy_is_judged_is_not_found() -> None:
    class Loses(Miscopies):
        """Loses the blob with the copy."""

        def copy(self, source: str, target: str, size: int) -> Stat:
            stat = super().copy(source, target, size)
            self.inner.delete([source])
            return stat

    bare = MemoryStore()
    ref = store_data(bare, SMALL)
    with pytest.raises(NotFoundError, match=ref.hash):
        copy(Loses(bare, 1, None, told=True), ref)


def test_an_archived_blob_is_said_to_be(s3_place: Place, s3_store: S3Store) -> None:
    ref = store_data(s3_place.store, SMALL)
    key = f"{s3_store.settings.prefix}/{ref.storage_path}"
    s3_store.client.put_object(
        Bucket=s3_store.settings.bucket, Key=key, Body=SMALL, StorageClass="DEEP_ARCHIVE"
    )
    with pytest.raises(ArchivedError, match="restore_data"):
        copy(s3_place.store, ref)
    assert s3_place.raw.get(TARGET) is None


def test_a_target_that_cannot_be_is_refused_before_anything_is_asked(place: Place) -> None:
    ref = store_data(place.store, SMALL)
    store = CountingStore(place.store)
    for target in ("", "/x", "a/../b", "a//b", "x" * 1_000, "a\n"):
        with pytest.raises(InvalidInputError):
            copy(store, ref, target)
    assert store.log == []
    with pytest.raises(InvalidInputError, match="onto itself"):
        copy(store, ref, ref.storage_path)


def test_a_good_copy_in_a_cache_does_not_prove_what_the_store_holds(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """The target is a blob itself here, and a cache has it."""
    bare = MemoryStore()
    ref = store_data(bare, SMALL)
    other = layout.blob_key(ref.hash, "json")
    bare.create(other, SMALL)
    cached = CachedStore(Miscopies(bare, 9, b"y" * 1_000, told=False), tmp_path_factory.mktemp("c"), 10**6)
    assert cached.get(other) == SMALL
    with pytest.raises(IntegrityError, match="differs"):
        copy(cached, ref, other)
