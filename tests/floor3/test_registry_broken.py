"""Calls taken apart: two at a time, at each step, and with each thing that may be there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from mltrack_tasks import layout, modelkeys, registry
from mltrack_tasks.errors import ConflictError, InvalidInputError
from mltrack_tasks.promotions import Promotion
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.guard import GuardedStore
from mltrack_tasks.stores.memory import MemoryStore
from mltrack_tasks.stores.observed import CountingStore
from mltrack_tasks.stores.s3 import S3Store
from tests.floor3.conftest import Place
from tests.floor3.interleaving import play

Act = Callable[[Store], Any]


def register(store: Store, root: Path, number: int) -> str:
    file = root / f"model{number}"
    file.write_text(f"model {number}")
    return registry.register_model(store, None, "churn", file).version


@pytest.fixture
def versions(store: Store, tmp_path: Path) -> list[str]:
    """Four versions; ``production`` stood for the first three, one after the other."""
    made = [register(store, tmp_path, number) for number in range(4)]
    for version in made[:3]:
        registry.promote_model(store, "churn", version)
    return made


def copied(store: Store) -> Store:
    other = MemoryStore(max_workers=1)
    for stat in store.list(""):
        other.create(stat.key, store.get(stat.key))
    return GuardedStore(other)


def at_each_step(store: Store, one: Act, other: Act) -> Iterator[tuple[dict[str, Any], list[Promotion]]]:
    """Let ``other`` happen as a whole after each step of ``one`` -> answers and history of each."""
    for step in count():
        place, steps = copied(store), Counter[str]()

        def counted(store: Store, steps: Counter[str] = steps) -> Any:
            counting = CountingStore(store)
            counting.calls = steps
            return one(counting)

        answers = play(place, {"one": counted, "other": other}, ["one"] * step + ["other"] * 99)
        yield answers, registry.model_history(place, "churn")
        if steps.total() <= step:
            return


@pytest.mark.parametrize("removed", [False, True])
def test_a_rollback_that_was_overtaken_goes_back_all_the_same(
    store: Store, versions: list[str], removed: bool
) -> None:
    """It said that it had, and the alias stood for what was promoted meanwhile."""

    def other(store: Store) -> Promotion:
        if removed:
            return registry.remove_alias(store, "churn", "production")
        return registry.promote_model(store, "churn", versions[3])

    for answers, history in at_each_step(store, lambda s: registry.rollback_model(s, "churn"), other):
        assert {answers["one"].number, answers["other"].number} == {4, 5}
        assert [event.action for event in history].count("rollback") == 1


def test_a_rollback_that_was_overtaken_keeps_its_condition(store: Store, versions: list[str]) -> None:
    back = lambda s: registry.rollback_model(s, "churn", if_current=3)  # noqa: E731
    for answers, history in at_each_step(
        store, back, lambda s: registry.remove_alias(s, "churn", "production")
    ):
        assert len(history) == 4 or history[3].action == "rollback"
        assert isinstance(answers["one"], ConflictError) == (history[3].action == "remove")


@pytest.mark.parametrize("overtaken", [False, True])
def test_two_tries_of_one_call_at_once_are_one_call(
    store: Store, versions: list[str], overtaken: bool
) -> None:
    """As when a task is taken for dead and tried again, and is not dead: it went back twice."""

    def twin(call: Act) -> Act:
        def act(store: Store) -> Promotion:
            done: Promotion = call(store)
            if overtaken:
                registry.promote_model(store, "churn", versions[3])
            return done

        return act

    calls: list[Act] = [
        lambda s: registry.rollback_model(s, "churn", request_id="r"),
        lambda s: registry.promote_model(s, "churn", versions[0], request_id="r"),
        lambda s: registry.remove_alias(s, "churn", "production", request_id="r"),
    ]
    for call in calls:
        for answers, history in at_each_step(store, call, twin(call)):
            assert [event.request_id for event in history].count("r") == 1
            assert (answers["one"].number, answers["other"].number) == (4, 4)


def test_another_call_of_the_same_id_at_once(store: Store, versions: list[str]) -> None:
    other = lambda s: registry.promote_model(s, "churn", versions[0], request_id="r")  # noqa: E731
    for version in versions[1], versions[3]:
        one = lambda s, v=version: registry.promote_model(s, "churn", v, request_id="r")  # noqa: E731
        for answers, history in at_each_step(store, one, other):
            assert sum(isinstance(answer, ConflictError) for answer in answers.values()) == 1
            assert [event.request_id for event in history].count("r") == 1


def test_the_folder_that_a_process_works_in_is_not_taken_from_it(
    store: Store, versions: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing at all worked in that process afterwards: its folder was no longer there."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    for path in (".", here, "../here"):
        with pytest.raises(InvalidInputError, match=r"Give a folder in it, such as .*/here/model"):
            registry.download_model(store, "churn", versions[0], path)
    assert Path.cwd() == here
    registry.download_model(store, "churn", versions[0], "model")
    assert [path.name for path in (here / "model").iterdir()] == ["model0"]


def test_the_root_of_a_file_system_is_refused_before_anything_is_read(
    store: Store, versions: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty volume in a container: all was downloaded beside it, and could not be moved there."""
    volume = tmp_path / "volume"
    volume.mkdir()
    monkeypatch.setattr("os.path.ismount", lambda path: Path(path) == volume)
    with pytest.raises(InvalidInputError, match="the root of a file system"):
        registry.download_model(store, "churn", versions[0], volume)
    assert registry.download_model(store, "churn", versions[0], volume / "model")[1] == volume / "model"


