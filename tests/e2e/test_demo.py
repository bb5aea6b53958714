"""The demo tells its story whatever surrounds it, and touches nothing but its own store."""

from __future__ import annotations

import hashlib
import json
import os
import re
import socketserver
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.e2e.run_examples import load_module
from tests.servers import S3Server, client, create_bucket, moto
from tests.servers.process import clean_environment, running

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "examples" / "s3_integration_demo.py"
PARTS = ROOT / "examples" / "demo"
BUCKET = "team-bucket"
OURS = re.compile(r"mltrack-demo-\d{8}-\d{6}-[0-9a-f]{6}/")
FILES, CONTENTS = 103, 52
"""Files of examples/data/mlruns, and how many of them differ."""
STORY = (
    "3. Store the same DataFrame again",
    "ok   present, with the same ref",
    "ok   nothing was uploaded",
    "├── data/",
    "ok   hourly: values, types, index and order of columns",
    "ok   images: values, shape and type",
    "ok   the file, byte for byte, by its ref's text",
    f"{FILES} files, 54.1 kB: {CONTENTS} created, {FILES - CONTENTS} present",
    "ok   the restored folder has the same files, byte for byte",
    "All 14 checks passed",
)

pytestmark = pytest.mark.timeout(400)


class Recorder(socketserver.ThreadingTCPServer):
    """A port of this machine that plays whatever must not be reached, and notes how callers begin."""

    daemon_threads = True

    def __init__(self) -> None:
        self.contacts: list[str] = []
        super().__init__(("127.0.0.1", 0), _Answer404)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"


