"""The block type reaches a server that knows nothing of this package."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
import urllib.error
from pathlib import Path

import pytest

from tests.e2e.prefect_server import ROOT, PrefectServer, shared_server

pytestmark = pytest.mark.timeout(300)
SLUG = "mltrack-store"

SAVE_AND_LOAD = """
from prefect_aws import AwsCredentials
from mltrack_tasks import MLTrackStore
from mltrack_tasks.resolve import find_store

keys = AwsCredentials(
    aws_access_key_id="AKIDEXAMPLE", aws_secret_access_key="SECRET-4711", aws_session_token="TOKEN-4711"
)
block = MLTrackStore(bucket="bucket", prefix="team", credentials=keys)
block.save("registered")
loaded = find_store("registered")
assert loaded == block
assert loaded.credentials.aws_secret_access_key.get_secret_value() == "SECRET-4711"
print("loaded", loaded)
"""

COLLECTIONS = """
from prefect.plugins import load_prefect_collections
found = load_prefect_collections()
print("collection", found["mltrack_tasks"].__name__, found["mltrack_tasks"].MLTrackStore.__name__)
"""


@pytest.fixture(scope="module")
def server() -> PrefectServer:
    return shared_server()


def entry_points() -> dict[str, str]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    return dict(project["entry-points"]["prefect.collections"])


def test_the_environment_of_the_server_lacks_the_package(server: PrefectServer) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import prefect, mltrack_tasks"],
        env=dict(server.environment),
        cwd=server.home,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "No module named 'mltrack_tasks'" in done.stderr


def test_register_save_and_load(server: PrefectServer) -> None:
    with pytest.raises(urllib.error.HTTPError, match="404"):
        server.ask(f"block_types/slug/{SLUG}")

    said = server.run("-m", "prefect", "--no-prompt", "block", "register", "-m", "mltrack_tasks.blocks")

    assert "MLTrack Store" in said
    block_type = server.ask(f"block_types/slug/{SLUG}")
    assert block_type["name"] == "MLTrack Store"
    assert "store_data" in block_type["code_example"]
    assert "loaded MLTrackStore('s3://bucket/team')" in server.run("-c", SAVE_AND_LOAD)
    shown = json.dumps(server.ask(f"block_types/slug/{SLUG}/block_documents/name/registered"))
    assert "AKIDEXAMPLE" in shown
    assert "4711" not in shown  # what the UI gets, session token included


def test_the_schema_offers_both_credentials(server: PrefectServer) -> None:
    server.run("-m", "prefect", "--no-prompt", "block", "register", "-m", "mltrack_tasks.blocks")
    type_id = server.ask(f"block_types/slug/{SLUG}")["id"]
    (schema,) = server.ask("block_schemas/filter", {"block_schemas": {"block_type_id": {"any_": [type_id]}}})
    nested = schema["fields"]["block_schema_references"]["credentials"]
    assert {each["block_type_slug"] for each in nested} == {"aws-credentials", "minio-credentials"}
    assert schema["fields"]["properties"]["bucket"]["description"]


def test_the_entry_point_names_the_module_of_the_blocks(server: PrefectServer, tmp_path: Path) -> None:
    """Prefect imports what the group names and looks at the members of that module."""
    points = entry_points()
    assert points == {"mltrack_tasks": "mltrack_tasks.blocks"}
    installed = tmp_path / "mltrack_tasks-0.dist-info"  # what an installer writes
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: mltrack_tasks\nVersion: 0\n")
    lines = [f"{name} = {value}" for name, value in points.items()]
    (installed / "entry_points.txt").write_text("\n".join(["[prefect.collections]", *lines, ""]))

    said = server.run("-c", COLLECTIONS, PYTHONPATH=f"{tmp_path}:{ROOT}")

    assert "collection mltrack_tasks.blocks MLTrackStore" in said
