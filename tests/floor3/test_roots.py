"""One reading of all references: no blob that a record needs is missed, no record passed over in silence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mltrack_tasks import layout, modelkeys
from mltrack_tasks.content import forget_data, store_data
from mltrack_tasks.digest import sha256_hex
from mltrack_tasks.errors import FormatError, IntegrityError
from mltrack_tasks.migration.uploading import batch_key
from mltrack_tasks.receipts import DEFER_ABOVE
from mltrack_tasks.registry import promote_model, register_model
from mltrack_tasks.runs import store_run
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.observed import CountingStore, FaultyStore
from mltrack_tasks.trust.readers import MIGRATION, MODEL, NAME, RUN
from mltrack_tasks.trust.roots import Root, Unreadable, name_in_log, refuse, roots
from tests.floor3.conftest import Place
from tests.floor3.migrationtrees import NAME as MIGRATED
from tests.floor3.migrationtrees import migrate, quiet

LONG_AGO = "2020-01-01T00:00:00Z"


def fill(store: Store, folder: Path) -> None:
    """Everything that can hold a blob, some of it more than once."""
    store_run(store, "r1", {"x": b"first", "frame": [1, 2]}, project="p", outputs={"o": b"out"})
    store_run(store, "r1", {"x": b"second"}, project="p", inputs={"i": b"in"}, if_exists="revise")
    store_data(store, b"named", "kept")
    for number, rows in enumerate((b"rows", b"other rows", b"other rows")):
        training = store_data(store, rows, "training")
        model = folder / "model"
        model.mkdir(parents=True, exist_ok=True)
        (model / "weights").write_bytes(b"weights")
        (model / "\u00a0 ü").write_bytes(b"a name that is not printable")
        version = register_model(store, None, "churn", model, training_data={f"rows{number}": training})
    forget_data(store, "training")
    promote_model(store, "churn", version.version)
    tree = folder / "tree"
    (tree / "sub").mkdir(parents=True)
    for name, size in (("small", 5_000), ("other", 6_000), ("large", DEFER_ABOVE + 1), ("sub/own", 40_000)):
        (tree / name).write_bytes(name.encode()[:1] * size)
    migrate(store, tree)
    (tree / "sub" / "own").write_bytes(b"new" * 20_000)
    migrate(store, tree)


@pytest.fixture
def filled(memory_place: Place, tmp_path: Path) -> Place:
    fill(memory_place.store, tmp_path)
    return memory_place


def read(store: Store, **options: Any) -> list[Root]:
    return list(roots(store, refuse, observe=quiet, **options))


def blobs(store: Store) -> dict[tuple[str, str], int]:
    found = ((layout.parse_blob_key(stat.key), stat.size) for stat in store.list(layout.BLOBS))
    return {place: size for place, size in found if place}


def needed(found: list[Root]) -> set[tuple[str, str]]:
    return {(n.digest, n.format) for root in found for n in root.needs if n.format is not None}


def age(place: Place, key: str) -> None:
    """Make a record one that was written long ago."""
    record = json.loads(place.raw.get(key) or b"")
    record["provenance"]["at"] = LONG_AGO
    place.raw.put(key, json.dumps(record).encode())


def keys(place: Place, part: str) -> list[str]:
    return sorted(key for key in place.raw.list() if part in key)


def test_every_blob_is_needed_by_a_record_that_names_it(place: Place, tmp_path: Path) -> None:
    fill(place.store, tmp_path)
    found = read(place.store)
    assert needed(found) == set(blobs(place.store))
    assert {root.holder.kind for root in found} == {RUN, NAME, MODEL, MIGRATION}


def test_the_sizes_that_are_claimed_are_those_of_the_blobs(filled: Place) -> None:
    sizes = blobs(filled.store)
    needs = [need for root in read(filled.store) for need in root.needs if need.size is not None]
    assert all(
        sizes[need.digest, need.format] == need.size for need in needs if need.format and not need.planned
    )
    assert {need.digest for need in needs} >= {digest for digest, _ in sizes}


def test_each_record_is_read_once_and_by_its_own_name(filled: Place) -> None:
    counted = CountingStore(filled.store)
    found = read(counted)
    names = {(root.holder.kind, root.holder.name) for root in found}
    [version] = {key.split("/")[4] for key in keys(filled, "_registrations/")}
    assert names >= {(RUN, "r1"), (NAME, "kept"), (MODEL, f"churn {version}"), (MIGRATION, MIGRATED)}
    gets = [key for verb, key in counted.log if verb in ("get", "get_range")]
    assert len(gets) == len(set(gets))
    assert not [key for key in gets if key.startswith((layout.BLOBS, layout.PINS))]
    assert "head" not in counted.calls


KEYS = (
    *("manifests/r1.json", "manifests/r1~00000002.json", "names/kept/", "models/development/churn/v"),
    *("models/registry/churn/v", "_registrations/", "_aliases/production/00000001.json"),
    *("manifests/00000001.json", "manifests/00000002.json", "/receipts/", "/plans/"),
)


@pytest.mark.parametrize("body", [b"{}", b"not JSON", b'{"format": 2}'], ids=["empty", "no JSON", "newer"])
@pytest.mark.parametrize("part", KEYS)
def test_a_record_that_cannot_be_read_is_named_or_refused(filled: Place, part: str, body: bytes) -> None:
    """Whoever deletes stops; whoever reports goes on with all others."""
    whole = read(filled.store)
    [damaged, *_] = [key for key in keys(filled, part) if key.endswith(".json")]
    filled.raw.put(damaged, body)

    named: list[Unreadable] = []
    rest = list(roots(filled.store, named.append, observe=quiet))

    folder = damaged.rpartition("/")[0] + "/"
    assert [each.holder.key for each in named] == [folder if "_aliases" in damaged else damaged]
    assert isinstance(named[0].error, FormatError if b"2" in body else IntegrityError)
    # What an unreadable manifest of a migration lists is held for its 30 days like any other.
    assert len(rest) == len(whole) - 1
    with pytest.raises((IntegrityError, FormatError)):
        read(filled.store)
    assert len(list(roots(filled.store, name_in_log, observe=quiet))) == len(rest)


def test_a_record_under_the_name_of_another_is_not_believed(filled: Place) -> None:
    [version] = [key for key in keys(filled, "models/development/churn/v") if key.count("/") == 3]
    forged = "models/development/churn/v20200101_abcdef.json"
    filled.raw.put(forged, filled.raw.get(version) or b"")
    filled.raw.put("manifests/r2.json", filled.raw.get("manifests/r1.json") or b"")
    named: list[Unreadable] = []
    list(roots(filled.store, named.append, observe=quiet))
    assert [each.holder.key for each in named] == ["manifests/r2.json", forged]


def test_a_receipt_that_a_manifest_lists_must_be_there(filled: Place) -> None:
    [gone, *_] = keys(filled, "/receipts/")
    filled.raw.delete(gone)
    with pytest.raises(IntegrityError, match=r"receipts/.* another record relies on it"):
        read(filled.store)


def test_what_manifests_list_counts_whatever_its_age(filled: Place) -> None:
    for key in [*keys(filled, "/receipts/"), *keys(filled, "/plans/")]:
        age(filled, key)
    found = read(filled.store, kinds=(MIGRATION,))
    assert not [root for root in found if "/plans/" in root.holder.key]
    assert needed(read(filled.store)) == set(blobs(filled.store))


@pytest.mark.usefixtures("no_pauses")
def test_a_migration_that_died_holds_what_it_was_about_to_send(memory_place: Place, tmp_path: Path) -> None:
    body = b"b" * 50_000
    (tmp_path / "file").write_bytes(body)
    store = memory_place.store
    for fail_at in range(1, 60):  # until the plan is there and nothing after it
        with pytest.raises(Exception, match="Injected"):
            migrate(FaultyStore(store, fail_at, "crash"), tmp_path)
        if keys(memory_place, "/plans/"):
            break
    [plan] = keys(memory_place, "/plans/")
    [root] = read(store)
    [need] = root.needs
    assert root.holder.key == plan == batch_key(MIGRATED, plan[-37:-5])
    assert (need.digest, need.format, need.size, need.planned) == (sha256_hex(body), None, len(body), True)
    age(memory_place, plan)
    assert read(store) == []


def test_kinds_and_records_can_be_left_out_unread(filled: Place) -> None:
    counted = CountingStore(filled.store)
    found = read(counted, kinds=(RUN,), skip=lambda reader: reader.holder.key != "manifests/r1~00000002.json")
    assert [root.holder.name for root in found] == ["r1"]
    assert counted.calls == {"list": 1, "get_range": 1}


def test_foreign_objects_are_no_records(filled: Place) -> None:
    whole = read(filled.store)
    for key in ("manifests/notes.txt", "names/x.json", "models/development/", "migrations/readme", "data/x"):
        filled.raw.put(key.rstrip("/"), b"{}")
    filled.raw.put(modelkeys.versions_folder("churn") + "v1.json", b"{}")
    assert [root.holder for root in read(filled.store)] == [root.holder for root in whole]


def test_a_store_where_nothing_was_ever_written(store: Store) -> None:
    assert read(store) == []
