"""What the statistics say, against what lies in the store: raw objects, parsed here on their own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mltrack_tasks import events, layout, modelkeys, usage
from mltrack_tasks.blobs import write_blob
from mltrack_tasks.catalog import current_manifests
from mltrack_tasks.content import forget_data, list_data, store_data
from mltrack_tasks.errors import ConflictError, InvalidInputError
from mltrack_tasks.events import Event
from mltrack_tasks.migration import migrate_to_s3
from mltrack_tasks.registry import promote_model, register_model
from mltrack_tasks.runs import store_run
from mltrack_tasks.sources import BytesSource
from mltrack_tasks.stores.base import Stat, Store, WrapperStore
from mltrack_tasks.stores.guard import GuardedStore
from mltrack_tasks.stores.memory import MemoryStore
from mltrack_tasks.stores.observed import CountingStore, SteppedStore
from mltrack_tasks.testing import RawObjects
from mltrack_tasks.usage import data_usage_stats, save_chart
from mltrack_tasks.usage_stats import MAX_BARS, Amount, Usage, UsageStats, usage_chart
from tests.floor3.conftest import Place
from tests.floor3.invariants import refs

T = TypeVar("T")
MAY, JUNE = datetime(2024, 5, 31, tzinfo=UTC), datetime(2024, 6, 1, tzinfo=UTC)
A, B, C = b"a" * 100, b"b" * 40, b"c" * 7


def run(store: Store, run_id: str, data: dict[str, Any], project: str | None = None, **fields: Any) -> None:
    """Store a run that began in May."""
    fields.setdefault("started_at", MAY)
    mode = "flat" if project is None else "by_project"
    store_run(store, run_id, data, project=project, storage_mode=mode, **fields)


def orphan(store: Store, body: bytes) -> str:
    """A blob whose writer died before its pin -> its digest."""
    source = BytesSource(body)
    write_blob(store, source, "bin", observe=lambda event: None)
    return source.digest


def test_an_example(place: Place) -> None:
    """Two projects share A; one run has B twice; C is kept by name alone; the orphan by nothing."""
    store = place.store
    run(store, "r1", {"x": A, "y": B}, "p", outputs={"again": B})
    run(store, "r2", {"x": A}, "q", run_type="production", started_at=JUNE)
    run(store, "r3", {"x": A}, "p", started_at=JUNE)
    run(store, "r4", {"z": C})
    store_data(store, C, "kept")
    digest = orphan(store, b"o" * 1000)

    found = data_usage_stats(store, largest=2)

    assert [(g.project, g.run_type, g.month) for g in found.groups] == [
        ("p", "experiment", "2024-05"),
        ("p", "experiment", "2024-06"),
        ("q", "production", "2024-06"),
        (None, "experiment", "2024-05"),
    ]
    assert found.groups[0].usage == Usage(
        runs=1, references=3, referenced_bytes=180, blobs=2, unique_bytes=140
    )
    assert found.groups[0].usage.saved_bytes == 40
    assert found.projects == (
        ("p", Usage(runs=2, references=4, referenced_bytes=280, blobs=2, unique_bytes=140)),
        ("q", Usage(runs=1, references=1, referenced_bytes=100, blobs=1, unique_bytes=100)),
        (None, Usage(runs=1, references=1, referenced_bytes=7, blobs=1, unique_bytes=7)),
    )
    assert [name for name, _ in found.run_types] == ["experiment", "production"]
    assert [name for name, _ in found.months] == ["2024-05", "2024-06"]
    assert found.total == Usage(runs=4, references=7, referenced_bytes=394, blobs=3, unique_bytes=147)
    assert found.named == Usage(runs=0, references=1, referenced_bytes=7, blobs=1, unique_bytes=7)
    assert found.total.saved_bytes == 247
    assert found.stored == Amount(4, 1147)
    assert found.unreferenced == Amount(1, 1000)
    assert found.held == found.missing == found.damaged == found.foreign == Amount()
    assert [(b.ref, b.size_bytes, b.references, b.name, b.run_id) for b in found.largest] == [
        (f"sha256:{digest}.bin", 1000, 0, None, None),
        (
            f"sha256:{'2816597888e4a0d3a36b82b83316ab32680eb8f00f8cd3b904d681246d285a0e'}.bin",
            100,
            3,
            "x",
            "r1",
        ),
    ]


def test_an_empty_store(store: Store) -> None:
    found = data_usage_stats(store)
    assert found.groups == found.projects == found.months == found.largest == ()
    assert found.total == Usage()
    assert found.stored == found.unreferenced == Amount()
    assert found.rows() == []
    assert "nothing yet" in usage_chart(found)


def test_only_the_current_revision_refers(store: Store) -> None:
    """What an older one had is held by its pin, as is what a forgotten name had."""
    run(store, "r", {"x": A}, "old")
    run(store, "r", {"x": B}, "new", if_exists="revise")
    store_data(store, C, "gone")
    forget_data(store, "gone")
    found = data_usage_stats(store)
    assert [(name, each.references) for name, each in found.projects] == [("new", 1)]
    assert found.held == Amount(2, len(A) + len(C))
    assert found.unreferenced == Amount()


def test_months_are_of_utc(store: Store) -> None:
    ahead = timezone(timedelta(hours=14))
    run(store, "r1", {}, started_at=datetime(2024, 6, 1, 13, tzinfo=ahead))
    run(store, "r2", {}, started_at=None)
    stored = current_manifests(store)[-1].stored_at
    months = [group.month for group in data_usage_stats(store).groups]
    assert months == ["2024-05", stored.astimezone(UTC).strftime("%Y-%m")]


def test_a_run_of_no_known_time_is_counted(memory_place: Place) -> None:
    """Only a forged record tells neither start nor time of storing."""
    run(memory_place.store, "r", {"x": A}, "p", started_at=None)
    record = json.loads(memory_place.raw.get("manifests/r.json") or b"")
    record["provenance"] = {"at": "yesterday"}
    memory_place.raw.put("manifests/r.json", json.dumps(record).encode())
    assert [group.month for group in data_usage_stats(memory_place.store).groups] == ["(unknown)"]


def test_a_run_without_data_is_a_run(store: Store) -> None:
    run(store, "r", {}, "p")
    assert data_usage_stats(store).projects == (("p", Usage(runs=1)),)


def test_lost_and_damaged_blobs(memory_place: Place) -> None:
    run(memory_place.store, "r", {"a": A, "b": B, "c": C}, "p")
    keys = {ref["name"]: ref["storage_path"] for _, ref in refs(memory_place.store)}
    memory_place.raw.delete(keys["a"])
    memory_place.raw.put(keys["b"], b"shorter")
    found = data_usage_stats(memory_place.store)
    assert found.missing == Amount(1, len(A))
    assert found.damaged == Amount(1, 7)
    assert found.total.unique_bytes == len(A) + 7 + len(C)
    assert "2 blobs are missing or damaged" in usage_chart(found)


def test_references_that_disagree_about_a_lost_blob(memory_place: Place) -> None:
    """The largest that one says counts; only a forged record says another than the rest."""
    run(memory_place.store, "r1", {"a": A}, "p")
    run(memory_place.store, "r2", {"a": A}, "p")
    key = "manifests/r1.json"
    forged = (memory_place.raw.get(key) or b"").replace(b'"size_bytes":100,', b'"size_bytes":3,')
    memory_place.raw.put(key, forged)
    assert data_usage_stats(memory_place.store).damaged == Amount(1, len(A))
    [_, (_, ref)] = refs(memory_place.store)
    memory_place.raw.delete(ref["storage_path"])
    assert data_usage_stats(memory_place.store).missing == Amount(1, len(A))


@pytest.mark.parametrize("key", ["data/x", "data/ab/{}/extra", "data/ff/{}/data.bin", "data/ab/{}/data.exe"])
def test_foreign_objects_are_no_blobs(memory_place: Place, key: str) -> None:
    store_data(memory_place.store, {"a": 1})
    memory_place.raw.put(key.format("ab" * 32), b"12345")
    found = data_usage_stats(memory_place.store)
    assert found.foreign == Amount(1, 5)
    assert (found.stored.objects, found.side_objects.objects) == (1, 1)


@pytest.mark.parametrize("key", ["runs/by_data/{d:.2}/{d}/", "runs/by_data/ff/{d}/r", "runs/by_data/{d}/r"])
def test_what_is_no_pin_holds_nothing(key: str) -> None:
    """A folder's placeholder (which a store in memory cannot hold) and pins in the wrong place."""
    bare = MemoryStore()
    digest = orphan(GuardedStore(bare), A)
    forged = Stat(key.format(d=digest), 0, None, datetime.now(UTC))

    class Forged(WrapperStore):
        def list(self, prefix: str, *, after: str = "") -> Iterator[Stat]:
            yield from self.inner.list(prefix, after=after)
            if prefix == layout.PINS:
                yield forged

    assert data_usage_stats(Forged(bare)).unreferenced == Amount(1, len(A))


