"""Old audits are taken away whole by a collection, but for those that later calls begin from."""

from __future__ import annotations

from contextlib import suppress

import pytest

from mltrack_tasks.collecting.collect import collect_garbage
from mltrack_tasks.content import store_data
from mltrack_tasks.errors import TransientError
from mltrack_tasks.stores.guard import GuardedStore
from mltrack_tasks.stores.observed import FaultyStore
from mltrack_tasks.trust.journal import last_audit, last_finished, read_findings, report_key
from mltrack_tasks.trust.verify import verify_store
from tests.floor3.migrationtrees import quiet
from tests.floor3.test_collecting import World


def verify(world: World, level: str = "structure", **options: str) -> str:
    audit = verify_store(world.store, level=level, observe=quiet, **options).audit  # type: ignore[arg-type]
    assert audit is not None
    return audit


def audits(world: World) -> set[str]:
    return {stat.key.split("/")[1] for stat in world.bare.list("audits/")}


@pytest.fixture
def world() -> World:
    world = World()
    store_data(world.store, b"kept", "n")
    return world


def test_old_audits_go_and_the_newest_finished_of_each_level_and_part_stays(world: World) -> None:
    first, part = verify(world), verify(world, "read", part="2/4")
    second = verify(world)
    world.bare.create("audits/notes.txt", b"foreign")
    stopped = verify(world, "attested")
    world.bare.delete([report_key(stopped)])
    world.later(59)
    world.collect()
    assert audits(world) == {first, second, part, stopped, "notes.txt"}
    world.later(2)
    assert world.collect(dry_run=True).blobs == 0
    assert audits(world) == {first, second, part, stopped, "notes.txt"}
    world.collect()
    assert audits(world) == {second, part, "notes.txt"}
    assert last_audit(world.store, "structure") == second
    assert set(last_finished(world.store)) == {second, part}
    third = verify(world)
    world.collect()
    assert audits(world) == {third, part, "notes.txt"}


def test_what_was_stopped_while_it_removed_an_audit_is_finished_by_the_next(world: World) -> None:
    first, second = verify(world), verify(world)
    world.later(61)
    step = 0
    while first in audits(world):
        step += 1
        faulty = FaultyStore(world.clocked, step, "before")
        with suppress(TransientError):
            collect_garbage(GuardedStore(faulty), dry_run=False, observe=quiet)
        assert list(read_findings(world.store, second)) == []
    assert step > 5
    assert second in audits(world)
