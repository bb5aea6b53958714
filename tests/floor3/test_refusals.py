"""What could be written and not be read back is refused before anything is written, by a typed error."""

from __future__ import annotations

import resource
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mltrack_tasks import content, layout, recordstore, run_inputs
from mltrack_tasks.content import list_data, retrieve_data, retrieve_file, store_data, store_file
from mltrack_tasks.errors import AccessError, InvalidInputError, TransientError
from mltrack_tasks.refs import DataRef
from mltrack_tasks.runs import get_run, store_run
from mltrack_tasks.stores import open_directory, open_s3
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.guard import GuardedStore
from mltrack_tasks.stores.memory import MemoryStore
from mltrack_tasks.stores.s3_settings import S3Settings
from tests.floor3 import invariants

ARRAY = np.arange(6.0).reshape(2, 3)
BAD: dict[str, Callable[[DataRef], DataRef]] = {
    "place with prefix": lambda ref: replace(ref, storage_path=f"mltrack/{ref.storage_path}"),
    "place of another": lambda ref: replace(ref, storage_path="data/aa/x/data.npy"),
    "numpy shape": lambda ref: replace(ref, shape=tuple(np.array([2, 3]))),
    "list as shape": lambda ref: replace(ref, shape=[2, 3]),  # type: ignore[arg-type]
    "negative shape": lambda ref: replace(ref, shape=(-1,)),
    "numpy size": lambda ref: replace(ref, size_bytes=np.int64(ref.size_bytes)),  # type: ignore[arg-type]
    "negative size": lambda ref: replace(ref, size_bytes=-1),
    "size that is no number": lambda ref: replace(ref, size_bytes=float("nan")),  # type: ignore[arg-type]
    "columns of numbers": lambda ref: replace(ref, columns=(1, 2)),  # type: ignore[arg-type]
    "surrogate in a column": lambda ref: replace(ref, columns=("\ud800",)),
    "surrogate in its name": lambda ref: replace(ref, name="\ud800"),
    "digest in capitals": lambda ref: replace(ref, hash=ref.hash.upper()),
    "format": lambda ref: replace(ref, format="csv"),
    "metadata that JSON cannot keep": lambda ref: replace(ref, metadata={"a": (1,)}),
    "no metadata": lambda ref: replace(ref, metadata=None),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("group", ["data", "inputs", "outputs"])
@pytest.mark.parametrize("kind", BAD)
def test_a_ref_that_would_not_come_back_is_refused(kind: str, group: str) -> None:
    bare = MemoryStore()
    ref = store_data(bare, ARRAY, "array")
    before = invariants.keys(bare)
    with pytest.raises(InvalidInputError, match=rf"{group}\['x'\]|metadata\["):
        store_run(bare, "r", **{group: {"ok": b"new", "x": BAD[kind](ref)}}, storage_mode="flat")
    assert invariants.keys(bare) == before
    run = store_run(bare, "r", **{group: {"x": ref}}, storage_mode="flat")
    assert get_run(bare, "r") == run
    assert getattr(run, group) == {"x": ref}


def test_every_ref_that_was_handed_out_is_taken(store: Store, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"any bytes")
    metadata = {"nan": float("nan"), "inf": [float("-inf")], "$f": "nan", "": None, "deep": {"a": [{}]}}
    store_data(store, ARRAY, "array", metadata=metadata)
    store_data(store, pd.DataFrame({"a": [1], 2: ["x"]}), "frame", metadata=metadata)
    store_file(store, tmp_path / "file", metadata=metadata)
    store_data(store, None, "~", metadata={})
    refs = {f"d{number}": item.ref for number, item in enumerate(list_data(store))}
    run = store_run(store, "r", refs, storage_mode="flat")
    assert len(refs) == 4
    assert [ref.to_json() for ref in get_run(store, "r").data.values()] == [
        ref.to_json() for ref in run.data.values()
    ]
    invariants.check_finished(store)


def test_a_value_and_its_ref_make_the_same_run(store: Store) -> None:
    first = store_run(store, "r", {"x": b"1"}, storage_mode="flat")
    ref = store_data(store, b"1", "other")
    again = store_run(store, "r", {"x": ref}, storage_mode="flat")
    assert (first.created, again.created, again) == (True, False, first)
    assert again.data["x"].name == "x"


def test_records_that_are_too_large_write_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (run_inputs.MAX_RECORD_SIZE, content.MAX_METADATA) == (64 * 2**20, 2**20)
    for module in (run_inputs, recordstore):
        monkeypatch.setattr(module, "MAX_RECORD_SIZE", 8_000)
    monkeypatch.setattr(content, "MAX_METADATA", 1_000)
    bare = MemoryStore()
    store = GuardedStore(bare)
    for field in ("params", "tags"):
        with pytest.raises(InvalidInputError, match=r"take 4,\d\d\d bytes.*4,000"):
            store_run(store, "r", {"d": b"x"}, **{field: {"a": "x" * 4_000}}, storage_mode="flat")
    with pytest.raises(InvalidInputError, match="4,000"):
        store_run(store, "r", metrics={f"m{n}": n for n in range(1_000)}, storage_mode="flat")
    with pytest.raises(InvalidInputError, match=r"metadata takes 1,008 bytes; the limit is 1,000"):
        store_data(store, b"x", metadata={"a": "x" * 1_000})
    with pytest.raises(InvalidInputError, match="metadata takes"):
        store_file(store, __file__, metadata={"a": ["x"] * 1_000})
    assert list(bare.list("")) == []
    store_data(store, b"x", metadata={"a": "x" * 992})
    store_run(store, "r", params={"a": "x" * 3_500}, storage_mode="flat")
    assert get_run(store, "r").params == {"a": "x" * 3_500}


def test_a_prefix_leaves_room_for_the_longest_names(s3_settings: S3Settings) -> None:
    deep = f"{s3_settings.prefix}/{'p' * 400}"
    with pytest.raises(InvalidInputError, match="more than 400 bytes"):
        replace(s3_settings, prefix=deep[:401])
    with pytest.raises(InvalidInputError, match="more than 400 bytes"):
        replace(s3_settings, prefix="ü" * 201)
    store = open_s3(replace(s3_settings, prefix=deep[:400]))
    long = "n" * 200
    ref = store_data(store, {"a": 1}, long)
    for revision in (1, 2):
        run = store_run(
            store,
            long,
            {long: ref, "m" * 200: [revision]},
            storage_mode=[mode for mode in layout.STORAGE_MODES if mode != "flat"],
            project=long,
            model=long,
            if_exists="revise",
        )
        assert (run.revision, get_run(store, long)) == (revision, run)
    assert retrieve_data(store, get_run(store, long).data[long]) == {"a": 1}
    invariants.check_finished(store)


NO_PATHS: tuple[Any, ...] = ("~nosuchuser/x", "a\0b", "", None, 5, b"x", "a\ud800")


@pytest.mark.parametrize("path", NO_PATHS, ids=ascii)
def test_what_is_no_path_is_a_typed_error(path: Any, store: Store) -> None:
    ref = store_data(store, b"x")
    with pytest.raises(InvalidInputError):
        store_file(store, path, "n")
    with pytest.raises(InvalidInputError):
        retrieve_file(store, ref, path)
    assert list_data(store, "n") == []


@pytest.mark.parametrize("path", ["~nosuchuser/x", "a\0b"], ids=ascii)
def test_a_directory_that_is_no_path_is_a_typed_error(path: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError):
        open_directory(path)
    with pytest.raises(InvalidInputError):
        open_directory(tmp_path, cache_dir=path)


def test_a_temporary_folder_that_is_missing(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = pd.DataFrame({"a": range(1_000)})
    monkeypatch.setattr("mltrack_tasks.values.SINGLE_PUT_LIMIT", 1_000)
    with monkeypatch.context() as patch:
        patch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
        with pytest.raises(InvalidInputError, match=r"TMPDIR"):
            store_data(store, frame, "n")
    assert list_data(store, "n") == []
    pd.testing.assert_frame_equal(retrieve_data(store, store_data(store, frame, "n")), frame)


@pytest.mark.parametrize("size", [20_000, 2_000])
def test_a_temporary_folder_that_is_full(size: int, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The larger file overflows while it is written, the smaller one when the last of it is flushed."""
    array = np.arange(size, dtype=np.int8)
    monkeypatch.setattr("mltrack_tasks.values.SINGLE_PUT_LIMIT", 1_000)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, before[1]))
    try:
        with pytest.raises((AccessError, TransientError), match="TMPDIR"):
            store_data(store, array, "n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list_data(store, "n") == []
