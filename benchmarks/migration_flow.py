"""The flow around the operation: what Prefect adds to it, and how soon it stops when it is cancelled.

Both run the flow in a process of its own against a Prefect server on this machine (SQLite).
"""

from __future__ import annotations

import json
import signal
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from benchmarks import migration_trees as trees
from benchmarks.migration_measure import Command, measured
from benchmarks.peers import InPython, Job
from mltrack_tasks.stores.s3_settings import S3Settings
from tests.e2e.prefect_server import PrefectServer, serve
from tests.servers.faultproxy import Fault, FaultProxy, Request

WAYS = ("ours", "flow")
FILES, SIZE = 10_000, 4_096
ADDED, SHARE = 3.0, 0.05
"""[s] that the flow may add to any migration, and beside them the share of the operation's seconds: its task
runs, logs, events and artifacts are requests to the server."""
SLOW_FILES, SLOW_SIZE = 2_000, 40 * 1024
DELAY, SIGNAL_AT = 0.25, 50
"""[s] that each PUT takes in the cancelled migration, and the number of the one at which the signal comes."""
STOPPED_WITHIN = 5.0
"""[s] after the signal no further PUT begins."""
PATIENCE = 60.0


def overhead(settings: S3Settings, rounds: int) -> bool:
    """Print what the flow adds to the operation; True if that is within the bar."""
    print(f"flow: {FILES:,} files of {SIZE:,} bytes, by the operation and by the flow", flush=True)
    walls: dict[str, list[float]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory(prefix="mltrack-flow-") as name, serve(Path(name) / "server") as server:
        tree = _tree(Path(name), SIZE, FILES)
        for number in range(rounds):
            for way in WAYS if number % 2 else WAYS[::-1]:
                job = _job(Path(name), tree, settings, f"{number}-{way}")
                walls[way].append(measured(_command(way, job, server, settings.endpoint_url)).wall)
    plain, flow = (statistics.median(walls[way]) for way in WAYS)
    added, allowed = flow - plain, ADDED + SHARE * plain
    for way in WAYS:
        print(
            f"  {way:9} {statistics.median(walls[way]):8.2f} s ({min(walls[way]):.2f}-{max(walls[way]):.2f})"
        )
    limits = f"at most {ADDED:.0f} s and {SHARE:.0%} of the operation ({allowed:.2f} s)"
    print(f"  bar: added by the flow: {limits}, measured {added:.2f} s: {_verdict(added <= allowed)}")
    return added <= allowed


def cancel(settings: S3Settings, rounds: int) -> bool:
    """Print how long after SIGTERM the flow still begins PUTs; True if that is within the bar."""
    print(f"cancel: {SLOW_FILES:,} files of {SLOW_SIZE:,} bytes, each PUT takes {DELAY} s", flush=True)
    lasts = []
    with (
        tempfile.TemporaryDirectory(prefix="mltrack-cancel-") as name,
        serve(Path(name) / "server") as server,
    ):
        tree = _tree(Path(name), SLOW_SIZE, SLOW_FILES)
        for number in range(rounds):
            job = _job(Path(name), tree, settings, f"{number}-cancelled")
            lasts.append(_seconds_to_last_put(job, server))
    last = max(lasts)
    met = last <= STOPPED_WITHIN
    shown = ", ".join(f"{each:.2f}" for each in lasts)
    print(f"  from SIGTERM to the last PUT [s]: {shown}")
    print(f"  bar: at most {STOPPED_WITHIN:.0f} s, measured {last:.2f} s: {_verdict(met)}")
    return met


def _seconds_to_last_put(job: Job, server: PrefectServer) -> float:
    """Send SIGTERM in the middle of a migration -> seconds until the last PUT began, 0 if none did."""
    begun: list[float] = []
    enough = threading.Event()

    def seen(request: Request) -> bool:
        begun.append(time.monotonic())
        if len(begun) == SIGNAL_AT:
            enough.set()
        return True

    assert job.settings.endpoint_url is not None, "a server of this machine has an address"
    with FaultProxy(job.settings.endpoint_url) as proxy, tempfile.TemporaryFile() as given:
        proxy.script(Fault("delay", method="PUT", times=None, where=seen, seconds=DELAY))
        command = _command("flow", job, server, proxy.url)
        given.write(json.dumps(command.given).encode())
        given.seek(0)
        with (job.work / "log").open("wb") as log:
            child = subprocess.Popen(
                command.argv, cwd=command.folder, env=command.env, stdin=given, stdout=log, stderr=log
            )
            try:
                assert enough.wait(PATIENCE), (job.work / "log").read_text(errors="replace")[-2_000:]
                signalled = time.monotonic()
                child.send_signal(signal.SIGTERM)
                child.wait(PATIENCE)
            finally:
                with suppress(ProcessLookupError):
                    child.kill()
                child.wait()
    assert len(begun) < SLOW_FILES, "it ended before it could be cancelled"
    return max(0.0, begun[-1] - signalled)


def _tree(folder: Path, size: int, files: int) -> Path:
    trees.plain(size)(folder / "tree" / "mlruns", files)
    return folder / "tree" / "mlruns"


def _job(folder: Path, tree: Path, settings: S3Settings, name: str) -> Job:
    work = folder / name
    work.mkdir()
    return Job(tree, work, replace(settings, prefix=f"{settings.prefix}/{name}"), {})


def _command(way: str, job: Job, server: PrefectServer, endpoint: str | None) -> Command:
    command = InPython(way).command(job, "first")
    assert command is not None
    more: Mapping[str, str] = {"PREFECT_API_URL": server.api_url, "AWS_ENDPOINT_URL": endpoint or ""}
    return replace(command, env={**command.env, **{name: text for name, text in more.items() if text}})


def _verdict(met: bool) -> str:
    return "met" if met else "MISSED"
