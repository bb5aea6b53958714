"""Migration beside the tools used instead of it: wall, client CPU and memory; first, unchanged, restored.

All of it takes hours with the slow tools. A part: ``python -m benchmarks migration --case small
--peers s5cmd --rounds 1``. The server is warm, the files lie on its disk and in the page cache.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks import migration_flow
from benchmarks import migration_trees as trees
from benchmarks.migration_measure import Command, Measure, RunFailedError, measured
from benchmarks.migration_report import OURS, RIVAL, Bar, Row, judge, table
from benchmarks.peers import STEPS, WAYS, InPython, Job, PeerMissingError, Way
from benchmarks.server import Target
from mltrack_tasks.stores.s3_settings import S3Settings, build_client, build_session

ROUNDS, SLOW_ROUNDS, SLOW_FILES = 3, 1, 10_000
"""Rounds of ours and of s5cmd; rounds and files of the tools that take minutes for a tree of 10,000 files."""
LARGE = 1024**3
"""Objects of a case with more bytes than this are deleted after each round, for the disk's sake."""
MEMORY = 250.0
"""[MB] above the imports, whatever the number of files."""
QUICK = (RIVAL, "s5cmd-sync")
APART = {"flow": migration_flow.overhead, "cancel": migration_flow.cancel}
"""Cases of the flow alone: what it adds to the operation, and how soon it stops."""
VERDICTS = {True: "met", False: "MISSED", None: "not judged"}


