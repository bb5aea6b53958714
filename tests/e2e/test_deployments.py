"""From a wheel and an empty server to runs of all kinds: by schedule, event, form and command."""

from __future__ import annotations

import json
import re
import shlex
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from mltrack_tasks.migration import download_from_s3
from mltrack_tasks.migration.state import list_migrations
from mltrack_tasks.trust.verify import verify_store
from tests.e2e.deployed import Deployed
from tests.e2e.prefect_server import ROOT
from tests.e2e.site import Site
from tests.floor2.localtrees import seen

pytestmark = pytest.mark.timeout(600)

MIGRATE, COMPACT = "mltrack-migrate-to-s3", "mltrack-compact-catalog"
NAMES = {each["name"] for each in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]}
SLOTS, LEAD = 3, timedelta(seconds=20)
"""Times of the schedule that no worker is there for, and how soon the first is: planned, it must be ahead."""


FILES = 21


@dataclass(frozen=True)
class Ready:
    """The site after two bootstraps and a `prefect deploy --all`, with a worker that came too late."""

    site: Site
    tables: list[str]
    migrate: Deployed
    compact: Deployed
    folder: Path


@pytest.fixture(scope="module")
def ready(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ready]:
    folder = tmp_path_factory.mktemp("trees")
    tables = [site.bootstrap()]
    switch_on(site, MIGRATE, "nightly")
    tables.append(site.bootstrap())
    site.client("-m", "prefect", "--no-prompt", "deploy", "--all", cwd=ROOT)
    over = schedule(site, MIGRATE, local_path=str(tree(folder / "scheduled")))
    time.sleep(max(0.0, (over - datetime.now(UTC)).total_seconds()))
    with site.worker("team") as worker:
        yield Ready(site, tables, *(site.deployment(name, worker) for name in (MIGRATE, COMPACT)), folder)


def switch_on(site: Site, name: str, slug: str) -> None:
    """As the switch of a schedule in the UI."""
    deployed = site.server.ask(f"deployments/name/{name}/{name}")
    [found] = [each for each in deployed["schedules"] if each["slug"] == slug]
    address = f"deployments/{deployed['id']}/schedules/{found['id']}"
    site.server.ask(address, {"active": True}, "PATCH")


def schedule(site: Site, name: str, **parameters: Any) -> datetime:
    """Give a deployment a schedule with SLOTS times, a second apart -> the last of them."""
    deployed = site.server.ask(f"deployments/name/{name}/{name}")
    first = datetime.now(UTC).replace(microsecond=0) + LEAD
    rule = f"DTSTART:{first:%Y%m%dT%H%M%SZ}\nRRULE:FREQ=SECONDLY;COUNT={SLOTS}"
    wanted = {"schedule": {"rrule": rule, "timezone": "UTC"}, "active": True, "parameters": parameters}
    site.server.ask(f"deployments/{deployed['id']}/schedules", [{**wanted, "slug": "soon"}])
    return first + timedelta(seconds=SLOTS - 1)


def tree(root: Path) -> Path:
    """Some small files, and one that is too large for a pack."""
    folder = root / f"{root.name}-run"  # each folder becomes a run of its name
    folder.mkdir(parents=True)
    for number in range(FILES - 1):
        (folder / f"{number}.txt").write_text(f"{root.name} {number}")
    (root / "large.bin").write_bytes(root.name.encode() * 100_000)
    return root


def rows(table: str) -> dict[tuple[str, str], list[str]]:
    """What a bootstrap printed, by kind and name."""
    lines = [re.split(r"  +", line) for line in table.splitlines()]
    return {(line[0], line[1]): line[2:] for line in lines if len(line) > 2 and line[2] != "result"}


def test_a_second_bootstrap_changes_nothing_of_the_first(ready: Ready) -> None:
    first, second = (rows(table) for table in ready.tables)
    assert first.keys() == second.keys()
    assert {name for kind, name in first if kind == "deployment"} == NAMES
    assert {row[0] for row in first.values()} == {"created", "left out"}
    assert {row[0] for row in second.values()} == {"present", "left out"}
    assert second["deployment", MIGRATE][1] == "schedule nightly on"  # as it was switched
    assert first["deployment", MIGRATE][1] == "schedule nightly off"


def test_every_deployment_preselects_the_store(ready: Ready) -> None:
    found = ready.site.server.ask("deployments/filter", {"limit": 200})
    ours = {each["name"]: each for each in found if each["name"] in NAMES}
    assert ours.keys() == NAMES
    for each in ours.values():
        assert each["parameters"]["store"] == ready.site.block()
        assert each["work_pool_name"] == "mltrack"
        assert each["entrypoint"].startswith("mltrack_flows.")