def test_a_damaged_record_hides_no_other(memory_place: Place, caplog: pytest.LogCaptureFixture) -> None:
    run(memory_place.store, "good", {"x": A}, "p")
    memory_place.raw.put("manifests/bad.json", b"<html>")
    memory_place.raw.put(f"names/bad/{'ab' * 32}.json", b"<html>")
    with caplog.at_level("WARNING", "mltrack_tasks"):
        found = data_usage_stats(memory_place.store)
    assert found.total == Usage(1, 1, len(A), 1, len(A))
    assert "manifests/bad.json" in caplog.text


@pytest.mark.parametrize("largest", [-1, True, 1.0, "3", None])
def test_largest_is_a_number(store: Store, largest: Any) -> None:
    with pytest.raises(InvalidInputError, match="largest"):
        data_usage_stats(store, largest=largest)


def test_largest_blobs_are_in_order_and_named(store: Store) -> None:
    """Equal sizes by digest; a data name comes before the names in runs; the first run by id."""
    for number in range(5):
        run(store, f"r{number}", {f"of{number}": b"x" * 10, "other": bytes([number]) * 10})
    store_data(store, b"\2" * 10, "chosen")
    found = data_usage_stats(store, largest=100).largest
    assert [blob.ref for blob in found] == sorted(blob.ref for blob in found)
    named = {(blob.references, blob.name, blob.run_id) for blob in found}
    assert named == {
        (5, "of0", "r0"),
        (2, "chosen", None),
        *((1, "other", f"r{number}") for number in (0, 1, 3, 4)),
    }
    assert data_usage_stats(store, largest=0).largest == ()
    assert data_usage_stats(store, largest=2).largest == found[:2]


