"""One measured run of a program: wall and CPU seconds, peak of anonymous memory, and what it prints."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SAMPLING = 0.01
"""[s] between two looks at a program's memory, from outside of it."""


class RunFailedError(RuntimeError):
    """A program ended with another code than 0; the message shows the end of what it printed."""


@dataclass(frozen=True)
class Command:
    """A program to run. One that answers in JSON (``given`` to its stdin) measures its operation itself."""

    argv: Sequence[str]
    folder: Path
    env: Mapping[str, str]
    given: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Measure:
    """What one run took. Interpreter and imports are in it, unless the program times its operation itself."""

    wall: float
    cpu: float
    peak: float
    """Anonymous RSS [MB of 10^6 bytes]; above the imports, where the program told of those."""
    start: float = 0.0
    """What is not in ``wall``: interpreter and imports [s]."""
    events: Mapping[str, int] = field(default_factory=dict)


def measured(command: Command) -> Measure:
    """Run to the end. Raises RunFailedError. The CPU is that of the program and of what it waited for."""
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out:
        given.write(json.dumps(command.given or {}).encode())
        given.seek(0)
        os.sync()  # what the one before has left to write is not this one's affair
        start = time.perf_counter()
        process = subprocess.Popen(
            command.argv, cwd=command.folder, env=command.env, stdin=given, stdout=out, stderr=out
        )
        with _Peak(process.pid) as memory:
            code, cpu = _waited(process)
        wall = time.perf_counter() - start
        out.seek(0)
        text = out.read().decode(errors="replace")
    if code:
        raise RunFailedError(f"{' '.join(command.argv[:4])} ... ended with code {code}: {text[-2_000:]}")
    whole = Measure(wall, cpu, memory.bytes / 1e6)
    return whole if command.given is None else _apart(whole, json.loads(text.splitlines()[-1]))


def _waited(process: subprocess.Popen[bytes]) -> tuple[int, float]:
    """Wait -> exit code, CPU seconds. An interruption ends the program too."""
    try:
        _, status, usage = os.wait4(process.pid, 0)
    except BaseException:
        process.kill()
        process.wait()
        raise
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, usage.ru_utime + usage.ru_stime


def _apart(whole: Measure, told: Mapping[str, Any]) -> Measure:
    """Take the operation as the program saw it; the rest of the whole is its start."""
    return Measure(
        told["wall"],
        told["cpu"],
        max(whole.peak - told["baseline"] / 1e6, 0.0),
        whole.wall - told["wall"],
        told["events"],
    )


class _Peak:
    """Looks at another process's anonymous RSS now and then; ``bytes`` is the highest it saw."""

    def __init__(self, pid: int) -> None:
        self.bytes = 0
        self._status = Path(f"/proc/{pid}/status")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> _Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(SAMPLING):
            self.bytes = max(self.bytes, anonymous(self._status))


def anonymous(status: Path) -> int:
    """Read RssAnon [bytes] from a ``/proc/<pid>/status``; 0 for a process that has ended."""
    try:
        lines = status.read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:")), 0)
