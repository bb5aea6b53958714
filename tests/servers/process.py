"""Child processes of tests: own group, log file, start time-out, ended by who started them."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from botocore.exceptions import BotoCoreError, ClientError

from .model import S3Server, client

INSTALLED = Path(os.environ.get("MLTRACK_SERVERS_DIR") or Path(__file__).parents[2] / ".servers")
"""Where scripts/ci_servers.sh puts what does not come from Debian."""

LOG_TAIL = 30
"""Lines of the log shown when a server does not start."""


class ServerStartError(RuntimeError):
    """A server ended or stayed silent; the message shows the end of its log."""


def free_ports(count: int) -> list[int]:
    """Return distinct loopback ports that were free a moment ago."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


class Child:
    """One server process, leader of its own group: ending it reaches what it started."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.name, self.process, self.log = name, process, log

    def tail(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-LOG_TAIL:]
        return "\n".join([f"last lines of {self.log}:", *lines])

    def wait_until(self, ready: Callable[[], bool], seconds: float) -> None:
        """Poll until ready; raise ServerStartError when the process ends or the time is over."""
        deadline = time.monotonic() + seconds
        while not ready():
            if (code := self.process.poll()) is not None:
                raise ServerStartError(f"{self.name} ended with code {code}; {self.tail()}")
            if time.monotonic() > deadline:
                raise ServerStartError(f"{self.name} not ready in {seconds:g} s; {self.tail()}")
            time.sleep(0.05)

    def stop(self, patience: float = 15.0) -> None:
        """End the process, after ``patience`` [s] by force; one that has ended is left alone."""
        if self.process.poll() is not None:
            return
        self._signal(signal.SIGTERM)
        try:
            self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
            self.process.wait()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)


@contextlib.contextmanager
def running(
    name: str, command: Sequence[str], log: Path, env: Mapping[str, str] | None = None
) -> Iterator[Child]:
    """Run the command while the block (or this interpreter) lasts; its output goes to ``log``."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=None if env is None else dict(env),
            start_new_session=True,
        )
    child = Child(name, process, log)
    atexit.register(child.stop)
    try:
        yield child
    finally:
        child.stop()
        atexit.unregister(child.stop)


def answers_s3(server: S3Server) -> Callable[[], bool]:
    """Return a question: does the server list the owner's buckets yet?"""
    s3 = client(server, timeout=5)

    def ask() -> bool:
        try:
            s3.list_buckets()
        except (BotoCoreError, ClientError):
            return False
        return True

    return ask


def clean_environment(**changes: str) -> dict[str, str]:
    """Return this environment plus ``changes``, without AWS, MinIO, Ceph and proxy settings."""
    unwanted = ("AWS_", "MINIO_", "CEPH_")
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(unwanted) and not name.lower().endswith("_proxy")
    }
    return {**kept, **changes}
