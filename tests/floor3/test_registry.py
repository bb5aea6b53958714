"""The registry over every kind of store: registering, promoting, rolling back, deprecating."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from mltrack_tasks import canonical, layout, modelkeys, registry
from mltrack_tasks.content import store_data
from mltrack_tasks.digest import sha256_hex
from mltrack_tasks.errors import (
    ConflictError,
    GateError,
    IntegrityError,
    InvalidInputError,
    NotFoundError,
    TransientError,
)
from mltrack_tasks.models import ModelVersion
from mltrack_tasks.promotions import Promotion
from mltrack_tasks.registry import identity, registering
from mltrack_tasks.runs import store_run
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.guard import GuardedStore
from mltrack_tasks.stores.memory import MemoryStore
from mltrack_tasks.stores.observed import CountingStore, FaultyStore
from tests.floor3.conftest import Place
from tests.settings import STRIDE

FILES = {"MLmodel": b"flavors: {}\n", "metadata.json": b'{"their": "own"}', "weights/a.bin": b"\0" * 5_000}


def folder(root: Path, files: dict[str, bytes]) -> Path:
    for path, body in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(body)
    return root


def register(store: Store, root: Path, number: int = 0, model: str = "churn", **more: Any) -> ModelVersion:
    files = {**FILES, "number": str(number).encode()}
    return registry.register_model(store, None, model, folder(root / f"m{number}", files), **more)


def content_of(store: Store, place: str) -> dict[str, bytes]:
    return {stat.key.removeprefix(place): store.get(stat.key) for stat in store.list(place)}


def test_a_folder_becomes_a_version_with_its_files(place: Place, tmp_path: Path) -> None:
    made = register(place.store, tmp_path, description="first", tags={"team": "x"}, metrics={"auc": 0.9})
    assert made.created
    assert modelkeys.is_version(made.version)
    assert made.version[1:9] == datetime.now(UTC).strftime("%Y%m%d")
    assert made.version.endswith(made.tree_digest[:6])
    files = {**FILES, "number": b"0"}
    folder = modelkeys.development_folder("churn", made.version)
    assert content_of(place.store, folder) == files
    assert made.s3_location == f"{place.store.location}/{folder.rstrip('/')}"
    again = registry.resolve_model(place.store, "churn", made.version)
    assert again == made
    assert (again.metrics, again.tags, again.description) == ({"auc": 0.9}, {"team": "x"}, "first")
    assert [file.path for file in again.files] == sorted(files)


def test_equal_bytes_are_one_version_and_the_new_run_is_kept(place: Place, tmp_path: Path) -> None:
    for run in ("r1", "r2"):
        store_run(place.store, run, project="p")
    first = registry.register_model(place.store, "r1", "churn", folder(tmp_path / "a", FILES))
    again = registry.register_model(place.store, "r2", "churn", folder(tmp_path / "b", FILES), tags={"k": 1})
    assert (first.created, again.created) == (True, False)
    assert again.version == first.version
    assert again.source_runs == ("r1", "r2")
    assert registry.resolve_model(place.store, "churn", "latest").source_runs == ("r1", "r2")
    assert registry.list_models(place.store)[0].versions == (first.version,)


def test_the_executable_bit_is_part_of_a_version(store: Store, tmp_path: Path) -> None:
    root = folder(tmp_path / "m", FILES)
    plain = registry.register_model(store, None, "m", root)
    (root / "MLmodel").chmod(0o755)
    other = registry.register_model(store, None, "m", root)
    assert plain.tree_digest != other.tree_digest
    assert [file.executable for file in other.files] == [True, False, False]


def test_two_days_and_midnight_on_two_machines(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever gives the tree its id first decides the day, whatever the clocks of the others say."""
    days = iter([date(2024, 1, 15), date(2024, 1, 16)])
    monkeypatch.setattr(identity, "today", lambda: next(days))
    first = register(store, tmp_path)
    assert first.version.startswith("v20240115_")
    again = register(store, tmp_path)
    assert again.version == first.version
    # Both have claimed an id, of two days, before either has given it to the tree.
    digest = "ab" * 32
    monkeypatch.setattr(identity, "today", lambda: date(2024, 1, 15))
    early = identity._free_id(store, "n", digest)
    monkeypatch.setattr(identity, "today", lambda: date(2024, 1, 16))
    late = identity._free_id(store, "n", digest)
    assert early != late
    assert identity._bind(store, "n", digest, late) == late
    assert identity._bind(store, "n", digest, early) == late
    assert identity.claim_version(store, "n", digest) == late


