"""Runs of deployments that are cancelled or run again from the UI: an alias goes back, or moves once."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mltrack_tasks import registry
from mltrack_tasks.resolve import open_store
from mltrack_tasks.stores import Store
from tests.e2e.deployed import Deployed, environment
from tests.e2e.prefect_server import shared_server
from tests.servers.process import running

pytestmark = pytest.mark.timeout(300)

SERVED = """
import time
from pathlib import Path
from prefect import flow, serve
from mltrack_tasks import promote_model, promotion_transaction, rollback_model

@flow
def deploy(version: str, store: str):
    with promotion_transaction():
        promote_model("churn", version, store=store)
        time.sleep(100)

@flow
def go_back(seen: str, store: str):
    rollback_model("churn", "staging", store=store)
    if not Path(seen).exists():
        Path(seen).touch()
        raise RuntimeError("the first time")

if __name__ == "__main__":
    serve(deploy.to_deployment("served"), go_back.to_deployment("served"), query_seconds=1)
"""


@dataclass(frozen=True)
class Site:
    """Both deployments, and a store with versions of one model."""

    deploy: Deployed
    go_back: Deployed
    store: Store
    versions: list[str]

    def history(self, alias: str) -> list[tuple[str, str | None]]:
        return [(event.action, event.version) for event in registry.model_history(self.store, "churn", alias)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    server, folder = shared_server(), tmp_path_factory.mktemp("site")
    store, versions = open_store(str(folder / "store")), []
    for number in range(3):
        (folder / str(number)).write_text(f"model {number}")
        versions.append(registry.register_model(store, None, "churn", folder / str(number)).version)
    script = folder / "served.py"
    script.write_text(SERVED, encoding="utf-8")
    variables = environment(server, folder, "http://127.0.0.1:9")
    names = ("deploy/served", "go-back/served")
    with running("served", [sys.executable, str(script)], folder / "log", variables) as child:
        known = {"deployments": {"name": {"any_": ["served"]}}}
        child.wait_until(lambda: len(server.ask("deployments/filter", known)) == len(names), 90)
        found = [Deployed(server, server.ask(f"deployments/name/{name}")["id"], child) for name in names]
        yield Site(found[0], found[1], store, versions)


def test_a_run_that_is_cancelled_takes_its_promotion_back(site: Site) -> None:
    old, new, _ = site.versions
    registry.promote_model(site.store, "churn", old)
    run_id = site.deploy.start(version=new, store=site.store.location)
    site.deploy.until(lambda: len(site.history("production")) > 1)

    site.deploy.server.ask(f"flow_runs/{run_id}/set_state", {"state": {"type": "CANCELLING"}})

    assert site.deploy.wait(run_id)["state_type"] == "CANCELLED"
    assert site.history("production") == [("promote", old), ("promote", new), ("rollback", old)]


def test_a_run_that_is_run_again_moves_the_alias_once(site: Site, tmp_path: Path) -> None:
    for version in site.versions:
        registry.promote_model(site.store, "churn", version, "staging")
    run_id = site.go_back.start(seen=str(tmp_path / "seen"), store=site.store.location)
    assert site.go_back.wait(run_id)["state_type"] == "FAILED"

    again = {"state": {"type": "SCHEDULED", "name": "AwaitingRetry"}, "force": True}
    site.go_back.server.ask(f"flow_runs/{run_id}/set_state", again)

    run = site.go_back.wait(run_id)
    assert (run["state_type"], run["run_count"]) == ("COMPLETED", 2)
    assert site.history("staging")[3:] == [("rollback", site.versions[1])]
