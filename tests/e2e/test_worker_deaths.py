"""Workers that die in the middle of a migration: what is left needs nobody, and the next run finishes."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from deployments.server import zombies
from mltrack_tasks.migration import download_from_s3
from mltrack_tasks.migration.state import list_migrations
from mltrack_tasks.stores import Store, open_s3
from mltrack_tasks.trust.verify import verify_store
from tests.e2e.deployed import Deployed
from tests.e2e.site import Site
from tests.floor2.localtrees import seen
from tests.servers.faultproxy import Fault
from tests.servers.process import Child
from tests.settings import fresh_prefix

pytestmark = pytest.mark.timeout(400)

MIGRATE, POOL = "mltrack-migrate-to-s3", "mortal"
BY_TERM, BY_KILL = "by-term", "by-kill"
"""How the worker of a deployment ends."""
FILES, SIZE = 90, 40 * 1024
"""Files of each folder and bytes of each: too large for a pack, so each is a request of its own."""
WORKERS, DELAY = 2, 0.25
"""Requests in flight, and how long the slowed server takes for each [s]: 11 s for all."""
SLOW = Fault("delay", method="PUT", match=r"/data/../\w+/data\.", times=None, seconds=DELAY)
ZOMBIE_AFTER = 35
"""[s] without a heartbeat, of which 30 are Prefect's least interval; no run here lives as long."""


@dataclass(frozen=True)
class Case:
    """One deployment, the folder that its runs store, and where."""

    name: str
    site: Site
    folder: Path
    prefix: str

    @property
    def tree(self) -> Path:
        return self.folder / self.name

    @property
    def place(self) -> str:
        return f"s3://{self.site.settings.bucket}/{self.prefix}"

    def store(self) -> Store:
        return open_s3(replace(self.site.settings, prefix=self.prefix))

    def start(self, worker: Child) -> tuple[Deployed, str]:
        """Have its folder stored by that worker -> the deployment and the run."""
        deployed = self.site.deployment("mltrack-migrate-to-s3", worker, self.name)
        return deployed, deployed.start(local_path=str(self.tree), store=self.place, max_workers=WORKERS)

    def requests(self) -> list[Any]:
        """The uploads of files so far."""
        found = f"/{self.site.settings.bucket}/{self.prefix}/data/"
        asked = [each for each in self.site.proxy.requests if each.path.startswith(found)]
        return [each for each in asked if each.method == "PUT" and "/data." in each.path]

    def sent(self) -> int:
        return len(self.requests())

    def stored(self) -> Counter[str]:
        """How often the server took which file."""
        return Counter(each.path for each in self.requests() if each.backend_status == 200)


@dataclass(frozen=True)
class Death:
    """A run whose worker died: the deployment, and what was there by then."""

    case: Case
    deployed: Deployed
    run_id: str
    sent: int
    code: int
    """Of the worker."""
    state_then: str

    def run(self) -> dict[str, Any]:
        return self.deployed.look(self.run_id)


