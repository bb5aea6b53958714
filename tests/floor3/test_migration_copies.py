"""A folder with a copy of MLflow's store: which of two registered models of a name is meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from mltrack_tasks.migration import hashcache
from mltrack_tasks.migration.report import MigrationReport
from mltrack_tasks.registry import list_models
from mltrack_tasks.registry.aliases import aliases_of
from mltrack_tasks.stores.base import Store
from tests.floor3.migrationtrees import fill, kept, migrate, restored, small_registry

MODEL = "models/churn/meta.yaml"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLTRACK_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(hashcache, "SETTLED", 0)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A store in use whose champion is the second version, and a copy of when it was the first."""
    for name, champion, changed in (("backup", b"1", 100), ("mlruns", b"2", 200)):
        root = small_registry(tmp_path / "tree" / name)
        fill(root, {"models/churn/aliases/champion": champion, MODEL: said(changed)})
    return tmp_path / "tree"


def said(changed: int) -> bytes:
    return f"name: churn\ncreation_timestamp: 1\nlast_updated_timestamp: {changed}\n".encode()


def champion(report: MigrationReport, store: Store) -> int | None:
    """MLflow's number of the version that the alias stands for here."""
    version = aliases_of(store, "churn").get("champion") if list_models(store) else None
    return {here: number for _, number, here in report.registered}.get(version or "")


def told(report: MigrationReport) -> str:
    return dict(report.not_registered).get("churn", "")


def test_the_one_that_changed_last_is_taken(store: Store, tree: Path) -> None:
    report = migrate(store, tree)
    assert champion(report, store) == 2
    assert "'mlruns' has it, too" in told(report)
    assert "the one of 'backup' is left out" in told(report)
    assert migrate(store, tree).unchanged
    assert restored(store) == kept(tree)


def test_what_was_taken_stays_taken_whatever_the_copy_says(store: Store, tree: Path) -> None:
    migrate(store, tree)
    fill(tree / "backup", {MODEL: said(900)})
    report = migrate(store, tree)
    assert (champion(report, store), "taken before" in told(report)) == (2, True)
    fill(tree / "a copy", {name: (tree / "backup" / name).read_bytes() for name in names(tree / "backup")})
    assert champion(migrate(store, tree), store) == 2
    fill(tree / "mlruns", {"models/churn/aliases/champion": b"1", MODEL: said(901)})
    assert champion(migrate(store, tree), store) == 1


def names(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]


def test_a_copy_takes_the_place_of_none_that_is_away_or_damaged(store: Store, tree: Path) -> None:
    migrate(store, tree)
    (tree / "mlruns").rename(tree.parent / "away")
    report = migrate(store, tree)
    assert "from 'mlruns' before, which has it no more; this one is older" in told(report)
    (tree.parent / "away").rename(tree / "mlruns")
    text = (tree / "mlruns" / MODEL).read_bytes()
    (tree / "mlruns" / MODEL).write_bytes(b"\xff")
    report = migrate(store, tree)
    assert any("the one of 'mlruns' cannot be read" in why for _, why in report.not_registered)
    (tree / "mlruns" / MODEL).write_bytes(text)
    report = migrate(store, tree)
    assert (champion(report, store), len(report.registered)) == (2, 2)


def test_a_store_that_moved_is_taken_where_it_is_now(store: Store, tree: Path) -> None:
    migrate(store, tree)
    (tree / "mlruns").rename(tree / "tracking")
    fill(tree / "tracking", {"models/churn/aliases/champion": b"1", MODEL: said(300)})
    report = migrate(store, tree)
    assert champion(report, store) == 1
    assert "the registry of 'tracking' has it" in told(report)


def test_two_that_differ_and_do_not_tell_are_both_named_and_none_is_taken(store: Store, tree: Path) -> None:
    fill(tree / "backup", {MODEL: said(200)})
    report = migrate(store, tree)
    assert not report.registered
    assert "'backup' and 'mlruns' have it, differ" in told(report)
    assert "exclude=" in told(report)
    report = migrate(store, tree, exclude=["backup/*"])
    assert champion(report, store) == 2
    report = migrate(store, tree)
    assert champion(report, store) == 2


def test_two_that_say_the_same_are_one(store: Store, tree: Path) -> None:
    fill(tree / "backup", {MODEL: said(200), "models/churn/aliases/champion": b"2"})
    assert champion(migrate(store, tree), store) == 2


def test_one_that_cannot_be_read_may_be_the_one_that_is_meant(store: Store, tree: Path) -> None:
    fill(tree / "backup", {MODEL: b"\xff"})
    report = migrate(store, tree)
    assert not report.registered
    assert any("the one of 'backup' cannot be read" in why for _, why in report.not_registered)