class _Answer404(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        recorder = self.server
        assert isinstance(recorder, Recorder)
        recorder.contacts.append(self.request.recv(4096).decode("latin-1").partition("\r\n")[0])
        self.request.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


@contextmanager
def recording() -> Iterator[Recorder]:
    with Recorder() as recorder:
        thread = threading.Thread(target=recorder.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield recorder
        finally:
            recorder.shutdown()
            thread.join()


@dataclass(frozen=True)
class Surroundings:
    """A user's machine: environment, home, working directory and folder for temporary files."""

    env: dict[str, str]
    home: Path
    cwd: Path
    temporary: Path


def hostile(folder: Path, address: str) -> Surroundings:
    """Every way by which Prefect and AWS settings come in, each pointing to ``address``."""
    home, cwd, temporary = (folder / name for name in ("home", "project", "temporary"))
    for each in (home / ".aws" / "sso" / "cache", home / ".prefect", cwd, temporary):
        each.mkdir(parents=True)
    _write_prefect_files(home, cwd, address)
    _write_aws_files(home, address)
    env = {
        "HOME": str(home),
        "TMPDIR": str(temporary),
        "PYTHONPATH": str(ROOT),
        "PREFECT_PROFILES_PATH": str(home / ".prefect" / "profiles.toml"),
        "PREFECT_PROFILE": "production",
        "PREFECT_API_URL": f"http://{address}/environment/api",
        "PREFECT_API_KEY": "pnu_garbage",
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"postgresql+asyncpg://u:p@{address}/production",
        "AWS_PROFILE": "expired",
        "AWS_ENDPOINT_URL": f"http://{address}/aws",
        "AWS_ENDPOINT_URL_S3": f"http://{address}/s3",
        "AWS_ACCESS_KEY_ID": "garbage",
        "AWS_SECRET_ACCESS_KEY": "garbage",
        "AWS_SESSION_TOKEN": "garbage",
        "HTTP_PROXY": f"http://{address}",
        "HTTPS_PROXY": f"http://{address}",
        "MLTRACK_STORE": "production",
        "MLTRACK_S3_PREFIX": "production",
    }
    return Surroundings({**clean_environment(), **env}, home, cwd, temporary)


def _write_prefect_files(home: Path, cwd: Path, address: str) -> None:
    profile = f'[profiles.production]\nPREFECT_API_URL = "http://{address}/profile/api"\n'
    (home / ".prefect" / "profiles.toml").write_text(f'active = "production"\n{profile}')
    (cwd / ".env").write_text(f"PREFECT_API_URL=http://{address}/dotenv/api\n")
    (cwd / "prefect.toml").write_text(f'[api]\nurl = "http://{address}/toml/api"\n')
    (cwd / "mltrack.toml").write_text('store = "s3://production"\n')


def _write_aws_files(home: Path, address: str) -> None:
    session = f"[sso-session old]\nsso_start_url = http://{address}/start\nsso_region = eu-central-1\n"
    account = "sso_account_id = 111122223333\nsso_role_name = Reader\nregion = eu-central-1\n"
    (home / ".aws" / "config").write_text(f"{session}[profile expired]\nsso_session = old\n{account}")
    token = {
        "startUrl": f"http://{address}/start",
        "region": "eu-central-1",
        "accessToken": "old",
        "expiresAt": "2020-01-01T00:00:00Z",
    }
    cache = home / ".aws" / "sso" / "cache" / f"{hashlib.sha1(b'old').hexdigest()}.json"
    cache.write_text(json.dumps(token))


@dataclass(frozen=True)
class Told:
    """How a run of the demo ended."""

    code: int
    output: str


def run(command: list[str], place: Surroundings, log: Path) -> Told:
    """Run a command in a user's surroundings."""
    with running("demo", ["env", "-C", str(place.cwd), *command], log, place.env) as child:
        code = child.process.wait(240)
    return Told(code, log.read_text(encoding="utf-8"))


def listing(server: S3Server) -> dict[str, Any]:
    pages = client(server).get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
    return {
        item["Key"]: (item["Size"], item["ETag"], item["LastModified"])
        for page in pages
        for item in page["Contents"]
    }


@dataclass(frozen=True)
class Runs:
    """Two runs of the demo, side by side because each takes half a minute, and what they left."""

    place: Surroundings
    unconfigured: Told
    contacts: list[str]
    in_a_bucket: Told
    before: dict[str, Any]
    after: dict[str, Any]
    contacts_in_a_bucket: list[str]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    folder = tmp_path_factory.mktemp("demo")
    demo = [sys.executable, str(DEMO)]
    with recording() as first, recording() as second, moto.serve() as server, ThreadPoolExecutor() as pool:
        place = hostile(folder / "first", first.address)
        other = hostile(folder / "second", second.address)
        use_aws(other, server, BUCKET)
        create_bucket(server, BUCKET)
        for key in ("mltrack/format.json", "mltrack-demo-20200101-000000-abcdef/format.json", "notes.txt"):
            client(server).put_object(Bucket=BUCKET, Key=key, Body=b"not the demo's")
        before = listing(server)
        told = pool.submit(run, demo, place, folder / "first.log")
        told_other = pool.submit(run, demo, other, folder / "second.log")
        results = (told.result(), first.contacts, told_other.result(), before, listing(server))
        yield Runs(place, *results, second.contacts)


def use_aws(place: Surroundings, server: S3Server, bucket: str) -> None:
    """Give the user a working S3: keys in the environment, the address of a server of their own."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
        del place.env[name]
    place.env.update(
        AWS_ENDPOINT_URL=server.endpoint,
        AWS_ACCESS_KEY_ID=server.access_key,
        AWS_SECRET_ACCESS_KEY=server.secret_key,
        AWS_DEFAULT_REGION=server.region,
        MLTRACK_S3_BUCKET=bucket,
    )


def test_it_tells_its_story_with_nothing_configured(runs: Runs) -> None:
    assert runs.unconfigured.code == 0, runs.unconfigured.output
    assert [line for line in STORY if line not in runs.unconfigured.output] == []


def test_it_says_nothing_but_its_story(runs: Runs) -> None:
    for told in (runs.unconfigured, runs.in_a_bucket):
        assert re.findall(r"WARNING|ERROR|Traceback|[0-9a-f]{64}", told.output) == []


def test_hostile_surroundings_are_never_contacted(runs: Runs) -> None:
    assert runs.contacts == []


def test_it_leaves_nothing_on_the_machine(runs: Runs) -> None:
    assert list(runs.place.temporary.iterdir()) == []
    assert sorted(path.name for path in runs.place.cwd.iterdir()) == [".env", "mltrack.toml", "prefect.toml"]
    assert [path.name for path in (runs.place.home / ".prefect").iterdir()] == ["profiles.toml"]


def test_in_a_bucket_it_keeps_to_one_fresh_prefix(runs: Runs) -> None:
    assert runs.in_a_bucket.code == 0, runs.in_a_bucket.output
    assert [line for line in STORY if line not in runs.in_a_bucket.output] == []
    assert runs.contacts_in_a_bucket == []
    assert {key: runs.after[key] for key in runs.before} == runs.before
    added = runs.after.keys() - runs.before.keys()
    prefixes = {match.group() if (match := OURS.match(key)) else key for key in added}
    assert len(prefixes) == 1
    assert f"aws s3 rm --recursive s3://{BUCKET}/{prefixes.pop()}\n" in runs.in_a_bucket.output


def test_the_hostile_surroundings_bite(tmp_path: Path) -> None:
    """Without the demo's care, Prefect and boto3 do go where the surroundings point."""
    script = (
        "import boto3, contextlib\n"
        "from prefect.client.orchestration import get_client\n"
        "with get_client(sync_client=True) as api, contextlib.suppress(Exception): api.hello()\n"
        "with contextlib.suppress(Exception): boto3.client('s3').list_buckets()\n"
    )
    with recording() as recorder:
        place = hostile(tmp_path, recorder.address)
        place.env["NO_PROXY"] = "127.0.0.1"
        told = run([sys.executable, "-c", script], place, tmp_path / "log")
        assert told.code == 0, told.output
    assert "GET /environment/api/hello HTTP/1.1" in recorder.contacts
    assert any("/s3" in contact for contact in recorder.contacts)


def test_a_bucket_that_is_not_there_ends_it_at_once(tmp_path: Path) -> None:
    with recording() as recorder, moto.serve() as server:
        place = hostile(tmp_path, recorder.address)
        use_aws(place, server, "not-there")
        told = run([sys.executable, str(DEMO)], place, tmp_path / "log")
    assert told.code == 1
    assert "The demo failed: " in told.output
    assert "NoSuchBucket" in told.output
    assert "s3://not-there" in told.output
    assert "Prefect" not in told.output
    assert recorder.contacts == []


@pytest.fixture(scope="module")
def surroundings() -> ModuleType:
    return load_module(PARTS / "surroundings.py")


def test_the_users_aws_settings_stay_when_a_bucket_is_named(surroundings: ModuleType) -> None:
    given = {
        "AWS_PROFILE": "mine",
        "AWS_CONFIG_FILE": "aws/config",
        "PREFECT_API_URL": "x",
        "HTTPS_PROXY": "http://proxy",
        "NO_PROXY": "internal",
    }
    before = dict(given)
    sealed = surroundings.sealed(given, Path("/home"), keep_aws=True)
    assert given == before
    assert sealed["AWS_PROFILE"] == "mine"
    assert sealed["AWS_CONFIG_FILE"] == os.path.abspath("aws/config")
    assert sealed["NO_PROXY"] == "internal,127.0.0.1,localhost"
    assert "PREFECT_API_URL" not in sealed
    assert "AWS_EC2_METADATA_DISABLED" not in sealed


def test_the_tree_shortens_digests_and_long_folders() -> None:
    tree = load_module(PARTS / "tree.py")
    blob = f"data/ab/abcd1234{'0' * 56}/data.parquet"
    views = [f"runs/by_date/2024-01-1{day}/run" for day in range(4)]
    assert tree.draw("s3://b/mltrack/", [blob, *views], most=2).splitlines() == [
        "s3://b/mltrack/",
        "├── data/                             # blobs, each named by the SHA-256 of its bytes",
        "│   └── ab/",
        "│       └── abcd1234.../",
        "│           └── data.parquet",
        "└── runs/                             # views to browse, and who uses which blob",
        "    └── by_date/",
        "        ├── 2024-01-10/",
        "        │   └── run",
        "        ├── 2024-01-11/",
        "        │   └── run",
        "        └── ... 2 more",
    ]


def test_a_check_that_fails_is_no_success(capsys: pytest.CaptureFixture[str]) -> None:
    report = load_module(PARTS / "report.py")
    story = report.Report()
    story.check(True, "the sky is up")
    with pytest.raises(report.CheckFailed, match="the sky is down"):
        story.check(False, "the sky is down")
    assert story.passed == 1
    assert capsys.readouterr().out == "   ok   the sky is up\n"
