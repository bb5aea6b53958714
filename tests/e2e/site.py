"""What a team has: the wheel, a server that a bootstrap made ready, workers, and a bucket behind a proxy."""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from prefect.workers.process import ProcessWorker

from deployments import deploying
from mltrack_tasks.stores import Store, open_s3
from mltrack_tasks.stores.s3_settings import Keys, S3Settings
from tests.e2e.deployed import Deployed, environment
from tests.e2e.prefect_server import PrefectServer, shared_server
from tests.servers import S3Server
from tests.servers.faultproxy import FaultProxy
from tests.servers.process import Child, running
from tests.settings import GIVEN, fresh_prefix
from tests.wheels import build_wheel

POOL = "mltrack"
CONFIGURATION = """
[store]
bucket = {bucket!r}
prefix = {prefix!r}
region_name = {region!r}
endpoint_url = {endpoint_url!r}

[credentials]
aws_access_key_id = {{env = "TEAM_KEY"}}
aws_secret_access_key = {{env = "TEAM_SECRET"}}
"""


@dataclass(frozen=True)
class Site:
    """A Prefect server, the store that is behind ``proxy``, and the environment of who works with both."""

    server: PrefectServer
    proxy: FaultProxy
    settings: S3Settings
    folder: Path
    package: Path
    """The unpacked wheel: no process of the site sees this checkout otherwise."""

    @property
    def store(self) -> Store:
        return open_s3(self.settings)

    @property
    def secret(self) -> str:
        assert self.settings.keys.secret_key
        return self.settings.keys.secret_key

    @property
    def variables(self) -> dict[str, str]:
        """Environment of a worker that finds the bucket without a block."""
        keys = self.settings.keys
        return {
            "AWS_ENDPOINT_URL": self.proxy.url,
            "AWS_ACCESS_KEY_ID": str(keys.access_key),
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_DEFAULT_REGION": str(self.settings.region),
        }

    def client(self, *arguments: str, cwd: Path | None = None, **variables: str) -> str:
        """Run Python as a user of the server does -> what it said."""
        return self.server.run(*arguments, cwd=cwd, PYTHONPATH=str(self.package), **variables)

    def bootstrap(self) -> str:
        """Run the command that makes the server ready -> its table."""
        values = {
            name: getattr(self.settings, name) for name in ("bucket", "prefix", "region", "endpoint_url")
        }
        file = self.folder / "bootstrap.toml"
        file.write_text(CONFIGURATION.format(**values), encoding="utf-8")
        keys = {"TEAM_KEY": str(self.settings.keys.access_key), "TEAM_SECRET": self.secret}
        return self.client("-m", "mltrack_deployments.bootstrap", "--config", str(file), **keys)

    def deploy_one(self, entry: str, name: str, pool: str, code: str) -> None:
        """Deploy one flow of prefect.yaml under another name, for workers of ``pool``, from ``code``."""
        plan = deploying.read("process", pool, code)
        [chosen] = [each for each in plan["deployments"] if each["name"] == entry]
        file = self.folder / f"{name}.yaml"
        # Entrypoints that are files begin in the folder from which they are deployed.
        file.write_text(yaml.safe_dump({**plan, "deployments": [{**chosen, "name": name}]}), encoding="utf-8")
        arguments = ["-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(file)]
        self.client(*arguments, cwd=deploying.CHECKOUT)

    def make_pool(self, name: str) -> None:
        """Make a work pool as `prefect work-pool create --type process` does."""
        template = ProcessWorker.get_default_base_job_template()
        self.server.ask("work_pools/", {"name": name, "type": "process", "base_job_template": template})

    @contextmanager
    def worker(self, name: str, pool: str = POOL, **own: str) -> Iterator[Child]:
        """Run a worker that has the wheel, and no credentials but those that Prefect or ``own`` gives it."""
        folder = self.folder / name
        variables = environment(self.server, folder, "")
        variables = {key: value for key, value in variables.items() if not key.startswith("AWS_")}
        variables |= {"PYTHONPATH": str(self.package), "AWS_EC2_METADATA_DISABLED": "true", **own}
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--name", name]
        with running(name, command, folder / "log", variables) as child:
            yield child

    def deployment(self, name: str, worker: Child, deployed_as: str | None = None) -> Deployed:
        """A deployment of the flow ``name``, whose runs that worker takes."""
        found = self.server.ask(f"deployments/name/{name}/{deployed_as or name}")
        return Deployed(self.server, str(found["id"]), worker)

    def block(self) -> dict[str, Any]:
        """A parameter that refers to the store's block, as the form sends it."""
        found = self.server.ask("block_types/slug/mltrack-store/block_documents/name/mltrack")
        return {"$ref": {"block_document_id": found["id"]}}

    def everything(self) -> dict[str, list[Any]]:
        """All that the API returns, by the path that was asked."""
        found = {path: list(self._pages(path)) for path in LISTS}
        runs = [run["id"] for run in found["flow_runs/filter"]]
        found["flow_run_states"] = [self.server.ask(f"flow_run_states/?flow_run_id={each}") for each in runs]
        pools = [pool["name"] for pool in found["work_pools/filter"]]
        found["workers"] = [self.server.ask(f"work_pools/{each}/workers/filter", {}) for each in pools]
        found["events"] = list(self._events())
        return found

    def _pages(self, path: str) -> Iterator[Any]:
        offset, size = 0, 200
        while size == 200:
            page = self.server.ask(path, {"limit": size, "offset": offset})
            yield from page
            offset, size = offset + len(page), len(page)

    def _events(self) -> Iterator[Any]:
        page = self.server.ask("events/filter", {"limit": 50})
        yield from page["events"]
        while page["next_page"]:
            page = self.server.ask(page["next_page"].partition("/api/")[2])
            yield from page["events"]


LISTS = (
    *("deployments/filter", "flow_runs/filter", "task_runs/filter", "logs/filter", "artifacts/filter"),
    *("artifacts/latest/filter", "automations/filter", "block_documents/filter", "block_schemas/filter"),
    *("block_types/filter", "variables/filter", "flows/filter", "work_pools/filter", "work_queues/filter"),
    "v2/concurrency_limits/filter",
)
"""What an API lists page by page."""


@contextmanager
def one_site(moto: S3Server, folder: Path) -> Iterator[Site]:
    """A site on the S3 server that the tests were given, or ``moto``, behind a proxy, without deployments.

    It is shared by the tests of a folder: wheel, bootstraps and workers take longer than what they test.
    """
    with FaultProxy(GIVEN.get("MLTRACK_TEST_S3_ENDPOINT") or moto.endpoint) as proxy:
        yield Site(shared_server(), proxy, store_settings(proxy.url), folder, unpacked_wheel(folder))


def store_settings(endpoint: str) -> S3Settings:
    """A fresh prefix of the server that the tests were given, reached through ``endpoint``.

    Without one it is moto. It and LocalStack take any keys: theirs are made up, so that they can be told
    from other words.
    """
    key, secret = GIVEN.get("AWS_ACCESS_KEY_ID", "test"), GIVEN.get("AWS_SECRET_ACCESS_KEY", "test")
    if GIVEN.get("MLTRACK_TEST_S3_SERVER", "moto") in ("moto", "localstack"):
        key, secret = "AKIDEXAMPLE", "hidden+4711/of-this-bucket"
    return S3Settings(
        GIVEN.get("MLTRACK_TEST_S3_BUCKET") or "mltrack-test",
        prefix=fresh_prefix(),
        keys=Keys(key, secret),
        region=GIVEN.get("AWS_DEFAULT_REGION", "us-east-1"),
        endpoint_url=endpoint,
    )


def unpacked_wheel(folder: Path) -> Path:
    """Build the wheel and lay it out as an installer does -> the folder."""
    (folder / "sources").mkdir()
    with zipfile.ZipFile(build_wheel(folder / "sources")) as wheel:
        wheel.extractall(folder / "package")
    return folder / "package"
