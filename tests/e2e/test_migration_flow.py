"""The migration as a deployment: killed, cancelled, started where its folder is not, and served."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mltrack_tasks.migration import download_from_s3
from mltrack_tasks.migration.state import list_migrations
from mltrack_tasks.stores import Store, open_s3
from mltrack_tasks.stores.s3_settings import S3Settings
from tests.e2e.deployed import Deployed, environment
from tests.e2e.prefect_server import ROOT, PrefectServer, shared_server
from tests.floor2.localtrees import seen
from tests.servers import S3Server
from tests.servers.faultproxy import Fault, FaultProxy
from tests.servers.process import running
from tests.settings import settings_of

pytestmark = pytest.mark.timeout(300)

POOL = "migrating"
FILES, SIZE = 120, 40 * 1024
"""Files of ``tree`` and bytes of each: too large for a pack, so each is a request of its own."""
WORKERS, DELAY = 2, 0.25
"""Requests in flight, and how long the slowed server takes for each [s]: 15 s for all."""
STOPPED_WITHIN = 5.0
"""[s] after the signal, no further upload begins."""
BLOBS = r"/data/../\w+/data\."
DEPLOY = f"""
from prefect import flow
source = flow.from_source(source={str(ROOT)!r}, entrypoint="flows/migrate_to_s3.py:migrate_to_s3")
source.deploy(name="on-a-worker", work_pool_name={POOL!r}, build=False, push=False, print_next_steps=False)
"""


@pytest.fixture(scope="module")
def front(s3_server: S3Server) -> Iterator[FaultProxy]:
    """A proxy in front of moto, to which all processes of this module speak."""
    with FaultProxy(s3_server.endpoint) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def worker(front: FaultProxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    """A deployment of the flow as it is in this repository, and a worker that takes its runs."""
    server, folder = shared_server(), tmp_path_factory.mktemp("worker")
    server.run("-m", "prefect", "work-pool", "create", POOL, "--type", "process")
    server.run("-c", DEPLOY)
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL, "--type", "process"]
    with running("worker", command, folder / "log", environment(server, folder, front.url)) as child:
        yield Deployed(server, deployment(server, "on-a-worker"), child)


def deployment(server: PrefectServer, name: str) -> str:
    return str(server.ask(f"deployments/name/mltrack-migrate-to-s3/{name}")["id"])


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    root.mkdir()
    for number in range(FILES):
        (root / f"{number}.bin").write_bytes(number.to_bytes(4, "big") * (SIZE // 4))
    return root


@dataclass(frozen=True)
class Place:
    """A fresh prefix behind a proxy: how flows are told of it, and how a test reads it."""

    proxy: FaultProxy
    settings: S3Settings

    @property
    def store(self) -> str:
        return f"s3://{self.settings.bucket}/{self.settings.prefix}"

    def open(self) -> Store:
        return open_s3(self.settings)

    def slow(self) -> None:
        self.proxy.script(Fault("delay", method="PUT", match=BLOBS, times=None, seconds=DELAY))

    def accepted(self) -> Counter[str]:
        """How often the server took which object."""
        done = [each for each in self.proxy.requests if each.method == "PUT" and each.backend_status == 200]
        return Counter(each.path for each in done)

    def sent(self) -> int:
        """Uploads of files so far, whatever became of them."""
        return self.proxy.count("PUT", BLOBS)


@pytest.fixture
def place(front: FaultProxy, s3_server: S3Server) -> Place:
    front.clear()
    front.forget()
    return Place(front, settings_of(s3_server, endpoint_url=front.url))


def process_of(run: dict[str, Any]) -> int:
    """The process of a flow run; a worker makes it the leader of a group."""
    pid = int(str(run["infrastructure_pid"]).rpartition(":")[2])
    assert os.getpgid(pid) == pid != os.getpgid(0)
    return pid


def test_killed_it_goes_on_where_it_was(worker: Deployed, place: Place, tree: Path, tmp_path: Path) -> None:
    place.slow()
    asked = {"local_path": str(tree), "store": place.store, "max_workers": WORKERS}
    first = worker.start(**asked)
    worker.until(lambda: place.sent() >= FILES // 6 or worker.ended(first))
    os.killpg(process_of(worker.look(first)), signal.SIGKILL)
    assert worker.wait(first)["state_type"] == "CRASHED"
    there = place.accepted()
    assert FILES // 6 <= len(there) < FILES
    assert list_migrations(place.open()) == []

    place.proxy.clear()
    second = worker.wait(worker.start(**asked))

    assert second["state_type"] == "COMPLETED", second["state"]["message"]
    assert set(place.accepted().values()) == {1}
    assert place.accepted() > there
    download_from_s3(place.open(), tmp_path / "back")
    assert seen(tmp_path / "back") == seen(tree)
    assert worker.artifact(second["id"], "mltrack-migration-progress")["data"] == 100


def test_cancelled_it_stops_sending(worker: Deployed, place: Place, tree: Path) -> None:
    place.slow()
    run_id = worker.start(local_path=str(tree), store=place.store, max_workers=WORKERS)
    worker.until(lambda: place.sent() >= 2 * WORKERS or worker.ended(run_id))

    before = place.sent()
    worker.server.ask(f"flow_runs/{run_id}/set_state", {"state": {"type": "CANCELLING"}})
    ended = worker.wait(run_id)

    assert (ended["state_type"], ended["state_name"]) == ("CANCELLED", "Cancelled")
    stopped = place.sent()
    assert stopped - before <= WORKERS * (1 + STOPPED_WITHIN / DELAY) < FILES - before
    time.sleep(3 * DELAY)
    assert place.sent() == stopped
    assert list_migrations(place.open()) == []


def test_a_missing_folder_is_told_with_where_it_was_sought(worker: Deployed, place: Place) -> None:
    run = worker.wait(worker.start(local_path="./nowhere", store=place.store))

    assert run["state_type"] == "FAILED"
    said = run["state"]["message"]
    assert f"'nowhere' is not a folder on {socket.gethostname()} (working directory {ROOT})" in said
    assert "start the worker there" in said
    assert place.proxy.requests == []


def test_served_where_the_folder_is(
    worker: Deployed, place: Place, tree: Path, tmp_path: Path, front: FaultProxy
) -> None:
    """Started by hand on a machine: known to the server with its schedule, run there, stopped with Ctrl+C."""
    script = [str(ROOT / "flows" / "migrate_to_s3.py"), "--serve", "--cron", "0 3 * * *"]
    given = ["--local-path", str(tree), "--store", place.store]
    # Ctrl+C reaches it also where whoever started the tests ignores it.
    command = ["env", "--default-signal=INT", sys.executable, *script, *given]
    with running(
        "serve", command, tmp_path / "log", environment(worker.server, tmp_path, front.url)
    ) as child:
        child.wait_until(lambda: "polling for scheduled runs" in child.log.read_text(encoding="utf-8"), 60)
        found = worker.server.ask("deployments/name/mltrack-migrate-to-s3/migrate-to-s3")
        served = Deployed(worker.server, found["id"], child)
        run = served.wait(served.start())
        child.process.send_signal(signal.SIGINT)
        code = child.process.wait(60)

    assert [each["schedule"]["cron"] for each in found["schedules"]] == ["0 3 * * *"]
    assert run["state_type"] == "COMPLETED", run["state"]["message"]
    assert run["parameters"]["local_path"] == str(tree)
    assert len([path for path in place.accepted() if re.search(BLOBS, path)]) > FILES
    assert "Traceback" not in child.log.read_text(encoding="utf-8")
    assert code == 0