def test_a_link_to_a_folder_stays_and_an_empty_folder_keeps_its_permissions(
    store: Store, versions: list[str], tmp_path: Path
) -> None:
    """A folder for one user was readable for all when it was filled."""
    private, link = tmp_path / "private", tmp_path / "link"
    private.mkdir(mode=0o700)
    link.symlink_to(private)
    assert registry.download_model(store, "churn", versions[0], link)[1] == link
    assert link.is_symlink()
    assert private.stat().st_mode & 0o777 == 0o700
    assert (private / "model0").read_text() == "model 0"
    assert registry.download_model(store, "churn", versions[0], link)[1] == link


def test_a_folder_that_was_archived_can_be_read_once_an_alias_stands_for_it(
    s3_place: Place, s3_store: S3Store, tmp_path: Path
) -> None:
    """A lifecycle rule had moved the files of an old version; going back to it moved the alias alone."""
    old, new = (register(s3_place.store, tmp_path, number) for number in range(2))
    for version in old, new:
        registry.promote_model(s3_place.store, "churn", version)
    key = f"{modelkeys.promoted_folder('churn', old)}model0"
    s3_store.client.put_object(
        Bucket=s3_store.settings.bucket,
        Key=f"{s3_store.settings.prefix}/{key}",
        Body=b"model 0",
        StorageClass="GLACIER",
        ChecksumAlgorithm="SHA256",
    )
    registry.rollback_model(s3_place.store, "churn")
    found = s3_place.store.head(key, checksum=True)
    assert found is not None
    assert not found.archived
    assert s3_place.store.get(key) == b"model 0"


def test_a_copy_says_who_registered_it_and_holds_its_blobs(store: Store, tmp_path: Path) -> None:
    version = register(store, tmp_path, 1)
    made, other = registry.deprecate_version(store, "churn", version), GuardedStore(MemoryStore())
    copied = registry.copy_model(store, "churn", version, other)
    again = registry.copy_model(store, "churn", version, other)
    assert copied.provenance == again.provenance == made.provenance
    assert copied.deprecated is None
    for file in made.files:
        assert other.head(layout.model_pin_key(file.digest, "churn")) is not None


def test_a_copy_knows_what_was_measured_after_registration(store: Store, tmp_path: Path) -> None:
    """Gates of the other store refused what had passed the same gates here."""
    made, other = register(store, tmp_path, 1), GuardedStore(MemoryStore())
    registry.copy_model(store, "churn", made, other)
    registry.register_model(store, None, "churn", tmp_path / "model1", metrics={"auc": 0.9})
    for _ in range(2):
        assert registry.copy_model(store, "churn", made, other).metrics == {"auc": 0.9}
    gate = {"kind": "metric", "metric": "auc", "at_least": 0.8}
    assert registry.promote_model(other, "churn", made, gates=[gate]).number == 1