def test_ids_of_trees_whose_first_digits_are_equal(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "today", lambda: date(2024, 1, 15))
    trees = ["abcdef" + "0" * 58, "abcdef00" + "1" * 56, "abcdef0000" + "2" * 54, "abcdef" + "3" * 58]
    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(lambda tree: identity.claim_version(store, "m", tree), trees * 4))
    assert len(set(ids)) == 4
    assert ids == ids[:4] * 4
    assert all(modelkeys.is_version(each) for each in ids)


def test_latest_is_what_was_registered_last(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the times in the records: ids of one day are in no order, and a copy is written in any other."""
    monkeypatch.setattr(identity, "today", lambda: date(2024, 1, 15))
    ids = []
    for number in range(4):
        ids.append(register(store, tmp_path, number).version)
        assert registry.resolve_model(store, "churn", "latest").version == ids[-1]
    assert ids != sorted(ids)
    register(store, tmp_path, 0)  # the same bytes again are no later version
    copy = MemoryStore()
    for stat in reversed(list(store.list("models/"))):
        copy.create(stat.key, store.get(stat.key))
    for each in store, copy:
        assert registry.resolve_model(each, "churn", "latest").version == ids[-1]


def test_a_large_version_gets_its_folder_when_asked_for_or_promoted(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = register(store, tmp_path, 1).size_bytes
    monkeypatch.setattr(registering, "MATERIALISED_UP_TO", large - 1)
    made = register(store, tmp_path, 2)
    assert made.s3_location is None
    assert register(store, tmp_path, 2).s3_location is None
    folder = modelkeys.development_folder("churn", made.version)
    assert register(store, tmp_path, 2, materialize=True).s3_location == f"{store.location}/{folder[:-1]}"
    assert content_of(store, folder) == {**FILES, "number": b"2"}
    made = register(store, tmp_path, 3)
    registry.promote_model(store, "churn", made.version)
    folder = modelkeys.promoted_folder("churn", made.version)
    assert registry.resolve_model(store, "churn").s3_location == f"{store.location}/{folder[:-1]}"
    monkeypatch.setattr(registering, "MATERIALISED_UP_TO", large)
    assert register(store, tmp_path, 4, materialize=False).s3_location is None
    assert register(store, tmp_path, 5).s3_location is not None


def test_twenty_versions_store_what_they_share_once(store: Store, tmp_path: Path) -> None:
    shared = {f"shared/{n}": os.urandom(1_000) for n in range(9)}
    for number in range(20):
        files = {**shared, "own": os.urandom(1_000)}
        registry.register_model(store, None, "m", folder(tmp_path / str(number), files))
    blobs = [stat for stat in store.list(layout.BLOBS) if layout.parse_blob_key(stat.key)]
    assert len(blobs) == 9 + 20
    assert len(registry.list_models(store)[0].versions) == 20


def test_a_run_and_refs_of_this_store(store: Store, tmp_path: Path) -> None:
    weights = store_data(store, b"weights", "weights.bin")
    train = store_data(store, {"rows": 3}, "train")
    store_run(
        store,
        "run/1",
        project="p",
        inputs={"train": train},
        outputs={"model/weights.bin": weights, "scores": {"a": 1}},
        metrics={"auc": 0.8},
        params={"depth": 3},
        tags={"a": "b"},
    )
    made = registry.register_model(store, "run/1", "from run", "model")
    assert [file.path for file in made.files] == ["weights.bin"]
    assert (made.metrics, made.params, made.tags) == ({"auc": 0.8}, {"depth": 3}, {"a": "b"})
    assert made.training_data["train"].hash == train.hash
    assert store.head(layout.model_pin_key(train.hash, "from run")) is not None
    single = registry.register_model(store, None, "one", weights)
    assert [(f.path, f.digest) for f in single.files] == [("weights.bin", weights.hash)]
    assert single.tree_digest == made.tree_digest
    mapped = registry.register_model(store, None, "two", {"w": str(weights), "d/x": weights})
    assert [file.path for file in mapped.files] == ["d/x", "w"]
    with pytest.raises(NotFoundError, match="nothing of that name"):
        registry.register_model(store, "run/1", "m", "no such model")


@pytest.mark.parametrize("model", ["a/b", "../x", "ü m", "a%2Fb", "_by_digest"])
def test_names_with_slashes_stay_one_segment(store: Store, tmp_path: Path, model: str) -> None:
    made = register(store, tmp_path, model=model)
    registry.promote_model(store, model, made.version)
    assert [one.name for one in registry.list_models(store)] == [model]
    assert registry.resolve_model(store, model).version == made.version
    for stat in store.list("models/"):
        assert stat.key.split("/")[2] == layout.encode_segment(model)


def test_links_and_what_is_no_model_are_refused(store: Store, tmp_path: Path) -> None:
    root = folder(tmp_path / "m", FILES)
    (root / "link").symlink_to("/etc/passwd")
    with pytest.raises(InvalidInputError, match="symbolic link"):
        registry.register_model(store, None, "m", root)
    (root / "link").unlink()
    os.mkfifo(root / "pipe")
    with pytest.raises(InvalidInputError, match="pipe"):
        registry.register_model(store, None, "m", root)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInputError, match="no file"):
        registry.register_model(store, None, "m", tmp_path / "empty")
    with pytest.raises(NotFoundError, match="absent"):
        registry.register_model(store, None, "m", tmp_path / "absent")
    with pytest.raises(InvalidInputError):
        registry.register_model(store, None, "..", tmp_path)
    assert not list(store.list("models/"))


def test_promotion_moves_the_alias_and_copies_the_files(place: Place, tmp_path: Path) -> None:
    store = CountingStore(place.store)
    one, two = (register(store, tmp_path, number) for number in (1, 2))
    store.received.clear()
    first = registry.promote_model(store, "churn", one.version, reason="good")
    assert (first.number, first.version, first.previous, first.created) == (1, one.version, None, True)
    second = registry.promote_model(store, "churn", "latest")
    assert (second.number, second.version, second.previous) == (2, two.version, one.version)
    folder = modelkeys.promoted_folder("churn", two.version)
    assert content_of(place.store, folder) == {**FILES, "number": b"2"}
    now = registry.resolve_model(place.store, "churn", "production")
    assert now.version == two.version
    assert now.s3_location == f"{place.store.location}/{folder.rstrip('/')}"
    assert [event.version for event in registry.model_history(place.store, "churn")] == [
        one.version,
        two.version,
    ]
    again = registry.promote_model(store, "churn", two.version)
    assert (again.number, again.created) == (2, False)
    assert first.actor
    assert first.reason == "good"


def test_rolling_back_goes_further_back_each_time(store: Store, tmp_path: Path) -> None:
    a, b, c = (register(store, tmp_path, number).version for number in range(3))
    for version in (a, b, c):
        registry.promote_model(store, "churn", version)
    assert registry.rollback_model(store, "churn").version == b
    assert registry.rollback_model(store, "churn").version == a
    with pytest.raises(NotFoundError, match="no version before"):
        registry.rollback_model(store, "churn")
    assert registry.rollback_model(store, "churn", to=c).version == c
    other = register(store, tmp_path, 9).version
    with pytest.raises(InvalidInputError, match="never stood"):
        registry.rollback_model(store, "churn", to=other)
    with pytest.raises(ConflictError):
        registry.rollback_model(store, "churn", if_current=1)
    registry.remove_alias(store, "churn", "production")
    with pytest.raises(NotFoundError):
        registry.resolve_model(store, "churn")
    assert registry.rollback_model(store, "churn").version == c
    assert [event.number for event in registry.model_history(store, "churn")] == list(range(1, 9))


def test_a_promotion_is_taken_back_only_while_it_is_in_force(store: Store, tmp_path: Path) -> None:
    a, b = (register(store, tmp_path, number).version for number in range(2))
    first = registry.promote_model(store, "churn", a)
    second = registry.promote_model(store, "churn", b)
    assert registry.undo_promotion(store, first, reason="x") is None
    undone = registry.undo_promotion(store, second, reason="x")
    assert undone is not None
    assert undone.version == a
    assert registry.undo_promotion(store, second, reason="x") == undone
    assert len(registry.model_history(store, "churn")) == 3


def test_a_repeated_request_appends_nothing(store: Store, tmp_path: Path) -> None:
    a, b = (register(store, tmp_path, number).version for number in range(2))
    first = registry.promote_model(store, "churn", a, request_id="t1")
    registry.promote_model(store, "churn", b)
    again = registry.promote_model(store, "churn", a, request_id="t1")
    assert (again.number, again.created) == (first.number, False)
    assert registry.resolve_model(store, "churn").version == b


def test_what_an_alias_stood_for_at_a_time(store: Store, tmp_path: Path) -> None:
    a, b = (register(store, tmp_path, number).version for number in range(2))
    first = registry.promote_model(store, "churn", a)
    second = registry.promote_model(store, "churn", b)
    assert registry.model_at(store, "churn", "production", first.at).version == a
    assert registry.model_at(store, "churn", "production", second.at).version == b
    with pytest.raises(NotFoundError):
        registry.model_at(store, "churn", "production", first.at - timedelta(days=1))
    with pytest.raises(InvalidInputError):
        registry.model_at(store, "churn", "production", datetime(2024, 1, 1))


@pytest.mark.parametrize("alias", ["latest", "LATEST", "v1", "v20240115_abcdef", "", "..", "a\nb"])
def test_names_that_no_alias_may_have(store: Store, tmp_path: Path, alias: str) -> None:
    made = register(store, tmp_path)
    with pytest.raises(InvalidInputError):
        registry.promote_model(store, "churn", made.version, alias)


GATES: list[tuple[dict[str, Any], bool]] = [
    ({"kind": "metric", "metric": "auc", "at_least": 0.9}, True),
    ({"kind": "metric", "metric": "auc", "at_least": 0.95}, False),
    ({"kind": "metric", "metric": "auc", "at_most": 0.5}, False),
    ({"kind": "metric", "metric": "missing", "at_least": 0}, False),
    ({"kind": "metric", "metric": "nan", "at_least": 0}, False),
    ({"kind": "not_worse", "metric": "auc"}, False),
    ({"kind": "not_worse", "metric": "auc", "tolerance": 0.1}, True),
    ({"kind": "not_worse", "metric": "auc", "higher_is_better": False}, True),
    ({"kind": "not_worse", "metric": "missing"}, False),
    ({"kind": "tags", "tags": {"team": "x"}}, True),
    ({"kind": "tags", "tags": {"team": None}}, True),
    ({"kind": "tags", "tags": {"team": "y"}}, False),
    ({"kind": "signature"}, False),
    ({"kind": "files"}, True),
]


@pytest.mark.parametrize(("gate", "passes"), GATES)
def test_gates(store: Store, tmp_path: Path, gate: dict[str, Any], passes: bool) -> None:
    old = register(store, tmp_path, 1, metrics={"auc": 0.95}).version
    tags, metrics = {"team": "x"}, {"auc": 0.9, "nan": float("nan")}
    new = register(store, tmp_path, 2, metrics=metrics, tags=tags).version
    registry.promote_model(store, "churn", old)
    if passes:
        done = registry.promote_model(store, "churn", new, gates=[gate])
        assert [report["passed"] for report in done.gates] == [True]
        assert registry.model_history(store, "churn")[-1] == done
        return
    with pytest.raises(GateError, match="was not promoted") as caught:
        registry.promote_model(store, "churn", new, gates=[gate])
    assert caught.value.details["gates"][0]["passed"] is False
    assert registry.resolve_model(store, "churn").version == old


def test_a_function_as_a_gate(store: Store, tmp_path: Path) -> None:
    a, b = (register(store, tmp_path, number).version for number in range(2))
    seen: list[tuple[str, str | None]] = []

    def judge(version: ModelVersion, current: ModelVersion | None) -> bool | str:
        seen.append((version.version, current.version if current else None))
        return True if version.version == a else "not that one"

    registry.promote_model(store, "churn", a, gates=[judge])
    with pytest.raises(InvalidInputError, match="judge: not that one"):
        registry.promote_model(store, "churn", b, gates=[judge])
    assert seen == [(a, None), (b, a)]
    with pytest.raises(InvalidInputError, match="gave None"):
        registry.promote_model(store, "churn", b, gates=[lambda version, current: None])


@pytest.mark.parametrize("gates", ["x", {"kind": "files"}, [3], [{"kind": "no"}], [{"kind": "metric"}], [{}]])
def test_what_is_no_gate(store: Store, tmp_path: Path, gates: Any) -> None:
    made = register(store, tmp_path)
    with pytest.raises(InvalidInputError):
        registry.promote_model(store, "churn", made.version, gates=gates)


def test_a_policy_guards_its_alias(store: Store, tmp_path: Path) -> None:
    made = register(store, tmp_path, metrics={"auc": 0.5})
    gate = {"kind": "metric", "metric": "auc", "at_least": 0.9}
    registry.set_policy(store, "churn", "production", [gate])
    registry.set_policy(store, "churn", "production", [gate])
    assert len(list(store.list(modelkeys.policy_folder("churn", "production")))) == 1
    with pytest.raises(InvalidInputError, match=r"auc is 0\.5"):
        registry.promote_model(store, "churn", made.version)
    assert registry.promote_model(store, "churn", made.version, "champion").number == 1
    registry.set_policy(store, "churn", "production", [])
    assert registry.promote_model(store, "churn", made.version).number == 1
    with pytest.raises(InvalidInputError):
        registry.set_policy(store, "churn", "champion", [gate])
    with pytest.raises(InvalidInputError, match="function"):
        registry.set_policy(store, "churn", "staging", [lambda a, b: True])


def test_a_deprecated_version_is_out_of_use(store: Store, tmp_path: Path) -> None:
    a, b = (register(store, tmp_path, number).version for number in range(2))
    registry.promote_model(store, "churn", b)
    with pytest.raises(ConflictError, match="production"):
        registry.deprecate_version(store, "churn", b)
    assert registry.resolve_model(store, "churn", b).deprecated is None
    gone = registry.deprecate_version(store, "churn", a, reason="leaks")
    assert gone.deprecated == "leaks"
    with pytest.raises(InvalidInputError, match="leaks"):
        registry.promote_model(store, "churn", a)
    assert registry.resolve_model(store, "churn", "latest").version == b
    assert registry.resolve_model(store, "churn", a).deprecated == "leaks"


def test_threads_promote_and_every_promotion_is_there_once(place: Place, tmp_path: Path) -> None:
    versions = [register(place.store, tmp_path, number).version for number in range(8)]

    def promote(version: str) -> Promotion:
        return registry.promote_model(place.store, "churn", version)

    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(promote, versions))
    history = registry.model_history(place.store, "churn")
    assert [event.number for event in history] == list(range(1, 9))
    assert sorted(event.version or "" for event in history) == sorted(versions)
    assert sorted(event.number for event in done) == list(range(1, 9))
    before = [None, *(event.version for event in history[:-1])]
    assert [event.previous for event in history] == before


def complete(store: Store) -> None:
    """Whoever resolves the alias finds a folder that is complete and right."""
    try:
        found = registry.resolve_model(store, "churn")
    except NotFoundError:
        return
    here = content_of(store, modelkeys.promoted_folder("churn", found.version))
    assert {path: sha256_hex(body) for path, body in here.items()} == {f.path: f.digest for f in found.files}
    assert found.s3_location is not None
    assert "/registry/" in found.s3_location


@pytest.mark.parametrize("how", ["before", "after", "crash"])
def test_a_failure_at_every_step_leaves_old_or_new(tmp_path: Path, how: Any, no_pauses: list[float]) -> None:
    old, new = folder(tmp_path / "old", FILES), folder(tmp_path / "new", {**FILES, "number": b"2"})
    for step in range(1, 200, STRIDE):
        bare = MemoryStore(max_workers=1)
        store = GuardedStore(bare)
        first = registry.register_model(store, None, "churn", old).version
        registry.promote_model(store, "churn", first)
        faulty = FaultyStore(GuardedStore(bare), step, how)
        try:
            made = registry.register_model(faulty, None, "churn", new)
            registry.promote_model(faulty, "churn", made.version, request_id="r")
            finished = True
        except TransientError:
            finished = False
        complete(store)
        made = registry.register_model(store, None, "churn", new)
        done = registry.promote_model(store, "churn", made.version, request_id="r")
        assert (done.number, done.version) == (2, made.version), step
        complete(store)
        assert len(registry.model_history(store, "churn")) == 2
        if finished and faulty.count < step:
            return
    raise AssertionError("more steps than were tried")


def test_a_forged_record_is_refused(place: Place, tmp_path: Path) -> None:
    made = register(place.store, tmp_path)
    key = modelkeys.version_key("churn", made.version)
    record = json.loads(place.store.get(key))
    record["content"]["files"][0]["path"] = "../../etc/x"
    place.raw.put(key, json.dumps(record).encode())
    with pytest.raises(IntegrityError):
        registry.promote_model(place.store, "churn", made.version)
    # With a tree digest and an id that agree with the path.
    files = sorted(record["content"]["files"], key=lambda file: file["path"])
    rows = [{part: file[part] for part in ("digest", "executable", "path")} for file in files]
    tree = sha256_hex(canonical.dumps(rows))
    forged = f"v20240115_{tree[:6]}"
    record["content"] |= {"files": files, "tree_digest": tree, "version": forged}
    place.raw.put(modelkeys.version_key("churn", forged), canonical.dumps(record))
    with pytest.raises(IntegrityError, match="not plainly relative"):
        registry.promote_model(place.store, "churn", forged)
    with pytest.raises(IntegrityError, match="not plainly relative"):
        registry.download_model(place.store, "churn", forged, tmp_path / "a" / "b" / "c")
    assert not (tmp_path / "a").exists()
    assert not [name for name in place.raw.list() if "/registry/" in name]


def test_a_gap_in_the_history_is_no_older_version(store: Store, tmp_path: Path) -> None:
    a, b = (register(store, tmp_path, number).version for number in range(2))
    registry.promote_model(store, "churn", a)
    registry.promote_model(store, "churn", b)
    registry.promote_model(store, "churn", a)
    place = modelkeys.alias_folder("churn", "production")
    store.delete([modelkeys.numbered_key(place, 2)])
    with pytest.raises(IntegrityError, match="not 2"):
        registry.resolve_model(store, "churn")


def test_one_damaged_alias_hides_no_other(place: Place, tmp_path: Path) -> None:
    made = register(place.store, tmp_path).version
    for alias in ("production", "staging", "gap", "newer"):
        registry.promote_model(place.store, "churn", made, alias)
    registry.promote_model(place.store, "other", register(place.store, tmp_path, model="other").version)
    keys = {
        alias: modelkeys.numbered_key(modelkeys.alias_folder("churn", alias), 1)
        for alias in ("staging", "gap", "newer")
    }
    place.raw.put(keys["staging"], b"{}")
    place.raw.put(modelkeys.numbered_key(modelkeys.alias_folder("churn", "gap"), 3), b"{}")
    place.raw.put(keys["newer"], b'{"content":{},"format":2,"provenance":{}}')
    churn, other = registry.list_models(place.store)
    assert (churn.name, churn.versions, dict(churn.aliases)) == ("churn", (made,), {"production": made})
    assert set(churn.damaged) == {"staging", "gap", "newer"}
    assert "not 2" in churn.damaged["gap"]
    assert keys["staging"] in churn.damaged["staging"]
    assert "Upgrade" in churn.damaged["newer"]
    assert (dict(other.aliases), dict(other.damaged)) == ({"production": other.versions[0]}, {})
    with pytest.raises(IntegrityError):  # who takes a version out of use has to know them all
        registry.deprecate_version(place.store, "churn", made)


def test_a_foreign_object_in_the_folder_is_not_promoted(place: Place, tmp_path: Path) -> None:
    made = register(place.store, tmp_path)
    place.raw.put(modelkeys.promoted_folder("churn", made.version) + "code/evil.py", b"boom")
    with pytest.raises(IntegrityError, match=r"evil\.py"):
        registry.promote_model(place.store, "churn", made.version)
    with pytest.raises(NotFoundError):
        registry.resolve_model(place.store, "churn")


def test_a_missing_blob_stops_a_promotion(place: Place, tmp_path: Path) -> None:
    made = register(place.store, tmp_path)
    place.store.delete([layout.blob_key(made.files[0].digest, made.files[0].format)])
    with pytest.raises(IntegrityError, match="is gone"):
        registry.promote_model(place.store, "churn", made.version)
    with pytest.raises(NotFoundError):
        registry.resolve_model(place.store, "churn")
