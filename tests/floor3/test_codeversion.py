"""Which code made a run: what git says, what a hostile repository cannot make it do, and versions."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mltrack_tasks import codeversion, provenance
from mltrack_tasks.codeversion import code_version, library_versions, read_status
from mltrack_tasks.runs import store_run
from mltrack_tasks.stores.base import Store
from tests.together import together

GIT = shutil.which("git") or "git"
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is known yet, and the machine's settings of git do not count."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv(codeversion.COMMIT_VARIABLE, raising=False)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "tests")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "tests@example.invalid")
    monkeypatch.setattr(codeversion, "_last", None)
    codeversion._version.cache_clear()
    codeversion._warn_once.cache_clear()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clean repository of one commit on the branch ``trunk``, as the working directory."""
    folder = tmp_path / "repository"
    (folder / "below").mkdir(parents=True)
    git(folder, "init", "--quiet", "--initial-branch=trunk")
    (folder / "train.py").write_text("1\n")
    (folder / "below" / "other.py").write_text("2\n")
    commit(folder)
    monkeypatch.chdir(folder)
    return folder


def git(folder: Path, *words: str) -> str:
    command = [GIT, "-C", str(folder), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def commit(folder: Path) -> str:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message=more")
    return head(folder)


def head(folder: Path) -> str:
    return git(folder, "rev-parse", "HEAD")


def run_from(monkeypatch: pytest.MonkeyPatch, file: Path | None) -> None:
    """Let the main program be ``file``, or one without a file, as in a notebook."""
    main = ModuleType("__main__")
    if file is not None:
        main.__file__ = str(file)
    monkeypatch.setitem(sys.modules, "__main__", main)


# what it says


def test_a_clean_commit(repository: Path) -> None:
    assert code_version() == {"commit": head(repository), "dirty": False, "branch": "trunk"}


def edit(folder: Path) -> None:
    (folder / "train.py").write_text("3\n")


def stage(folder: Path) -> None:
    edit(folder)
    git(folder, "add", "--all")


def remove(folder: Path) -> None:
    (folder / "below" / "other.py").unlink()


@pytest.mark.parametrize("change", [edit, stage, remove])
@pytest.mark.parametrize("inside", [".", "below"])
def test_a_change_of_a_tracked_file_is_dirty(
    repository: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None], inside: str
) -> None:
    change(repository)
    monkeypatch.chdir(repository / inside)
    assert code_version() == {"commit": head(repository), "dirty": True, "branch": "trunk"}


def test_untracked_files_and_a_touched_one_are_not(repository: Path) -> None:
    (repository / "data.csv").write_text("1\n")
    os.utime(repository / "train.py", (1, 1))
    index = (repository / ".git" / "index").read_bytes()
    assert code_version() == {"commit": head(repository), "dirty": False, "branch": "trunk"}
    assert (repository / ".git" / "index").read_bytes() == index  # looked at, and not even refreshed


def test_a_detached_head_has_no_branch(repository: Path) -> None:
    git(repository, "checkout", "--quiet", "--detach")
    assert code_version() == {"commit": head(repository), "dirty": False}


