"""The part of the store's contract that is about large objects in parts."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from mltrack_tasks import digest
from mltrack_tasks.digest import composite_checksum
from mltrack_tasks.stores.base import Store, Upload
from mltrack_tasks.stores.probe import Capabilities
from mltrack_tasks.testing.raw import Raw, RawS3

MIN_PART = 5 * 1024 * 1024
"""Smallest part that S3 takes, but for the last [bytes]."""


class UploadContract:
    """Checks of ``Store.upload``; ``part_size`` [bytes] is what the store is made to use in them.

    ``replaces_parts_by_etag`` says whether the server honours ``If-Match`` when an upload is completed. Where
    it does not, racing healers of one large blob write the same bytes twice.
    """

    expects: Capabilities
    part_size: int = MIN_PART
    replaces_parts_by_etag: bool = True

    @pytest.fixture
    def body(self, monkeypatch: pytest.MonkeyPatch) -> bytes:
        """Two full parts and a small one."""
        monkeypatch.setattr(digest, "PART_SIZE", self.part_size)
        return random.Random(7).randbytes(2 * self.part_size + 11)

    def _parts(self, body: bytes) -> list[bytes]:
        return [body[start : start + self.part_size] for start in range(0, len(body), self.part_size)]

    def _send(self, upload: Upload, body: bytes, order: Sequence[int] = (1, 2, 3)) -> None:
        parts = self._parts(body)
        for number in order:
            upload.part(number, parts[number - 1], hashlib.sha256(parts[number - 1]).digest())

    def test_parts_become_one_object(self, store: Store, raw: Raw, body: bytes) -> None:
        with store.upload("k", len(body)) as upload:
            self._send(upload, body)
            assert raw.get("k") is None
            assert upload.complete() is True
        self._check_only(raw, "k", body)
        assert store.get("k") == body
        assert store.get_range("k", self.part_size - 2, 4) == body[self.part_size - 2 : self.part_size + 2]

    def test_what_is_known_of_an_object_in_parts(self, store: Store, body: bytes) -> None:
        with store.upload("k", len(body)) as upload:
            self._send(upload, body)
            upload.complete()
        stat = store.head("k", checksum=True)
        assert stat is not None
        assert stat.size == len(body)
        composite = composite_checksum(hashlib.sha256(part).digest() for part in self._parts(body))
        assert stat.sha256 in (None, hashlib.sha256(body).hexdigest())
        assert stat.composite in (None, composite)

    def test_parts_out_of_order_and_sent_twice(self, store: Store, raw: Raw, body: bytes) -> None:
        with store.upload("k", len(body)) as upload:
            self._send(upload, body[::-1], (3, 1))
            self._send(upload, body, (2, 3, 1, 2))
            assert upload.complete() is True
        self._check_only(raw, "k", body)

    def test_parts_from_many_threads(self, store: Store, raw: Raw, body: bytes) -> None:
        with store.upload("k", len(body)) as upload, ThreadPoolExecutor(3) as pool:
            list(pool.map(lambda number: self._send(upload, body, (number,)), (1, 2, 3)))
            assert upload.complete() is True
        self._check_only(raw, "k", body)

    def test_an_upload_that_is_left_leaves_nothing(self, store: Store, raw: Raw, body: bytes) -> None:
        with store.upload("k", len(body)) as upload:
            self._send(upload, body, (1, 2))
        upload.abort()
        assert raw.list() == []
        assert not _open_uploads(raw)
        assert store.head("k") is None

    def test_an_upload_does_not_replace(self, store: Store, raw: Raw, body: bytes) -> None:
        store.create("k", b"first")
        with store.upload("k", len(body)) as upload:
            self._send(upload, body)
            assert upload.complete() is not self.expects.create_only_parts
        self._check_only(raw, "k", b"first" if self.expects.create_only_parts else body)

    def test_an_upload_that_comes_second_does_not_replace(self, store: Store, raw: Raw, body: bytes) -> None:
        with store.upload("k", len(body)) as upload:
            self._send(upload, body)
            store.create("k", b"meanwhile")
            assert upload.complete() is not self.expects.create_only_parts
        self._check_only(raw, "k", b"meanwhile" if self.expects.create_only_parts else body)

    def test_an_upload_replaces_what_it_was_told_to(self, store: Store, raw: Raw, body: bytes) -> None:
        store.create("k", b"damaged")
        stat = store.head("k")
        assert stat is not None
        with store.upload("k", len(body), replacing=stat.etag) as upload:
            self._send(upload, body)
            assert upload.complete() is True
        self._check_only(raw, "k", body)

    def test_an_upload_does_not_replace_what_changed(self, store: Store, raw: Raw, body: bytes) -> None:
        store.create("k", b"damaged")
        stat = store.head("k")
        assert stat is not None
        assert store.replace("k", b"healed by another", stat.etag or "")
        with store.upload("k", len(body), replacing=stat.etag) as upload:
            self._send(upload, body)
            assert upload.complete() is not self.replaces_parts_by_etag
        self._check_only(raw, "k", b"healed by another" if self.replaces_parts_by_etag else body)

    def test_one_of_racing_uploads_wins(self, store: Store, raw: Raw, body: bytes) -> None:
        def send(number: int) -> bool:
            mine = bytes([number]) + body[1:]
            with store.upload("race", len(mine)) as upload:
                self._send(upload, mine)
                return upload.complete()

        with ThreadPoolExecutor(4) as pool:
            won = list(pool.map(send, range(4)))
        stored = raw.get("race") or b"none"
        if self.expects.create_only_parts:
            assert won.count(True) == 1
            assert won.index(True) == stored[0]
        assert stored[1:] == body[1:]
        assert not _open_uploads(raw)

    def _check_only(self, raw: Raw, key: str, body: bytes) -> None:
        assert raw.get(key) == body
        assert raw.list() == [key]
        assert not _open_uploads(raw)


def _open_uploads(raw: Raw) -> list[str]:
    return raw.open_uploads() if isinstance(raw, RawS3) else []
