"""What the registry asks of a bucket: requests cost money and round trips, so their number is pinned."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from time import sleep
from typing import TypeVar

import pytest

from mltrack_tasks import layout, modelkeys, registry
from mltrack_tasks.content import store_data
from mltrack_tasks.errors import IntegrityError, NotFoundError
from mltrack_tasks.models import ModelVersion
from mltrack_tasks.records import Record
from mltrack_tasks.runs import store_run
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.guard import GuardedStore
from mltrack_tasks.stores.memory import MemoryStore
from mltrack_tasks.stores.observed import CountingStore, SteppedStore
from tests.floor3.conftest import Place
from tests.floor3.limits import shrink

T = TypeVar("T")
FILES = 200


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A model of 200 files, one of them an ``MLmodel``."""
    folder = tmp_path / "m"
    folder.mkdir()
    for number in range(FILES - 1):
        (folder / f"part{number}").write_bytes(str(number).encode() * 100)
    (folder / "MLmodel").write_bytes(b"flavors: {}\n")
    return folder


def requests(store: Store, call: Callable[[Store], object]) -> int:
    counting = CountingStore(store)
    call(counting)
    return counting.requests


def register(store: Store, root: Path) -> ModelVersion:
    return registry.register_model(store, None, "m", root)


def test_reading_a_version(store: Store, root: Path, tmp_path: Path) -> None:
    version = register(store, root).version
    standing = 4  # is it promoted, is it materialised, is it deprecated, what came later
    assert requests(store, lambda each: registry.resolve_model(each, "m", version)) == 1 + standing
    assert requests(store, lambda each: registry.resolve_model(each, "m", "latest")) == 3 + standing
    registry.promote_model(store, "m", version)
    assert requests(store, lambda each: registry.resolve_model(each, "m")) == 3 + standing


def test_downloading_asks_for_each_file_once(store: Store, root: Path, tmp_path: Path) -> None:
    version = register(store, root).version
    target = tmp_path / "here"
    assert requests(store, lambda each: registry.download_model(each, "m", version, target)) == 1 + FILES
    assert requests(store, lambda each: registry.download_model(each, "m", version, target)) == 1


def test_loading_asks_for_no_more_than_downloading(store: Store, tmp_path: Path) -> None:
    (tmp_path / "m.pkl").write_bytes(b"I1\n.")
    made = register(store, tmp_path / "m.pkl")

    def load(each: Store) -> object:
        return registry.load_model(each, "m", made.version, trusted_digest=made.tree_digest)

    assert requests(store, load) == 1 + 1


def test_registering_unchanged_files_sends_nothing_and_asks_for_each_once(store: Store, root: Path) -> None:
    """Each blob is looked at: only that tells that the version can be read, and mends it if it cannot."""
    first = register(store, root)
    counting = CountingStore(store)
    again = register(counting, root)
    assert (again, again.created) == (first, False)
    assert counting.sent.total() == 0
    assert counting.calls["create"] == 0
    assert counting.requests == FILES + 14  # two of them look for removals


def test_one_changed_file_sends_that_one(store: Store, root: Path) -> None:
    register(store, root)
    (root / "part7").write_bytes(b"changed")
    counting = CountingStore(store)
    register(counting, root)
    blobs = [key for verb, key in counting.log if verb == "create" and layout.parse_blob_key(key)]
    assert len(blobs) == 1


def test_registering_again_mends_what_is_damaged_or_gone(place: Place, tmp_path: Path) -> None:
    root = tmp_path / "m"
    root.mkdir()
    for number in range(3):
        (root / str(number)).write_bytes(b"x" * number)
    first = register(place.store, root)
    gone, damaged = (layout.blob_key(file.digest, file.format) for file in first.files[:2])
    place.store.delete([gone])
    place.raw.put(damaged, b"short")
    assert not register(place.store, root).created
    assert registry.download_model(place.store, "m", first.version, tmp_path / "here")[1].is_dir()


