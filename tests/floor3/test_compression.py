"""Values and files that are compressed as a whole: stored, read back, proven, mended, copied, collected."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mltrack_tasks import layout
from mltrack_tasks.codecs import zstd
from mltrack_tasks.content import forget_data, list_data, retrieve_data, retrieve_file, store_data, store_file
from mltrack_tasks.costs.estimate import estimate_costs
from mltrack_tasks.digest import sha256_hex
from mltrack_tasks.errors import ConflictError, IntegrityError, InvalidInputError, SourceChangedError
from mltrack_tasks.query import query_data
from mltrack_tasks.recordstore import read_record
from mltrack_tasks.replication.replicate import replicate_store
from mltrack_tasks.runs import find_runs_by_data, get_run, store_run
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.guard import GuardedStore
from mltrack_tasks.stores.memory import MemoryStore
from mltrack_tasks.trust.heal import heal_store
from mltrack_tasks.trust.verify import verify_store
from tests.floor1.test_zstd import BOMB
from tests.floor3.conftest import Place
from tests.floor3.migrationtrees import quiet
from tests.floor3.test_collecting import World

VALUES: dict[str, Any] = {
    "npy.zst": np.arange(4_000).reshape(40, 100),
    "json.zst": [{"id": number, "tags": ["a", "b"]} for number in range(300)],
    "bin.zst": b"line\n" * 2_000,
}


@pytest.mark.parametrize("format", VALUES)
def test_each_kind_of_data_comes_back(place: Place, format: str) -> None:
    store, value = place.store, VALUES[format]
    ref = store_data(store, value, "n", metadata={"k": 1}, compress="zstd")
    plain = store_data(store, value, "plain")
    assert ref.format == format == f"{plain.format}.zst"
    assert ref.storage_path == f"data/{ref.hash[:2]}/{ref.hash}/data.{format}"
    assert ref.size_bytes < plain.size_bytes / 3
    assert (ref.shape, ref.dtypes) == (plain.shape, plain.dtypes)
    body = place.raw.get(ref.storage_path) or b""
    assert (sha256_hex(body), len(body)) == (ref.hash, ref.size_bytes)
    for found in (ref, str(ref), ref.hash):
        np.testing.assert_equal(retrieve_data(store, found), value)
    assert [each.ref for each in list_data(store, "n")] == [ref]
    assert not store_data(store, value, "n", metadata={"k": 1}, compress="zstd").created


def test_a_frame_is_refused_with_the_reason(store: Store, tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": [1, 2]})
    with pytest.raises(InvalidInputError, match="'rows' is Parquet, whose columns are compressed inside"):
        store_data(store, frame, "rows", compress="zstd")
    frame.to_parquet(tmp_path / "rows.parquet")
    with pytest.raises(InvalidInputError, match="leave compress out"):
        store_file(store, tmp_path / "rows.parquet", compress="zstd")
    with pytest.raises(InvalidInputError, match="'gzip' is unknown; choose one of zstd"):
        store_data(store, b"x", compress="gzip")
    assert list(store.list("data/")) == []


@pytest.mark.parametrize("head", [b"PAR1", b"\x93NUMPY"])
def test_a_file_that_only_looks_like_another_is_bytes(store: Store, tmp_path: Path, head: bytes) -> None:
    body = head + b"\x00" * 1_000 + head
    (tmp_path / "odd").write_bytes(body)
    ref = store_file(store, tmp_path / "odd", compress="zstd")
    assert ref.format == "bin.zst"
    assert ref.size_bytes < len(body)
    assert retrieve_file(store, ref, tmp_path / "back").read_bytes() == body


@pytest.mark.usefixtures("small_parts")
def test_a_file_of_any_size_comes_back_as_it_was(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Above the limit of one PUT, so by way of temporary files, in parts and in many frames."""
    monkeypatch.setattr(zstd, "CHUNK", 1_000)
    body = os.urandom(3_000) + b"zeros" * 1_000
    (tmp_path / "log.txt").write_bytes(body)
    ref = store_file(place.store, tmp_path / "log.txt", compress="zstd")
    assert (ref.format, ref.name) == ("bin.zst", "log.txt")
    assert retrieve_data(place.store, ref) == body
    for _ in range(2):  # the second time it is there
        found = retrieve_file(place.store, ref, tmp_path / "back" / "log.txt")
        assert found.read_bytes() == body
    found.write_bytes(b"other")
    with pytest.raises(ConflictError):
        retrieve_file(place.store, ref, found)
    assert [each.name for each in found.parent.iterdir()] == ["log.txt"]
    array = np.arange(900.0)
    np.save(tmp_path / "a.npy", array)
    packed = store_file(place.store, tmp_path / "a.npy", compress="zstd")
    assert (packed.format, packed.shape) == ("npy.zst", (900,))
    assert packed == store_data(place.store, array, compress="zstd")
    assert (
        retrieve_file(place.store, packed, tmp_path / "b.npy").read_bytes()
        == (tmp_path / "a.npy").read_bytes()
    )
    (tmp_path / "torn.npy").write_bytes(b"\x93NUMPY torn")
    assert store_file(place.store, tmp_path / "torn.npy", compress="zstd").format == "bin.zst"
    assert verify_store(place.store, level="read", observe=quiet).ok


