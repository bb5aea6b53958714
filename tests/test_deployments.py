"""prefect.yaml and what a bootstrap makes of it, without a server: every flow is there, and nothing leaks."""

from __future__ import annotations

import importlib
import re
import socket
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect import Flow
from prefect.client.schemas.schedules import construct_schedule
from prefect.events import DeploymentTriggerTypes
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools.validation import ValidationError, validate
from pydantic import TypeAdapter

from deployments import configuration, deploying
from deployments.bootstrap import main, planned
from deployments.configuration import Configuration
from mltrack_tasks import events
from mltrack_tasks.errors import InvalidInputError
from tests.servers import S3Server

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "prefect.yaml").read_text(encoding="utf-8")
FILE: dict[str, Any] = yaml.safe_load(TEXT)
DEPLOYMENTS: list[dict[str, Any]] = FILE["deployments"]
each_deployment = pytest.mark.parametrize("deployed", DEPLOYMENTS, ids=[each["name"] for each in DEPLOYMENTS])
FLOWS = sorted(path.stem for path in (ROOT / "flows").glob("*.py") if path.stem != "__init__")
MUST_BE_ASKED = {
    "mltrack-register-model": {"run_id", "model_name"},
    "mltrack-promote-model": {"model_name"},
    "mltrack-rollback-model": {"model_name"},
    "mltrack-process-new-data": {"queue"},
    "mltrack-replicate-store": {"target"},
    "mltrack-apply-retention": {"policies"},
}
"""Parameters that a person has to give; any other deployment can be run as it is."""


def flow_of(deployed: dict[str, Any]) -> Flow[..., Any]:
    """The flow of this checkout: `mltrack_flows` may be installed from another."""
    module, _, name = deployed["entrypoint"].removeprefix("mltrack_flows.").partition(".")
    found = getattr(importlib.import_module(f"flows.{module}"), name)
    assert isinstance(found, Flow)
    return found


def schema_of(deployed: dict[str, Any]) -> dict[str, Any]:
    return parameter_schema(flow_of(deployed)).model_dump()


def test_every_flow_has_a_deployment() -> None:
    """CONTRIBUTING.md says what a new flow needs."""
    deployed = {each["entrypoint"].split(".")[1] for each in DEPLOYMENTS}
    assert deployed == set(FLOWS), "each flow in flows/ needs an entry in prefect.yaml"
    names = [each["name"] for each in DEPLOYMENTS]
    assert len(names) == len(set(names))


@each_deployment
def test_a_deployment_says_what_it_is(deployed: dict[str, Any]) -> None:
    flow = flow_of(deployed)
    assert (
        deployed["name"] == flow.name == f"mltrack-{deployed['entrypoint'].split('.')[1].replace('_', '-')}"
    )
    assert len(deployed["description"]) > 40
    assert deployed["tags"][0] == "mltrack"
    assert len(deployed["tags"]) == 2
    assert deployed["version"] == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert deployed["work_pool"] == FILE["definitions"]["work_pools"]["process"]
    assert flow.flow_run_name, "a run's name tells what it does: flow_run_name=..."


@each_deployment
def test_its_form_explains_itself(deployed: dict[str, Any]) -> None:
    schema = schema_of(deployed)
    properties = schema["properties"]
    undescribed = [name for name, each in properties.items() if not each.get("description")]
    assert not undescribed, f"describe {undescribed} under Args: in the flow's docstring"
    assert max(properties, key=lambda name: properties[name]["position"]) == "store"
    kinds = [each.get("$ref", each.get("type")) for each in properties["store"]["anyOf"]]
    assert kinds == ["#/definitions/MLTrackStore", "string", "null"], "store: StoreChoice = None"
    assert schema["definitions"]["MLTrackStore"]["block_type_slug"] == "mltrack-store"
    assert set(schema.get("required", ())) == MUST_BE_ASKED.get(deployed["name"], set())
    given = [deployed["parameters"], *(each.get("parameters", {}) for each in deployed.get("schedules", ()))]
    given += [each.get("parameters", {}) for each in deployed.get("triggers", ())]
    assert set().union(*given) <= set(properties)


