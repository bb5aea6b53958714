"""Whole blobs packed by Zstandard: they come back, any zstd reads them, and nothing forged unpacks far."""

from __future__ import annotations

import io
import tracemalloc
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mltrack_tasks import canonical, codecs
from mltrack_tasks.codecs import zstd
from mltrack_tasks.errors import IntegrityError

VALUES: dict[str, Any] = {
    "npy.zst": np.arange(600.0).reshape(2, 300),
    "json.zst": {"a": [1, None, 2.5, "ü"], "b": [[]] * 100},
    "bin.zst": bytes(range(256)) * 50,
}


def pack(body: bytes, step: int = 1000) -> bytes:
    sink = io.BytesIO()
    packer = zstd.Packer(sink)
    for start in range(0, len(body), step):
        packer.write(body[start : start + step])
    packer.finish()
    return sink.getvalue()


def encoded(value: Any) -> tuple[bytes, codecs.Description]:
    sink = io.BytesIO()
    packer: Any = zstd.Packer(sink)
    description = codecs.encode(value, packer)
    packer.finish()
    return sink.getvalue(), codecs.packed(description)


@pytest.fixture(params=[zstd.CHUNK, 700], ids=["one frame", "many frames"])
def chunk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(zstd, "CHUNK", request.param)
    return int(request.param)


@pytest.mark.parametrize("format", VALUES)
def test_values_come_back(format: str, chunk: int) -> None:
    body, description = encoded(VALUES[format])
    assert description.format == format
    assert description.codec.endswith("+zstd")
    np.testing.assert_equal(codecs.decode(format, body, what="it"), VALUES[format])
    assert codecs.describe(format, io.BytesIO(body)) == description
    plain = io.BytesIO()
    codecs.encode(VALUES[format], plain)
    # Any other reader of zstd: of frames one after the other, as `zstd -d` takes them.
    with pa.CompressedInputStream(pa.BufferReader(body), "zstd") as stream:
        assert stream.read() == plain.getvalue()


@given(st.binary(max_size=3_000), st.integers(1, 900), st.integers(1, 900))
def test_any_bytes_in_pieces_of_any_length(body: bytes, written: int, read: int) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(zstd, "CHUNK", 500)
        packed = pack(body, written)
        assert packed == pack(body, 3_000)  # the same bytes however they came
        pieces = [packed[start : start + read] for start in range(0, len(packed), read)]
        assert b"".join(zstd.unpack(*found) for found in zstd.frames_of(pieces)) == body
        assert bytes(zstd.unpacked(packed, "bin")) == body


@given(st.integers(0, 2_000), st.integers(0, 255))
def test_damage_is_an_error_or_harmless(at: int, byte: int) -> None:
    """The digest finds all of it; this is for who packs on purpose."""
    body = bytearray(encoded(VALUES["bin.zst"])[0])
    body[at % len(body)] = byte
    try:
        found = codecs.decode("bin.zst", bytes(body), what="it")
    except IntegrityError:
        return
    assert len(found) == len(VALUES["bin.zst"])


def frame(plain: int, blocks: bytes = b"\x01\x00\x00") -> bytes:
    """A frame whose header says what it unpacks to; its one block is empty unless given."""
    return b"\x28\xb5\x2f\xfd\xe0" + plain.to_bytes(8, "little") + blocks


def rle(times: int, last: bool = True) -> bytes:
    """Blocks of 128 KiB of one byte each."""
    block = 128 * 1024
    headers = (block << 3 | 2 | (last and number == times - 1) for number in range(times))
    return b"".join(each.to_bytes(3, "little") + b"[" for each in headers)


