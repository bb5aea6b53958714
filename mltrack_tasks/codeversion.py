"""Which code made a run: the git commit of the running program, and the versions of the libraries in use.

Git is asked through its own program, and only for what it can read: a repository may come from anywhere, and
its settings can name programs (hooks, filters, monitors, transports) which this must not start.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mltrack_tasks import events

COMMIT_VARIABLE = "MLTRACK_GIT_COMMIT"
"""Names the commit where there is no repository to ask, as in a container."""
GIT_TIMEOUT = 5.0
"""[s] for one call of git; a work tree that takes longer to compare gets no entry."""
REFRESH_AFTER = 10.0
"""[s] after which a notebook or a worker asks again: both live for days while the code around them changes.

A program that was started from a file asks once: that file was read then, whatever happens to it later.
"""

_SAME_NAMES = (
    *("boto3", "catboost", "dask", "duckdb", "flax", "jax", "keras", "lightgbm", "lightning", "mlflow"),
    *("numpy", "obstore", "onnxruntime", "optuna", "pandas", "polars", "prefect", "pyarrow", "pyspark"),
    *("ray", "scipy", "skops", "spacy", "statsmodels", "tensorflow", "torch", "torchvision"),
    *("transformers", "xgboost"),
)
LIBRARIES = {
    **dict(zip(_SAME_NAMES, _SAME_NAMES, strict=True)),
    "prefect_aws": "prefect-aws",
    "prefect_dask": "prefect-dask",
    "pytorch_lightning": "pytorch-lightning",
    "sentence_transformers": "sentence-transformers",
    "sklearn": "scikit-learn",
}
"""Modules whose versions are recorded once they are imported, and the names by which pip knows them."""

_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_SETTINGS = (
    "core.fsmonitor=false",
    f"core.hooksPath={os.devnull}",
    "core.untrackedCache=false",
    "protocol.allow=never",
    "safe.bareRepository=explicit",
    "status.submoduleSummary=false",
)
_STATUS = (
    *("status", "--porcelain=v2", "--branch", "--no-ahead-behind", "--no-renames"),
    *("--untracked-files=no", "--ignore-submodules=dirty"),
)
_ELSEWHERE = (
    *("GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_COMMON_DIR", "GIT_DIR", "GIT_INDEX_FILE", "GIT_NAMESPACE"),
    *("GIT_OBJECT_DIRECTORY", "GIT_PREFIX", "GIT_WORK_TREE"),
)
"""What a hook of git sets for its children: it names a repository that need not be the program's."""
_FILTERS = r"^filter\..*\.(clean|smudge|process|required)$"
_FILTER_NAME = re.compile(r"filter\.([A-Za-z0-9_-]+)\.[a-z]+")


@dataclass(frozen=True)
class _Look:
    """What git said of a program and its folder, and when [s]."""

    of: tuple[Path | None, Path]
    found: dict[str, Any] | None
    at: float

    def is_old(self) -> bool:
        return time.monotonic() - self.at > REFRESH_AFTER


_lock = threading.Lock()
_last: _Look | None = None


def code_version() -> dict[str, Any] | None:
    """Say which commit this program runs from: ``commit``, ``dirty`` and, if it is on one, ``branch``.

    ``dirty`` is as in ``git describe --dirty``: a tracked file differs from the commit. The program's own
    file counts too when git does not track it; other untracked files do not. Files that pass through a filter
    program (LFS) are not compared, since that would run the program.

    MLTRACK_GIT_COMMIT comes first; with it, ``dirty`` is not known and left out. None where nothing can be
    known: no git, no repository, no commit yet, no answer in time. That is logged at debug, never an error.
    """
    if commit := os.environ.get(COMMIT_VARIABLE, "").strip().lower():
        return _named(commit)
    program = program_file()
    folder = _working_folder() if program is None else program.parent
    if folder is None:
        return None
    global _last
    with _lock:
        if _last is None or _last.of != (program, folder) or (program is None and _last.is_old()):
            _last = _Look((program, folder), _look(folder, program), time.monotonic())
        return None if _last.found is None else dict(_last.found)


def library_versions() -> dict[str, str]:
    """Give the versions of well-known libraries that this process has imported, by the names pip uses."""
    return {name: _version(module, name) for module, name in sorted(LIBRARIES.items()) if _loaded(module)}


def program_file() -> Path | None:
    """Find the file of the running program, or None if it is not the user's own.

    None in a notebook or a shell, which have no file, and under an installed program such as Prefect's engine
    or pytest: those run the user's code from the working directory.
    """
    named = getattr(sys.modules.get("__main__"), "__file__", None)
    if not isinstance(named, str):
        return None
    file = Path(named).absolute()
    own = file.is_file() and not _is_installed(file) and not _is_installed(file.resolve())
    return file.resolve() if own else None


def _is_installed(file: Path) -> bool:
    if {"site-packages", "dist-packages"} & set(file.parts):
        return True
    return any(file.is_relative_to(folder) for folder in _python_folders())