def test_a_file_that_changes_is_not_stored(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mltrack_tasks.sources.SINGLE_PUT_LIMIT", 10)
    path = tmp_path / "f"
    path.write_bytes(b"x" * 100)
    write = zstd.Packer.write

    def meanwhile(self: zstd.Packer, data: bytes) -> int:
        path.write_bytes(b"y" * 100)
        return write(self, data)

    monkeypatch.setattr(zstd.Packer, "write", meanwhile)
    with pytest.raises(SourceChangedError):
        store_file(store, path, compress="zstd")
    assert list(store.list("data/")) == []


def test_what_is_damaged_is_found_and_mended() -> None:
    """A blob from a replica; descriptions follow from the bytes, so they need none."""
    world, replica = World(), GuardedStore(MemoryStore())
    for store in (world.store, replica):
        refs = [store_data(store, value, format, compress="zstd") for format, value in VALUES.items()]
    keys = [layout.blob_metadata_key(ref.hash) for ref in refs[:2]]
    before = [read_record(world.store, key).content for key in keys]
    assert world.store.head(layout.blob_metadata_key(refs[2].hash)) is None
    world.later(2)
    world.bare.delete([*keys, refs[1].storage_path])
    body = bytearray(replica.get(refs[1].storage_path))
    body[-1] ^= 1
    world.bare.create(refs[1].storage_path, bytes(body))
    with pytest.raises(IntegrityError, match="damaged"):
        retrieve_data(world.store, refs[1])
    world.later(2)
    found = verify_store(world.store, level="read", observe=quiet)
    assert {finding.key for finding in found.findings} >= {ref.storage_path for ref in refs[:2]}
    assert heal_store(world.store, replicas=[replica], observe=quiet).ok
    assert verify_store(world.store, level="read", observe=quiet).findings == ()
    assert [read_record(world.store, key).content for key in keys] == before
    np.testing.assert_equal(retrieve_data(world.store, refs[1]), VALUES["json.zst"])


def test_runs_queries_costs_and_replicas(memory_place: Place) -> None:
    store = memory_place.store
    ref = store_data(store, VALUES["json.zst"], "n", compress="zstd")
    frame = store_data(store, pd.DataFrame({"a": [1, 2]}), "frame")
    store_run(store, "r", {"d": ref, "f": str(frame)}, storage_mode="flat")
    assert get_run(store, "r").data["d"] == ref
    assert find_runs_by_data(store, str(ref)) == ["r"]
    assert query_data(store, frame, "SELECT sum(a) AS a FROM s3object").frame["a"][0] == 3
    with pytest.raises(InvalidInputError, match="is a JSON value, not Parquet"):
        query_data(store, ref, "SELECT * FROM s3object")
    whole = sum(stat.size for stat in store.list(""))
    estimated = estimate_costs(store, region="us-east-1", observe=quiet)
    assert sum(line.size_bytes for line in estimated.lines) == whole
    replica = GuardedStore(MemoryStore())
    assert replicate_store(store, replica, observe=quiet).ok
    np.testing.assert_equal(retrieve_data(replica, ref), VALUES["json.zst"])


def test_collected_when_nothing_needs_it() -> None:
    world = World()
    kept, gone = (store_data(world.store, [name] * 99, name, compress="zstd") for name in ("kept", "gone"))
    forget_data(world.store, "gone")
    for _ in range(3):  # the pin, then the blob
        world.later(8)
        world.collect()
    assert {stat.key for stat in world.store.list("data/")} == {
        kept.storage_path,
        layout.blob_metadata_key(kept.hash),
    }
    assert gone.storage_path != kept.storage_path


def test_a_bomb_is_an_error(store: Store, tmp_path: Path) -> None:
    """Few bytes that stand for many, under their own digest: put there by somebody else."""
    digest = sha256_hex(BOMB)
    store_data(store, b"x")
    store.create(layout.blob_key(digest, "bin.zst"), BOMB)
    with pytest.raises(IntegrityError, match="bytes of memory"):
        retrieve_data(store, digest)
    with pytest.raises(InvalidInputError, match="unpacks to"):
        retrieve_file(store, digest, tmp_path / "out" / "f")
    assert list((tmp_path / "out").iterdir()) == []
    forged = b"PAR1, not zstd"
    store.create(layout.blob_key(sha256_hex(forged), "bin.zst"), forged)
    with pytest.raises(IntegrityError, match="not begin with a frame"):
        retrieve_file(store, sha256_hex(forged), tmp_path / "out" / "f")


def test_a_file_that_is_there_needs_no_room(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = store_data(store, b"a" * 9_999, compress="zstd")
    there = retrieve_file(store, ref, tmp_path / "f")
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=10))
    assert retrieve_file(store, ref, there) == there
    with pytest.raises(InvalidInputError, match="unpacks to 9,999 bytes"):
        retrieve_file(store, ref, tmp_path / "another")
