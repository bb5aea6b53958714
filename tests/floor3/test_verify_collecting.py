"""Verification and collection agree about what nothing needs, and leave each other's records alone."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from mltrack_tasks import layout
from mltrack_tasks.collecting.collect import collect_garbage
from mltrack_tasks.content import forget_data, store_data
from mltrack_tasks.digest import sha256_hex
from mltrack_tasks.stores.guard import GuardedStore
from mltrack_tasks.stores.memory import MemoryStore
from mltrack_tasks.trust.findings import VerifyReport
from mltrack_tasks.trust.verify import verify_store
from tests.floor3 import invariants
from tests.floor3.clocked import ClockedStore
from tests.floor3.migrationtrees import quiet
from tests.floor3.test_roots import fill


def test_what_is_told_to_be_left_over_is_what_goes(tmp_path: Path) -> None:
    bare = MemoryStore()
    clocked = ClockedStore(bare)
    store = GuardedStore(clocked)

    def verify() -> VerifyReport:
        return verify_store(store, level="read", observe=quiet)

    fill(store, tmp_path)
    forgotten = store_data(store, b"forgotten", "gone")
    forget_data(store, "gone")
    orphan = layout.blob_key(sha256_hex(b"orphan"), "bin")
    store.create(orphan, b"orphan")
    assert verify().counts == {}
    clocked.later(timedelta(days=8))
    found = {(each.kind, each.key) for each in verify().findings}
    # The pins of names that were forgotten: the other one is of the training data in `fill`.
    pins = {key for kind, key in found if kind == "dangling_pin"}
    assert layout.name_pin_key(forgotten.hash, "gone") in pins
    assert found - {("dangling_pin", key) for key in pins} == {("orphaned", orphan)}

    first = collect_garbage(store, dry_run=False, observe=quiet)
    assert (first.deleted_blobs, first.deleted_pins) == (1, len(pins))
    clocked.later(timedelta(days=8))
    assert {(each.kind, each.key) for each in verify().findings} == {("orphaned", forgotten.storage_path)}
    assert collect_garbage(store, dry_run=False, observe=quiet).deleted_blobs == 1
    assert verify().counts == {}
    audits = [key for key in invariants.keys(bare) if key.startswith("audits/")]
    collect_garbage(store, dry_run=False, observe=quiet)
    assert [key for key in invariants.keys(bare) if key.startswith("audits/")] == audits
