"""What stands behind an alias: whole folders, honest records, and gates asked of what is in force."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

import pytest

from mltrack_tasks import layout, modelkeys, registry
from mltrack_tasks.copies import is_copy
from mltrack_tasks.errors import ConflictError, GateError, IntegrityError, InvalidInputError, NotFoundError
from mltrack_tasks.models import ModelVersion
from mltrack_tasks.records import Record
from mltrack_tasks.registry import identity
from mltrack_tasks.registry.reading import read_version
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.guard import GuardedStore
from mltrack_tasks.stores.memory import MemoryStore
from mltrack_tasks.stores.observed import CountingStore, SteppedStore
from tests.floor3.conftest import Place
from tests.floor3.limits import LARGE

T = TypeVar("T")
BETTER = {"kind": "not_worse", "metric": "auc"}


def register(store: Store, root: Path, number: int, **more: Any) -> ModelVersion:
    root.joinpath(str(number)).mkdir()
    root.joinpath(str(number), "weights").write_text(f"weights {number}")
    root.joinpath(str(number), "shared").write_text("the same in all")
    return registry.register_model(store, None, "churn", root / str(number), **more)


def promoted_file(version: ModelVersion, path: str) -> str:
    return modelkeys.promoted_folder("churn", version.version) + path


def forge(place: Place, key: str, content: dict[str, Any]) -> None:
    place.raw.put(key, Record(content, {}).to_bytes())


class Meanwhile(SteppedStore):
    """Does something once, just before the first call of a verb whose key holds a text."""

    def __init__(self, inner: Store, verb: str, text: str, act: Callable[[], object]) -> None:
        super().__init__(inner)
        self.moment, self.act = (verb, text), act
        self.done = False

    def step(self, verb: str, key: str, size: int, call: Callable[[], T]) -> T:
        if not self.done and verb == self.moment[0] and self.moment[1] in key:
            self.done = True
            self.act()
        return call()


@pytest.mark.parametrize("harm", ["overwritten", "deleted"])
def test_a_folder_that_was_harmed_is_mended_by_the_next_promotion(
    place: Place, tmp_path: Path, harm: str
) -> None:
    """A file of equal size was taken for the right one, as the folder's record was there."""
    one, two = (register(place.store, tmp_path, number) for number in range(2))
    registry.promote_model(place.store, "churn", one.version)
    registry.promote_model(place.store, "churn", two.version)
    key = promoted_file(one, "weights")
    place.raw.delete(key)
    if harm == "overwritten":
        place.raw.put(key, b"weights X")
    counting = CountingStore(place.store)
    assert registry.rollback_model(counting, "churn").version == one.version
    assert place.raw.get(key) == b"weights 0"
    assert counting.log.count(("copy", key)) == 1
    assert counting.calls["copy"] == 1  # the other file was found to be right


def test_promoting_what_is_in_force_mends_its_folder(place: Place, tmp_path: Path) -> None:
    made = register(place.store, tmp_path, 1)
    registry.promote_model(place.store, "churn", made.version)
    key = promoted_file(made, "weights")
    place.raw.delete(key)
    place.raw.put(key, b"weights X")
    again = registry.promote_model(place.store, "churn", made.version)
    assert (again.number, again.created) == (1, False)
    assert place.raw.get(key) == b"weights 1"


def test_a_whole_folder_is_not_copied_again(place: Place, tmp_path: Path) -> None:
    one, two = (register(place.store, tmp_path, number) for number in range(2))
    for version in (one, two):
        registry.promote_model(place.store, "churn", version.version)
    counting = CountingStore(place.store)
    registry.rollback_model(counting, "churn")
    registry.promote_model(counting, "churn", two.version, "staging")
    assert counting.calls["copy"] == 0


def test_a_file_whose_blob_is_gone_is_named(place: Place, tmp_path: Path) -> None:
    made = register(place.store, tmp_path, 1)
    lost = next(file for file in made.files if file.path == "weights")
    place.raw.delete(layout.blob_key(lost.digest, lost.format))
    with pytest.raises(IntegrityError, match=r"'weights' of v.* is gone"):
        registry.promote_model(place.store, "churn", made.version)
    with pytest.raises(NotFoundError):
        registry.resolve_model(place.store, "churn")


