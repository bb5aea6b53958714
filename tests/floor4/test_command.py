"""``python -m mltrack_tasks check_access``: answers on the screen, and an exit code for scripts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mltrack_tasks import MLTrackStore
from mltrack_tasks.__main__ import main
from mltrack_tasks.roles import role_policy


def test_a_store_is_checked_and_nothing_is_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check_access", str(tmp_path / "store"), "--write"]) == 0
    said = capsys.readouterr().out
    assert "    ok  write and delete: a probe object was written and removed" in said
    assert "    ok  create-only writes" in said
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_without_write_nothing_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check_access", str(tmp_path / "store")]) == 0
    assert "write and delete" not in capsys.readouterr().out
    assert not (tmp_path / "store").exists()


def test_a_role_is_checked(block: MLTrackStore, capsys: pytest.CaptureFixture[str]) -> None:
    block.save("checked", overwrite=True)
    assert main(["check_access", "checked", "--role", "promoter", "--write"]) == 0
    said = capsys.readouterr().out
    assert "    ok  permission s3:PutObject: allowed on arn:aws:s3:::" in said
    assert "/models/registry/*" in said
    assert "    ok  nothing left behind" in said
    assert main(["check_access", "checked", "--role", "owner"]) == 2
    assert "choose one of reader, writer, promoter, admin" in capsys.readouterr().err


def test_a_failure_is_told_with_its_fix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("x")
    assert main(["check_access", str(tmp_path / "file")]) == 1
    lines = capsys.readouterr().out.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("FAILED"))
    assert lines[at + 1].strip()


def test_what_is_no_store_is_a_wrong_call(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check_access", "gs://bucket"]) == 2
    assert capsys.readouterr().err.startswith("InvalidInputError: ")


def test_a_policy_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["iam_policy", "writer", "s3://bucket/prefix"]) == 0
    assert json.loads(capsys.readouterr().out) == role_policy("writer", "bucket", "prefix")
    assert main(["iam_policy", "owner", "s3://bucket/prefix"]) == 2
    assert "choose one of reader, writer, promoter, admin" in capsys.readouterr().err


def test_help_names_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    assert "check_access" in capsys.readouterr().out
