"""Digests, part sizes and the checksums that S3 keeps."""

from __future__ import annotations

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mltrack_tasks import digest
from mltrack_tasks.errors import InvalidInputError

MiB = 1024 * 1024


@given(st.binary(max_size=200))
def test_a_digest_is_what_sha256sum_prints(body: bytes) -> None:
    found = digest.sha256_hex(memoryview(body))
    assert found == hashlib.sha256(body).hexdigest()
    assert digest.check_digest(found) == found


@pytest.mark.parametrize(
    "text", ["", "a" * 63, "a" * 65, "A" * 64, "g" * 64, "a" * 64 + "\n", "٣" * 64, None, b"a" * 64]
)
def test_what_is_no_digest(text: object) -> None:
    assert digest.is_digest(text) is False
    with pytest.raises(InvalidInputError, match="64 lowercase hex digits"):
        digest.check_digest(text)


@given(st.integers(0, digest.MAX_BLOB_SIZE))
def test_parts_are_few_enough_and_no_larger_than_needed(size: int) -> None:
    part = digest.part_size_for(size)
    assert part % digest.PART_SIZE == 0
    assert -(-size // part) <= digest.MAX_PARTS
    assert part == digest.PART_SIZE or -(-size // (part // 2)) > digest.MAX_PARTS


def test_parts_of_known_sizes() -> None:
    assert digest.part_size_for(0) == digest.part_size_for(9_000 * 16 * MiB) == 16 * MiB
    assert digest.part_size_for(9_000 * 16 * MiB + 1) == 32 * MiB
    assert digest.part_size_for(digest.MAX_BLOB_SIZE) <= 5 * 1024 * MiB
    with pytest.raises(InvalidInputError, match="limit"):
        digest.part_size_for(digest.MAX_BLOB_SIZE + 1)


@given(st.integers(0, digest.MAX_BLOB_SIZE), st.integers(0, digest.MAX_BLOB_SIZE))
def test_larger_blobs_never_have_smaller_parts(one: int, other: int) -> None:
    small, large = sorted((one, other))
    assert digest.part_size_for(small) <= digest.part_size_for(large)


def test_the_composite_checksum_of_a_known_upload() -> None:
    """The text was made by ``xxd -r -p | openssl dgst -sha256 -binary | base64`` from the two digests."""
    abc = bytes.fromhex("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
    empty = bytes.fromhex("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
    assert digest.composite_checksum([abc, empty]) == "bxKQiW7oGgNJF00Z9Ec9JnoQKJxASAhh1cQq//+9efk=-2"


def test_the_composite_checksum_is_the_one_of_the_user_guide() -> None:
    parts = [hashlib.sha256(body).digest() for body in (b"one", b"two")]
    whole = base64.b64encode(hashlib.sha256(b"".join(parts)).digest()).decode()
    assert digest.composite_checksum(iter(parts)) == f"{whole}-2"
    assert digest.is_composite(f"{whole}-2")
    for other in (whole, f"{whole}-0", f"{whole}-", "-2", "", None, f"{whole}-2\n", f"{whole}-123456"):
        assert not digest.is_composite(other)


@given(st.binary(min_size=32, max_size=32))
def test_hex_and_base64(raw: bytes) -> None:
    assert digest.hex_from_base64(digest.base64_from_raw(raw)) == raw.hex()


@pytest.mark.parametrize(
    "text", ["", "x", "####", "YQ==", "ü", "!" * 44, "A" * 43, "A" * 44, "A" * 21 + "\n" + "A" * 22 + "="]
)
def test_what_is_no_base64_of_a_digest(text: str) -> None:
    assert digest.hex_from_base64(text) is None
