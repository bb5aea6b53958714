"""Collecting garbage: what nothing needs goes, when it is old enough, and nothing else does."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest

from mltrack_tasks import layout
from mltrack_tasks.collecting import batches, plans, sweeping
from mltrack_tasks.collecting.collect import GRACE, GarbageReport, collect_garbage
from mltrack_tasks.content import forget_data, retrieve_data, store_data
from mltrack_tasks.digest import sha256_hex
from mltrack_tasks.errors import (
    ConflictError,
    FormatError,
    IntegrityError,
    InvalidInputError,
    MLTrackError,
    NotFoundError,
    TransientError,
)
from mltrack_tasks.events import Event
from mltrack_tasks.records import Record
from mltrack_tasks.runs import find_runs_by_data, store_run
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.guard import GuardedStore
from mltrack_tasks.stores.memory import MemoryStore
from mltrack_tasks.stores.observed import CountingStore, FaultyStore
from tests.floor3 import invariants
from tests.floor3.clocked import ClockedStore
from tests.floor3.conftest import Place
from tests.floor3.migrationtrees import quiet
from tests.floor3.test_roots import fill

DAY = timedelta(days=1)


class World:
    """A store in memory with its own clock, as its users open it."""

    def __init__(self) -> None:
        self.bare = MemoryStore()
        self.clocked = ClockedStore(self.bare)
        self.store: Store = GuardedStore(self.clocked)

    def later(self, days: float) -> None:
        self.clocked.later(days * DAY)

    def orphan(self, body: bytes) -> str:
        """What a writer leaves that dies before its pin."""
        digest = sha256_hex(body)
        self.store.create(layout.blob_key(digest, "bin"), body)
        return digest

    def blobs(self) -> set[str]:
        return {key.split("/")[2] for key in invariants.blobs(self.bare)}

    def collect(self, *, dry_run: bool = False, plan: str | None = None) -> GarbageReport:
        return collect_garbage(self.store, dry_run=dry_run, plan=plan, observe=quiet)


@pytest.fixture
def world() -> World:
    return World()


def test_an_orphan_goes_when_it_is_older_than_the_grace_period(world: World) -> None:
    kept = store_data(world.store, b"kept", "n")
    orphan = world.orphan(b"orphan")
    world.later(6.9)
    young = world.orphan(b"young")
    assert world.collect().deleted_blobs == 0
    world.later(0.2)
    report = world.collect()
    assert (report.deleted_blobs, report.deleted_bytes, report.records) == (1, len(b"orphan"), 1)
    assert world.blobs() == {kept.hash, young}
    assert orphan not in world.blobs()
    invariants.check_finished(world.bare)
    assert not list(world.bare.list("gc/deleting/"))
    assert not list(world.bare.list("gc/clocks/"))


def test_a_dry_run_deletes_nothing_and_its_plan_can_be_applied(world: World) -> None:
    store_data(world.store, b"kept", "n")
    for number in range(5):
        world.orphan(b"orphan %d" % number)
    world.later(8)
    seen: list[Event] = []
    report = collect_garbage(world.store, observe=seen.append)
    assert (report.dry_run, report.blobs, report.size_bytes, report.deleted_blobs) == (True, 5, 40, 0)
    assert (report.by_format, report.by_age) == ({"bin": 40}, {"up to 30 days": 40})
    assert seen[-1].details["plan"] == report.plan
    assert len(world.blobs()) == 6
    late = world.orphan(b"not in the plan")
    world.later(8)
    applied = world.collect(plan=report.plan)
    assert (applied.plan, applied.deleted_blobs, applied.deleted_bytes) == (report.plan, 5, 40)
    assert world.blobs() == {sha256_hex(b"kept"), late}
    again = world.collect(plan=report.plan)
    assert (again.deleted_blobs, again.spared) == (0, 0)


def test_what_is_needed_by_now_is_spared_though_the_plan_lists_it(world: World) -> None:
    for name in ("one", "two"):
        world.orphan(name.encode())
    world.later(8)
    plan = world.collect(dry_run=True).plan
    ref = store_data(world.store, b"one", "n")
    [pin] = [key for key in invariants.keys(world.bare) if key.startswith(layout.PINS)]
    world.store.delete([pin])  # so that the record alone speaks for it
    report = world.collect(plan=plan)
    assert (report.deleted_blobs, report.spared) == (1, 1)
    assert retrieve_data(world.store, ref) == b"one"


def test_forgotten_data_goes_pin_first_and_the_blob_a_grace_period_later(world: World) -> None:
    ref = store_data(world.store, {"a": 1}, "n")
    kept = store_run(world.store, "r", {"d": [2]}, storage_mode="flat").data["d"]
    forget_data(world.store, "n")
    world.later(8)
    report = world.collect()
    assert (report.deleted_blobs, report.deleted_pins) == (0, 1)
    assert (world.collect().deleted_blobs, ref.hash in world.blobs()) == (0, True)
    world.later(6.9)
    assert world.collect().deleted_blobs == 0
    world.later(0.2)
    assert world.collect().deleted_blobs == 1
    assert not list(world.bare.list(layout.blob_folder(ref.hash)))  # the description too
    assert world.blobs() == {kept.hash}
    assert find_runs_by_data(world.store, kept) == ["r"]
    invariants.check_finished(world.bare)


def test_an_old_plan_does_not_pass_over_the_grace_period_after_a_pin(world: World) -> None:
    body = b"wanted for a while"
    world.orphan(body)
    world.later(8)
    plan = world.collect(dry_run=True).plan
    store_data(world.store, body, "n")
    forget_data(world.store, "n")
    world.later(8)
    assert world.collect().deleted_pins == 1
    assert world.collect(plan=plan).deleted_blobs == 0
    world.later(8)
    assert world.collect(plan=plan).deleted_blobs == 1


def test_everything_that_can_hold_a_blob_holds_it(world: World, tmp_path: Path) -> None:
    fill(world.store, tmp_path)
    needed = world.blobs()
    world.orphan(b"orphan")
    for _ in range(2):
        world.later(8)
        world.collect()
    # Only the one that was forgotten, or is listed by nothing any more, may have gone.
    assert needed == world.blobs()
    world.later(20)
    for _ in range(2):
        world.later(8)
        world.collect()
    assert needed == world.blobs()


def test_foreign_objects_stay_and_hold(world: World) -> None:
    digest, other = world.orphan(b"one"), world.orphan(b"two")
    foreign = [
        f"{layout.blob_folder(other)}notes.txt",
        "data/README",
        "data/ab/cd",
        "data/zz/" + "0" * 64 + "/data.bin",
        f"{layout.pin_folder(digest)}~future~x",
        "gc/deleting/README",
    ]
    for key in foreign:
        world.store.create(key, b"")
    world.later(8)
    assert world.collect().deleted_blobs == 1
    world.later(8)
    world.collect()
    assert world.blobs() == {digest, "0" * 64}
    assert all(world.bare.head(key) for key in foreign)


@pytest.mark.parametrize(
    ("key", "body", "error"),
    [
        ("manifests/x.json", b'{"format":2,"content":{},"provenance":{}}', FormatError),
        ("manifests/x.json", b"nonsense", IntegrityError),
        ("names/n/" + "0" * 64 + ".json", b'{"format":2,"content":{},"provenance":{}}', FormatError),
        ("models/development/m/v20240115_a1b2c3.json", b"{}", IntegrityError),
        ("migrations/m/manifests/00000001.json", b"{}", IntegrityError),
        ("gc/unpinned/x.json", b"{}", IntegrityError),
    ],
)
def test_a_record_that_is_not_understood_stops_everything(
    world: World, key: str, body: bytes, error: type[MLTrackError]
) -> None:
    world.orphan(b"orphan")
    world.later(8)
    plan = world.collect(dry_run=True).plan
    world.store.create(key, body)
    for dry_run, applied in ((True, None), (False, None), (False, plan)):
        with pytest.raises(error):
            world.collect(dry_run=dry_run, plan=applied)
    assert len(world.blobs()) == 1
    assert not list(world.bare.list("gc/deleting/"))


@pytest.mark.parametrize(
    "forged",
    [
        {"before": "2099-01-01T00:00:00Z"},
        {"before": "9999-12-31T23:59:59.999999Z"},
        {"before": "2024-01-08T12:00:00Z"},  # a shorter grace period than it says
        {"grace_s": 0},
        {"grace_s": 86_400 * 900_000},
        {"grace_s": 2**62},
    ],
)
def test_a_forged_plan_does_not_shorten_the_grace_period(world: World, forged: dict[str, str | int]) -> None:
    """By a plan of tomorrow, what was written a moment ago would be old."""
    store_data(world.store, b"kept", "n")
    world.orphan(b"old")
    world.later(8)
    found = plans.read_plan(world.store, world.collect(dry_run=True).plan)
    record = Record(found.to_content() | forged, {})
    world.store.create(f"gc/plans/{record.content_digest}.json", record.to_bytes())
    with pytest.raises(IntegrityError, match="another"):
        world.collect(plan=record.content_digest)
    assert len(world.blobs()) == 2
    assert world.collect(plan=found.digest).deleted_blobs == 1


def test_bad_questions(world: World) -> None:
    assert world.collect().plan == ""
    assert not list(world.bare.list(""))
    for grace in (0.9 * DAY, -DAY, 800_000 * DAY, timedelta.max, 7):
        with pytest.raises(InvalidInputError, match="a day or more"):
            collect_garbage(world.store, grace=grace)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="dry_run=False"):
        world.collect(dry_run=True, plan="0" * 64)
    with pytest.raises(InvalidInputError):
        world.collect(plan="latest")
    with pytest.raises(NotFoundError):
        world.collect(plan="0" * 64)
    store_data(world.store, 1)
    with pytest.raises(NotFoundError, match="30 days"):
        world.collect(plan="0" * 64)


def test_plans_of_other_stores_old_ones_and_forged_ones_are_refused(world: World) -> None:
    world.orphan(b"orphan")
    world.later(8)
    plan = world.collect(dry_run=True).plan
    other = World()
    store_data(other.store, 1)
    for folder in ("gc/plans/", "gc/parts/"):
        for stat in world.bare.list(folder):
            other.store.create(stat.key, world.bare.get(stat.key))
    with pytest.raises(ConflictError, match="Make another"):
        other.collect(plan=plan)
    [part] = [stat.key for stat in world.bare.list("gc/parts/")]
    kept = world.bare.get(part)
    record = json.loads(kept)
    record["content"]["digests"] = [sha256_hex(b"another")]
    for body in (json.dumps(record).encode(), b"{}"):
        world.bare.delete([part])
        world.bare.create(part, body)
        with pytest.raises(IntegrityError, match="part"):
            world.collect(plan=plan)
    world.bare.delete([part])
    world.bare.create(part, kept)
    world.later(31)
    with pytest.raises(NotFoundError, match="older"):
        world.collect(plan=plan)


@pytest.mark.parametrize("how", ["before", "after", "crash"])
def test_a_collection_that_fails_anywhere_is_finished_by_the_next(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plans, "PART_ROWS", 4)
    monkeypatch.setattr(batches, "BATCH", 2)
    monkeypatch.setattr(sweeping, "BATCH", 2)
    monkeypatch.setattr(sweeping, "ROUND", 2)
    step = 0
    while True:
        world = World()
        kept = store_data(world.store, b"kept", "n")
        store_data(world.store, {"a": 1}, "gone")
        forget_data(world.store, "gone")
        for number in range(6):
            world.orphan(b"orphan %d" % number)
        world.later(8)
        step += 3  # each third step: the whole takes long enough
        faulty = FaultyStore(world.clocked, step, how)  # type: ignore[arg-type]
        try:
            collect_garbage(GuardedStore(faulty), dry_run=False, observe=quiet)
            done = True
        except MLTrackError:
            done = False
        invariants.check_always(world.bare)
        world.later(0.1)
        world.collect()
        world.later(8)
        world.collect()
        assert world.blobs() == {kept.hash}, step
        assert not list(world.bare.list("gc/deleting/"))
        invariants.check_finished(world.bare)
        if done:
            assert step > 60
            return


def test_a_batch_of_another_collector_is_left_to_it_until_that_is_dead(world: World) -> None:
    world.orphan(b"mine")
    theirs = world.orphan(b"theirs")
    world.later(8)
    content = {"format": 1, "content": {"digests": [theirs]}, "provenance": {}}
    world.store.create("gc/deleting/other.json", json.dumps(content).encode())
    report = world.collect()
    assert (report.deleted_blobs, report.spared) == (1, 1)
    assert world.blobs() == {theirs}
    world.later(0.05)
    assert world.collect().deleted_blobs == 1
    assert world.blobs() == set()
    assert not list(world.bare.list("gc/deleting/"))


def test_a_collector_gives_up_when_its_batch_may_have_been_closed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.orphan(b"orphan")
    world.later(8)
    now = iter(range(0, 10**6, 301))
    monkeypatch.setattr("mltrack_tasks.collecting.clock.time.monotonic", lambda: float(next(now)))
    with pytest.raises(TransientError, match="over 300 s"):
        world.collect()
    assert len(world.blobs()) == 1
    assert not list(world.bare.list("gc/deleting/"))


def test_requests_grow_with_pages_and_not_with_blobs(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    for number in range(3_000):
        world.orphan(b"%d" % number)
    world.later(8)
    counting = CountingStore(world.clocked)
    assert collect_garbage(GuardedStore(counting), dry_run=False, observe=quiet).deleted_blobs == 3_000
    assert counting.requests < 60
    assert counting.calls["delete"] == 3 + 3  # of blobs; the batches, the clock, what is outdated
    assert GRACE == 7 * DAY


def test_on_every_kind_of_store(place: Place) -> None:
    """Nothing is old there, so nothing goes; the plan is kept, and time is asked of the store itself."""
    store_data(place.store, {"a": 1}, "n")
    report = collect_garbage(place.store, dry_run=False, observe=quiet)
    assert (report.blobs, report.records) == (0, 1)
    invariants.check_finished(place.store)
