"""Promotions as deployments: a person answers the paused run, and a promotion runs another deployment.

The deployments are those of docs/registry.md, word for word.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mltrack_tasks import registry
from mltrack_tasks.models import ModelVersion
from mltrack_tasks.stores import Store, open_s3
from tests.e2e.deployed import ENDED, Deployed, environment
from tests.e2e.prefect_server import ROOT, shared_server
from tests.servers import S3Server
from tests.servers.process import running
from tests.settings import settings_of

pytestmark = pytest.mark.timeout(300)

POOL = "models"
"""The one that the page names."""
RELEASE = """
import sys
from prefect import flow
from mltrack_tasks import promote_model, rollback_model

@flow
def release(other, version):
    promote_model("other", other)
    promote_model("churn", version, "staging")
    promote_model("churn", version)
    rollback_model("churn")

release(*sys.argv[1:])
"""
"""What must run nothing comes first, so that it is over when the rest has run something."""


@dataclass(frozen=True)
class Site:
    """The two deployments of the page, the folder that they were deployed from, and their store."""

    promote: Deployed
    serve: Deployed
    folder: Path
    store: Store
    variables: Mapping[str, str]

    def register(self, model: str, number: int) -> ModelVersion:
        folder = self.folder / "made" / f"{model}-{number}"
        folder.mkdir(parents=True)
        (folder / "weights.bin").write_bytes(weights(model, number))
        return registry.register_model(self.store, None, model, folder)

    def production(self, model: str) -> str:
        return registry.resolve_model(self.store, model).version

    def form(self, run_id: str) -> str | None:
        """What a paused run shows to whoever is asked; None as long as the form is not there."""
        keys = self.promote.look(run_id)["state"]["state_details"].get("run_input_keyset")
        if not keys:
            return None
        found = self.promote.server.ask(f"flow_runs/{run_id}/input/filter", {"prefix": keys["description"]})
        return str(found[0]["value"]) if found else None

    def answer(self, run_id: str, **said: Any) -> str:
        """Answer a paused run as the UI does -> what the server makes of it: ACCEPT or REJECT."""
        done = self.promote.server.ask(f"flow_runs/{run_id}/resume", {"run_input": said})
        return str(done["status"])


def weights(model: str, number: int) -> bytes:
    return f"{model} {number}".encode()


@pytest.fixture(scope="module")
def site(s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Start a worker, which makes the pool, and deploy what the page shows."""
    server, folder = shared_server(), tmp_path_factory.mktemp("site")
    settings = settings_of(s3_server)
    variables = {
        **environment(server, folder, s3_server.endpoint),
        "MLTRACK_STORE": f"s3://{settings.bucket}/{settings.prefix}",
    }
    page = (ROOT / "docs" / "registry.md").read_text(encoding="utf-8")
    parts = (("yaml", "name: serving", "prefect.yaml"), ("python", "serve_model", "serve.py"))
    for kind, part, name in parts:
        [text] = [each for each in re.findall(rf"```{kind}\n(.*?)```", page, re.DOTALL) if part in each]
        (folder / name).write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL, "--type", "process"]
    with running("worker", command, folder / "log", variables) as child:
        chosen = {"work_pools": {"name": {"any_": [POOL]}}}
        child.wait_until(lambda: bool(server.ask("work_pools/filter", chosen)), 60)
        server.run("-m", "prefect", "--no-prompt", "deploy", "--all", cwd=folder)
        found = [
            Deployed(server, server.ask(f"deployments/name/{name}")["id"], child)
            for name in ("mltrack-promote-model/promote", "serve-model/on-promotion")
        ]
        yield Site(found[0], found[1], folder, open_s3(settings), variables)


@dataclass
class Story:
    """A model with two versions, the first in production, and a run that asks whether the second may be."""

    model: str
    first: ModelVersion
    second: ModelVersion
    run_id: str
    form: str = ""
    state: str = ""
    said: str = ""


STORIES = ("agreed", "refused", "overtaken", "ignored")


@pytest.fixture(scope="module")
def paused(site: Site) -> dict[str, Story]:
    """A run per story, all at the same time; each waits for its answer."""
    stories = {}
    for model in STORIES:
        first, second = (site.register(model, number) for number in (1, 2))
        registry.promote_model(site.store, model, first.version)
        minutes = 0.1 if model == "ignored" else 60
        run_id = site.promote.start(model_name=model, reason="better", approval_timeout_minutes=minutes)
        stories[model] = Story(model, first, second, run_id)
    for story in stories.values():
        site.promote.until(lambda story=story: site.form(story.run_id) or site.promote.ended(story.run_id))
        story.form = site.form(story.run_id) or ""
        story.state = site.promote.look(story.run_id)["state_type"]
    return stories