BOMB = frame(zstd.CHUNK, rle(64)) * 20_000
"""5 MB that unpack to 168 GB."""


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "ends within"),
        (b"PAR1", "not begin with a frame"),
        (b"\x28\xb5\x2f\xfd", "ends within"),
        (b"\x28\xb5\x2f\xfd\x00\x58", "does not say"),
        (b"\x28\xb5\x2f\xfd\x21\x58", "dictionary"),
        (frame(zstd.CHUNK + 1), "more than"),
        (frame(2**63), "more than"),
        (frame(1000), "[Cc]orrupt"),
        (frame(3, b"\x07\x00\x00"), "unknown kind"),
        (pack(b"x" * 100)[:-1], "ends within"),
        (pack(b"x" * 100) + b"\0", "not begin with a frame"),
        (frame(zstd.CHUNK, rle(64, last=False)), "ends within"),
        (pack(b"x") + pack(b""), "empty frames"),
        (BOMB, "bytes of memory once it is unpacked"),
        (frame(0, b"\0\0\0" * 20_000), "more than 16,384 blocks"),
    ],
    ids=[
        *("empty", "parquet", "magic only", "no size", "dictionary", "large frame", "huge frame", "lie"),
        *("block", "cut", "tail", "no last block", "empty frames", "bomb", "tiny blocks"),
    ],
)
def test_what_is_forged_is_refused(body: bytes, reason: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(IntegrityError, match=reason):
            codecs.decode("bin.zst", body, what="it")
        assert tracemalloc.get_traced_memory()[1] < 2 * len(body) + 96 * 1024**2
    finally:
        tracemalloc.stop()


def test_json_that_would_become_too_many_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for the text is not room for its values: 2 MB of brackets are a million lists."""
    body = pack(b"[" + b"[]," * 700_000 + b"[]]", 1 << 20)
    monkeypatch.setattr(zstd, "free_memory", lambda: 100 * 1024**2)
    with pytest.raises(IntegrityError, match="bytes of memory once it is unpacked"):
        codecs.decode("json.zst", body, what="it")
    assert len(codecs.decode("bin.zst", body, what="it")) == 2_100_004


@pytest.mark.parametrize(("letter", "times"), [("a", 4), ("ä", 4), ("漢", 6), ("🙂", 10)])
def test_one_wide_character_makes_all_of_a_text_wide(
    letter: str, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is reserved is what Python takes for it at most, and what has so much room is read."""
    plain = f'"{"a" * 4_000_000}{letter}"'.encode()
    body = pack(plain)
    tracemalloc.start()
    try:
        assert codecs.decode("json.zst", body, what="it")[-1] == letter
        assert tracemalloc.get_traced_memory()[1] < times * len(plain) + len(plain)
    finally:
        tracemalloc.stop()
    monkeypatch.setattr(zstd, "free_memory", lambda: times * len(plain))
    assert codecs.decode("json.zst", body, what="it")[-1] == letter
    monkeypatch.setattr(zstd, "free_memory", lambda: (times - 1) * len(plain) - 1)
    with pytest.raises(IntegrityError, match="bytes of memory once it is unpacked"):
        codecs.decode("json.zst", body, what="it")
    with pytest.raises(IntegrityError, match="bytes of memory once it is unpacked"):
        codecs.describe("json.zst", io.BytesIO(body), what="it")


def test_commas_in_a_text_are_no_values(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "1,2,3\n" * 300_000
    body = pack(canonical.dumps_value(text))
    monkeypatch.setattr(zstd, "free_memory", lambda: 20_000_000)
    assert codecs.decode("json.zst", body, what="it") == text


def test_a_temporary_folder_without_room(monkeypatch: pytest.MonkeyPatch) -> None:
    body = pack(bytes(3_000_000))
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=2_000_000))
    with pytest.raises(IntegrityError, match="3,000,000 bytes of the temporary folder"):
        codecs.describe("npy.zst", io.BytesIO(body), what="it")


def test_an_empty_blob_is_one_frame() -> None:
    assert pack(b"") == frame_of_nothing()
    assert codecs.decode("bin.zst", pack(b""), what="it") == b""


def frame_of_nothing() -> bytes:
    return bytes(pa.Codec("zstd").compress(b"", asbytes=True))