def of(deployed: Deployed) -> list[dict[str, Any]]:
    """The runs of a deployment that have begun or ended."""
    chosen = {"deployments": {"id": {"any_": [deployed.id]}}, "sort": "EXPECTED_START_TIME_ASC"}
    return list(deployed.server.ask("flow_runs/filter", chosen))


def test_of_three_missed_slots_one_is_run(ready: Ready) -> None:
    def slots() -> list[dict[str, Any]]:
        return [run for run in of(ready.migrate) if run["parameters"]["local_path"].endswith("/scheduled")]

    ready.migrate.until(lambda: len(slots()) == SLOTS and all(map(ended, slots())))
    assert Counter(run["state_type"] for run in slots()) == {"COMPLETED": 1, "CANCELLED": SLOTS - 1}
    assert all(run["auto_scheduled"] and run["created_by"]["type"] == "SCHEDULE" for run in slots())
    assert_stored(ready, "scheduled")


def ended(run: dict[str, Any]) -> bool:
    return run["state_type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


def assert_stored(ready: Ready, name: str) -> None:
    """The bucket holds the folder of that name: it comes back, and an audit finds nothing wrong."""
    store, back = ready.site.store, ready.folder / "back" / name
    [found] = [each for each in list_migrations(store) if f"-{name}-" in each]  # made of host and folder
    download_from_s3(store, back, migration=found)
    assert seen(back) == seen(ready.folder / name)
    assert verify_store(store, level="attested", keep=False).ok


@pytest.fixture(scope="module")
def run(ready: Ready) -> dict[str, Any]:
    """A run as the form starts it, with the block that was chosen."""
    given = {"local_path": str(tree(ready.folder / "asked")), "store": ready.site.block()}
    return ready.migrate.wait(ready.migrate.start(**given))


def test_a_run_stores_the_folder_through_the_block(ready: Ready, run: dict[str, Any]) -> None:
    assert run["state_type"] == "COMPLETED", run["state"]["message"]
    assert run["state"]["message"].startswith(f"{FILES} files, ")
    assert run["state"]["message"].endswith(" new, 1 runs written")
    assert_stored(ready, "asked")


def test_its_report_leads_back_to_it_and_repeats_it(ready: Ready, run: dict[str, Any]) -> None:
    told = ready.migrate.artifact(run["id"], "mltrack-migration-report")["data"]
    [link] = re.findall(r"\[This run in Prefect\]\((.*?)\)", told)
    assert link == f"{ready.site.server.api_url.removesuffix('/api')}/runs/flow-run/{run['id']}"
    with urllib.request.urlopen(urllib.request.Request(link, headers={"Accept": "text/html"})) as page:
        assert b"<title>Prefect" in page.read()

    [command] = re.findall(r"```sh\n(.*)\n```", told)
    said = ready.site.client("-m", *shlex.split(command))

    [again] = set(re.findall(r"flow-run/([0-9a-f-]{36})", said))
    repeated = ready.migrate.wait(again)
    assert again != run["id"]
    assert repeated["parameters"] == run["parameters"]
    assert repeated["state_type"] == "COMPLETED"
    assert repeated["state"]["message"].startswith(f"nothing new: {FILES} files, ")


def test_a_migration_runs_the_deployment_that_waits_for_it(ready: Ready, run: dict[str, Any]) -> None:
    def done() -> list[dict[str, Any]]:
        return [each for each in of(ready.compact) if each["state_type"] == "COMPLETED"]

    ready.compact.until(lambda: bool(done()))
    assert done()[0]["created_by"]["type"] == "AUTOMATION"
    assert list(ready.site.store.list("catalog/"))


def test_nothing_that_the_server_tells_holds_the_secret(ready: Ready, run: dict[str, Any]) -> None:
    found = ready.site.everything()
    assert [path for path, items in found.items() if not items] == []
    assert {"mltrack.migration.completed", "prefect.flow-run.Completed"} <= {
        each["event"] for each in found["events"]
    }
    secret = json.dumps(ready.site.secret)[1:-1]
    assert [path for path, items in found.items() if secret in json.dumps(items)] == []
    shown = ready.site.server.ask("block_documents/filter", {"include_secrets": True})
    assert secret in json.dumps(shown)  # it is there to be found