def test_a_paused_run_shows_what_it_asks_for_and_has_moved_nothing(
    site: Site, paused: dict[str, Story]
) -> None:
    for story in (paused[model] for model in STORIES if model != "ignored"):
        assert story.state == "PAUSED"
        for shown in (story.first.version, story.second.version, story.second.tree_digest, "production"):
            assert shown in story.form
        assert site.production(story.model) == story.first.version
    run_id = paused["agreed"].run_id
    assert site.answer(run_id, approve=True, by="") == "REJECT"  # nobody
    assert site.answer(run_id, by="Ada") == "REJECT"  # neither yes nor no
    assert site.promote.look(run_id)["state_type"] == "PAUSED"


@pytest.fixture(scope="module")
def ended(site: Site, paused: dict[str, Story]) -> dict[str, Story]:
    """What happens while the runs wait, the answers, and how each run ends."""
    site.register("agreed", 3)
    registry.promote_model(site.store, "overtaken", site.register("overtaken", 3).version)
    for model in ("agreed", "overtaken"):
        assert site.answer(paused[model].run_id, approve=True, by="Ada", comment="fine") == "ACCEPT"
    assert site.answer(paused["refused"].run_id, approve=False, by="Ada", comment="too slow") == "ACCEPT"
    for story in paused.values():
        state = site.promote.wait(story.run_id)["state"]
        story.state, story.said = state["type"], str(state["message"])
    return paused


def test_approved_the_version_that_was_shown_is_promoted(site: Site, ended: dict[str, Story]) -> None:
    story = ended["agreed"]
    assert story.state == "COMPLETED", story.said
    assert site.production("agreed") == story.second.version != resolved(site, "agreed", "latest")
    last = registry.model_history(site.store, "agreed")[-1]
    assert last.approval == {"by": "Ada", "comment": "fine", "tree_digest": story.second.tree_digest}
    assert last.tree_digest == story.second.tree_digest
    assert (last.flow_run_id, last.reason) == (story.run_id, "better")
    assert "Approved by Ada" in site.promote.artifact(story.run_id, "mltrack-promotion")["data"]


@pytest.mark.parametrize(
    ("model", "why"),
    [
        ("refused", "Ada did not approve {second}: too slow"),
        ("overtaken", "production stands for {now} now, and stood for {first} when the approval was asked"),
        # The server says "paused" where it finds the run itself, "failed" where the run gives up before.
        ("ignored", "and never resumed"),
    ],
)
def test_else_the_alias_stays_and_the_run_says_why(
    site: Site, ended: dict[str, Story], model: str, why: str
) -> None:
    story, now = ended[model], site.production(model)
    assert story.state == "FAILED"
    assert why.format(first=story.first.version, second=story.second.version, now=now) in story.said
    assert now == (resolved(site, model, "latest") if model == "overtaken" else story.first.version)
    assert all(event.approval is None for event in registry.model_history(site.store, model))


def resolved(site: Site, model: str, name: str) -> str:
    return registry.resolve_model(site.store, model, name).version


def test_a_promotion_runs_the_deployment_that_waits_for_it(site: Site) -> None:
    other, first, second = (site.register(*each) for each in (("other", 1), ("churn", 1), ("churn", 2)))
    registry.promote_model(site.store, "churn", first.version)  # in no flow, so it runs nothing either
    chosen = {"deployments": {"id": {"any_": [site.serve.id]}}, "sort": "EXPECTED_START_TIME_ASC"}

    site.serve.server.run("-c", RELEASE, other.version, second.version, **site.variables)

    def runs() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = site.serve.server.ask("flow_runs/filter", chosen)
        return found

    site.serve.until(lambda: len(runs()) >= 2 and all(run["state_type"] in ENDED for run in runs()))
    assert [run["state_type"] for run in runs()] == ["COMPLETED"] * 2
    assert [run["parameters"] for run in runs()] == [
        {"model_name": "churn", "version": version.version} for version in (second, first)
    ]
    for number, version in enumerate((first, second), start=1):
        served = site.folder / "served" / version.version / "weights.bin"
        assert served.read_bytes() == weights("churn", number)
