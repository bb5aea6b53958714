"""Writers and collectors in every order, with crashes at every step: no blob that a record needs is gone."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from mltrack_tasks import deletions, layout
from mltrack_tasks.collecting import listing
from mltrack_tasks.collecting.batches import OpenBatches
from mltrack_tasks.collecting.collect import collect_garbage
from mltrack_tasks.content import forget_data, store_data
from mltrack_tasks.digest import sha256_hex
from mltrack_tasks.errors import NotFoundError
from mltrack_tasks.registry import register_model
from mltrack_tasks.runs import store_run
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.guard import GuardedStore
from mltrack_tasks.stores.memory import MemoryStore
from tests.floor3.clocked import ClockedStore
from tests.floor3.exploring import Actor, Explored, copied, explore, summed_up, waits
from tests.floor3.migrationtrees import quiet
from tests.settings import GIVEN

DAY = timedelta(days=1)
BODY = b"old and unreachable, and wanted again"
VALUE = {"a": 1}
REF = f"sha256:{sha256_hex(BODY)}.bin"


@pytest.fixture(autouse=True)
def the_same_ids_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that a collector draws follow from who it is and how many it drew; nobody waits."""
    monkeypatch.setattr("time.sleep", lambda seconds: waits() if seconds == deletions._POLL else None)
    monkeypatch.setattr(deletions, "outlast", summed_up(deletions.outlast))  # of one blob: was it named?
    monkeypatch.setattr(OpenBatches, "of_others", summed_up(OpenBatches.of_others))
    drawn = threading.local()

    def token(size: int) -> str:
        drawn.count = getattr(drawn, "count", 0) + 1
        return f"{threading.current_thread().name}-{drawn.count}"

    monkeypatch.setattr("mltrack_tasks.collecting.batches.secrets.token_hex", token)


class Scene:
    """A store with one blob that nothing needs, older than any grace period, and a plan that says so."""

    def __init__(self, kind: str, *, pinned: bool = False, dead_batch: bool = False) -> None:
        self.store = ClockedStore(MemoryStore())
        opened = GuardedStore(self.store)
        self.store.now -= 30 * DAY
        if kind == "described":
            digest = store_data(opened, VALUE, "n", observe=quiet).hash
            forget_data(opened, "n", observe=quiet)
            self.store.delete([layout.name_pin_key(digest, "n")])
        else:
            digest = sha256_hex(BODY)
            opened.create(layout.blob_key(digest, "bin"), BODY)
        self.store.now += 30 * DAY
        self.plan = collect_garbage(opened, observe=quiet).plan
        if pinned:
            self.store.now -= 30 * DAY
            opened.create(layout.name_pin_key(digest, "n"), b"")
            self.store.now += 30 * DAY
        if dead_batch:
            self.store.now -= timedelta(hours=2)
            content = {"format": 1, "content": {"digests": [digest]}, "provenance": {}}
            opened.create("gc/deleting/dead.json", json.dumps(content).encode())
            self.store.now += timedelta(hours=2)

    def start(self) -> ClockedStore:
        return copied(self.store)

    def applies(self, store: Store) -> Any:
        return collect_garbage(GuardedStore(store), dry_run=False, plan=self.plan, observe=quiet)


def collects(store: Store) -> Any:
    return collect_garbage(GuardedStore(store), dry_run=False, observe=quiet)


WRITERS: dict[str, Actor] = {
    "bytes": lambda store: store_data(GuardedStore(store), BODY, "n", observe=quiet),
    "described": lambda store: store_data(GuardedStore(store), VALUE, "n", observe=quiet),
    "ref": lambda store: store_run(GuardedStore(store), "r", {"d": REF}, storage_mode="flat", observe=quiet),
    "model": lambda store: register_model(
        GuardedStore(store), None, "m", {"w.bin": REF}, materialize=False, observe=quiet
    ),
}

THOROUGH = GIVEN.get("MLTRACK_TEST_PROFILE") == "thorough"


def orders(*, alike: bool) -> dict[str, Any]:
    """All orders of three actors take minutes: in the normal suite each is interrupted once at most."""
    if not THOROUGH:
        return {"switches": 1}
    return {"alike": ("collector-one", "collector-two")} if alike else {}


RECORDS = {"bytes": "names/", "described": "names/", "ref": "manifests/", "model": "models/"}


def what_is_needed_is_there(store: Store) -> None:
    """Each blob that a record lists is there with its bytes, and its description if it has one."""
    keys = {stat.key for stat in store.list("")}
    for key in keys:
        for digest, format in _listed(store, key):
            blob = layout.blob_key(digest, format)
            assert blob in keys, (key, blob)
            assert sha256_hex(store.get(blob)) == digest
            if format == "json":
                assert layout.blob_metadata_key(digest) in keys, blob