@pytest.mark.parametrize("body", [None, b"", b"w", b"weights and more"])
def test_downloads_of_what_is_not_whole(place: Place, body: bytes | None, tmp_path: Path) -> None:
    """The size that the record says is relied on for the number of requests, not for what is right."""
    (tmp_path / "w").write_bytes(b"weights")
    made = register(place.store, tmp_path / "w")
    key = layout.blob_key(made.files[0].digest, made.files[0].format)
    place.store.delete([key])
    if body is not None:
        place.raw.put(key, body)
    with pytest.raises(NotFoundError if body is None else IntegrityError):
        registry.download_model(place.store, "m", made.version, tmp_path / "here")
    assert [path.name for path in tmp_path.iterdir() if path.name not in ("store", "w")] == []


def test_training_data_that_the_record_lacks_is_pinned(store: Store, root: Path) -> None:
    register(store, root)
    train = store_data(store, b"rows", "train")
    registry.register_model(store, None, "m", root, training_data={"train": train})
    assert store.head(layout.model_pin_key(train.hash, "m")) is not None


class Crowd(SteppedStore):
    """Notes how many reads of blobs are under way at once."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.now, self.most = 0, 0
        self._lock = threading.Lock()

    def step(self, verb: str, key: str, size: int, call: Callable[[], T]) -> T:
        if layout.parse_blob_key(key) is None:
            return call()
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
        try:
            sleep(0.002)
            return call()
        finally:
            with self._lock:
                self.now -= 1


@pytest.mark.parametrize("workers", [1, 3, 8])
@pytest.mark.parametrize("large", [1, 3, 6])
def test_downloads_keep_to_max_workers(
    workers: int, large: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files side by side, and ranges of one file: together as many requests as the store has workers."""
    shrink(monkeypatch.setattr)
    store = GuardedStore(MemoryStore(max_workers=workers))
    (tmp_path / "m").mkdir()
    for number in range(large):
        (tmp_path / "m" / f"large{number}").write_bytes(bytes([number]) * 5_900)
    for number in range(12):
        (tmp_path / "m" / f"small{number}").write_bytes(bytes([number]) * 100)
    version = register(store, tmp_path / "m").version
    crowd = Crowd(store)
    registry.download_model(crowd, "m", version, tmp_path / "here")
    assert crowd.most <= workers
    assert (tmp_path / "here" / "large0").read_bytes() == b"\0" * 5_900


# what later registrations say


def test_what_a_later_registration_says_is_added(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "w"
    file.write_bytes(b"w")
    for run in ("r1", "r2"):
        store_run(store, run, project="p")
    registry.register_model(store, "r1", "m", file, metrics={"auc": 0.5}, tags={"a": 1})
    made = registry.register_model(
        store, "r2", "m", file, metrics={"auc": 0.9, "f1": 0.25}, params={"depth": 3}, tags={"a": 2, "b": 2}
    )
    third = registry.register_model(store, None, "m", file, metrics={"f1": 0.75, "loss": 2})
    for version in (third, registry.resolve_model(store, "m", made.version)):
        assert version.source_runs == ("r1", "r2")
        assert version.metrics == {"auc": 0.5, "f1": 0.25, "loss": 2}
        assert (version.params, version.tags) == ({"depth": 3}, {"a": 1, "b": 2})
    assert made.metrics == {"auc": 0.5, "f1": 0.25}


def test_registrations_that_are_none_are_left_out(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "w").write_bytes(b"w")
    made = register(store, tmp_path / "w")
    said = {"model": "m", "tree_digest": made.tree_digest, "source_runs": ["r"]}
    good = {**said, "metrics": {"auc": 1}, "params": {}, "tags": {}}
    at = {"at": "2026-01-01T00:00:00Z"}
    forged: list[Record] = [
        Record({**good, "tree_digest": "0" * 64}, at),
        Record({**good, "model": "n"}, at),
        Record({**good, "source_runs": ["../x", ".."]}, at),
        Record({**good, "source_runs": None}, at),
        Record({**good, "metrics": []}, at),
        Record({**good, "params": {"$f": "odd"}}, at),
        Record(good, {}),
    ]
    for record in forged:
        key = modelkeys.registration_key("m", made.version, record.content_digest)
        store.create(key, record.to_bytes())
    store.create(modelkeys.registration_key("m", made.version, "0" * 64), Record(good, at).to_bytes())
    store.create(modelkeys.registration_key("m", made.version, "1" * 64), b"{")
    found = registry.resolve_model(store, "m", made.version)
    assert (found.source_runs, found.metrics) == ((), {})
    assert len(caplog.records) == len(forged) + 2