# requests and what happens meanwhile


def test_it_costs_three_listings_beside_the_records() -> None:
    bare = MemoryStore()
    for number in range(20):
        run(GuardedStore(bare), f"r{number}", {"a": number, "b": b"%d" % number}, "p")
        store_data(GuardedStore(bare), f"text {number}", f"n{number}")
    records, everything = CountingStore(bare), CountingStore(bare)
    current_manifests(records)
    list_data(records)

    data_usage_stats(everything)

    assert everything.calls - records.calls == {"list": 3, "level": 2}
    assert not records.calls - everything.calls
    touched = {key for verb, key in everything.log if verb not in ("list", "level")}
    assert not [key for key in touched if key.startswith((layout.BLOBS, layout.PINS))]


class Meanwhile(SteppedStore):
    """Lets ``happen`` happen right before the ``at``-th request, from 1."""

    def __init__(self, inner: Store, at: int, happen: Callable[[], object]) -> None:
        super().__init__(inner)
        self.at, self.happen, self.count = at, happen, 0

    def step(self, verb: str, key: str, size: int, call: Callable[[], T]) -> T:
        self.count += 1
        if self.count == self.at:
            self.happen()
        return call()


class Whole(WrapperStore):
    """Lists at once, so that what comes while a listing is read is not in it."""

    def list(self, prefix: str, *, after: str = "") -> Iterator[Stat]:
        return iter([*self.inner.list(prefix, after=after)])