def test_a_forged_record_of_a_promoted_folder_is_refused(place: Place, tmp_path: Path) -> None:
    """It came before the promotion, and would have been taken for ours."""
    made = register(place.store, tmp_path, 1)
    key = modelkeys.promoted_key("churn", made.version)
    forge(place, key, {**made.to_content(), "metrics": {"auc": 1.0}})
    with pytest.raises(IntegrityError, match="forged"):
        registry.promote_model(place.store, "churn", made.version)
    with pytest.raises(NotFoundError):
        registry.resolve_model(place.store, "churn")
    place.raw.delete(key)
    act = lambda: forge(place, key, {**made.to_content(), "metrics": {"auc": 1.0}})  # noqa: E731
    with pytest.raises(IntegrityError, match="forged"):
        registry.promote_model(Meanwhile(place.store, "create", key, act), "churn", made.version)
    with pytest.raises(NotFoundError):
        registry.resolve_model(place.store, "churn")


def test_no_rollback_to_a_version_whose_record_was_swapped(place: Place, tmp_path: Path) -> None:
    one, two = (register(place.store, tmp_path, number) for number in range(2))
    for version in (one, two):
        registry.promote_model(place.store, "churn", version.version)
    event = registry.model_history(place.store, "churn")[0]
    forged = {**event.to_content(), "tree_digest": "0" * 64}
    key = modelkeys.numbered_key(modelkeys.alias_folder("churn", "production"), 1)
    place.raw.delete(key)
    place.raw.put(key, Record(forged, dict(event.provenance)).to_bytes())
    for to in (None, one.version):
        with pytest.raises(IntegrityError, match="given to the tree"):
            registry.rollback_model(place.store, "churn", to=to)
    with pytest.raises(IntegrityError, match="given to the tree"):
        registry.model_at(place.store, "churn", "production", event.at)
    assert registry.resolve_model(place.store, "churn").version == two.version


@pytest.mark.parametrize("alias", ["champion", "Production"])
def test_no_comparison_with_an_alias_that_never_was(store: Store, tmp_path: Path, alias: str) -> None:
    """A misspelt alias let everything pass."""
    made = register(store, tmp_path, 1, metrics={"auc": 0.5})
    gate = {**BETTER, "alias": alias}
    with pytest.raises(GateError, match=f"no alias {alias}"):
        registry.promote_model(store, "churn", made.version, gates=[gate])
    registry.promote_model(store, "churn", made.version, alias, gates=[gate])  # the first of its own
    registry.remove_alias(store, "churn", alias)
    registry.promote_model(store, "churn", made.version, gates=[gate])  # it was one, and stands for nothing


def test_staging_is_compared_with_a_production_that_is_not_there_yet(store: Store, tmp_path: Path) -> None:
    made = register(store, tmp_path, 1, metrics={"auc": 0.5})
    done = registry.promote_model(store, "churn", made.version, "staging", gates=[BETTER])
    assert done.gates[0]["detail"] == "production stands for no version yet"


def test_a_policy_set_while_files_are_copied_is_asked(store: Store, tmp_path: Path) -> None:
    made = register(store, tmp_path, 1, metrics={"auc": 0.5})
    strict = {"kind": "metric", "metric": "auc", "at_least": 0.9}
    act = lambda: registry.set_policy(store, "churn", "production", [strict])  # noqa: E731
    with pytest.raises(GateError, match=r"auc is 0\.5"):
        registry.promote_model(Meanwhile(store, "copy", "weights", act), "churn", made.version)


@pytest.mark.parametrize("alias", ["production", "staging"])
def test_what_others_promote_while_files_are_copied_is_compared_with(
    store: Store, tmp_path: Path, alias: str
) -> None:
    good, bad = (register(store, tmp_path, number, metrics={"auc": 1 - number / 10}) for number in range(2))
    act = lambda: registry.promote_model(store, "churn", good.version)  # noqa: E731
    busy = Meanwhile(store, "copy", bad.version, act)
    with pytest.raises(GateError, match="auc is 0"):
        registry.promote_model(busy, "churn", bad.version, alias, gates=[BETTER])
    assert registry.resolve_model(store, "churn").version == good.version


def test_gates_are_asked_once_where_nothing_moves(store: Store, tmp_path: Path) -> None:
    made = register(store, tmp_path, 1)
    asked: list[str] = []

    def gate(version: ModelVersion, current: ModelVersion | None) -> bool:
        asked.append(version.version)
        return True

    registry.promote_model(store, "churn", made.version, gates=[gate])
    assert asked == [made.version]