def test_another_work_tree_is_its_own(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(repository, "worktree", "add", "--quiet", "-b", "side", str(tmp_path / "side"))
    (repository / "train.py").write_text("changed\n")
    monkeypatch.chdir(tmp_path / "side")
    assert code_version() == {"commit": head(repository), "dirty": False, "branch": "side"}


def test_another_commit_of_a_submodule_is_a_change(repository: Path, tmp_path: Path) -> None:
    shutil.copytree(repository, tmp_path / "library")
    allowed = ("-c", "protocol.file.allow=always")
    git(repository, *allowed, "submodule", "--quiet", "add", str(tmp_path / "library"), "library")
    commit(repository)
    (repository / "library" / "train.py").write_text("not looked at: that would run git in there\n")
    assert (code_version() or {})["dirty"] is False
    commit(repository / "library")
    codeversion._last = None
    assert (code_version() or {})["dirty"] is True


def test_the_repository_is_that_of_the_program(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link.py").symlink_to(repository / "train.py")
    monkeypatch.chdir(tmp_path)
    for file in (repository / "train.py", tmp_path / "link.py"):
        run_from(monkeypatch, file)
        assert codeversion.program_file() == repository / "train.py"
        assert (code_version() or {})["commit"] == head(repository)
    run_from(monkeypatch, None)
    assert code_version() is None  # the working directory is none


def test_a_program_that_git_does_not_track_is_not_that_commit(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (repository / "scratch1.py").write_text("4\n")  # which the other's name would match as a pattern
    commit(repository)
    (repository / "scratch[1].py").write_text("4\n")
    run_from(monkeypatch, repository / "scratch[1].py")
    assert code_version() == {"commit": head(repository), "dirty": True, "branch": "trunk"}


@pytest.mark.parametrize(
    "place", ["site-packages/prefect/engine.py", "dist-packages/pytest/__main__.py", "nowhere/gone.py"]
)
def test_under_an_installed_program_the_working_directory_counts(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    file = tmp_path / place
    file.parent.mkdir(parents=True)
    if "gone" not in place:
        file.write_text("")
    (tmp_path / "link.py").symlink_to(file)
    for started in (file, tmp_path / "link.py"):
        run_from(monkeypatch, started)
        assert codeversion.program_file() is None
        assert (code_version() or {})["commit"] == head(repository)


@pytest.mark.parametrize("module", [[], ["-m", "pytest"]], ids=["script", "installed module"])
def test_a_program_says_where_it_comes_from(repository: Path, tmp_path: Path, module: list[str]) -> None:
    """In processes of their own: a script, and a module of the installation that runs the user's code."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (repository / "test_it.py").write_text(
        textwrap.dedent("""\
        import json
        from mltrack_tasks.codeversion import code_version, program_file
        file = program_file()
        print(json.dumps([file and file.name, code_version()]))
        """)
    )
    commit(repository)
    args = [*module, *(["-qs", "-p", "no:cacheprovider"] if module else []), str(repository / "test_it.py")]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    cwd = repository if module else elsewhere
    said = subprocess.run([sys.executable, *args], cwd=cwd, env=env, capture_output=True, text=True).stdout
    expected = {"commit": head(repository), "dirty": False, "branch": "trunk"}
    [line] = [line for line in said.splitlines() if line.startswith("[")]
    assert json.loads(line) == [None if module else "test_it.py", expected]


# what it does not know


def test_no_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    monkeypatch.chdir(tmp_path)
    with caplog.at_level(logging.DEBUG, logger="mltrack_tasks"):
        assert code_version() is None
    assert [record.levelno for record in caplog.records] == [logging.DEBUG]
    assert "not a git repository" in caplog.text


def test_no_commit_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git(tmp_path, "init", "--quiet")
    monkeypatch.chdir(tmp_path)
    assert code_version() is None


def test_a_working_directory_that_was_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert code_version() is None


def program(folder: Path, text: str) -> Path:
    """Write a program called git into a folder."""
    folder.mkdir(exist_ok=True)
    (folder / "git").write_text(f"#!/bin/sh\n{text}\n")
    (folder / "git").chmod(0o755)
    return folder


@pytest.mark.parametrize(
    "text",
    ["exec sleep 60", "exit 1", "echo '# branch.oid nonsense'", "printf '\\377'"],
    ids=["silent", "failing", "senseless", "binary"],
)
def test_a_git_that_does_not_answer(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setattr(codeversion, "GIT_TIMEOUT", 0.5)
    monkeypatch.setenv("PATH", f"{program(tmp_path / 'bin', text)}:{os.environ['PATH']}")
    assert code_version() is None


def test_no_git(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert code_version() is None


def test_a_program_of_the_repository_is_not_taken_for_git(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(repository, f"touch {repository}/started")
    monkeypatch.setenv("PATH", f".:{os.environ['PATH']}")
    assert code_version() is None
    assert not (repository / "started").exists()


# what a container is told


def test_the_variable_comes_first(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLTRACK_GIT_COMMIT", f" {'AB' * 20}\n")
    assert code_version() == {"commit": "ab" * 20}


def test_a_variable_that_is_empty_is_none(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLTRACK_GIT_COMMIT", "")
    assert (code_version() or {})["commit"] == head(repository)


@pytest.mark.parametrize("value", ["abc1234", "$GITHUB_SHA", "main", "g" * 40])
def test_a_variable_that_is_no_commit_is_told_once(
    repository: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any, value: str
) -> None:
    monkeypatch.setenv("MLTRACK_GIT_COMMIT", value)
    assert [code_version(), code_version()] == [None, None]
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert value.lower() in record.getMessage()


# what a repository cannot do


@pytest.fixture
def trap(tmp_path: Path) -> tuple[str, Path]:
    """A shell command that a repository may name, and the file that shows that it ran."""
    ran = tmp_path / "ran"
    script = tmp_path / "trap"
    script.write_text(f"#!/bin/sh\necho $0 $* >> {ran}\nexit 1\n")
    script.chmod(0o755)
    return str(script), ran


def arm(folder: Path, command: str) -> None:
    """Name ``command`` wherever a repository can name a program, and give git a reason to call it."""
    (folder / ".gitattributes").write_text("*.bin filter=evil diff=evil\n*.dat filter=process\n")
    for name in ("model.bin", "model.dat"):
        (folder / name).write_text("same length 1\n")
    commit(folder)
    for key in ("filter.evil.clean", "filter.evil.smudge", "filter.process.process", "diff.evil.textconv"):
        git(folder, "config", key, command)
    for key in ("core.fsmonitor", "core.pager", "core.editor", "core.sshCommand", "core.askPass"):
        git(folder, "config", key, command)
    for key in ("diff.external", "credential.helper", "core.gitProxy", "gpg.program", "pager.status"):
        git(folder, "config", key, command)
    git(folder, "config", "filter.process.required", "true")
    git(folder, "config", "alias.status", f"!{command}")
    git(folder, "config", "status.submoduleSummary", "true")
    hooks = folder / "hooks"
    hooks.mkdir()
    for name in ("post-index-change", "fsmonitor-watchman", "reference-transaction"):
        shutil.copy(command, hooks / name)
    git(folder, "config", "core.hooksPath", str(hooks))
    for name in ("model.bin", "model.dat"):
        (folder / name).write_text("same length 2\n")


def test_a_repository_cannot_start_programs(repository: Path, trap: tuple[str, Path]) -> None:
    command, ran = trap
    arm(repository, command)
    found = code_version()
    assert not ran.exists(), ran.read_text()
    assert found is not None
    assert found["commit"] == head(repository)
    subprocess.run([GIT, "-C", str(repository), "status"], capture_output=True, check=False)
    assert ran.exists()  # whereas a plain `git status` does start them


@pytest.mark.parametrize("name", ["a=b", "a b", "a.b", "-a"])
def test_a_filter_that_cannot_be_named_safely_ends_the_question(
    repository: Path, trap: tuple[str, Path], name: str
) -> None:
    command, ran = trap
    with (repository / ".git" / "config").open("a") as config:
        config.write(f'[filter "{name}"]\n\tclean = {command}\n')
    (repository / ".gitattributes").write_text(f"*.py filter={name}\n")
    commit(repository)
    ran.unlink(missing_ok=True)
    (repository / "train.py").write_text("9\n")
    found = code_version()
    assert not ran.exists()
    assert found is None or found["commit"] == head(repository)


def test_files_behind_a_filter_do_not_count(repository: Path) -> None:
    """As those of LFS, which differ from the commit wherever the filter is not run."""
    (repository / ".gitattributes").write_text("*.bin filter=lfs\n")
    git(repository, "config", "filter.lfs.clean", "sed s/large/pointer/")
    git(repository, "config", "filter.lfs.required", "true")
    (repository / "model.bin").write_text("large\n")
    commit(repository)
    assert git(repository, "show", "HEAD:model.bin") == "pointer"
    os.utime(repository / "model.bin", (1, 1))
    assert code_version() == {"commit": head(repository), "dirty": False, "branch": "trunk"}
    edit(repository)
    codeversion._last = None
    assert (code_version() or {})["dirty"] is True


def test_nothing_is_fetched_for_a_partial_clone(repository: Path, trap: tuple[str, Path]) -> None:
    command, ran = trap
    stage(repository)
    tree = git(repository, "rev-parse", "HEAD^{tree}")
    (repository / ".git" / "objects" / tree[:2] / tree[2:]).unlink()
    for key, value in {
        "core.repositoryFormatVersion": "1",
        "extensions.partialClone": "origin",
        "remote.origin.url": f"ext::{command}",
        "remote.origin.promisor": "true",
        "protocol.ext.allow": "always",
    }.items():
        git(repository, "config", key, value)
    assert code_version() is None
    assert not ran.exists()
    subprocess.run([GIT, "-C", str(repository), "status"], capture_output=True, check=False)
    assert ran.exists()


def test_a_repository_of_the_surroundings_is_not_asked(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a hook, for which git names its own repository, index and work tree."""
    other = tmp_path / "other"
    shutil.copytree(repository, other)
    edit(other)
    commit(other)
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other / ".git" / "index"))
    found = code_version()
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name)
    assert found == {"commit": head(repository), "dirty": False, "branch": "trunk"}


def test_the_address_of_the_repository_is_not_told(repository: Path, store: Store) -> None:
    git(repository, "remote", "add", "origin", "https://user:t0ken@example.invalid/repository.git")
    told = json.dumps(dict(store_run(store, "r", storage_mode="flat").provenance))
    assert head(repository) in told
    assert "t0ken" not in told
    assert "example.invalid" not in told


def test_a_name_with_another_end_of_line_says_nothing() -> None:
    oid = "a" * 40
    text = (
        f"# branch.oid {oid}\n# branch.head x\x85# branch.oid {'b' * 40}\n1 .M N... x\u2028# branch.oid c\n"
    )
    assert read_status(text) == {"commit": oid, "dirty": True, "branch": f"x\x85# branch.oid {'b' * 40}"}


# how often it asks


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How often git was called since the last time this was asked."""
    log = tmp_path / "calls"
    folder = program(tmp_path / "bin", f'echo called >> {log}\nexec {GIT} "$@"')
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def since() -> int:
        count = len(log.read_text().splitlines()) if log.exists() else 0
        log.unlink(missing_ok=True)
        return count

    return since


def test_many_runs_ask_once(repository: Path, calls: Callable[[], int]) -> None:
    found = together(8, lambda number: code_version())
    assert found == [{"commit": head(repository), "dirty": False, "branch": "trunk"}] * 8
    assert calls() == 2  # the filters, the status
    found[0]["commit"] = "theirs"
    assert (code_version() or {})["commit"] == head(repository)
    assert calls() == 0


def test_a_notebook_asks_again_after_a_while(
    repository: Path, calls: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_from(monkeypatch, None)
    assert (code_version() or {})["dirty"] is False
    edit(repository)
    assert (code_version() or {})["dirty"] is False
    monkeypatch.setattr(codeversion, "REFRESH_AFTER", -1.0)
    assert (code_version() or {})["dirty"] is True


def test_a_program_does_not(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codeversion, "REFRESH_AFTER", -1.0)
    run_from(monkeypatch, repository / "train.py")
    assert (code_version() or {})["dirty"] is False
    edit(repository)
    assert (code_version() or {})["dirty"] is False


def test_another_folder_is_another_question(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert code_version() is not None
    monkeypatch.chdir(tmp_path)
    assert code_version() is None


def test_small_records_ask_nothing(repository: Path, calls: Callable[[], int], store: Store) -> None:
    assert "code" not in provenance.current()
    assert calls() == 0
    assert store_run(store, "r", storage_mode="flat").provenance["code"]["commit"] == head(repository)
    assert calls() == 2


def test_what_was_said_before_counts(repository: Path, calls: Callable[[], int]) -> None:
    """As for a run that went on for hours, whose code is that of its beginning."""
    with provenance.within(code={"commit": "0" * 40, "dirty": False}):
        assert provenance.of_run()["code"] == {"commit": "0" * 40, "dirty": False}
    assert calls() == 0


# libraries


def test_versions_are_those_of_imported_libraries() -> None:
    """In a process of its own, which has imported nothing else."""
    text = """
        import json
        from mltrack_tasks import provenance
        before = provenance.of_run()["versions"]
        import numpy
        after = provenance.of_run()["versions"]
        print(json.dumps([sorted(before), sorted(after), after["numpy"] == numpy.__version__]))
    """
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(text)], env=env, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == [
        ["mltrack_tasks", "python"],
        ["mltrack_tasks", "numpy", "python"],
        True,
    ]


@pytest.mark.parametrize(("own", "told"), [("9.9+cu12", "9.9+cu12"), (None, "unknown"), (9, "unknown")])
def test_a_library_that_pip_does_not_know_speaks_for_itself(
    monkeypatch: pytest.MonkeyPatch, own: Any, told: str
) -> None:
    module = ModuleType("catboost")
    if own is not None:
        module.__version__ = own  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "catboost", module)
    assert library_versions()["catboost"] == told


def test_a_library_is_told_by_the_name_that_pip_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", ModuleType("sklearn"))
    assert "scikit-learn" in library_versions()
    assert "sklearn" not in library_versions()
