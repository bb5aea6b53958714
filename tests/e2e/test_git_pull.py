"""A worker that has what requirements.txt names and nothing of this package pulls the flows from git."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from mltrack_tasks.migration import download_from_s3
from mltrack_tasks.stores import open_s3
from tests.e2e.site import Site
from tests.settings import fresh_prefix
from tests.wheels import ROOT, copy_sources

pytestmark = pytest.mark.timeout(300)

POOL = "pulling"
LACKING = "raise ImportError('this worker has no package but those of requirements.txt')\n"
"""What a worker finds in place of the package that these tests have installed; a clone comes before it."""


def git(*arguments: str, cwd: Path) -> None:
    who = ["-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *who, *arguments], cwd=cwd, check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> str:
    """A bare repository with this checkout, changes and all -> its URL."""
    (tmp_path / "sources").mkdir()
    sources = copy_sources(tmp_path / "sources")
    shutil.copy(ROOT / "prefect.yaml", sources)
    git("init", "--initial-branch", "main", cwd=sources)
    git("add", "--all", cwd=sources)
    git("commit", "--message", "as it is", cwd=sources)
    git("clone", "--bare", str(sources), str(tmp_path / "mltrack.git"), cwd=tmp_path)
    return (tmp_path / "mltrack.git").as_uri()


def test_a_run_takes_flows_and_package_from_the_clone(site: Site, repository: str, tmp_path: Path) -> None:
    for name in ("mltrack_tasks", "mltrack_flows"):
        (tmp_path / "lacking" / name).mkdir(parents=True)
        (tmp_path / "lacking" / name / "__init__.py").write_text(LACKING)
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "notes.txt").write_text("the loss falls")
    settings = replace(site.settings, prefix=fresh_prefix())
    site.make_pool(POOL)
    site.deploy_one("mltrack-migrate-to-s3", "pulled", POOL, f"{repository}@main")

    with site.worker(POOL, POOL, **site.variables, PYTHONPATH=str(tmp_path / "lacking")) as worker:
        deployed = site.deployment("mltrack-migrate-to-s3", worker, "pulled")
        place = f"s3://{settings.bucket}/{settings.prefix}"
        run = deployed.wait(deployed.start(local_path=str(tmp_path / "tree"), store=place))

    assert run["state_type"] == "COMPLETED", run["state"]["message"]
    found = deployed.server.ask(f"deployments/{deployed.id}")
    assert [next(iter(step)).rpartition(".")[2] for step in found["pull_steps"]] == [
        "git_clone",
        "pip_install_requirements",
    ]
    assert found["entrypoint"] == "flows/migrate_to_s3.py:migrate_to_s3"
    download_from_s3(open_s3(settings), tmp_path / "back")
    assert (tmp_path / "back" / "notes.txt").read_text() == "the loss falls"