@pytest.fixture(scope="module")
def cases(site: Site, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    """The migration as it is deployed by default, twice."""
    site.make_pool(POOL)
    folder, made = tmp_path_factory.mktemp("mortal"), {}
    for name in (BY_TERM, BY_KILL):
        site.deploy_one(MIGRATE, name, POOL, "installed")
        made[name] = Case(name, site, folder, fresh_prefix())
        make(made[name].tree, FILES)
    return made


def make(tree: Path, files: int) -> None:
    tree.mkdir()
    for number in range(files):
        content = f"{tree} {number:4} ".encode()
        (tree / f"{number}.bin").write_bytes(content * (SIZE // len(content)))


@pytest.fixture(scope="module")
def deaths(site: Site, cases: dict[str, Case]) -> dict[str, Death]:
    """Both have died, one with its worker, one with all of its machine, and are known to be dead."""
    site.proxy.script(SLOW)
    watching = site.server.ask("automations/", zombies(ZOMBIE_AFTER).model_dump(mode="json"))
    made = {name: die(site, case) for name, case in cases.items()}
    site.proxy.clear()
    deadline = time.monotonic() + 120
    while not all(death.run()["state_type"] == "CRASHED" for death in made.values()):
        assert time.monotonic() < deadline, [death.run()["state"] for death in made.values()]
        time.sleep(0.5)
    # What follows is alive, and may be too slow for so little patience.
    site.server.ask(f"automations/{watching['id']}", method="DELETE")
    return made


def die(site: Site, case: Case) -> Death:
    with site.worker(case.name, POOL, **site.variables) as worker:
        deployed, run_id = case.start(worker)
        deployed.until(lambda: case.sent() >= FILES // 6 or deployed.ended(run_id))
        run = process_of(deployed.look(run_id))
        if case.name == BY_KILL:
            os.kill(worker.process.pid, signal.SIGKILL)
            os.killpg(run.pid, signal.SIGKILL)
        else:
            os.kill(worker.process.pid, signal.SIGTERM)
        code = worker.process.wait(60)
        run.wait(60)
    return Death(case, deployed, run_id, case.sent(), code, deployed.look(run_id)["state_type"])


def process_of(run: dict[str, Any]) -> psutil.Process:
    """The process of a flow run; a worker makes it the leader of a group."""
    pid = int(str(run["infrastructure_pid"]).rpartition(":")[2])
    assert os.getpgid(pid) == pid != os.getpgid(0)
    return psutil.Process(pid)


@pytest.fixture
def heir(site: Site, deaths: dict[str, Death]) -> Iterator[Child]:
    """The worker that is there next."""
    with site.worker("heir", POOL, **site.variables) as worker:
        yield worker


def again(death: Death, heir: Child) -> str:
    """Run the migration once more: as its schedule does, or by the button of the run that died."""
    if death.case.name == BY_TERM:
        return death.case.start(heir)[1]
    retry = {"state": {"type": "SCHEDULED", "name": "AwaitingRetry"}, "force": True}
    death.deployed.server.ask(f"flow_runs/{death.run_id}/set_state", retry)
    return death.run_id


@pytest.mark.parametrize("name", [BY_TERM, BY_KILL])
def test_a_worker_dies_and_the_next_run_finishes(
    name: str, deaths: dict[str, Death], heir: Child, tmp_path: Path
) -> None:
    death = deaths[name]
    case, deployed = death.case, replace(death.deployed, child=heir)
    assert death.code == (0 if name == BY_TERM else -signal.SIGKILL)
    assert case.sent() == death.sent < FILES  # nothing of it goes on
    there = case.stored()
    assert len(there) >= FILES // 6
    assert list_migrations(case.store()) == []

    assert death.state_then == "RUNNING"
    assert death.run()["state"]["message"].startswith(f"No sign of life for {ZOMBIE_AFTER} s")

    ended = deployed.wait(again(death, heir))
    assert ended["state_type"] == "COMPLETED", ended["state"]["message"]
    assert case.stored() > there
    assert_whole(case, tmp_path)


def assert_whole(case: Case, folder: Path) -> None:
    """The bucket holds the folder, each file of it was taken once, and nothing waits for anybody."""
    assert set(case.stored().values()) == {1}
    store = case.store()
    [migration] = list_migrations(store)
    download_from_s3(store, folder / "back", migration=migration)
    assert seen(folder / "back") == seen(case.tree)
    assert verify_store(store, level="attested", keep=False).ok
    assert list(store.list("gc/")) == []


def test_a_run_ends_by_itself_when_only_its_worker_is_killed(
    deaths: dict[str, Death], heir: Child, tmp_path: Path
) -> None:
    """Nobody reads what it logs any more: its next line ends it, and it says so. It is no zombie."""
    case = replace(deaths[BY_KILL].case, folder=tmp_path, prefix=fresh_prefix())
    make(case.tree, FILES // 3)
    case.site.proxy.script(SLOW)
    deployed, run_id = case.start(heir)
    deployed.until(lambda: case.sent() > 0 or deployed.ended(run_id))
    process = process_of(deployed.look(run_id))

    os.kill(heir.process.pid, signal.SIGKILL)
    heir.process.wait(60)
    process.wait(120)
    case.site.proxy.clear()
    assert deployed.look(run_id)["state_type"] == "CRASHED"

    with case.site.worker("last", POOL, **case.site.variables) as last:
        deployed, run_id = case.start(last)
        ended = deployed.wait(run_id)
    assert ended["state_type"] == "COMPLETED", ended["state"]["message"]
    assert_whole(case, tmp_path)