def _listed(store: Store, key: str) -> Iterator[tuple[str, str]]:
    if layout.parse_name_key(key):
        refs = [json.loads(store.get(key))["content"]["ref"]]
    elif layout.parse_manifest_key(key):
        refs = list(json.loads(store.get(key))["content"]["data"].values())
    elif key.startswith("models/development/m/v") and key.endswith(".json"):
        files = json.loads(store.get(key))["content"]["files"]
        refs = [{"hash": file["digest"], "format": file["format"]} for file in files]
    else:
        refs = []
    return ((ref["hash"], ref["format"]) for ref in refs)


def outcomes(found: Explored) -> Counter[str]:
    """How often what was wanted was deleted meanwhile or not; every end must be a good one."""
    counted = Counter[str]()
    for results, _ in found.ends:
        for name, result in results.items():
            if isinstance(result, Exception):
                assert isinstance(result, NotFoundError), (name, repr(result))
                assert name == "writer"  # and the ref that it was given is gone
                counted["refused"] += 1
            elif name != "writer":
                counted["deleted" if result.deleted_blobs else "spared"] += 1
    return counted


@pytest.mark.parametrize("kind", WRITERS)
def test_a_writer_and_a_collector(kind: str) -> None:
    scene = Scene(kind)
    states: list[ClockedStore] = []

    def check(store: Store) -> None:
        what_is_needed_is_there(store)
        states.append(copied(store))  # type: ignore[arg-type]

    found = explore(
        scene.start, {"writer": WRITERS[kind], "collector": scene.applies}, check, records=RECORDS[kind]
    )
    assert {"deleted", "spared"} <= set(outcomes(found)), outcomes(found)
    print(f"{kind}: {found.states:,} states, {found.orders:,} orders, {len(found.ends):,} ends")
    for store in states[::3]:  # everybody died here: a later collection, and the writer's second try, mend it
        _recovers(store, WRITERS[kind])


def _recovers(store: ClockedStore, write: Actor) -> None:
    store.later(timedelta(hours=2))
    collects(store)
    what_is_needed_is_there(store)
    assert not list(store.list("gc/deleting/"))
    try:
        write(store)
    except NotFoundError:
        assert not [key for stat in store.list("data/") if sha256_hex(BODY) in (key := stat.key)]
    store.later(8 * DAY)
    collects(store)
    what_is_needed_is_there(store)


@pytest.mark.parametrize("kind", WRITERS)
def test_a_writer_and_two_collectors(kind: str) -> None:
    scene = Scene(kind)
    actors = {"writer": WRITERS[kind], "collector-one": scene.applies, "collector-two": scene.applies}
    found = explore(scene.start, actors, what_is_needed_is_there, records=RECORDS[kind], **orders(alike=True))
    assert {"deleted", "spared"} <= set(outcomes(found)), outcomes(found)
    print(f"{kind}: {found.states:,} states, {found.orders:,} orders, {len(found.ends):,} ends")


@pytest.mark.parametrize("kind", ["bytes", "described"])
@pytest.mark.parametrize("second", ["applies", "collects"])
def test_a_writer_that_finds_its_old_pin(kind: str, second: str) -> None:
    """One collector takes the pin, while the other has a plan from before there was any pin."""
    scene = Scene(kind, pinned=True)
    other: Callable[[Store], Any] = scene.applies if second == "applies" else collects
    actors = {"writer": WRITERS[kind], "collector-one": collects, "collector-two": other}
    found = explore(
        scene.start,
        actors,
        what_is_needed_is_there,
        records=RECORDS[kind],
        **orders(alike=second == "collects"),
    )
    assert "spared" in outcomes(found)
    print(f"{kind}, {second}: {found.states:,} states, {found.orders:,} orders, {len(found.ends):,} ends")


@pytest.mark.parametrize("kind", ["bytes", "described"])
def test_the_batch_of_a_dead_collector(kind: str) -> None:
    scene = Scene(kind, dead_batch=True)
    actors = {"writer": WRITERS[kind], "collector-one": scene.applies, "collector-two": scene.applies}
    found = explore(scene.start, actors, what_is_needed_is_there, records=RECORDS[kind], **orders(alike=True))
    assert "deleted" in outcomes(found)
    print(f"{kind}: {found.states:,} states, {found.orders:,} orders, {len(found.ends):,} ends")


@pytest.mark.parametrize("blind", ["writer", "collector"])
def test_the_orders_find_who_does_not_look(blind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without either half of the protocol there is an order that loses a blob, and it is among these."""
    if blind == "writer":
        monkeypatch.setattr(deletions, "outlast", lambda store, digests: set())
    else:
        monkeypatch.setattr("mltrack_tasks.collecting.sweeping.places_of", _without_pins)
    scene = Scene("bytes")
    with pytest.raises(AssertionError, match="names/"):
        explore(
            scene.start,
            {"writer": WRITERS["bytes"], "collector": scene.applies},
            what_is_needed_is_there,
            records="names/",
        )


def _without_pins(store: Store, digests: Any, *, pins: bool) -> Any:
    return {} if pins else listing.places_of(store, digests, pins=False)
