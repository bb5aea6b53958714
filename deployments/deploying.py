"""prefect.yaml for one environment: its work pool, and where workers find the code."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName
from prefect.client.schemas.responses import DeploymentResponse
from prefect.settings import get_current_settings

from mltrack_tasks.errors import InvalidInputError, MLTrackError

from .rows import Result, Row

FILE = Path(__file__).with_name("prefect.yaml")
CHECKOUT = Path(__file__).resolve().parent.parent
_MODULE = re.compile(r"mltrack_flows\.(\w+)\.(\w+)")
_ENVIRONMENT = re.compile(r"\{\{\s*\$(\w+)\s*\}\}")
TAIL, REASON = 10, 1_000
"""Lines of `prefect deploy` that are shown when it fails, and characters of each: one quotes all it sent."""


def read(pool_type: str, pool_name: str | None, code: str) -> dict[str, Any]:
    """Read prefect.yaml -> what to deploy, with the work pool and the origin of the code filled in.

    ``code``: ``installed``, the package where the worker runs; ``checkout``, this folder, for a worker on
    this machine; else a repository's URL, with ``@branch`` at its end if wanted, which the worker clones for
    each run. Raises InvalidInputError if the file wants environment variables that are not set: Prefect
    would silently deploy empty texts.
    """
    text = FILE.read_text(encoding="utf-8")
    missing = sorted({name for name in _ENVIRONMENT.findall(text) if not os.environ.get(name)})
    if missing:
        raise InvalidInputError(f"{FILE.name} wants {', '.join(missing)}, which the environment lacks.")
    plan: dict[str, Any] = yaml.safe_load(text)
    pool = dict(plan["definitions"]["work_pools"][pool_type])
    pool["name"] = pool_name or pool["name"]
    pull = _pull(code)
    installed = code == "installed"
    for each in plan["deployments"]:
        each["work_pool"] = pool
        if not installed:
            each["pull"] = pull
            each["entrypoint"] = _MODULE.sub(r"flows/\1.py:\2", each["entrypoint"])
    return plan


def _pull(code: str) -> list[dict[str, Any]]:
    if code == "installed":
        return []
    if not (CHECKOUT / "flows").is_dir():
        raise InvalidInputError(f"--code {code} reads the flows of a checkout, which {CHECKOUT} is not.")
    if code == "checkout":
        return [{"prefect.deployments.steps.set_working_directory": {"directory": str(CHECKOUT)}}]
    url, branch = code, None
    if "@" in code.rpartition("/")[2]:
        url, _, branch = code.rpartition("@")
    clone = {"id": "clone", "repository": url, **({"branch": branch} if branch else {})}
    requirements = {
        "directory": "{{ clone.directory }}",
        "requirements_file": "deployments/requirements.txt",
        "stream_output": False,
    }
    return [
        {"prefect.deployments.steps.git_clone": clone},
        {"prefect.deployments.steps.pip_install_requirements": requirements},
    ]


def deploy(plan: dict[str, Any]) -> None:
    """Deploy all of a plan by `prefect deploy --all`. Raises MLTrackError with the end of its output."""
    with tempfile.TemporaryDirectory(prefix="mltrack-deploy-") as folder:
        file = Path(folder) / "prefect.yaml"
        file.write_text(yaml.safe_dump(plan, sort_keys=False), encoding="utf-8")
        command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
        done = subprocess.run(
            [*command, "--prefect-file", str(file)],
            cwd=CHECKOUT,  # entrypoints that are files begin there
            # The server that this process speaks to, whatever the other one's profile says.
            env={**os.environ, **get_current_settings().to_environment_variables(exclude_unset=True)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    if done.returncode:
        said = "\n".join(line[:REASON] for line in done.stdout.splitlines()[-TAIL:])
        raise MLTrackError(f"`prefect deploy --all` failed:\n{said}")


class Switches:
    """What people switched on or off in the UI: schedules and triggers, which a deployment sets back."""

    def __init__(self) -> None:
        self.schedules: dict[tuple[str, str], bool] = {}
        self.triggers: dict[str, bool] = {}
        self.known: set[str] = set()

    async def remember(self, client: PrefectClient, plan: dict[str, Any]) -> None:
        """Look at what the plan is about to replace."""
        for found in await _deployed(client, plan):
            self.known.add(found.name)
            for each in found.schedules:
                if each.slug:
                    self.schedules[found.name, each.slug] = bool(each.active)
        for name in _triggers(plan):
            for known in await client.read_automations_by_name(name):
                self.triggers[name] = known.enabled

    async def restore(self, client: PrefectClient, plan: dict[str, Any]) -> list[Row]:
        """Set what was replaced as it was -> a row for each deployment of the plan."""
        rows = []
        for found in await _deployed(client, plan):
            on = []
            for each in found.schedules:
                wanted = self.schedules.get((found.name, each.slug or ""), bool(each.active))
                if wanted != bool(each.active):
                    await client.update_deployment_schedule(found.id, each.id, active=wanted)
                on.append(f"schedule {each.slug} {'on' if wanted else 'off'}")
            result: Result = "present" if found.name in self.known else "created"
            rows.append(Row("deployment", found.name, result, ", ".join(on)))
        for name, enabled in self.triggers.items():
            for known in await client.read_automations_by_name(name):
                if known.enabled != enabled:
                    await (client.resume_automation if enabled else client.pause_automation)(known.id)
        return rows


async def _deployed(client: PrefectClient, plan: dict[str, Any]) -> list[DeploymentResponse]:
    """The deployments of a plan that the server knows, in the plan's order."""
    names = [str(each["name"]) for each in plan["deployments"]]
    wanted = DeploymentFilter(name=DeploymentFilterName(any_=names))
    found = await client.read_deployments(deployment_filter=wanted)
    return sorted(found, key=lambda each: names.index(each.name))


def _triggers(plan: dict[str, Any]) -> list[str]:
    return [trigger["name"] for each in plan["deployments"] for trigger in each.get("triggers", ())]