@dataclass(frozen=True)
class Case:
    """A tree of files, and what must hold for it."""

    title: str
    make: trees.Make
    files: int
    bars: tuple[Bar, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    only: tuple[str, ...] = tuple(WAYS)
    bytes: int = 0


def _many(files: int, *bars: Bar) -> Case:
    memory = tuple(Bar(step, memory=MEMORY) for step in ("first", "again", "restored"))
    title = f"{files:,} files of 1 KiB"
    return Case(title, trees.plain(1024), files, (*bars, *memory), only=QUICK)


CASES = {
    "small": Case("10,000 files of 4 KiB", trees.plain(4096), 10_000, (Bar("first", wall=1.0, cpu=1.0),)),
    "medium": Case(
        "2,000 files of 64 KiB, not packed",
        trees.plain(65_536),
        2_000,
        (Bar("first", wall=1.2, cpu=1.0),),
        {"pack_small_files": False},
    ),
    "mlruns": Case("an mlruns of 2,000 runs x 35 files", trees.mlruns, 70_000, (Bar("first", wall=1 / 5),)),
    "large": Case(
        "8 files of 256 MiB", trees.plain(256 * trees.MIB), 8, (Bar("first", wall=1 / 0.9),), bytes=2 * LARGE
    ),
    "lone": Case("one file of 256 MiB", trees.plain(256 * trees.MIB), 1, (Bar("first", wall=1 / 0.75),)),
    "many-1k": _many(1_000),
    "many-10k": _many(10_000),
    "many-100k": _many(100_000, Bar("again", wall=0.5)),
}


def run(target: Target, options: Sequence[str] = ()) -> bool:
    """Print a table for each case, and its bars; True if all that were judged are met and nothing failed."""
    chosen = _parse(options)
    ways, complete = _ways(chosen)
    print(f"migration (server {target.server}); start: interpreter and imports, or the program's --version")
    print("  a program's wall and CPU include its start; s5cmd is `cp`, and `sync` where unchanged (again)")
    print("  peak: anonymous RSS, of ours and prefect-aws above the imports")
    starts = _starts(ways, target)
    for name in chosen.case:
        settings = replace(target.settings, prefix=f"{target.settings.prefix}/{name}")
        if name in APART:
            complete &= APART[name](settings, chosen.rounds)
        else:
            complete &= _case(name, settings, chosen, ways, starts)
    return complete


def _case(
    name: str, settings: S3Settings, chosen: argparse.Namespace, ways: Sequence[Way], starts: dict[str, float]
) -> bool:
    """Measure one case and print it; True if nothing failed and no bar was missed."""
    case = CASES[name]
    print(f"{name}: {case.title}", flush=True)
    with tempfile.TemporaryDirectory(prefix="mltrack-migration-") as folder:
        trial = _Trial(case, Path(folder), settings, chosen)
        rows = trial.rows([way for way in ways if way.name in (OURS, *case.only)])
    for line in table(rows, starts):
        print(line)
    verdicts = list(judge(case.bars, rows))
    for line, met in verdicts:
        print(f"  bar: {line}: {VERDICTS[met]}", flush=True)
    return not trial.failed and all(met is not False for _, met in verdicts)


def _parse(options: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks migration", description=__doc__)
    parser.add_argument("--case", nargs="+", choices=(*CASES, *APART), default=[*CASES, *APART])
    parser.add_argument("--peers", nargs="*", choices=WAYS, default=list(WAYS))
    parser.add_argument("--no-ours", dest="ours", action="store_false", help="measure the peers alone")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of ours and of s5cmd")
    parser.add_argument("--slow-rounds", type=int, default=SLOW_ROUNDS, help="of the other peers")
    parser.add_argument("--slow-files", type=int, default=SLOW_FILES, help="that the other peers get at most")
    return parser.parse_args(list(options))


def _ways(chosen: argparse.Namespace) -> tuple[list[Way], bool]:
    """Return the ways that are there, and whether all are; what is missing is printed with its reason."""
    found: list[Way] = [InPython(OURS)] if chosen.ours else []
    complete = True
    for name in chosen.peers:
        try:
            found.append(WAYS[name]())
        except PeerMissingError as error:
            print(f"{name} is not measured: {error}")
            complete = False
    return found, complete


def _starts(ways: Sequence[Way], target: Target) -> dict[str, float]:
    """Measure what starting each program takes [s], the median of 3; not of those that tell it themselves."""
    starts = {}
    with tempfile.TemporaryDirectory(prefix="mltrack-migration-") as folder:
        job = Job(Path(folder), Path(folder), target.settings, {})
        for way in ways:
            if (argv := way.start()) is not None:
                command = Command(argv, job.work, job.env())
                starts[way.name] = statistics.median(measured(command).wall for _ in range(3))
    return starts


class _Trial:
    """One case: its trees in ``folder``, and the measures so far."""

    def __init__(self, case: Case, folder: Path, settings: S3Settings, chosen: argparse.Namespace) -> None:
        self.case, self.folder, self.settings, self.chosen = case, folder, settings, chosen
        self.failed: set[str] = set()
        self._measures: dict[tuple[str, str], list[Measure]] = {}

    def rows(self, ways: Sequence[Way]) -> list[Row]:
        """Measure all rounds, the ways one after the other within each step and in changing order."""
        for files in {self._files(way) for way in ways}:
            self.case.make(self._tree(files), files)
        for number in range(max(self.chosen.rounds, self.chosen.slow_rounds)):
            taking_part = [way for way in ways if number < self._rounds(way)]
            shift = number % max(len(taking_part), 1)
            self._round(number, [*taking_part[shift:], *taking_part[:shift]])
        return [
            Row(step, way.name, self._files(way), self._measures[step, way.name])
            for step in STEPS
            for way in ways
            if (step, way.name) in self._measures
        ]

    def _round(self, number: int, ways: Sequence[Way]) -> None:
        jobs = {way.name: self._job(way, f"{number}-{way.name}") for way in ways}
        for step in STEPS:
            for way in ways:
                if way.name not in self.failed:
                    self._step(way, jobs[way.name], step)
        for way in ways:
            job = jobs[way.name]
            if way.name not in self.failed and (odd := trees.same_trees(job.tree, job.restored)):
                self._fail(way, f"what was restored is not what was sent: {odd}")
            shutil.rmtree(job.work)
            if self.case.bytes > LARGE:
                _delete(job.settings)

    def _step(self, way: Way, job: Job, step: str) -> None:
        command = way.command(job, step)
        if command is None:
            return
        try:
            way.prepare(job, step)
            self._measures.setdefault((step, way.name), []).append(measured(command))
        except RunFailedError as error:
            self._fail(way, f"{step}: {error}")

    def _fail(self, way: Way, reason: str) -> None:
        self.failed.add(way.name)
        print(f"  {way.name} FAILED, {reason}", flush=True)

    def _job(self, way: Way, name: str) -> Job:
        prefix = f"{self.settings.prefix}/{name}"
        work = self.folder / f"work-{name}"
        work.mkdir()
        settings = replace(self.settings, prefix=prefix)
        return Job(self._tree(self._files(way)), work, settings, self.case.options)

    def _tree(self, files: int) -> Path:
        return self.folder / f"tree-{files}" / "mlruns"

    def _slow(self, way: Way) -> bool:
        return way.name not in (OURS, *QUICK)

    def _files(self, way: Way) -> int:
        return min(self.case.files, self.chosen.slow_files) if self._slow(way) else self.case.files

    def _rounds(self, way: Way) -> int:
        rounds: int = self.chosen.slow_rounds if self._slow(way) else self.chosen.rounds
        return rounds


def _delete(settings: S3Settings) -> None:
    """Delete every object below the prefix."""
    client: Any = build_client(build_session(settings), settings)
    pages = client.get_paginator("list_objects_v2").paginate(
        Bucket=settings.bucket, Prefix=f"{settings.prefix}/"
    )
    for page in pages:
        keys = [{"Key": each["Key"]} for each in page.get("Contents", ())]
        if keys:
            client.delete_objects(Bucket=settings.bucket, Delete={"Objects": keys, "Quiet": True})
