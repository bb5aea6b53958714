"""A collection can be undone where the bucket keeps what was deleted."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from mltrack_tasks import layout
from mltrack_tasks.collecting.collect import collect_garbage
from mltrack_tasks.collecting.undoing import undo_collection
from mltrack_tasks.content import retrieve_data, store_data
from mltrack_tasks.digest import sha256_hex
from mltrack_tasks.errors import NotFoundError
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.guard import GuardedStore
from mltrack_tasks.stores.s3 import S3Store
from mltrack_tasks.stores.s3_settings import S3Settings
from tests.floor3 import invariants
from tests.floor3.clocked import ClockedStore
from tests.floor3.migrationtrees import quiet
from tests.floor3.test_collecting import World

BODY = b"deleted too soon"


def collected(store: Store, clocked: ClockedStore) -> str:
    """Store what is needed and what is not, and collect that -> the plan."""
    store_data(store, {"kept": 1}, "n", observe=quiet)
    store.create(layout.blob_key(sha256_hex(BODY), "bin"), BODY)
    clocked.later(timedelta(days=8))
    report = collect_garbage(store, dry_run=False, observe=quiet)
    assert report.deleted_blobs == 1
    return report.plan


def test_a_bucket_with_versions_gives_back_what_was_deleted(s3_settings: S3Settings) -> None:
    bare = S3Store(replace(s3_settings, bucket="mltrack-undoing"))
    bare.client.create_bucket(Bucket="mltrack-undoing")
    bare.client.put_bucket_versioning(Bucket="mltrack-undoing", VersioningConfiguration={"Status": "Enabled"})
    clocked = ClockedStore(bare)
    store = GuardedStore(clocked)
    plan = collected(store, clocked)
    ref = f"sha256:{sha256_hex(BODY)}.bin"
    with pytest.raises(NotFoundError):
        retrieve_data(store, ref)
    undone = undo_collection(store, plan, observe=quiet)
    assert (undone.blobs, undone.objects) == (1, 1)
    assert "1 blobs" in str(undone)
    assert retrieve_data(store, ref) == BODY
    assert undo_collection(store, plan, observe=quiet).objects == 0
    invariants.check_finished(store)


def test_a_store_without_versions_says_so() -> None:
    world = World()
    plan = collected(world.store, world.clocked)
    undone = undo_collection(world.store, plan, observe=quiet)
    assert undone.objects == 0
    assert "keeps no versions" in str(undone)
    with pytest.raises(NotFoundError, match="no plan"):
        undo_collection(world.store, "0" * 64)
