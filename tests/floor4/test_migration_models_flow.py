"""MLflow's registered models in the flow of a migration: figures, artifacts and events."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.events.clients import AssertingEventsClient
from prefect.events.worker import EventsWorker

from mltrack_tasks import resolve_model
from tests.floor3.migrationtrees import fill, small_registry
from tests.floor4.test_migration_tasks import REPORT, TABLE, migrate, rows, shown, unescaped


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLTRACK_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture
def place(tmp_path: Path) -> str:
    return str(tmp_path / "store")


@pytest.fixture
def promoted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[Any]]]:
    """Payloads of the events that tell of promotions."""
    worker = EventsWorker.instance(AssertingEventsClient)
    monkeypatch.setattr(EventsWorker, "instance", lambda *_: worker)

    def emitted() -> list[Any]:
        worker.wait_until_empty()
        # A client that was just made has none yet: it gets the list when it is entered.
        found = [event for client in AssertingEventsClient.all for event in getattr(client, "events", ())]
        return [event.payload for event in found if event.event == "mltrack.model.promoted"]

    yield emitted
    worker.drain()
    AssertingEventsClient.reset()


def test_a_dry_run_says_how_many_models_there_are(place: str, tmp_path: Path) -> None:
    report, run_id = migrate(small_registry(tmp_path / "tree"), place, dry_run=True)
    figures = rows(shown(run_id)[TABLE])
    named = ("registered models", "their versions", "their aliases")
    assert [figures[name][0] for name in named] == [1, 2, 2]
    assert not report.registered
    assert not Path(place).exists()


def test_models_are_shown_and_told(place: str, tmp_path: Path, promoted: Callable[[], list[Any]]) -> None:
    tree = small_registry(tmp_path / "tree")
    fill(tree, {"models/churn/aliases/lost": b"7"})
    report, run_id = migrate(tree, place)
    artifacts = shown(run_id)
    figures = rows(artifacts[TABLE])
    assert (figures["versions registered here"][0], figures["aliases that differ"][0]) == (2, 1)
    assert "models: 1, versions: 2 (2 registered), 1 aliases left alone" in unescaped(
        artifacts[REPORT]["data"]
    )
    assert "| churn@lost | MLflow has no version 7 |" in unescaped(artifacts[REPORT]["data"])
    here = {number: version for _, number, version in report.registered}
    told = {payload["alias"]: payload for payload in promoted()}
    assert {alias: payload["version"] for alias, payload in told.items()} == {
        "champion": here[2],
        "staging": here[1],
    }
    assert told["champion"]["reason"] == "migrated: MLflow's alias 'champion' of version 2"
    assert resolve_model("churn", "champion", store=place).version == here[2]


def test_an_alias_that_moved_is_told_once(
    place: str, tmp_path: Path, promoted: Callable[[], list[Any]]
) -> None:
    tree = small_registry(tmp_path / "tree")
    migrate(tree, place)
    assert len(promoted()) == 2
    migrate(tree, place)
    assert len(promoted()) == 2
    fill(tree, {"models/churn/aliases/champion": b"1"})
    report, _ = migrate(tree, place)
    assert report.number == 2
    assert [payload["alias"] for payload in promoted()[2:]] == ["champion"]
