"""Digests, part sizes and composite checksums, against computations of their own."""

from __future__ import annotations

import binascii
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mltrack_tasks.digest import (
    MAX_BLOB_SIZE,
    MAX_PARTS,
    PART_SIZE,
    SINGLE_PUT_LIMIT,
    MiB,
    base64_from_raw,
    check_digest,
    composite_checksum,
    hex_from_base64,
    is_composite,
    is_digest,
    part_size_for,
    sha256_hex,
)
from mltrack_tasks.errors import InvalidInputError

SIZES = st.one_of(
    st.integers(0, MAX_BLOB_SIZE),
    st.builds(
        lambda power, off: max(0, min(MAX_BLOB_SIZE, (PART_SIZE << power) * MAX_PARTS + off)),
        st.integers(0, 6),
        st.integers(-2, 2),
    ),
)
EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
"""SHA-256 of nothing and of ``abc``: FIPS 180-4's own examples."""


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_the_digest_is_sha256_in_lower_case(kind: type) -> None:
    assert sha256_hex(kind(b"")) == EMPTY
    assert sha256_hex(kind(b"abc")) == ABC


def test_a_slice_of_a_buffer_is_hashed_as_its_bytes() -> None:
    assert sha256_hex(memoryview(b"xxabcxx")[2:5]) == ABC


NOT_DIGESTS = [
    *("", EMPTY[:-1], EMPTY + "0", EMPTY.upper(), EMPTY + "\n", "\n" + EMPTY, " " + EMPTY, "g" + EMPTY[1:]),
    *("0x" + EMPTY[2:], "\u0660" + EMPTY[1:], "\uff10" + EMPTY[1:], f"sha256:{EMPTY}"),
    *(None, 1, EMPTY.encode(), [EMPTY], bytes(32)),
]


def test_a_digest_is_64_lowercase_hex_digits() -> None:
    assert is_digest(ABC)
    assert check_digest(ABC) == ABC


@pytest.mark.parametrize("text", NOT_DIGESTS, ids=repr)
def test_anything_else_is_not_a_digest(text: object) -> None:
    assert not is_digest(text)
    with pytest.raises(InvalidInputError, match="64 lowercase hex digits"):
        check_digest(text)


@given(SIZES)
def test_parts_are_the_smallest_that_stay_within_the_count(size: int) -> None:
    part = part_size_for(size)
    assert -(-size // part) <= MAX_PARTS
    doublings = part // PART_SIZE
    assert part == PART_SIZE * doublings
    assert doublings & (doublings - 1) == 0
    assert part == PART_SIZE or -(-size // (part // 2)) > MAX_PARTS


@given(SIZES, SIZES)
def test_larger_blobs_never_have_smaller_parts(one: int, other: int) -> None:
    small, large = sorted((one, other))
    assert part_size_for(small) <= part_size_for(large)


def test_part_sizes_at_the_borders() -> None:
    assert part_size_for(0) == part_size_for(SINGLE_PUT_LIMIT + 1) == 16 * MiB
    assert part_size_for(16 * MiB * 9_000) == 16 * MiB
    assert part_size_for(16 * MiB * 9_000 + 1) == 32 * MiB
    assert part_size_for(MAX_BLOB_SIZE) == 1024 * MiB  # S3 takes parts up to 5 GiB
    with pytest.raises(InvalidInputError, match=r"5,497,558,138,881 bytes is above the limit"):
        part_size_for(MAX_BLOB_SIZE + 1)


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=6))
def test_the_composite_checksum_is_the_digest_of_the_parts_digests(parts: list[bytes]) -> None:
    whole = hashlib.new("sha256")
    for part in parts:
        whole.update(bytes.fromhex(hashlib.new("sha256", part).hexdigest()))
    expected = binascii.b2a_base64(whole.digest(), newline=False).decode() + f"-{len(parts)}"
    found = composite_checksum(hashlib.sha256(part).digest() for part in parts)
    assert found == expected
    assert is_composite(found)


def test_the_composite_checksum_of_a_known_upload() -> None:
    """The text was made by ``xxd -r -p | openssl dgst -sha256 -binary | base64`` from the two digests."""
    parts = [bytes.fromhex(ABC), bytes.fromhex(EMPTY)]
    assert composite_checksum(parts) == "bxKQiW7oGgNJF00Z9Ec9JnoQKJxASAhh1cQq//+9efk=-2"


@pytest.mark.parametrize("count", [1, 9, 9_000, 10_000])
def test_composites_are_told_from_whole_checksums(count: int) -> None:
    whole = base64_from_raw(bytes.fromhex(ABC))
    assert is_composite(f"{whole}-{count}")
    assert not is_composite(whole)
    assert hex_from_base64(f"{whole}-{count}") is None


@pytest.mark.parametrize(
    "text",
    ["", "-1", "a=-1", "A" * 43 + "=-0", "A" * 43 + "=-01", "A" * 44 + "-1", "A" * 43 + "=-1\n", None, 1],
)
def test_what_is_not_a_composite(text: object) -> None:
    assert not is_composite(text)


@given(st.binary(min_size=32, max_size=32))
def test_base64_and_hex_of_one_digest_lead_to_each_other(raw: bytes) -> None:
    assert hex_from_base64(base64_from_raw(raw)) == raw.hex()


@pytest.mark.parametrize(
    "text", ["", "A", "é", "!" * 44, "A" * 43, "A" * 44, base64_from_raw(b"x" * 31), ABC, "A" * 42 + "=\n="]
)
def test_other_forms_are_not_a_sha256(text: str) -> None:
    assert hex_from_base64(text) is None
