"""One Prefect server process for the tests of this folder, and client processes that speak to it.

The server's environment lacks this package, as that of a shared server does; the clients' have it.
"""

from __future__ import annotations

import atexit
import json
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from tests.servers.process import clean_environment, free_ports, running

ROOT = Path(__file__).parents[2]
BUSY = 30
"""[s] for which a server may say that it is busy."""
SERVING = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    # A schedule that was made anew is planned once a minute otherwise.
    "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "3",
}
LACKING = """
import sys

class Lacking:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("mltrack_tasks", "mltrack_flows"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Lacking())
"""
"""A sitecustomize: the package is missing even where it is installed beside Prefect."""


@dataclass(frozen=True)
class PrefectServer:
    """A running server: its API, where it keeps its data, and its environment, which lacks the package."""

    api_url: str
    home: Path
    environment: Mapping[str, str]

    def ask(self, path: str, body: Any = None, method: str | None = None) -> Any:
        """GET, or POST ``body`` (or do ``method``), a path of the API -> its JSON; None if it says nothing.

        A server whose database is busy with another writer answers 503 and has done nothing: it is asked
        again, as Prefect's own client does.
        """
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.api_url}/{path}", data, headers, method=method)
        deadline = time.monotonic() + BUSY
        while True:
            try:
                with _open(request) as answer:
                    said = answer.read()
                    return json.loads(said) if said else None
            except urllib.error.HTTPError as error:
                if error.code != 503 or time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def run(self, *arguments: str, cwd: Path | None = None, **variables: str) -> str:
        """Run Python with the package as a client of the server -> all that it printed; it must succeed."""
        done = self.start(*arguments, cwd=cwd, **variables)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def start(
        self, *arguments: str, cwd: Path | None = None, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run Python with the package as a client of the server, with standard error in its output."""
        client = _environment(self.home / "client", PREFECT_API_URL=self.api_url, PYTHONPATH=str(ROOT))
        return subprocess.run(
            [sys.executable, *arguments],
            env={**client, **variables},
            cwd=cwd or self.home,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=240,
            check=False,
        )

    def database(self) -> bytes:
        """All bytes that the server has on disk."""
        return b"".join(path.read_bytes() for path in sorted(self.home.glob("server/prefect.db*")))


@cache
def shared_server() -> PrefectServer:
    """The one server of this folder's tests, started at the first call and stopped with the interpreter."""
    stack = ExitStack()
    atexit.register(stack.close)
    home = stack.enter_context(tempfile.TemporaryDirectory(prefix="mltrack-e2e-"))
    return stack.enter_context(serve(Path(home)))


@contextmanager
def serve(home: Path) -> Iterator[PrefectServer]:
    """Run a server on a free port, with its database below ``home``; it takes 20 s to start."""
    (port,) = free_ports(1)
    lacking = home / "lacking"
    lacking.mkdir(parents=True)
    (lacking / "sitecustomize.py").write_text(LACKING, encoding="utf-8")
    url = f"http://127.0.0.1:{port}/api"
    # Left to itself, the UI asks at the port that a server usually has.
    own = {"PYTHONPATH": str(lacking), "PREFECT_UI_API_URL": url, **SERVING}
    environment = _environment(home / "server", **own)
    server = PrefectServer(url, home, environment)
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with running("prefect", command, home / "server.log", environment) as child:
        child.wait_until(partial(_healthy, server), 120)
        yield server


def _environment(home: Path, **changes: str) -> dict[str, str]:
    home.mkdir(exist_ok=True)
    kept = {name: value for name, value in clean_environment().items() if not name.startswith("PREFECT_")}
    own = {"PREFECT_HOME": str(home), "PREFECT_PROFILES_PATH": str(home / "profiles.toml")}
    return {**kept, **own, "AWS_EC2_METADATA_DISABLED": "true", **changes}


def _healthy(server: PrefectServer) -> bool:
    try:
        return bool(server.ask("health"))
    except OSError:
        return False


def _open(request: urllib.request.Request) -> Any:
    return urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=90)