@cache
def _python_folders() -> frozenset[str]:
    schemes = (sysconfig.get_default_scheme(), sysconfig.get_preferred_scheme("user"))
    return frozenset(sysconfig.get_path(name, scheme) for scheme in schemes for name in ("stdlib", "scripts"))


def _working_folder() -> Path | None:
    try:
        return Path.cwd()
    except FileNotFoundError:
        return None  # it was removed


def _named(commit: str) -> dict[str, Any] | None:
    if _COMMIT.fullmatch(commit):
        return {"commit": commit}
    _warn_once(commit)
    return None


@cache
def _warn_once(commit: str) -> None:
    events.logger.warning(
        "%s=%r is not a full commit (40 hex digits, `git rev-parse HEAD`); runs are stored without one.",
        COMMIT_VARIABLE,
        commit,
    )


def _look(folder: Path, program: Path | None) -> dict[str, Any] | None:
    """Ask git about the repository around ``folder``."""
    try:
        return _ask(folder, program)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        said = getattr(error, "stderr", None) or b""
        events.logger.debug("no git commit for %s: %s %s", folder, error, said.decode(errors="replace"))
        return None


def _ask(folder: Path, program: Path | None) -> dict[str, Any] | None:
    filters = _filters(
        _git(folder, "config", "--null", "--name-only", "--get-regexp", _FILTERS, codes=(0, 1))
    )
    off = [f"filter.{name}.{key}" for name in filters for key in ("clean=", "process=", "required=false")]
    unseen = [f":(top,exclude,attr:filter={name})" for name in filters]
    found = read_status(_git(folder, *_STATUS, "--", ":(top)", *unseen, settings=off))
    if found is not None and program is not None and not found["dirty"]:
        found["dirty"] = not _git(folder, "ls-files", "--", f":(literal){program.name}", settings=off)
    return found


def read_status(text: str) -> dict[str, Any] | None:
    """Read what ``git status --porcelain=v2 --branch`` printed; None if there is no commit yet."""
    lines = text.split("\n")  # not splitlines: a name may hold other ends of lines
    headers = dict(line[2:].split(" ", 1) for line in lines if line.startswith("# ") and " " in line[2:])
    commit, branch = headers.get("branch.oid", ""), headers.get("branch.head", "")
    if not _COMMIT.fullmatch(commit):
        return None
    on = {} if branch in ("", "(detached)") else {"branch": branch}
    return {"commit": commit, "dirty": any(line[:1] in tuple("12u") for line in lines), **on}


def _filters(listed: str) -> list[str]:
    """Names of the filters in a listing of settings, such as ``filter.lfs.clean``."""
    keys = [key for key in listed.split("\0") if key]
    found = {key: _FILTER_NAME.fullmatch(key) for key in keys}
    if strange := [key for key, match in found.items() if match is None]:
        raise ValueError(f"the filter {strange[0]!r} cannot be switched off safely")
    return sorted({match[1] for match in found.values() if match is not None})


def _git(folder: Path, *words: str, settings: Sequence[str] = (), codes: Sequence[int] = (0,)) -> str:
    """Run git in ``folder`` -> what it printed; CalledProcessError for an exit code that is not expected."""
    program = shutil.which("git")
    if program is None or not os.path.isabs(program):  # a relative entry of PATH may lead into the repository
        raise FileNotFoundError("there is no git program on PATH")
    switches = [part for setting in (*_SETTINGS, *settings) for part in ("-c", setting)]
    done = subprocess.run(
        [program, "--no-pager", "-C", str(folder), *switches, *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=GIT_TIMEOUT,
        env=_environment(os.environ),
    )
    if done.returncode not in codes:
        raise subprocess.CalledProcessError(done.returncode, words[0], done.stdout, done.stderr)
    return done.stdout.decode("utf-8", errors="replace")


def _environment(given: Mapping[str, str]) -> dict[str, str]:
    """The user's environment, which may hold settings such as safe.directory, kept from leading elsewhere."""
    return {
        **{name: value for name, value in given.items() if name not in _ELSEWHERE},
        "GIT_ALLOW_PROTOCOL": "none",  # a partial clone would fetch what it lacks
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_OPTIONAL_LOCKS": "0",  # the index is not written, so that nobody's commit finds it locked
        "GIT_TERMINAL_PROMPT": "0",
        "LC_ALL": "C",
    }


def _loaded(module: str) -> bool:
    return sys.modules.get(module) is not None


@cache
def _version(module: str, name: str) -> str:
    """Version of an imported library; its own word where it was installed under another name."""
    try:
        return version(name)
    except PackageNotFoundError:
        own = getattr(sys.modules.get(module), "__version__", None)
        return own if isinstance(own, str) else "unknown"


def _forget_lock() -> None:
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_forget_lock)  # another thread may have held it when the process forked