def test_a_run_stored_meanwhile_is_neither_garbage_nor_missing() -> None:
    """Whichever of the requests it comes before."""

    def before() -> Store:
        bare = Whole(MemoryStore(max_workers=1))
        run(GuardedStore(bare), "r1", {"x": A}, "p")
        store_data(GuardedStore(bare), C, "n")
        return bare

    counting = CountingStore(before())
    data_usage_stats(counting)
    for at in range(1, counting.calls.total() + 1):
        bare = before()

        def later(bare: Store = bare) -> None:
            run(GuardedStore(bare), "r2", {"x": b"new", "y": A}, "p")
            store_data(GuardedStore(bare), b"newer", "m")

        watched = Meanwhile(bare, at, later)
        found = data_usage_stats(watched)
        assert watched.count >= at
        assert found.unreferenced == found.missing == found.damaged == Amount(), at


def test_how_far_it_is_is_told(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """To the observer; the log is for what happened."""
    monkeypatch.setattr(usage, "_REPORT_EVERY", 2)
    for number in range(5):
        store_data(store, b"%d" % number, "n")
    seen: list[Event] = []
    data_usage_stats(store, observe=seen.append)
    assert [event for event in seen if event.subject == layout.BLOBS] == [
        Event(events.PROGRESS, layout.BLOBS, {"done": done, "total": None, "unit": "objects"})
        for done in (2, 4)
    ]
    with caplog.at_level("INFO", "mltrack_tasks"):
        data_usage_stats(store)
    assert caplog.messages == []


# the law: totals are those of the raw objects

_runs = st.builds(
    dict,
    run_id=st.sampled_from(["r1", "r2", "r3"]),
    data=st.dictionaries(st.sampled_from("ab"), st.sampled_from([A, B, C, 1, "text", {"k": [1.5]}])),
    outputs=st.dictionaries(st.sampled_from("ab"), st.sampled_from([A, B, C])),
    project=st.sampled_from([None, "p", "q", "(none)"]),
    run_type=st.sampled_from(["experiment", "production"]),
    started_at=st.sampled_from([None, MAY, JUNE]),
)
_steps = st.lists(
    st.tuples(st.just("run"), _runs)
    | st.tuples(st.just("name"), st.tuples(st.sampled_from([A, C, 2]), st.sampled_from(["n", "m"])))
    | st.tuples(st.just("orphan"), st.binary(min_size=1, max_size=3))
    | st.tuples(st.sampled_from(["forget", "lose"]), st.just(None)),
    max_size=8,
)


def take(store: Store, raw: RawObjects, verb: str, thing: Any) -> None:
    if verb == "run":
        run(store, if_exists="revise", **thing)
    elif verb == "name":
        store_data(store, *thing)
    elif verb == "orphan":
        orphan(store, thing)
    elif verb == "forget" and any(key.startswith("names/n/") for key in raw.list()):
        forget_data(store, "n")
    elif verb == "lose":
        for key in sorted(key for key in raw.list() if key.startswith("data/") and "/data." in key)[:1]:
            raw.delete(key)


@given(_steps)
def test_totals_are_those_of_the_raw_objects(steps: list[tuple[str, Any]]) -> None:
    bare = MemoryStore()
    raw = RawObjects(bare.objects)
    for verb, thing in steps:
        take(GuardedStore(bare), raw, verb, thing)
    found = data_usage_stats(bare, largest=1000)
    assert found.to_json() == expected(raw, found)
    assert json.loads(json.dumps(found.to_json())) == found.to_json()


def expected(raw: RawObjects, found: UsageStats) -> dict[str, Any]:
    """The same figures, counted blob by blob and reference by reference."""
    keys = sorted(raw.list())
    sizes = {key: len(raw.get(key) or b"") for key in keys if key.startswith("data/")}
    blobs = {key: size for key, size in sizes.items() if "/data." in key}
    runs, references, named = read_records(raw, keys)
    size_of = {ref["storage_path"]: ref["size_bytes"] for _, ref in [*references, *named]} | blobs
    used = {ref["storage_path"] for _, ref in [*references, *named]}
    pinned = {key.split("/")[3] for key in keys if key.startswith("runs/by_data/")}

    def count(number: int, chosen: list[dict[str, Any]]) -> dict[str, int]:
        paths = [ref["storage_path"] for ref in chosen]
        referenced, unique = sum(size_of[p] for p in paths), sum(size_of[p] for p in set(paths))
        return {
            **{"runs": number, "references": len(paths), "referenced_bytes": referenced},
            **{"blobs": len(set(paths)), "unique_bytes": unique, "saved_bytes": referenced - unique},
        }

    def amount(chosen: dict[str, int]) -> dict[str, int]:
        return {"objects": len(chosen), "size_bytes": sum(chosen.values())}

    def grouped(names: tuple[str, ...]) -> list[dict[str, Any]]:
        groups = {tuple(each[name] for name in names) for each in runs}
        return [
            dict(zip(names, group, strict=True))
            | count(
                sum(tuple(each[n] for n in names) == group for each in runs),
                [ref for each, ref in references if tuple(each[n] for n in names) == group],
            )
            for group in groups
        ]

    def by_size(name: str) -> list[dict[str, Any]]:
        return sorted(grouped((name,)), key=lambda g: (-g["unique_bytes"], g[name] is None, g[name] or ""))

    loose = {key: size for key, size in blobs.items() if key not in used}
    everything = [ref for _, ref in [*named, *references]]
    wanted = ("project", "run_type", "month")
    order: Callable[[dict[str, Any]], Any] = lambda g: (  # noqa: E731
        *(g["project"] is None, g["project"] or "", g["run_type"], g["month"]),
    )
    return {
        "location": found.location,
        "groups": sorted(grouped(wanted), key=order),
        "projects": by_size("project"),
        "run_types": by_size("run_type"),
        "months": sorted(grouped(("month",)), key=lambda group: group["month"]),
        "total": count(len(runs), everything),
        "named": count(0, [ref for _, ref in named]),
        "stored": amount(blobs),
        "held": amount({key: size for key, size in loose.items() if key.split("/")[2] in pinned}),
        "unreferenced": amount({k: size for k, size in loose.items() if k.split("/")[2] not in pinned}),
        "missing": amount({path: size_of[path] for path in used if path not in blobs}),
        "damaged": amount({}),
        "side_objects": amount({key: size for key, size in sizes.items() if key not in blobs}),
        "foreign": amount({}),
        "largest": [largest_blob(key, blobs[key], named, references) for key in by_weight(blobs)],
    }


Named = list[tuple[dict[str, Any], dict[str, Any]]]


def read_records(raw: RawObjects, keys: list[str]) -> tuple[list[dict[str, Any]], Named, Named]:
    """The current manifests, their references and those of names, in the order that a blob is known by."""
    current: dict[str, dict[str, Any]] = {}
    named = []
    for key in keys:
        if key.startswith(("manifests/", "names/")):
            record = json.loads(raw.get(key) or b"")
            if key.startswith("names/"):
                named.append((record["provenance"]["at"], key, record["content"]))
            else:  # revisions follow each other in key order
                month = (record["content"]["started_at"] or record["provenance"]["at"])[:7]
                current[record["content"]["run_id"]] = {**record["content"], "month": month}
    runs = [current[run_id] for run_id in sorted(current)]
    references = [
        (each, {**ref, "name": name})
        for each in runs
        for group in ("data", "inputs", "outputs")
        for name, ref in sorted(each[group].items())
    ]
    return (
        runs,
        references,
        [({"run_id": None}, each["ref"]) for _, _, each in sorted(named, key=lambda n: n[:2])],
    )


def by_weight(blobs: dict[str, int]) -> list[str]:
    return sorted(blobs, key=lambda key: (-blobs[key], key))


def largest_blob(key: str, size: int, named: Named, references: Named) -> dict[str, Any]:
    known = [(each, ref) for each, ref in [*named, *references] if ref["storage_path"] == key]
    first, ref = known[0] if known else ({"run_id": None}, {"name": None})
    return {
        **{"ref": f"sha256:{key.split('/')[2]}.{key.rpartition('.')[2]}", "size_bytes": size},
        **{"references": len(known), "name": ref["name"], "run_id": first["run_id"]},
    }


# what people get to see


def test_rows_hold_sizes_for_people_and_exact_ones(store: Store) -> None:
    run(store, "r1", {"x": b"x" * 2048, "y": b"x" * 2048})
    assert data_usage_stats(store).rows() == [
        {
            **{"project": "(none)", "type": "experiment", "month": "2024-05", "runs": 1, "references": 2},
            **{"referenced": "4.00 KiB", "unique": "2.00 KiB", "saved": "2.00 KiB", "blobs": 1},
            **{"referenced_bytes": 4096, "unique_bytes": 2048, "saved_bytes": 2048},
        }
    ]


def test_many_projects_and_months_are_folded(store: Store) -> None:
    for number in range(MAX_BARS + 3):
        began = MAY + timedelta(days=31 * number)
        run(store, f"r{number}", {"x": b"x" * (number + 1)}, f"project {number}", started_at=began)
    picture = usage_chart(data_usage_stats(store))
    assert ">4 others<" in picture
    assert ">4 earlier<" in picture
    assert ">10 B<" in picture  # 1 + 2 + 3 + 4: the smallest, which are the earliest too
    assert f">project {MAX_BARS + 2}<" in picture
    assert ">project 3<" not in picture


def test_exactly_as_many_as_fit_are_not_folded(store: Store) -> None:
    for number in range(MAX_BARS):
        run(store, f"r{number}", {}, f"p{number}")
    assert "others" not in usage_chart(data_usage_stats(store))


def test_named_data_has_its_bar(store: Store) -> None:
    run(store, "r", {"x": C}, "small")
    store_data(store, A, "n")
    picture = usage_chart(data_usage_stats(store))
    assert picture.index("(named data)") < picture.index(">small<")


def test_the_chart_as_a_file(store: Store, tmp_path: Path) -> None:
    run(store, "r", {"x": A}, "p")
    found, target = data_usage_stats(store), tmp_path / "new" / "usage.svg"
    assert save_chart(found, str(target)) == target
    assert target.read_text(encoding="utf-8") == usage_chart(found)
    assert save_chart(found, target) == target
    run(store, "r2", {"x": B}, "p")
    with pytest.raises(ConflictError, match=r"usage\.svg"):
        save_chart(data_usage_stats(store), target)
    assert target.read_text(encoding="utf-8") == usage_chart(found)
    with pytest.raises(InvalidInputError):
        save_chart(found, "")


def test_what_migrations_hold_is_not_unreferenced(tmp_path: Path) -> None:
    """Packs, blobs and lists of files count as named, under the migration's name."""
    store = GuardedStore(MemoryStore())
    for name, size in (("small", 5_000), ("large", 2_000_000)):
        (tmp_path / "r").mkdir(exist_ok=True)
        (tmp_path / "r" / name).write_bytes(name.encode() * size)
    migrate_to_s3(store, tmp_path, name="nightly", observe=lambda event: None)

    stats = data_usage_stats(store)

    assert stats.unreferenced == Amount(0, 0)
    assert stats.missing == Amount(0, 0)
    assert stats.named.blobs == stats.stored.objects == 3
    assert {blob.name for blob in stats.largest} == {"migration nightly"}


def test_what_versions_of_models_hold_is_not_unreferenced(
    place: Place, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Files and training data of each version count as named; a damaged record hides no other."""
    trained_on = store_data(place.store, C)
    folder = tmp_path / "model"
    folder.mkdir()
    for number in range(2):
        (folder / "shared").write_bytes(A)
        (folder / "own").write_bytes(B + b"%d" % number)
        made = register_model(place.store, None, "churn", folder, training_data={"rows": trained_on})
    promote_model(place.store, "churn", made.version)

    stats = data_usage_stats(place.store)

    assert stats.unreferenced == stats.missing == stats.foreign == Amount(0, 0)
    assert (stats.named.blobs, stats.named.references) == (4, 1 + 6)
    assert f"model churn {made.version}" in {blob.name for blob in stats.largest}

    place.raw.put(modelkeys.version_key("churn", made.version), b"{}")
    assert data_usage_stats(place.store).named.references == 1 + 6  # as its record beside the folder says
    place.raw.put(modelkeys.promoted_key("churn", made.version), b"{}")
    assert data_usage_stats(place.store).named.references == 1 + 3
    assert "left out" in caplog.text
