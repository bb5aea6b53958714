"""Values and files go in once and come back proven; names keep what was stored under them."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mltrack_tasks import events
from mltrack_tasks.content import (
    forget_data,
    list_data,
    resolve_ref,
    retrieve_data,
    retrieve_file,
    store_data,
    store_file,
)
from mltrack_tasks.errors import ConflictError, InvalidInputError, NotFoundError
from mltrack_tasks.events import Event
from mltrack_tasks.refs import DataRef
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.guard import GuardedStore
from mltrack_tasks.stores.memory import MemoryStore
from mltrack_tasks.stores.observed import CountingStore
from tests.floor3 import invariants
from tests.floor3.conftest import Place
from tests.floor3.limits import LARGE

FRAME = pd.DataFrame({"a": [1, 2, 3], "b": ["x", None, "z"]})


@pytest.mark.parametrize(
    ("data", "format"),
    [(FRAME, "parquet"), (np.arange(6).reshape(2, 3), "npy"), ({"a": [1]}, "json"), (b"bytes", "bin")],
    ids=["frame", "array", "json", "bytes"],
)
def test_each_kind_of_data_comes_back(place: Place, data: Any, format: str) -> None:
    ref = store_data(place.store, data, "n", metadata={"k": 1})
    assert (ref.format, ref.name, ref.created, ref.metadata) == (format, "n", True, {"k": 1})
    assert ref.storage_path == f"data/{ref.hash[:2]}/{ref.hash}/data.{format}"
    for found in (ref, str(ref), ref.hash):
        again = retrieve_data(place.store, found)
        if isinstance(data, pd.DataFrame):
            pd.testing.assert_frame_equal(again, data, check_exact=True)
        elif isinstance(data, np.ndarray):
            np.testing.assert_array_equal(again, data)
            assert again.dtype == data.dtype
        else:
            assert again == data
    again = store_data(place.store, data, "other")
    assert (again, again.hash, again.created) != (ref, ref.hash, True)
    assert (again.hash, again.created, again.name) == (ref.hash, False, "other")
    invariants.check_finished(place.store)


def test_storing_again_sends_nothing_but_the_question(tmp_path: Path) -> None:
    store = CountingStore(GuardedStore(MemoryStore()))
    first = store_data(store, FRAME, "train")
    sent = dict(store.sent)
    assert store_data(store, FRAME, "train") == first
    assert len(list_data(store)) == 1
    blob = [(verb, key) for verb, key in store.log if key == first.storage_path]
    assert blob == [("create", first.storage_path)] * 2 + [("head", first.storage_path)] * 2
    assert sent != {}


def test_events_say_what_happened(store: Store) -> None:
    seen: list[Event] = []
    ref = store_data(store, {"a": 1}, "n", observe=seen.append)
    store_data(store, {"a": 1}, "n", observe=seen.append)
    forget_data(store, "n", observe=seen.append)
    assert [(event.name, event.subject) for event in seen] == [
        (events.BLOB_CREATED, ref.storage_path),
        (events.DATA_STORED, str(ref)),
        (events.BLOB_PRESENT, ref.storage_path),
        (events.DATA_STORED, str(ref)),
        (events.DATA_FORGOTTEN, "n"),
    ]
    assert str(seen[0]) == f"mltrack.blob.created {ref.storage_path} bytes=7"


def test_one_digest_in_two_formats(store: Store) -> None:
    plain, json = store_data(store, b"{}"), store_data(store, {})
    assert plain.hash == json.hash
    assert plain != json
    assert retrieve_data(store, plain) == retrieve_data(store, str(plain)) == b"{}"
    assert retrieve_data(store, json) == retrieve_data(store, str(json)) == {}
    with pytest.raises(InvalidInputError, match=rf"{plain.hash}\.bin and .*{plain.hash}\.json"):
        retrieve_data(store, plain.hash)


@pytest.mark.parametrize(
    "ref", ["", "x", "sha256:x", "a" * 63, "a" * 64 + ".exe", None, 1, b"a" * 64, Path("x")]
)
def test_what_is_no_ref(store: Store, ref: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"ref|format"):
        resolve_ref(store, ref)


def test_data_that_is_not_there(place: Place, tmp_path: Path) -> None:
    store_data(place.store, b"something else")
    missing = "ab" * 32
    ref = DataRef(missing, "bin", 1, f"data/ab/{missing}/data.bin")
    for found in (ref, str(ref), missing):
        with pytest.raises(NotFoundError, match=missing):
            retrieve_data(place.store, found)
        with pytest.raises(NotFoundError, match=missing):
            retrieve_file(place.store, found, tmp_path / "x" / "f")
    assert not (tmp_path / "x" / "f").exists()


NAMES = ["../x", "a/b", "日本 x", "%2e%2e", "~00000002", "x" * 200, "a~b", ".hidden", "-rf"]


def test_names_of_all_kinds_are_kept_apart(place: Place) -> None:
    for number, name in enumerate(NAMES):
        store_data(place.store, [number], name)
    assert [(item.name, retrieve_data(place.store, item.ref)) for item in list_data(place.store)] == [
        (name, [number]) for number, name in enumerate(NAMES)
    ]
    for number, name in enumerate(NAMES):
        [item] = list_data(place.store, name)
        assert retrieve_data(place.store, item.ref) == [number]
    invariants.check_finished(place.store)


@pytest.mark.parametrize("name", ["", ".", "..", "a\nb", "x" * 300, "\0", "\ud800", None, 1, ["x"]])
def test_names_that_cannot_be_write_nothing(name: Any, tmp_path: Path) -> None:
    bare = MemoryStore()
    store = GuardedStore(bare)
    (tmp_path / "f").write_bytes(b"x")
    with pytest.raises(InvalidInputError):
        store_data(store, 1, name)
    if name is not None:
        with pytest.raises(InvalidInputError):
            store_file(store, tmp_path / "f", name)
        with pytest.raises(InvalidInputError):
            list_data(store, name)
    with pytest.raises(InvalidInputError):
        forget_data(store, name)
    assert list(bare.list("")) == []


@pytest.mark.parametrize(
    "metadata", ["text", 1, [("a", 1)], {1: "a"}, {"a": (1,)}, {"a": np.float64(1)}, {"\ud800": 1}]
)
def test_metadata_that_would_not_come_back_writes_nothing(metadata: Any) -> None:
    bare = MemoryStore()
    with pytest.raises(InvalidInputError, match="metadata"):
        store_data(GuardedStore(bare), 1, metadata=metadata)
    assert list(bare.list("")) == []


def test_one_name_keeps_each_distinct_thing_once(place: Place) -> None:
    for data, metadata in ((1, None), (2, None), (1, {"k": 1}), (1, {"k": 1}), (1, None), (1, {"k": 1.0})):
        store_data(place.store, data, "n", metadata=metadata)
    held = [(retrieve_data(place.store, item.ref), item.ref.metadata) for item in list_data(place.store, "n")]
    assert [(data, repr(metadata)) for data, metadata in held] == [
        (1, "{}"),
        (2, "{}"),
        (1, "{'k': 1}"),
        (1, "{'k': 1.0}"),
    ]
    assert list_data(place.store, "unknown") == []


def test_metadata_is_the_users_own(store: Store) -> None:
    metadata = {"nan": float("nan"), "$f": "nan", "nested": {"$": [1, None]}, "ü": "日本"}
    store_data(store, 1, "n", metadata=metadata)
    [item] = list_data(store, "n")
    assert repr(dict(sorted(item.ref.metadata.items()))) == repr(dict(sorted(metadata.items())))


def test_forgetting_removes_the_name_and_keeps_the_blob(place: Place) -> None:
    ref = store_data(place.store, [1], "n")
    store_data(place.store, [2], "n")
    store_data(place.store, [1], "other")
    assert ref in [item.ref for item in forget_data(place.store, "n")]
    assert [item.name for item in list_data(place.store)] == ["other"]
    assert retrieve_data(place.store, ref) == [1]
    with pytest.raises(NotFoundError, match="list_data"):
        forget_data(place.store, "n")
    assert store_data(place.store, [1], "n").created is False
    invariants.check_finished(place.store)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("body", [b"", b"x", LARGE], ids=["empty", "small", "in parts"])
def test_files_come_back_byte_for_byte(place: Place, tmp_path: Path, body: bytes) -> None:
    source = tmp_path / "some file.parquet"  # the name says nothing about the bytes
    source.write_bytes(body)
    ref = store_file(place.store, source)
    assert (ref.name, ref.format, ref.size_bytes) == ("some file.parquet", "bin", len(body))
    out = retrieve_file(place.store, str(ref), tmp_path / "new" / "folder" / "out")
    assert out == tmp_path / "new" / "folder" / "out"
    assert out.read_bytes() == body
    assert retrieve_file(place.store, ref, out) == out  # the same bytes are left alone
    assert store_file(place.store, str(source), "again").created is False
    invariants.check_finished(place.store)


def test_the_format_of_a_file_is_that_of_its_bytes(store: Store, tmp_path: Path) -> None:
    FRAME.to_parquet(tmp_path / "frame.txt")
    np.save(tmp_path / "array.npy", np.arange(3))
    (tmp_path / "fake.parquet").write_bytes(b"PAR1 and more, but no footer PAR1")
    (tmp_path / "data.json").write_bytes(b'{"a": 1}')
    frame, array, fake, json = (
        store_file(store, tmp_path / name) for name in ("frame.txt", "array.npy", "fake.parquet", "data.json")
    )
    assert (frame.format, frame.columns, frame.shape) == ("parquet", ("a", "b"), (3, 2))
    assert (array.format, array.shape) == ("npy", (3,))
    assert json.format == "bin"
    pd.testing.assert_frame_equal(retrieve_data(store, frame), pd.read_parquet(tmp_path / "frame.txt"))
    assert retrieve_data(store, json) == b'{"a": 1}'
    assert (
        retrieve_file(store, fake, tmp_path / "out").read_bytes() == (tmp_path / "fake.parquet").read_bytes()
    )


def test_a_file_with_other_bytes_is_not_overwritten(store: Store, tmp_path: Path) -> None:
    ref = store_data(store, b"ours")
    out = tmp_path / "out"
    out.write_bytes(b"theirs")
    with pytest.raises(ConflictError, match="holds other bytes") as raised:
        retrieve_file(store, ref, out)
    assert raised.value.existing == str(out)
    assert out.read_bytes() == b"theirs"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_places_that_cannot_be_written_to(store: Store, tmp_path: Path) -> None:
    ref = store_data(store, b"x")
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for path in (
        tmp_path,
        "",
        tmp_path / "file" / "below",
        None,
        tmp_path / "dangling",
        tmp_path / ("x" * 300),
    ):
        with pytest.raises(InvalidInputError):
            retrieve_file(store, ref, path)  # type: ignore[arg-type]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dangling", "file"]


def test_what_is_no_file_is_refused(store: Store, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "missing", tmp_path / "pipe", "", None, b"x", "/dev/null"):
        with pytest.raises(InvalidInputError):
            store_file(store, path)  # type: ignore[arg-type]
    assert [entry.key for entry in store.list("")] == []


def test_the_home_folder_is_understood(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "f").write_bytes(b"x")
    ref = store_file(store, "~/f")
    assert retrieve_file(store, ref, "~/g") == tmp_path / "g"


def test_a_symbolic_link_is_read_through(store: Store, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x")
    (tmp_path / "link").symlink_to(tmp_path / "f")
    assert store_file(store, tmp_path / "link").name == "link"


def test_a_retrieved_file_has_ordinary_rights(store: Store, tmp_path: Path) -> None:
    out = retrieve_file(store, store_data(store, b"x"), tmp_path / "out")
    (tmp_path / "plain").touch()
    assert stat.S_IMODE(out.stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)
