"""Try the ends of our dependency ranges in fresh environments, and print what held as a table.

    python scripts/check_versions.py                            the lowest and the newest that resolve
    python scripts/check_versions.py --with prefect==3.8.8 newest
    python scripts/check_versions.py lowest -- tests/floor1     and these tests beside the probe

Needs uv (`python -m pip install uv`). The environments are temporary. The exit code counts the failures.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROBE = ROOT / "scripts" / "probe_versions.py"
RESOLUTIONS = {"lowest": "lowest-direct", "newest": "highest"}
TEST_TOOLS = ("build", "hypothesis", "moto", "psutil", "pytest", "scikit-learn", "setuptools", "skops")
SHOWN = ("prefect", "fastapi", "prefect-aws", "boto3", "pandas", "pyarrow", "obstore")
PROBE_TIME = 600  # [s]; two servers start in it


@dataclass(frozen=True)
class Outcome:
    """What became of one environment."""

    name: str
    versions: dict[str, str]
    failed: dict[str, str]

    def row(self) -> str:
        cells = [self.versions.get(name, "-") for name in SHOWN]
        verdict = "; ".join(f"{check}: {why}" for check, why in self.failed.items())
        return "| " + " | ".join([self.name, *cells, verdict or "works"]) + " |"


def requirements() -> list[str]:
    """Return what pyproject.toml asks for at run time, extras included, and what runs the tests."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras: dict[str, list[str]] = project["optional-dependencies"]
    tools = [line for line in extras.pop("dev") if line.startswith(TEST_TOOLS)]
    return [*project["dependencies"], *chain.from_iterable(extras.values()), *tools]


@contextmanager
def environment(name: str, additions: Sequence[str], overrides: Sequence[str]) -> Iterator[Path]:
    """Make a temporary environment -> its Python. Raises CalledProcessError if nothing resolves."""
    with tempfile.TemporaryDirectory(prefix=f"mltrack-{name}-") as folder:
        python = Path(folder) / "env" / "bin" / "python"
        overriding = Path(folder) / "overrides.txt"
        overriding.write_text("\n".join(overrides), encoding="utf-8")
        uv("venv", "--python", sys.executable, str(python.parent.parent))
        options = ["--python", str(python), "--overrides", str(overriding)]
        options += ["--resolution", RESOLUTIONS[name]]
        uv("pip", "install", *options, *requirements(), *additions)
        yield python


def uv(*arguments: str) -> None:
    """Run uv of this Python's environment, or else of the PATH."""
    own = Path(sys.executable).parent / "uv"
    program = str(own) if own.exists() else "uv"
    subprocess.run([program, *arguments, "--quiet"], check=True, stderr=subprocess.PIPE, text=True)


def surroundings(python: Path) -> dict[str, str]:
    """Return this environment, with bytecode kept beside that Python: only what is used gets compiled."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPYCACHEPREFIX": str(python.parents[2] / "bytecode")}


def attempt(name: str, options: argparse.Namespace) -> Outcome:
    """Install, probe and test one environment."""
    try:
        with environment(name, options.additions, options.overrides) as python:
            outcome = probe(name, python)
            if options.tests and (failure := run_tests(python, options.tests)):
                outcome.failed["tests"] = failure
            return outcome
    except subprocess.CalledProcessError as error:
        return Outcome(name, {}, {"install": " ".join(error.stderr.split())})


def probe(name: str, python: Path) -> Outcome:
    """Run the probe in an environment -> what it found."""
    answer = subprocess.run(
        [python, PROBE],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        timeout=PROBE_TIME,
        env=surroundings(python),
    )
    if not answer.stdout.strip():
        return Outcome(name, {}, {"probe": f"ended with {answer.returncode} and no result"})
    return Outcome(name, **json.loads(answer.stdout.splitlines()[-1]))


def run_tests(python: Path, tests: Sequence[str]) -> str:
    """Run pytest over the checkout in an environment -> what failed, or ""."""
    command = [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    answer = subprocess.run(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        env=surroundings(python),
    )
    print(answer.stdout, file=sys.stderr)
    last = answer.stdout.strip().splitlines()[-1:] or ["no output"]
    return "" if answer.returncode == 0 else f"{last[0]} (exit code {answer.returncode})"


def main(arguments: Sequence[str]) -> int:
    """Try each environment, print one row each -> how many failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("environments", nargs="*", metavar="lowest|newest")
    parser.add_argument("--with", dest="additions", action="append", default=[], metavar="REQ")
    parser.add_argument("--override", dest="overrides", action="append", default=[], metavar="REQ")
    at = arguments.index("--") if "--" in arguments else len(arguments)
    options = parser.parse_args(arguments[:at])
    options.tests = arguments[at + 1 :]
    if unknown := set(options.environments) - set(RESOLUTIONS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; choose of {', '.join(RESOLUTIONS)}")
    print("| | " + " | ".join(SHOWN) + " | result |\n" + "|---" * (len(SHOWN) + 2) + "|", flush=True)
    outcomes = []
    for name in options.environments or RESOLUTIONS:
        outcomes.append(attempt(name, options))
        print(outcomes[-1].row(), flush=True)
    return sum(bool(outcome.failed) for outcome in outcomes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
