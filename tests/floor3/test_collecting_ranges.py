"""Large stores are listed in ranges, several at once: the same, in the same order."""

from __future__ import annotations

import random

import pytest

from mltrack_tasks import layout
from mltrack_tasks.collecting import listing, ranges
from mltrack_tasks.collecting.collect import collect_garbage
from mltrack_tasks.collecting.keys import digest_of
from mltrack_tasks.collecting.listing import places_of
from mltrack_tasks.digest import sha256_hex
from mltrack_tasks.errors import TransientError
from mltrack_tasks.stores.guard import GuardedStore
from mltrack_tasks.stores.memory import MemoryStore
from mltrack_tasks.stores.observed import CountingStore, FaultyStore
from tests.floor3.migrationtrees import quiet
from tests.floor3.test_collecting import World


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "ALONE", 20)
    monkeypatch.setattr(ranges, "RANGE", 8)
    monkeypatch.setattr(ranges, "MOST", 16)


def even(count: int) -> list[str]:
    return sorted(sha256_hex(b"%d" % number) for number in range(count))


def forged(count: int) -> list[str]:
    """Digests of which nearly all begin alike, and the first comes late."""
    chance = random.Random(1)
    return sorted(
        f"{chance.choice(['7f', '80' * 8, '80' * 8])}{chance.randrange(16**30):030x}".ljust(64, "a")
        for _ in range(count)
    )


DIGESTS = {"even": even(300), "forged": forged(300), "few": even(19), "at the border": even(21), "none": []}


def filled(digests: list[str]) -> MemoryStore:
    store = MemoryStore()
    for digest in digests:
        store.create(layout.blob_key(digest, "bin"), b"1")
        store.create(layout.blob_metadata_key(digest), b"{}")
    for key in ("data/notes.txt", "data/zz/x", "data/00/0", "data/ff/fff/x"):
        store.create(key, b"foreign")
    return store


@pytest.mark.parametrize("kind", DIGESTS)
@pytest.mark.parametrize("workers", [1, 4])
def test_everything_comes_once_and_in_order(kind: str, workers: int) -> None:
    store = filled(DIGESTS[kind])
    store.max_workers = workers
    found = list(ranges.by_digest(store, layout.BLOBS))
    expected = [(digest, stat.key) for stat in store.list(layout.BLOBS) if (digest := digest_of(stat.key))]
    assert [(digest, stat.key) for digest, stat in found] == expected
    assert len(expected) == 2 * len(DIGESTS[kind])


def test_a_small_store_costs_no_more_and_a_large_one_a_list_for_each_range() -> None:
    for digests, most in ((even(9), 1), (even(300), 2 + 600 // 8 * 1.4)):
        counting = CountingStore(filled(digests))
        assert len(list(ranges.by_digest(counting, layout.BLOBS))) == 2 * len(digests)
        assert counting.calls["list"] <= most


def test_what_is_looked_at_again_is_looked_at_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "PAGE", 10)
    digests = even(100)
    counting = CountingStore(filled(digests))
    counting.max_workers = 4
    found = places_of(counting, digests[::2], pins=False)
    assert list(found) == digests[::2]
    assert counting.calls["list"] == 4


def test_a_collection_in_ranges_deletes_the_same() -> None:
    world = World()
    for number in range(100):
        world.orphan(b"%d" % number)
    world.later(8)
    failing = GuardedStore(FaultyStore(world.clocked, 12, "before"))
    with pytest.raises(TransientError):
        collect_garbage(failing, dry_run=False, observe=quiet)
    assert len(world.blobs()) == 100
    assert world.collect().deleted_blobs == 100
