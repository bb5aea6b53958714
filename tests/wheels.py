"""The package as it is delivered: a wheel of this checkout."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "mltrack_tasks", "flows", "deployments")
"""What the wheel is built from."""


def copy_sources(folder: Path) -> Path:
    """Copy SOURCES into ``folder``: setuptools leaves its traces beside them."""
    for name in SOURCES:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=ignored)
        else:
            shutil.copy(ROOT / name, folder / name)
    return folder


def build_wheel(folder: Path) -> Path:
    """Build the wheel from a copy in ``folder`` -> its path."""
    shutil.copy(ROOT / "prefect.yaml", folder)  # deployments/prefect.yaml is a link to it
    copy_sources(folder)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "out", "."]
    built = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = (folder / "out").glob("*.whl")
    return path
