"""The part of the store's contract that is about copies inside it."""

from __future__ import annotations

import hashlib
import random
import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from mltrack_tasks import digest
from mltrack_tasks.digest import composite_checksum, sha256_hex
from mltrack_tasks.errors import InvalidInputError, NotFoundError, TransientError
from mltrack_tasks.stores import s3_copy
from mltrack_tasks.stores.base import Stat, Store
from mltrack_tasks.testing.raw import Raw, RawS3
from mltrack_tasks.testing.uploads import MIN_PART

COPIED_KEYS = (
    *("a b", "a%20b", "a+b", "ü/ß", "日本", "a#b?c=d&e", "a?versionId=x", "[x]{y}^|", "%2e%2e", "a  b"),
    *("~x~00000002", "...", "deep/" * 40 + "x"),
)
"""Keys that must arrive as they are in a header too, which is where S3 takes the source from."""


class CopyContract:
    """Checks of ``Store.copy``; ``part_size`` [bytes] as in ``UploadContract``."""

    part_size: int = MIN_PART

    @pytest.fixture
    def large(self, monkeypatch: pytest.MonkeyPatch) -> bytes:
        """Two full parts and a small one, of a store that copies so much in parts."""
        monkeypatch.setattr(digest, "PART_SIZE", self.part_size)
        monkeypatch.setattr(s3_copy, "SINGLE_PUT_LIMIT", self.part_size)
        return random.Random(8).randbytes(2 * self.part_size + 11)

    @pytest.mark.parametrize("body", [b"", b"x", bytes(range(256)) * 5_000], ids=["empty", "1", "1.28 MB"])
    def test_a_copy_is_a_second_object(self, store: Store, raw: Raw, body: bytes) -> None:
        store.create("a/source", body)
        _check_copy(store, raw, "b/c/target", body, store.copy("a/source", "b/c/target", len(body)))
        store.delete(["a/source"])
        assert raw.list() == ["b/c/target"]
        assert raw.get("b/c/target") == body

    def test_a_copy_goes_over_what_is_there(self, store: Store, raw: Raw) -> None:
        store.create("source", b"new")
        for old in (b"old and longer", b"o", b"new"):
            raw.put("target", old)
            _check_copy(store, raw, "target", b"new", store.copy("source", "target", 3))
        assert raw.get("source") == b"new"

    def test_a_large_object_is_copied_in_parts(self, store: Store, raw: Raw, large: bytes) -> None:
        _upload(store, "source", large, self.part_size)
        raw.put("target", b"old")
        _check_copy(store, raw, "target", large, store.copy("source", "target", len(large)))
        source, target = store.head("source"), store.head("target", checksum=True)
        assert source is not None
        assert target is not None
        if re.fullmatch(r'"[0-9a-f]{32}-3"', source.etag or ""):
            # the very parts, or the whole if the store's prefix is one that parts are not copied from
            assert target.etag == source.etag or target.sha256 == sha256_hex(large)

    def test_what_a_store_says_of_large_copies_is_true(self, store: Store, large: bytes) -> None:
        _upload(store, "source", large, self.part_size)
        copied, found = store.copy("source", "target", len(large)), store.head("target", checksum=True)
        assert found is not None
        composite = composite_checksum(
            hashlib.sha256(large[start : start + self.part_size]).digest()
            for start in range(0, len(large), self.part_size)
        )
        for stat in (copied, found):
            assert stat.sha256 in (None, sha256_hex(large))
            assert stat.composite in (None, composite)

    def test_a_missing_source_is_named_and_the_target_stays(
        self, store: Store, raw: Raw, large: bytes
    ) -> None:
        store.create("target", b"old")
        store.create("folder/x", b"")
        for size in (1, len(large)):
            for key in ("missing", "folder", "target/below"):
                with pytest.raises(NotFoundError, match=key):
                    store.copy(key, "target", size)
                with pytest.raises(NotFoundError, match=key):
                    store.copy(key, "new", size)
        assert raw.get("target") == b"old"
        assert sorted(raw.list()) == ["folder/x", "target"]
        assert not _open_uploads(raw)

    def test_a_key_is_not_copied_onto_itself(self, store: Store, raw: Raw) -> None:
        store.create("k", b"x")
        with pytest.raises(InvalidInputError, match="onto itself"):
            store.copy("k", "k", 1)
        assert raw.get("k") == b"x"

    def test_odd_keys_are_copied_as_they_are(self, store: Store, raw: Raw, large: bytes) -> None:
        for key in COPIED_KEYS:
            store.create(f"s/{key}", key.encode())
            store.copy(f"s/{key}", f"t/{key}", len(key.encode()))
            assert raw.get(f"t/{key}") == key.encode(), key
        assert len(raw.list()) == 2 * len(COPIED_KEYS)
        for key in ("a b+ü#1", "a%20b", "a?versionId=x", "100%/x"):
            _upload(store, f"s/large/{key}", large, self.part_size)
            store.copy(f"s/large/{key}", f"t/large/{key}", len(large))
            assert raw.get(f"t/large/{key}") == large, key

    def test_racing_copies_end_whole(self, store: Store, raw: Raw) -> None:
        bodies = [bytes([number]) * 10_000 for number in range(4)]
        for number, body in enumerate(bodies):
            store.create(f"source/{number}", body)

        def copy(number: int) -> None:
            with suppress(TransientError):  # the losers of a race may be told to come back
                store.copy(f"source/{number % 4}", "target", 10_000)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(copy, range(16)))
        assert raw.get("target") in bodies


def _upload(store: Store, key: str, body: bytes, part_size: int) -> None:
    with store.upload(key, len(body)) as upload:
        for number, start in enumerate(range(0, len(body), part_size), start=1):
            part = body[start : start + part_size]
            upload.part(number, part, hashlib.sha256(part).digest())
        assert upload.complete() is True


def _check_copy(store: Store, raw: Raw, key: str, body: bytes, copied: Stat) -> None:
    """Compare the copy with what was copied, and with what the store said of it."""
    assert raw.get(key) == body
    assert not _open_uploads(raw)
    found = store.head(key)
    assert found is not None
    assert (copied.key, copied.size) == (key, len(body))
    assert copied.etag in (None, found.etag)
    assert copied.sha256 in (None, sha256_hex(body))
    assert copied.modified.tzinfo is not None


def _open_uploads(raw: Raw) -> list[str]:
    return raw.open_uploads() if isinstance(raw, RawS3) else []
