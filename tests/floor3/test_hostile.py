"""What stands in the bucket may be forged: it is refused by name, and leads nowhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mltrack_tasks.content import forget_data, list_data, resolve_ref, retrieve_data, store_data
from mltrack_tasks.errors import ConflictError, FormatError, IntegrityError
from mltrack_tasks.records import NamedData, Record
from mltrack_tasks.runs import get_run, store_run
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.guard import GuardedStore
from mltrack_tasks.stores.memory import MemoryStore
from tests.floor3.conftest import Place

FORGED: dict[str, bytes] = {
    "empty": b"",
    "no JSON": b"<html>",
    "no object": b"[]",
    "no format": b'{"content":{},"provenance":{}}',
    "no content": b'{"format":1,"provenance":{}}',
    "empty content": b'{"format":1,"content":{},"provenance":{"at":"2024-01-01T00:00:00Z"}}',
    "keys twice": b'{"format":1,"format":1,"content":{},"provenance":{}}',
    "nested": b'{"format":1,"content":' + b'{"a":' * 500 + b"1" + b"}" * 500 + b',"provenance":{}}',
    "a surrogate": b'{"format":1,"content":{"a":"\\ud800"},"provenance":{}}',
    "broken UTF-8": b'{"format":1,"content":{"a":"\xff"},"provenance":{}}',
}


@pytest.mark.parametrize("kind", FORGED)
def test_a_forged_manifest(memory_place: Place, kind: str) -> None:
    store_run(memory_place.store, "good", {"a": 1}, storage_mode="flat")
    memory_place.raw.put("manifests/bad.json", FORGED[kind])
    with pytest.raises(IntegrityError, match=r"manifests/bad\.json"):
        get_run(memory_place.store, "bad")
    with pytest.raises((IntegrityError, ConflictError), match="bad"):
        store_run(memory_place.store, "bad", {"a": 1}, storage_mode="flat")
    assert memory_place.raw.get("manifests/bad.json") == FORGED[kind]
    assert get_run(memory_place.store, "good").values == {"a": 1}


@pytest.mark.parametrize("kind", FORGED)
def test_a_forged_record_of_a_name(memory_place: Place, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """It fails the listing of its own name, hides no other, and can be got rid of."""
    store_data(memory_place.store, 1, "good")
    key = f"names/bad/{'ab' * 32}.json"
    memory_place.raw.put(key, FORGED[kind])
    with pytest.raises(IntegrityError, match=key):
        list_data(memory_place.store, "bad")
    with caplog.at_level("WARNING", "mltrack_tasks"):
        assert [item.name for item in list_data(memory_place.store)] == ["good"]
    assert key in caplog.text
    assert forget_data(memory_place.store, "bad") == []
    assert list_data(memory_place.store, "bad") == []


def test_a_newer_record_asks_for_an_upgrade(store: Store) -> None:
    store_run(store, "r", {"a": 1}, storage_mode="flat")
    record = json.loads(store.get("manifests/r.json"))
    store.create("manifests/new.json", json.dumps({**record, "format": 2}).encode())
    with pytest.raises(FormatError, match="Upgrade"):
        get_run(store, "new")


def test_a_record_in_the_wrong_place_is_not_believed(store: Store) -> None:
    store_run(store, "r", {"a": 1}, storage_mode="flat")
    store_data(store, 1, "n")
    [named] = [stat.key for stat in store.list("names/")]
    store.create("manifests/other.json", store.get("manifests/r.json"))
    store.create(named.replace("names/n/", "names/other/"), store.get(named))
    with pytest.raises(IntegrityError, match="manifest of 'r'"):
        get_run(store, "other")
    with pytest.raises(IntegrityError, match="does not hold what its place says"):
        list_data(store, "other")


@pytest.mark.parametrize("name", ["..", "../../etc/passwd", ".", "", "a\nb", "\0", 5, None])
def test_a_name_inside_a_record_passes_the_gate_or_is_refused(name: Any) -> None:
    """The forger computes the right digest of the content, so that only the gate is in the way."""
    bare = MemoryStore()
    store = GuardedStore(bare)
    ref = store_data(store, 1, "n")
    [item] = list_data(store, "n")
    content = {**NamedData.content_of("n", ref), "name": name}
    record = Record(content, {"at": "2024-01-01T00:00:00Z"})
    bare.create(f"names/evil/{record.content_digest}.json", record.to_bytes())
    with pytest.raises(IntegrityError, match="names/evil"):
        list_data(store, "evil")
    assert [found.name for found in list_data(store)] == ["n"]
    run = store_run(store, "r", {"a": 1}, storage_mode="flat")
    forged = {**run.to_content(), "run_id": "evil", "data": {str(name): item.ref.to_json()}, "project": name}
    bare.create("manifests/evil.json", Record(forged, {"at": "2024-01-01T00:00:00Z"}).to_bytes())
    if name not in (None, 5, "../../etc/passwd"):
        with pytest.raises(IntegrityError, match=r"manifests/evil\.json"):
            get_run(store, "evil")


@pytest.mark.parametrize("path", ["../../etc/passwd", "data/00/x", "/etc/passwd", "names/n", ""])
def test_a_ref_inside_a_record_points_to_its_own_blob_or_is_refused(store: Store, path: str) -> None:
    run = store_run(store, "r", {"a": 1}, storage_mode="flat")
    content = json.loads(json.dumps(run.to_content()))
    content["run_id"] = "evil"
    content["data"]["a"]["storage_path"] = path
    store.create("manifests/evil.json", Record(content, {"at": "2024-01-01T00:00:00Z"}).to_bytes())
    with pytest.raises(IntegrityError, match="not the place"):
        get_run(store, "evil")


def test_foreign_objects_are_passed_over(place: Place) -> None:
    ref = store_data(place.store, [1], "n")
    folder = f"data/{ref.hash[:2]}/{ref.hash}"
    for key in (
        *("names/readme.txt", "names/a b/x.json", f"names/%2E%2E/{'a' * 64}.json", "names/n/README"),
        *(f"{folder}/data.exe", f"{folder}/notes", f"{folder}/x/data.bin", "data/readme", "other/x"),
        *(f"{folder}//data.bin", f"{folder}/../data.npy"),
    ):
        place.raw.put(key, b"foreign")
    assert [item.name for item in list_data(place.store)] == ["n"]
    assert resolve_ref(place.store, ref.hash).format == "json"
    assert [item.name for item in forget_data(place.store, "n")] == ["n"]


def test_a_name_that_is_not_utf8_on_disk_is_passed_over(directory_place: Place) -> None:
    import os

    store_data(directory_place.store, [1], "n")
    root = Path(directory_place.store.location)
    os.mkdir(os.fsencode(root / "names") + b"/\xff")
    with open(os.fsencode(root / "names") + b"/\xff/" + b"a" * 64 + b".json", "wb"):
        pass
    assert [item.name for item in list_data(directory_place.store)] == ["n"]


def test_a_record_of_a_newer_writer_is_forgotten_whole(store: Store) -> None:
    """Fields that this version does not know are part of the content, and so of the key."""
    ref = store_data(store, 1, "n")
    record = Record({**NamedData.content_of("n", ref), "new": True}, {"at": "2024-01-01T00:00:00Z"})
    store.create(f"names/n/{record.content_digest}.json", record.to_bytes())
    assert len(forget_data(store, "n")) == 2
    assert list_data(store, "n") == []


def test_a_record_that_is_forgotten_while_it_is_listed_is_left_out(store: Store) -> None:
    from mltrack_tasks.stores.base import WrapperStore

    class Forgets(WrapperStore):
        def get_range(self, key: str, start: int, length: int) -> bytes | memoryview:
            if key.startswith("names/gone/"):
                self.inner.delete([key])
            return self.inner.get_range(key, start, length)

    store_data(store, 1, "gone")
    store_data(store, 1, "kept")
    assert [item.name for item in list_data(Forgets(store))] == ["kept"]


def test_hostile_bytes_are_refused_by_their_codec(place: Place) -> None:
    """A ref may name any bytes: decoding them says what is wrong, and unpickles nothing."""
    import numpy as np

    from mltrack_tasks.digest import sha256_hex

    pickled = np.lib.format.magic(
        1, 0
    ) + b"v\x00{'descr': '|O', 'fortran_order': False, 'shape': (1,), }".ljust(118)
    for format, body in (
        ("parquet", b"PAR1xPAR1"),
        ("npy", b"\x93NUMPYx"),
        ("json", b"{]"),
        ("npy", pickled),
    ):
        digest = sha256_hex(body)
        place.raw.put(f"data/{digest[:2]}/{digest}/data.{format}", body)
        with pytest.raises((IntegrityError, FormatError), match=digest):
            retrieve_data(place.store, f"sha256:{digest}.{format}")