@each_deployment
def test_the_server_takes_a_reference_to_a_block_each_time(deployed: dict[str, Any]) -> None:
    """As a new deployment, without regard to what is required, and as one that is updated."""
    reference = {"store": {"$ref": {"block_document_id": "fc340634-7cee-400c-ae90-1b73d8cd2633"}}}
    for updated in (False, True):
        schema = {**schema_of(deployed), "required": []}
        validate(reference, schema, True, preprocess=updated, ignore_required=not updated)
        with pytest.raises(ValidationError, match="store"):
            validate({"store": 7}, schema, True, preprocess=updated, ignore_required=True)


@each_deployment
def test_what_runs_by_itself_is_off_and_does_not_pile_up(deployed: dict[str, Any]) -> None:
    for schedule in deployed.get("schedules", ()):
        construct_schedule(cron=schedule["cron"])
        assert schedule["active"] is False
        assert schedule["slug"], "by which a bootstrap knows what people switched on"
        assert deployed["concurrency_limit"] == {"limit": 1, "collision_strategy": "CANCEL_NEW"}
    known = {value for value in vars(events).values() if isinstance(value, str)}
    for trigger in deployed.get("triggers", ()):
        TypeAdapter(DeploymentTriggerTypes).validate_python(trigger)
        assert set(trigger["expect"]) <= known


def test_the_schedules_are_those_of_the_documentation() -> None:
    found = {each["name"]: [it["slug"] for it in each.get("schedules", ())] for each in DEPLOYMENTS}
    page = (ROOT / "deployments" / "README.md").read_text(encoding="utf-8")
    for name, slugs in found.items():
        for slug in slugs:
            assert re.search(rf"\| `{name}` \| {slug} \|", page), f"{name}: {slug}"


@pytest.mark.parametrize("pool", ["process", "docker", "kubernetes", "ecs"])
def test_no_secret_and_no_machine_path_lands_in_a_deployment(pool: str) -> None:
    plan = str(deploying.read(pool, None, "installed")["deployments"])
    for secret in ("prefect.blocks", "{{ $", "password", "secret", "AKIA", str(ROOT), socket.gethostname()):
        assert secret not in plan
    assert re.findall(r"['\" ]/(?:home|root|work|tmp|Users)\b", plan) == []
    for each in deploying.read(pool, None, "installed")["deployments"]:
        # Left out, Prefect writes the folder of whoever deploys, and the URL of the checkout's remote.
        assert each["pull"] == [{"prefect.deployments.steps.set_working_directory": {"directory": "."}}]
        assert each["version_type"] == "prefect:simple"


def test_each_pool_is_chosen_for_all() -> None:
    for kind, pool in FILE["definitions"]["work_pools"].items():
        chosen = [each["work_pool"] for each in deploying.read(kind, "team", "installed")["deployments"]]
        assert chosen == [{**pool, "name": "team"}] * len(DEPLOYMENTS)


@pytest.mark.parametrize(
    ("code", "repository"),
    [
        ("checkout", None),
        ("https://example.org/team/repo.git", {"repository": "https://example.org/team/repo.git"}),
        ("https://u@example.org/repo", {"repository": "https://u@example.org/repo"}),
        ("file:///srv/repo.git@main", {"repository": "file:///srv/repo.git", "branch": "main"}),
    ],
)
def test_code_from_elsewhere(code: str, repository: dict[str, str] | None) -> None:
    for each in deploying.read("process", None, code)["deployments"]:
        path, _, name = each["entrypoint"].partition(":")
        assert name in (ROOT / path).read_text(encoding="utf-8")
        first, *rest = each["pull"]
        if repository is None:
            assert first == {"prefect.deployments.steps.set_working_directory": {"directory": str(ROOT)}}
        else:
            assert first == {"prefect.deployments.steps.git_clone": {"id": "clone", **repository}}
            [[step]] = [each.values() for each in rest]
            assert (ROOT / step["requirements_file"]).is_file()


