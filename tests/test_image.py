"""The image of workers and the compose file: read as what runs them would, since no engine runs here.

`make check` also lints both (hadolint, compose-lint).
"""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployments.configuration import Configuration, load

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "deployments"
LINES = (FOLDER / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
STEPS = [line.split(None, 1) for line in LINES if line and not line.startswith("#")]
COMPOSE: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, Any] = COMPOSE["services"]
each_service = pytest.mark.parametrize("name", SERVICES)


def steps(kind: str) -> list[str]:
    return [rest for word, rest in STEPS if word == kind]


def test_the_image_is_locked_compiled_and_not_root() -> None:
    assert all(re.search(r":[\w.-]*\d", line.split(" AS ")[0]) for line in steps("FROM"))
    assert len(steps("FROM")) == 2, "what builds is not in what runs"
    installing = " ".join(steps("RUN"))
    assert "--constraint requirements-dev.lock" in installing
    assert "--no-deps ." in installing
    assert "UV_COMPILE_BYTECODE=1" in " ".join(steps("ENV"))
    last = [index for index, (word, _) in enumerate(STEPS) if word == "FROM"][-1]
    [user] = [rest for word, rest in STEPS[last:] if word == "USER"]
    assert user.isdigit(), "a name cannot be checked by Kubernetes' runAsNonRoot"
    assert int(user) > 0
    command = json.loads(steps("CMD")[0])
    assert command[:3] == ["prefect", "worker", "start"]


def test_all_that_is_copied_is_there_and_let_in() -> None:
    """The context is closed (``*``) and opened for what the image needs: nothing else ends up in a layer."""
    allowed = (FOLDER / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert allowed[0] == "*"
    for line in steps("COPY"):
        words = shlex.split(line)
        if words[0].startswith("--from"):
            continue
        for source in words[:-1]:
            assert (ROOT / source).exists()
            assert f"!{source}" in allowed
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = re.findall(r"--extra (\w+)", " ".join(steps("RUN")))
    assert set(asked) <= set(project["optional-dependencies"])


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from strings(item)
    elif isinstance(value, str):
        yield value


@each_service
def test_a_service_waits_for_what_it_needs(name: str) -> None:
    service = SERVICES[name]
    for other, how in service.get("depends_on", {}).items():
        if how["condition"] == "service_healthy":
            assert SERVICES[other]["healthcheck"]["test"]
        else:
            assert how["condition"] == "service_completed_successfully"
            assert "restart" not in SERVICES[other], "it never ends"
    assert service.get("image") or service.get("build")
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_volumes_and_configs_are_declared_and_the_build_is_ours() -> None:
    for service in SERVICES.values():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert source.startswith(".") or source in COMPOSE["volumes"]
        for config in service.get("configs", ()):
            assert config["source"] in COMPOSE["configs"]
        if build := service.get("build"):
            assert (FOLDER / build["context"] / build["dockerfile"]).resolve() == FOLDER / "Dockerfile"


def test_no_password_stands_in_it_and_no_port_is_open_to_others() -> None:
    named = [
        (key, value)
        for service in SERVICES.values()
        for key, value in service.get("environment", {}).items()
        if re.search("PASSWORD|USER|SECRET|CONNECTION", key) and value != "prefect"
    ]
    assert named
    for key, value in named:
        assert re.search(r"\$\{\w+:\?", value), f"{key} has to be given, or compose stops"
    for service in SERVICES.values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))


def test_its_bootstrap_is_told_what_it_takes(tmp_path: Path) -> None:
    file = tmp_path / "bootstrap.toml"
    file.write_text(COMPOSE["configs"]["bootstrap"]["content"], encoding="utf-8")
    keys = dict.fromkeys(SERVICES["bootstrap"]["environment"], "given-4711")
    found: Configuration = load(file, keys)
    assert found.block().location == "s3://mltrack/mltrack"
    assert found.block().endpoint_url == "http://minio:9000"
    # In content, compose takes a single dollar for a variable of its own.
    assert "$" not in COMPOSE["configs"]["bootstrap"]["content"]
