"""Pickled Python is found whatever it is called and wrapped in, little is read, and nothing runs."""

from __future__ import annotations

import bz2
import collections
import gzip
import io
import json
import lzma
import os
import pickle
import struct
import sys
import tarfile
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mltrack_tasks import picklebytes, pickles
from mltrack_tasks.errors import InvalidInputError, TransientError
from mltrack_tasks.pickles import Pickled, dangerous_globals, find_pickles
from tests.settings import examples

HARMLESS = collections.OrderedDict(a=[1, 2.5, "x" * 40], b=(None, True))

gzipped = partial(gzip.compress, mtime=0)
"""The same bytes each day: of some, an old tar's checksum comes out right, and then they count as one."""


class Trap:
    """Unpickled, it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def opener(contents: Mapping[str, bytes]) -> Callable[[str], BinaryIO]:
    return lambda path: io.BytesIO(contents[path])


def sizes(contents: Mapping[str, bytes]) -> dict[str, int]:
    return {path: len(body) for path, body in contents.items()}


def find(body: bytes, name: str = "some/file") -> list[tuple[str | None, str]]:
    found = find_pickles({name: len(body)}, opener({name: body}))
    assert {each.path for each in found} <= {name}
    return [(each.member, each.reason) for each in found]


def danger(body: bytes, name: str = "file") -> list[str]:
    contents = {name: body}
    return dangerous_globals(
        find_pickles(sizes(contents), opener(contents)), sizes(contents), opener(contents)
    )


def zipped(members: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, body in members.items():
            archive.writestr(name, body)
    return out.getvalue()


def saved(array: Any, **options: Any) -> bytes:
    out = io.BytesIO()
    np.save(out, array, **options)
    return out.getvalue()


def old_tar() -> bytes:
    """A tar without the magic number of POSIX."""
    header = tarfile.TarInfo("a.pkl").tobuf()[:257] + bytes(255)
    total = sum(header[:148]) + 8 * ord(" ") + sum(header[156:])
    return header[:148] + b"%06o\0 " % total + header[156:] + bytes(1024)


OBJECTS = saved(np.array([{"a": 1}, None], dtype=object), allow_pickle=True)
NUMBERS = saved(np.arange(12.0).reshape(3, 4))
WRAPPED = {"gzip": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zlib": zlib.compress}


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("name", ["model", "weights.bin", "notes.txt", "a.json"])
@pytest.mark.parametrize(
    "value",
    [HARMLESS, {"a": 1}, list(range(50)), np.float64(3), "text\nand more"],
    ids=lambda v: str(type(v)),
)
def test_pickles_of_any_protocol(protocol: int, name: str, value: Any) -> None:
    [(member, reason)] = find(pickle.dumps(value, protocol), name)
    assert member is None
    assert reason == ("its first bytes" if protocol >= 2 else "its opcodes")


@pytest.mark.parametrize("protocol", [0, 1])
@pytest.mark.parametrize("tail", [b"", b"\n", b"\xff" * 100, b"more text"])
def test_a_pickle_with_something_after_it(protocol: int, tail: bytes, tmp_path: Path) -> None:
    assert find(pickle.dumps(Trap(tmp_path / "trap"), protocol) + tail)
    assert find(pickle.dumps([1, 2, 3, 4], protocol) + tail)


@pytest.mark.parametrize(
    "body",
    [
        b"cposix\nsystem\n(S'id'\ntR",  # runs, and fails after it
        b"cposix\nsystem\n(S'id'\ntR\xff",
        b"(S'id'\nios\nsystem\n.",
        b"(cos\nsystem\nS'id'\no.",
        b"N.cposix\nsystem\n(S'id'\ntR.",
        b"N0cposix\nsystem\np0\n(S'id'\ntp1\n0g0\ng1\nR.",
        b"V" + b"x" * 300_000 + b"\n0cposix\nsystem\n(S'id'\ntR.",
        b"X" + struct.pack("<I", 300_000) + b"x" * 300_000 + b"0cposix\nsystem\n(S'id'\ntR.",
        b"(" * 9 + b"1" * 9 + b"cposix\nsystem\n(S'id'\ntR.",
        b"(0cposix\nsystem\n(S'id'\ntR.",
        b"K\x01" * 30_000 + b"cposix\nsystem\n(S'id'\ntR.",
        b"N\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x02id\x85R.",
        b"V" + b"x" * 2_000_000,
    ],
    ids=range(13),
)
def test_what_would_run_before_it_ends_or_fails(body: bytes) -> None:
    assert find(body) == [(None, "its opcodes")]
    assert danger(body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b".",
        b"N.B. this is a note\n",
        b"0.5\n1.0\n",
        b"channels:\n- conda-forge\ndependencies:\n- python=3.11.7\n- pip<=26.3\nname: mlflow-env\n",
        b"click==8.1\nnumpy==2.4\n",
        b"city\nage\ncountry\nregion\n",
        b"cat\ndog\ncar\ntree\nRabbit\nbus\n",
        b"cell\nx\ncell2\ny\n",
        b"Time,Value\n1,2\n" * 50_000,
        b"Volume,Value\n1,2\n",
        b"(a) first\n(b) second\n",
        b"Kx.\nMAX. 5",
        json.dumps({"a": [1, 2]}).encode(),
        b"[1, 2]",
        b"]\n",
        b"I am\n",
        b"S. Smith\nL. Miller\n",
        b"PERSON\nplace\n",
        b"import os\nclass A: ...\n",
        b"\x00" * 100_000,
        b"\xff" * 100_000,
        b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
        b"PAR1" + bytes(1000) + b"PAR1",
        b"\x89HDF\r\n\x1a\n" + bytes(1000),
        NUMBERS,
        saved(np.zeros(3, dtype=[("a", "<f8"), ("O", "U3")])),
        zipped({"schema.json": b"{}", "1.npy": NUMBERS}),
        zipped({"config.json": b"{}", "model.weights.h5": b"\x89HDF\r\n\x1a\n" + bytes(1000)}),
        zipped({"inner.zip": zipped({"1.npy": NUMBERS})}, zipfile.ZIP_DEFLATED),
        b"random PK\x05\x06 in the middle of bytes" + bytes(100),
        gzipped(NUMBERS),
    ],
    ids=(str(number) for number in range(1_000)),
)
def test_what_is_none(body: bytes) -> None:
    assert find(body) == []


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
def test_what_is_compressed_is_none(wrap: Callable[[bytes], bytes]) -> None:
    for body in (b"a,b\n1,2\n" * 20_000, np.random.default_rng(0).bytes(3_000_000)):
        assert find(wrap(body)) == []


@pytest.mark.parametrize("text", [b"Time,Value\n", b"This is it.\n", b"Brand\n", b"Xylophones\n"])
def test_long_texts_that_begin_with_the_length_of_a_string(text: bytes) -> None:
    body = text + b"1,2\n" * 500_000
    assert find(zipped({"a.csv": body}) + bytes(100)) == []
    assert find(gzipped(body)) == find(zlib.compress(body)) == []
    hidden = b"T" + struct.pack("<i", 3_000_000) + bytes(3_000_000) + b"0cposix\nsystem\n(S'id'\ntR."
    assert find(gzipped(hidden)) == [(None, "its opcodes")]
    assert find(zipped({"a": hidden}, zipfile.ZIP_DEFLATED)) == [("a", "its opcodes")]


def test_weights_are_none() -> None:
    random = np.random.default_rng(20_261_128)
    members = {f"data/{n}": random.standard_normal(3000).astype(np.float32).tobytes() for n in range(2000)}
    members |= {f"bytes/{n}": random.bytes(6000) for n in range(2000)}
    assert len(find(zipped(members))) < 5  # by chance: 1 in 40,000 begins with the magic bytes and an opcode


def test_random_bytes_are_none() -> None:
    random = np.random.default_rng(20_261_128)
    assert sum(bool(find(random.bytes(200))) for _ in range(20_000)) < 12  # 6 in 65,536 have magic bytes


@pytest.mark.parametrize(
    "name",
    [
        "a.pkl",
        "x/b.PICKLE",
        "c.p",
        "d.joblib",
        "e.dill",
        "f.cloudpickle",
        "g.pt",
        "h.pth",
        "i.ckpt",
        "j.pkl.gz",
    ],
)
def test_names(name: str) -> None:
    assert find(b"?", name) == [(None, "its name")]
    assert find(zipped({name: b"?"}), "z") == [(name, "its name")]


@pytest.mark.parametrize("name", ["a.pklx", "pkl", "a.pt/b", "p", "a.npz", "a.keras", "a.h5", "a.ptx"])
def test_names_that_say_nothing(name: str) -> None:
    assert find(b"?", name) == []


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_zips(compression: int) -> None:
    inner = zipped({"deep/o.npy": OBJECTS, "n.npy": NUMBERS}, compression)
    body = zipped(
        {
            "archive/data.pkl": pickle.dumps(HARMLESS),
            "archive/data/0": bytes(500_000),
            "o.npy": OBJECTS,
            "old": pickle.dumps(HARMLESS, 0),
            "wrapped": zlib.compress(pickle.dumps(HARMLESS)),
            "inner": inner,
        },
        compression,
    )
    expected = [
        ("archive/data.pkl", "its first bytes"),
        ("o.npy", "an object array"),
        ("old", "its opcodes"),
        ("wrapped", "its first bytes"),
        ("inner!/deep/o.npy", "an object array"),
    ]
    assert find(body) == expected
    assert find(b"#!/bin/sh\n" + body) == expected
    assert find(body, "model.pt") == expected
    assert danger(body) == []


def test_a_zip_two_levels_down_is_closed() -> None:
    body = zipped({"a": zipped({"b": zipped({"c": b"text"})})})
    assert find(body) == [("a!/b", "cannot be looked into")]


def test_npz_and_npy() -> None:
    out = io.BytesIO()
    np.savez_compressed(out, a=np.arange(3), b=np.array([{}, 1], dtype=object))
    assert find(out.getvalue()) == [("b.npy", "an object array")]
    assert find(OBJECTS) == [(None, "an object array")]
    fields = saved(np.zeros(2, dtype=[("a", "<f8"), ("b", [("c", "O")])]), allow_pickle=True)
    assert find(fields) == [(None, "an object array")]
    spelt = b"{'descr': '\\x4f', 'fortran_order': False, 'shape': (1,)}"
    hidden = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(spelt)) + spelt + pickle.dumps([None])
    assert find(hidden) == [(None, "an object array")]
    assert find(NUMBERS + NUMBERS) == []
    assert find(NUMBERS + OBJECTS) == [(None, "an object array")]
    assert find(NUMBERS * 17) == [(None, "cannot be looked into")]


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
def test_compressed(wrap: Callable[[bytes], bytes]) -> None:
    big = pickle.dumps([HARMLESS, np.random.default_rng(0).bytes(2_000_000)])
    for body in (pickle.dumps(HARMLESS), pickle.dumps(HARMLESS, 0), OBJECTS, big):
        assert find(wrap(body))
        assert danger(wrap(body)) == []
    assert find(wrap(zipped({"a.pkl": b"?"}))) == [(None, "cannot be looked into")]
    assert find(wrap(wrap(b"text"))) == [(None, "cannot be looked into")]


@pytest.mark.parametrize(
    "body",
    [
        b"PK\x03\x04" + bytes(100),
        zipped({"a": b"text"})[:-5],
        zipped({"a": b"text" * 100}, zipfile.ZIP_LZMA),
        zipped({"a": b"text" * 100}, zipfile.ZIP_BZIP2),
        b"\x1f\x8b" + bytes(100),
        b"BZh9" + bytes(100),
        b"\xfd7zXZ\x00" + bytes(100),
        gzipped(b"") * 50 + gzipped(pickle.dumps(HARMLESS)),
        b"\x93NUMPY\x01\x00\xff\xff{",
        b"\x93NUMPY\x02\x00\xff\xff\xff\xff{",
        b"\x93NUMPY\x09\x00",
        b"\x93NUMPY\x01\x00\x10\x27" + b"(" * 10_000,
        b"7z\xbc\xaf\x27\x1c",
        b"\x28\xb5\x2f\xfd",
        bytes(257) + b"ustar" + bytes(300),
        old_tar(),
        NUMBERS * 20,
    ],
    ids=(str(number) for number in range(1_000)),  # not the bytes: a zip holds the time
)
def test_what_cannot_be_looked_into(body: bytes) -> None:
    found = find(body)
    assert found
    assert {reason for _, reason in found} == {"cannot be looked into"}
    assert any("cannot be looked into" in text for text in danger(body))


def test_two_members_of_one_name() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            archive.writestr("a", b"text")
            archive.writestr("a", b"text")
    assert find(out.getvalue()) == [(None, "cannot be looked into")]


def test_bombs_stay_small(monkeypatch: pytest.MonkeyPatch) -> None:
    import tracemalloc

    zeros = bytes(100 << 20)
    bodies = [gzipped(zeros, 9), bz2.compress(zeros), lzma.compress(zeros, preset=1)]
    bodies.append(zipped({f"{n}": zeros for n in range(2)}, zipfile.ZIP_DEFLATED))
    bodies.append(zipped({"z.pkl": gzipped(zeros)}))
    del zeros
    tracemalloc.start()
    try:
        for body in bodies:
            find(body)
        assert find(bodies[-1]) == [("z.pkl", "its name")]
        assert danger(bodies[-1])
        assert tracemalloc.get_traced_memory()[1] < 120 << 20
    finally:
        tracemalloc.stop()
    monkeypatch.setattr(picklebytes, "BUDGET", 100_000)
    found = find(zipped({f"{n}": bytes(9000) for n in range(50)}))
    assert {reason for _, reason in found} == {"cannot be looked into"}


def test_a_directory_that_says_it_is_huge(tmp_path: Path) -> None:
    path = tmp_path / "huge"
    with path.open("wb") as file:
        file.write(b"PK\x03\x04")
        file.truncate(3 << 30)
        file.seek(0, 2)
        file.write(struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 9, 9, 2 << 30, 1 << 30, 0))
    found = find_pickles({"huge": path.stat().st_size}, lambda _: path.open("rb"))
    assert found == [Pickled("huge", None, "cannot be looked into")]


class Counting(io.FileIO):
    """A file that counts what is read of it."""

    total = 0

    def read(self, size: int | None = -1, /) -> bytes:  # type: ignore[override]
        data = super().read(size)
        Counting.total += len(data)
        return data


@pytest.mark.parametrize("head", [b"", b"text, numbers\n", b"Time,", NUMBERS[:128], b"\x89HDF"])
def test_little_is_read_of_a_large_file(tmp_path: Path, head: bytes) -> None:
    path = tmp_path / "large.bin"
    with path.open("wb") as file:
        file.write(head)
        file.truncate(100 << 20)
    Counting.total = 0
    assert find_pickles({"f": 100 << 20}, lambda _: Counting(path)) == []
    assert Counting.total < 200_000


def test_little_is_read_of_a_large_zip(tmp_path: Path) -> None:
    path = tmp_path / "large.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for n in range(3):
            archive.writestr(f"data/{n}", bytes(30 << 20))
    Counting.total = 0
    assert find_pickles({"f": path.stat().st_size}, lambda _: Counting(path)) == []
    assert Counting.total < 300_000


def test_nothing_runs(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    bodies = [pickle.dumps(Trap(trap), protocol) for protocol in range(6)]
    bodies += [wrap(bodies[4]) for wrap in WRAPPED.values()]
    bodies += [
        zipped({"data.pkl": bodies[2], "in.zip": zipped({"x": bodies[0]})}),
        saved(np.array([Trap(trap), 1], dtype=object), allow_pickle=True),
    ]
    before = set(sys.modules)
    for body in bodies:
        assert find(body)
        texts = danger(body, "model.pkl")
        assert texts
        assert all(text.endswith((": posix.mkdir", ": nt.mkdir")) for text in texts)
    assert danger(bodies[0], "model.pkl") == ["model.pkl: posix.mkdir"]
    assert danger(bodies[-2]) == ["file!/data.pkl: posix.mkdir", "file!/in.zip!/x: posix.mkdir"]
    assert not trap.exists()
    assert not {
        name for name in set(sys.modules) - before if not name.startswith(("picklescan", "py7zr"))
    } & {
        "posix_mkdir",
        "torch",
        "joblib",
    }
    pickle.loads(bodies[0])
    assert trap.exists()


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (pickle.dumps(HARMLESS) + b"tail", "cannot be scanned"),
        (pickle.dumps(Path("a")), "pathlib."),
        (b"\x80\x02\x82\x01.", "number of an extension"),
        (b"\x80\x04", "cannot be scanned"),
        (b"\x80\x04" + b"N0" * 600_000 + b"N.", "too many opcodes"),
        # The frame ends after its pickle: the unpickler's second pickle is what seems to be a text here.
        (
            b"\x80\x04\x95" + struct.pack("<Q", 7) + b"N.C\x1c\x00\x00\x00" + b"cposix\nsystem\n(S'id'\ntR.",
            "cannot be scanned",
        ),
        # picklescan alone takes the second pickle's memo for the first one's.
        (
            b"\x80\x04\x8c\x0bcollections\x94\x8c\x0bOrderedDict\x94."
            b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x94h\x00h\x01\x93.",
            "posix.system",
        ),
        # An unpickler that loads both has one memo, in which "posix" and "system" are the first.
        (
            b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x94."
            b"\x80\x04\x8c\x0bcollections\x94\x8c\x0bOrderedDict\x94h\x00h\x01\x93.",
            "posix.system",
        ),
    ],
)
def test_what_is_not_harmless(body: bytes, text: str) -> None:
    texts = danger(body, "m.pkl")
    assert texts
    assert all(each.startswith("m.pkl: ") for each in texts)
    assert any(text in each for each in texts)


def test_what_is_harmless() -> None:
    for protocol in range(6):
        assert danger(pickle.dumps(HARMLESS, protocol), "m.pkl") == []
        assert danger(pickle.dumps(HARMLESS, protocol) * 2, "m.pkl") == []
    assert danger(OBJECTS) == []
    assert dangerous_globals([], {}, opener({})) == []


def test_too_large_to_scan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickles, "MAX_SCAN", 1000)
    body = pickle.dumps(b"x" * 1000)
    for each in (body, gzipped(body), zipped({"a.pkl": body}, zipfile.ZIP_DEFLATED)):
        assert "too large" in "".join(danger(each))


def test_without_picklescan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "picklescan.scanner", None)
    assert find(pickle.dumps(1))
    with pytest.raises(InvalidInputError, match=r"mltrack_tasks\[scan\]"):
        danger(pickle.dumps(1))


def test_errors_of_the_store_go_through() -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise TransientError("again")

    with pytest.raises(TransientError):
        find_pickles({"a": 100}, lambda _: Failing(bytes(100)))
    with pytest.raises(InvalidInputError):
        find_pickles({"a": 1}, lambda _: (_ for _ in ()).throw(InvalidInputError("no")))


def test_an_mlmodel_that_says_so() -> None:
    said = b"flavors:\n  sklearn:\n    pickled_model: m\n    serialization_format: cloudpickle\n"
    contents = {"a/MLmodel": said, "a/m": pickle.dumps(HARMLESS), "b/MLmodel": said, "b/m": b"?"}
    found = find_pickles(sizes(contents), opener(contents))
    assert [(each.path, each.reason) for each in found] == [
        ("a/MLmodel", "MLmodel says so"),
        ("a/m", "its first bytes"),
        ("b/MLmodel", "MLmodel says so"),
    ]
    assert dangerous_globals(found, sizes(contents), opener(contents)) == [
        "b/MLmodel: cannot be scanned (its pickle was not found)"
    ]


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"flavors:\n  sklearn:\n    pickled_model: m\n", "MLmodel says so"),
        (b"flavors:\n  python_function:\n    python_model: m\n", "MLmodel says so"),
        (b'flavors:\n  a:\n    "serialization_format": "\\x70ickle"\n', "MLmodel says so"),
        (b"flavors:\n  statsmodels:\n    data: m\n", "MLmodel says so"),
        (b"flavors: {a: *b}\n", "cannot be looked into"),
        (b"", "cannot be looked into"),
        (b"flavors:\n  sklearn:\n    pickled_model: m\n    serialization_format: skops\n", None),
        (b"flavors:\n  a: 1\nnotes: 'serialization_format: pickle'\n", None),
    ],
)
def test_what_an_mlmodel_says(said: bytes, reason: str | None) -> None:
    assert [why for _, why in find(said, "m/MLmodel")] == ([reason] if reason else [])


@pytest.mark.parametrize("name", ["Lambda", "__lambda__"])
def test_lambda_layers_of_keras(name: str) -> None:
    config = {"config": {"layers": [{"class_name": "Dense"}, {"class_name": name, "config": {}}]}}
    plain = json.dumps(config).replace(name, "Dense").encode()
    hdf5 = b"\x89HDF\r\n\x1a\n" + bytes(3000)
    assert find(zipped({"config.json": json.dumps(config).encode()}), "m.keras") == [
        ("config.json", "a Keras Lambda layer")
    ]
    assert find(hdf5 + json.dumps(config).encode(), "m.h5") == [(None, "a Keras Lambda layer")]
    assert danger(hdf5 + json.dumps(config).encode())
    assert find(zipped({"config.json": plain})) == find(hdf5 + plain) == []
    for broken in (b"", b"{", b"[" * 100_000):
        assert find(zipped({"config.json": broken})) == [("config.json", "cannot be looked into")]


def test_what_is_a_pickle_and_compressed() -> None:
    # X, the opcode of a text, also begins zlib with a window of 8 KiB; then comes the length, 0x10009, which
    # zlib takes for its second byte and a stored block of one byte.
    text = b"words, " * 2000
    deflate = zlib.compressobj(9, zlib.DEFLATED, -13)
    body = b"X\x09\x00\x01\x00\xfe\xffa" + deflate.compress(text) + deflate.flush()
    body += zlib.adler32(b"a" + text).to_bytes(4, "big")
    assert zlib.decompress(body) == b"a" + text
    body = body.ljust(5 + 0x10009) + b"0cposix\nsystem\n(S'id'\ntR."
    assert find(body) == [(None, "its opcodes")]
    assert danger(body) == ["file: cannot be scanned (it is a pickle as well as compressed)"]


def test_an_object_array_after_others() -> None:
    assert find(NUMBERS * 3 + OBJECTS) == [(None, "an object array")]


@pytest.mark.parametrize("form", ["skops", "cloudpickle", "pickle"])
def test_models_of_mlflow(form: str, tmp_path: Path) -> None:
    import mlflow.sklearn
    from sklearn.linear_model import LinearRegression

    model = LinearRegression().fit(np.arange(4.0).reshape(-1, 1), np.arange(4.0))
    mlflow.sklearn.save_model(model, str(tmp_path / "m"), serialization_format=form, pip_requirements=[])
    files = [path for path in (tmp_path / "m").rglob("*") if path.is_file()]
    contents = {path.relative_to(tmp_path / "m").as_posix(): path.read_bytes() for path in files}
    found = find_pickles(sizes(contents), opener(contents))
    texts = dangerous_globals(found, sizes(contents), opener(contents))
    if form == "skops":
        assert (found, texts) == ([], [])
    else:
        assert [each.path for each in found] == ["MLmodel", "model.pkl"]
        assert any(text.startswith("model.pkl: sklearn.linear_model") for text in texts)


SEEDS = [
    *(pickle.dumps(HARMLESS, protocol) for protocol in range(6)),
    *(OBJECTS, NUMBERS, zipped({"a.pkl": pickle.dumps(HARMLESS), "b": OBJECTS}, zipfile.ZIP_DEFLATED)),
    zipped({"in": zipped({"a": pickle.dumps(1), "b": NUMBERS}), "c": b"\x1f\x8b"}),
    *(wrap(pickle.dumps(HARMLESS)) for wrap in WRAPPED.values()),
    b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False, 'shape': (3L,), }".ljust(127) + b"\n",
]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    body = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, len(body)))
        body[at : at + draw(st.integers(0, 4))] = draw(st.binary(max_size=4))
    return bytes(body[: draw(st.integers(0, len(body)))] if draw(st.booleans()) else body)


OPS = st.sampled_from([bytes([n]) for n in b"(.0120FIJKLMNPQRSTUVXabcdeghijloprstuq]})"])


@settings(max_examples=examples(800), deadline=None)
@given(
    body=st.one_of(
        damaged(), st.binary(max_size=300), st.lists(st.one_of(OPS, st.binary(max_size=3))).map(b"".join)
    ),
    name=st.sampled_from(["f", "m.pkl", "MLmodel", "a.pt", "a.npy"]),
)
def test_whatever_the_bytes_are(body: bytes, name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy and the tokenizer warn about damaged headers
        found = find(body, name)
        texts = danger(body, name)
    assert not texts or found


@settings(max_examples=examples(500), deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
        lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    ),
    st.integers(0, 5),
)
def test_every_pickle_is_found(value: Any, protocol: int) -> None:
    body = pickle.dumps(value, protocol)
    assert find(body)
    assert danger(body) == [] or protocol < 3  # bytes of old protocols are made by _codecs.encode


@settings(max_examples=examples(100), deadline=None)
@given(protocol=st.integers(0, 5), before=st.lists(st.text(max_size=30), max_size=5), cut=st.integers(0, 30))
def test_every_call_is_found(protocol: int, before: list[str], cut: int) -> None:
    body = pickle.dumps([before, Trap(Path(tempfile.gettempdir()) / "no")], protocol)
    at = body.rindex(b"R") + 1
    assert find(body[: at + cut])