def test_a_variable_that_is_not_set_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Prefect would deploy an empty text."""
    wanting = tmp_path / "prefect.yaml"
    wanting.write_text(TEXT.replace("image: mltrack-worker:0.1.0", 'image: "{{ $MLTRACK_IMAGE }}"'))
    monkeypatch.setattr(deploying, "FILE", wanting)
    with pytest.raises(InvalidInputError, match="MLTRACK_IMAGE"):
        deploying.read("docker", None, "installed")
    monkeypatch.setenv("MLTRACK_IMAGE", "registry.example.org/worker:1")
    assert deploying.read("docker", None, "installed")


def test_the_requirements_are_those_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (ROOT / "deployments" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if not line.startswith("#")] == project["dependencies"]


def test_the_example_of_a_configuration_is_one(tmp_path: Path) -> None:
    example = (ROOT / "deployments" / "bootstrap.example.toml").read_text(encoding="utf-8")
    found = configuration.load(ROOT / "deployments" / "bootstrap.example.toml")
    assert found.block().location == "s3://your-mltrack-bucket/mltrack"
    assert found.block().credentials is None
    every = tmp_path / "every.toml"
    every.write_text(re.sub(r"^# (?=(\[|\w+ = ))", "", example, flags=re.MULTILINE), encoding="utf-8")
    values = {
        "MINIO_ROOT_USER": "u",
        "MINIO_ROOT_PASSWORD": "hidden-4711",
        "MLTRACK_NOTIFY_URL": "https://hidden-4711",
    }
    full = configuration.load(every, values)
    credentials = full.block().credentials
    assert credentials is not None
    assert full.automations.notify_url is not None
    assert "hidden-4711" not in repr(full.automations) + repr(full.block())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[store]\nbucket = 1", "bucket"),
        ("[store]\nbucket = 'b'\ncolour = 'red'\n[pool]\nkind = 'x'", "pool.kind"),
        ("[pool]\ntype = 'vm'", "pool.type"),
        ("[limits]\nx = 0", "limits.x"),
        ("[automations]\nzombie_after = 1", "zombie_after"),
        ("name = 'Not A Name'", "name"),
        ("[store]\nbucket = {env = 'NOT_SET'}", "store.bucket is to come from NOT_SET"),
        ("[store]\nbucket = 'b'\n[credentials]\nsecret = 'hidden-4711'", "secret"),
        ("[store]\nbucket = 'b'\n[credentials]\naws_access_key_id = ['hidden-4711']", "aws_access_key_id"),
        ("[credentials]\naws_access_key_id = 'hidden-4711'", "belong to a"),
        ("name = ", "TOML"),
    ],
)
def test_a_configuration_that_is_none_is_told_without_its_secrets(
    tmp_path: Path, text: str, message: str
) -> None:
    file = tmp_path / "bootstrap.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidInputError, match=re.escape(message)) as told:
        configuration.load(file, {}).block()
    assert "hidden-4711" not in str(told.value)


def test_a_dry_run_tries_the_store_and_asks_no_server(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--store", str(tmp_path / "store"), "--dry-run", "--pool-type", "docker"]) == 0
    said = capsys.readouterr().out
    assert "would create" in said
    for each in DEPLOYMENTS:
        assert each["name"] in said
    assert "mltrack-docker" in said


def test_a_store_that_cannot_be_used_stops_it(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = {"AWS_ACCESS_KEY_ID": s3_server.access_key, "AWS_SECRET_ACCESS_KEY": s3_server.secret_key}
    for name, value in {**keys, "AWS_ENDPOINT_URL": s3_server.endpoint}.items():
        monkeypatch.setenv(name, value)
    assert main(["--store", "s3://no-such-bucket", "--dry-run"]) == 1
    told = capsys.readouterr().err
    assert "no-such-bucket" in told
    assert "nothing was changed" in told


def test_a_plan_names_what_would_be_made(tmp_path: Path) -> None:
    chosen = Configuration(store=str(tmp_path), limits={"mltrack-transfers": 2})
    rows = planned(chosen, chosen.block(), deploying.read("process", None, "installed"))
    assert {row.kind for row in rows} == {
        "block",
        "variable",
        "work pool",
        "limit",
        "automation",
        "deployment",
    }
