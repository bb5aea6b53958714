"""What describes a blob is back after healing, as its first writer wrote it, or the blob is named."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mltrack_tasks import layout
from mltrack_tasks.content import store_data, store_file
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.guard import GuardedStore
from mltrack_tasks.stores.memory import MemoryStore
from mltrack_tasks.trust.findings import UNDESCRIBED
from mltrack_tasks.trust.heal import heal_store
from mltrack_tasks.trust.verify import verify_store
from tests.floor3.migrationtrees import quiet
from tests.floor3.test_collecting import World

VALUES: dict[str, Any] = {
    "frame": pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}),
    "array": np.arange(6).reshape(2, 3),
    "json": {"a": [1, None, 2.5]},
}


def content(store: Store, digest: str) -> Any:
    return json.loads(store.get(layout.blob_metadata_key(digest)))["content"]


def told(world: World) -> list[str]:
    found = verify_store(world.store, observe=quiet)
    assert found.ok or not any(finding.kind == UNDESCRIBED and finding.wrong for finding in found.findings)
    return [finding.key for finding in found.findings if finding.kind == UNDESCRIBED]


@pytest.mark.parametrize("kind", VALUES)
def test_a_blob_that_comes_back_is_described_again(kind: str) -> None:
    world, replica = World(), GuardedStore(MemoryStore())
    ref = store_data(world.store, VALUES[kind], "n", observe=quiet)
    store_data(replica, VALUES[kind], "n", observe=quiet)
    before = content(world.store, ref.hash)
    world.bare.delete([ref.storage_path, layout.blob_metadata_key(ref.hash)])
    verify_store(world.store, observe=quiet)
    looked = heal_store(world.store, replicas=[replica], dry_run=True, observe=quiet)
    assert [each.key for each in looked.healed] == [ref.storage_path]
    assert world.bare.head(layout.blob_metadata_key(ref.hash)) is None
    done = heal_store(world.store, replicas=[replica], observe=quiet)
    assert [each.key for each in done.healed] == [ref.storage_path, layout.blob_metadata_key(ref.hash)]
    assert content(world.store, ref.hash) == before
    assert (done.ok, done.undescribed) == (True, ())
    again = heal_store(world.store, observe=quiet)
    assert (again.healed, again.intact) == ((), (ref.storage_path,))


@pytest.mark.parametrize(
    "damage", [None, b"{}", b'{"content":{"kind":"json","size_bytes":1},"format":1,"provenance":{}}']
)
def test_a_description_that_is_missing_or_damaged_follows_from_the_blob(damage: bytes | None) -> None:
    world = World()
    ref = store_data(world.store, VALUES["frame"], "n", observe=quiet)
    before = content(world.store, ref.hash)
    world.later(2)
    assert told(world) == []
    world.bare.delete([layout.blob_metadata_key(ref.hash)])
    assert told(world) == [ref.storage_path]
    if damage is not None:
        world.bare.create(layout.blob_metadata_key(ref.hash), damage)
    done = heal_store(world.store, observe=quiet)
    assert [each.source for each in done.healed] == ["the blob itself"]
    assert content(world.store, ref.hash) == before
    assert told(world) == []


def test_what_only_looks_like_a_frame_has_none_and_is_named(tmp_path: Path) -> None:
    world = World()
    (tmp_path / "file").write_bytes(b"PAR1 no footer at all PAR1")
    ref = store_file(world.store, tmp_path / "file", observe=quiet)
    assert ref.format == "parquet"
    world.later(2)
    assert told(world) == [ref.storage_path]
    done = heal_store(world.store, observe=quiet)
    assert (done.healed, done.ok, done.undescribed) == ((), True, (ref.storage_path,))


def test_a_replica_describes_what_this_version_cannot_read(tmp_path: Path) -> None:
    world, replica = World(), GuardedStore(MemoryStore())
    (tmp_path / "file").write_bytes(b"PAR1 of a later codec PAR1")
    ref = store_file(world.store, tmp_path / "file", observe=quiet)
    said = {"kind": "dataframe", "size_bytes": ref.size_bytes, "codec": "mltrack-frame/9"}
    record = {"content": said, "format": 1, "provenance": {}}
    replica.create(layout.blob_metadata_key(ref.hash), json.dumps(record).encode())
    world.later(2)
    assert told(world) == [ref.storage_path]
    done = heal_store(world.store, replicas=[replica], observe=quiet)
    assert [each.source for each in done.healed] == [replica.location]
    assert content(world.store, ref.hash) == said


def test_what_is_just_being_written_is_not_told() -> None:
    world = World()
    ref = store_data(world.store, VALUES["json"], "n", observe=quiet)
    world.bare.delete([layout.blob_metadata_key(ref.hash)])
    assert told(world) == []
    world.clocked.later(timedelta(days=2))
    assert told(world) == [ref.storage_path]
