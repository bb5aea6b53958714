"""What is delivered: the wheel, its metadata, the lock, and what `make` offers."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from email.message import Message
from email.parser import Parser
from pathlib import Path
from typing import Any

import pytest

import mltrack_tasks
from tests.wheels import build_wheel

ROOT = Path(__file__).parent.parent
HEAVY = ("boto3", "botocore", "duckdb", "mlflow", "numpy", "obstore", "pandas", "prefect", "pyarrow")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    with zipfile.ZipFile(build_wheel(tmp_path_factory.mktemp("sources"))) as opened:
        yield opened


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> Message:
    (name,) = (n for n in wheel.namelist() if n.endswith(".dist-info/METADATA"))
    return Parser().parsestr(wheel.read(name).decode())


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return dict(settings["project"])


def modules(folder: str, package: str) -> set[str]:
    return {
        f"{package}/{path.relative_to(ROOT / folder).as_posix()}" for path in (ROOT / folder).rglob("*.py")
    }


def test_wheel_holds_every_module_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    found = {name for name in wheel.namelist() if ".dist-info/" not in name}
    wanted = modules("mltrack_tasks", "mltrack_tasks") | modules("flows", "mltrack_flows")
    wanted |= modules("deployments", "mltrack_deployments")
    wanted |= {"mltrack_tasks/py.typed", "mltrack_tasks/pricing/prices.toml"}
    data = ("prefect.yaml", "requirements.txt", "bootstrap.example.toml")
    assert found == wanted | {f"mltrack_deployments/{name}" for name in data}


def test_the_deployments_of_the_wheel_are_those_of_the_checkout(wheel: zipfile.ZipFile) -> None:
    assert wheel.read("mltrack_deployments/prefect.yaml") == (ROOT / "prefect.yaml").read_bytes()


def test_wheel_names_its_blocks_and_licence(wheel: zipfile.ZipFile) -> None:
    (entry_points,) = (n for n in wheel.namelist() if n.endswith("entry_points.txt"))
    assert "[prefect.collections]\nmltrack_tasks = mltrack_tasks.blocks" in wheel.read(entry_points).decode()
    (licence,) = (n for n in wheel.namelist() if n.endswith("/LICENSE"))
    assert wheel.read(licence) == (ROOT / "LICENSE").read_bytes()


def test_metadata(metadata: Message) -> None:
    assert metadata["Name"] == "mltrack_tasks"
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert set(metadata.get_all("Provides-Extra", [])) == {"mlflow", "sql", "scan", "dask", "dev"}


def test_prefect_and_fastapi_are_capped(metadata: Message) -> None:
    """A fastapi that Prefect's server cannot live with breaks every flow run without a server."""
    lines = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    required = {name_of(line): line for line in lines}
    assert "<" in required["prefect"]
    assert "<" in required["fastapi"]
    assert "botocore" not in required


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = (
        "import sys, mltrack_tasks; "
        f"print(*sorted({{name.partition('.')[0] for name in sys.modules}} & {set(HEAVY)!r}))"
    )
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout == "\n"


def name_of(requirement: str) -> str:
    """``moto[s3]>=5`` -> ``moto``."""
    return re.split(r"[^\w-]", requirement, maxsplit=1)[0]


def locked() -> list[str]:
    return (ROOT / "requirements-dev.lock").read_text(encoding="utf-8").splitlines()


def test_lock_holds_pins_and_no_address() -> None:
    pin = re.compile(r"[a-z0-9.\-_]+(\[[a-z,]+\])?==[\w.+!]+( ; [\w '<>=!.()]+)?")
    assert [line for line in locked() if not pin.fullmatch(line)] == []


def test_lock_covers_every_requirement(project: dict[str, Any]) -> None:
    names = {line.partition("==")[0] for line in locked()}
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    assert {name_of(line) for group in groups for line in group} - names == set()


def make(*arguments: str, rules: str = "", **settings: str) -> str:
    """Run make as from a shell, even where make runs the tests -> what it printed."""
    env = {"PATH": os.environ["PATH"], **settings}
    command = ["make", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=env, input=rules, capture_output=True, text=True, check=True
    ).stdout


def test_make_help_is_the_default_and_lists_the_targets() -> None:
    said = make().splitlines()
    offered = {line.split()[1] for line in said}
    assert {"help", "demo", "test", "check", "bench"} <= offered
    assert len(offered) == len(said)


@pytest.mark.parametrize(("bucket", "seen"), [("", "-"), ("mine", "shop-")])
def test_make_keeps_foreign_settings_out_unless_a_bucket_is_named(bucket: str, seen: str) -> None:
    rules = 'include Makefile\nshow:\n\t@printf \'%s-%s\' "$$AWS_PROFILE" "$$PREFECT_API_URL"\n'
    foreign = {"AWS_PROFILE": "shop", "PREFECT_API_URL": "http://127.0.0.1:9", "MLTRACK_S3_BUCKET": bucket}
    assert make("-f", "-", "show", rules=rules, **foreign) == seen


def test_readme_imports_public_names() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    nodes = [node for block in blocks for node in ast.walk(ast.parse(block))]
    imports = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.module == "mltrack_tasks"]
    names = {alias.name for node in imports for alias in node.names}
    assert names, "the README shows no import of the package"
    assert names <= set(mltrack_tasks.__all__)


def test_readme_shows_pictures_that_are_there_and_small() -> None:
    shown = re.findall(r"!\[.+?\]\((.*?)\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert sorted(shown) == sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.png"))
    assert {name: size for name in shown if (size := (ROOT / name).stat().st_size) > 200_000} == {}
