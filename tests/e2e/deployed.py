"""Deployments on the server of these tests: runs are started, looked at and waited for through its API."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.prefect_server import ROOT, PrefectServer
from tests.servers.process import Child, clean_environment

ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


@dataclass(frozen=True)
class Deployed:
    """A deployment, the server that knows it, and the log of the process that runs it."""

    server: PrefectServer
    id: str
    child: Child

    def start(self, **parameters: Any) -> str:
        """Schedule a run for now -> its id."""
        body = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
        return str(self.server.ask(f"deployments/{self.id}/create_flow_run", body)["id"])

    def look(self, run_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.server.ask(f"flow_runs/{run_id}")
        return found

    def ended(self, run_id: str) -> bool:
        return self.look(run_id)["state_type"] in ENDED

    def artifact(self, run_id: str, key: str) -> dict[str, Any]:
        """The artifact of a key that a run made."""
        chosen = {"artifacts": {"flow_run_id": {"any_": [run_id]}, "key": {"any_": [key]}}}
        [found] = self.server.ask("artifacts/filter", chosen)
        return dict(found)

    def wait(self, run_id: str) -> dict[str, Any]:
        """Wait until a run has ended -> the run."""
        self.until(lambda: self.ended(run_id))
        return self.look(run_id)

    def until(self, ready: Callable[[], bool]) -> None:
        """Poll for two minutes, as long as the process that runs it lives."""
        self.child.wait_until(ready, 120)


def environment(server: PrefectServer, folder: Path, endpoint: str) -> dict[str, str]:
    """Settings of a process that runs flows: keys for moto, and a cache of digests of its own."""
    kept = {name: value for name, value in clean_environment().items() if not name.startswith("PREFECT_")}
    own = {
        "PREFECT_API_URL": server.api_url,
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_PROFILES_PATH": str(folder / "profiles.toml"),
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PREFECT_RUNNER_POLL_FREQUENCY": "1",
        "PYTHONPATH": str(ROOT),
        "MLTRACK_CACHE_DIR": str(folder / "cache"),
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    return {**kept, **own}