def test_nothing_is_sent_for_an_id_that_the_target_gave_to_other_bytes(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = register(store, tmp_path, 1)
    target = CountingStore(GuardedStore(MemoryStore()))
    other = {"version": made.version, "tree_digest": "f" * 64}
    target.create(modelkeys.id_key("churn", made.version), Record(other, {}).to_bytes())
    target.log.clear()
    with pytest.raises(ConflictError, match="holds other bytes"):
        registry.copy_model(store, "churn", made.version, target)
    assert not [key for verb, key in target.log if verb == "create" and key.startswith(layout.BLOBS)]


@pytest.mark.usefixtures("small_parts")
def test_a_large_blob_that_the_target_has_is_not_read_from_the_source(
    s3_place: Place, tmp_path: Path
) -> None:
    """Its composite checksum was noted where it was first sent."""
    source, target = CountingStore(GuardedStore(MemoryStore())), s3_place.store
    (tmp_path / "weights").write_bytes(LARGE)
    made = registry.register_model(source, None, "churn", tmp_path / "weights", materialize=False)
    registry.copy_model(source, "churn", made.version, target)
    source.received.clear()
    assert not registry.copy_model(source, "churn", made.version, target).created
    assert source.received["get_range"] < len(LARGE)


@pytest.mark.usefixtures("small_parts")
def test_large_files_go_up_one_by_one(store: Store, tmp_path: Path) -> None:
    """Each with all workers at its parts: several at once took memory for the square of the workers."""
    now: Counter[str] = Counter()
    most = 0

    class Watched(SteppedStore):
        def step(self, verb: str, key: str, size: int, call: Callable[[], T]) -> T:
            nonlocal most
            if verb == "upload":
                now[key] += 1
                most = max(most, len(+now))
            if verb == "complete":
                now[key] -= 1
            return call()

    for number in range(4):
        (tmp_path / f"shard{number}").write_bytes(bytes([number]) + LARGE)
    registry.register_model(Watched(store), None, "churn", tmp_path, materialize=False)
    assert most == 1


def test_a_copy_is_known_by_what_the_server_says(place: Place, tmp_path: Path) -> None:
    made = register(place.store, tmp_path, 1)
    registry.promote_model(place.store, "churn", made.version)
    stored = read_version(place.store, "churn", made.version)
    for file in stored.files:
        key = promoted_file(made, file.path)
        facts = (file.digest, file.format, file.size_bytes, key)
        assert is_copy(place.store, *facts)
        place.raw.delete(key)
        assert not is_copy(place.store, *facts)
        place.raw.put(key, b"#" * file.size_bytes)
        assert not is_copy(place.store, *facts)


def test_a_bad_gate_is_refused_before_anything_is_read(store: Store) -> None:
    counting = CountingStore(store)
    with pytest.raises(InvalidInputError, match="no gate"):
        registry.promote_model(counting, "churn", "latest", gates=["metric"])
    assert counting.requests == 0


def test_gates_see_metrics_that_were_measured_after_registration(store: Store, tmp_path: Path) -> None:
    one, two = (register(store, tmp_path, number) for number in range(2))
    gate = {"kind": "metric", "metric": "auc", "at_least": 0.8}
    with pytest.raises(GateError, match="no metric auc"):
        registry.promote_model(store, "churn", one.version, gates=[gate])
    for number in range(2):
        registry.register_model(
            store, None, "churn", tmp_path / str(number), metrics={"auc": 0.9 - number / 5}
        )
    registry.promote_model(store, "churn", one.version, gates=[gate])
    with pytest.raises(GateError, match=r"auc is 0\.7, and 0\.9"):
        registry.promote_model(store, "churn", two.version, gates=[BETTER])


def test_two_machines_register_at_midnight(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one is a day ahead, and comes between the two claims of the other."""
    (tmp_path / "weights").write_text("the same")
    others: list[ModelVersion] = []

    def other_machine() -> None:
        monkeypatch.setattr(identity, "today", lambda: date(2024, 1, 16))
        others.append(registry.register_model(store, None, "churn", tmp_path / "weights"))

    monkeypatch.setattr(identity, "today", lambda: date(2024, 1, 15))
    busy = Meanwhile(store, "create", "/_by_digest/", other_machine)
    made = registry.register_model(busy, None, "churn", tmp_path / "weights")
    assert [other.version for other in others] == [made.version]
    assert made.version.startswith("v20240116_")
    assert [one.versions for one in registry.list_models(store)] == [(made.version,)]
