"""Trees of files to migrate, made from a seed: plain folders, large files, and what MLflow leaves behind."""

from __future__ import annotations

import filecmp
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

MIB = 1024**2
BLOCK = 8 * MIB
FOLDER_FILES = 1_000
"""Files in one folder of a plain tree."""
RUN_FILES = 35
EXPERIMENT_RUNS = 500

Make = Callable[[Path, int], None]
"""Fill the folder with so many files."""


def plain(size: int) -> Make:
    """Files of ``size`` random bytes each, in folders of 1,000."""

    def make(folder: Path, files: int) -> None:
        random = Random(size)
        for number in range(files):
            path = folder / f"part{number // FOLDER_FILES:04}" / f"{number:06}.bin"
            if number % FOLDER_FILES == 0:
                path.parent.mkdir(parents=True)
            with path.open("wb") as file:
                for start in range(0, size, BLOCK):
                    file.write(random.randbytes(min(BLOCK, size - start)))

    return make


def mlruns(folder: Path, files: int) -> None:
    """An MLflow file store with ``files // 35`` finished runs: 23 records and 12 small artifacts each."""
    random = Random(35)
    runs = max(files // RUN_FILES, 1)
    for number in range(runs):
        experiment = folder / str(100 + number // EXPERIMENT_RUNS)
        if number % EXPERIMENT_RUNS == 0:
            _write(experiment / "meta.yaml", _experiment_yaml(experiment))
        run_id = f"{random.getrandbits(128):032x}"
        for path, text in _run_files(random, experiment, run_id, number):
            _write(experiment / run_id / path, text)


def same_trees(left: Path, right: Path) -> str | None:
    """Name the first difference of two trees of plain files, byte for byte; None if there is none."""
    ours, theirs = sorted(_paths(left)), sorted(_paths(right))
    if ours != theirs:
        odd = sorted(set(ours) ^ set(theirs))
        return f"{len(ours)} files here, {len(theirs)} there; only in one: {', '.join(odd[:3])}"
    for path in ours:
        if not filecmp.cmp(left / path, right / path, shallow=False):
            return f"{path} differs"
    return None


def _paths(root: Path) -> Iterator[str]:
    for folder, _, names in os.walk(root):
        for name in names:
            yield os.path.relpath(os.path.join(folder, name), root)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _experiment_yaml(experiment: Path) -> str:
    return (
        f"artifact_location: {experiment.as_uri()}\ncreation_time: 1700000000000\n"
        f"experiment_id: '{experiment.name}'\nlast_update_time: 1700000000000\n"
        f"lifecycle_stage: active\nname: experiment {experiment.name}\n"
    )


def _run_yaml(experiment: Path, run_id: str, start: int) -> str:
    uri = (experiment / run_id / "artifacts").as_uri()
    return (
        f"artifact_uri: {uri}\nend_time: {start + 41_507}\nentry_point_name: ''\n"
        f"experiment_id: '{experiment.name}'\nlifecycle_stage: active\nrun_id: {run_id}\n"
        f"run_name: run-{run_id[:6]}\nrun_uuid: {run_id}\nsource_name: ''\nsource_type: 4\n"
        f"source_version: ''\nstart_time: {start}\nstatus: 3\ntags: []\nuser_id: trainer\n"
    )


def _run_files(random: Random, experiment: Path, run_id: str, number: int) -> Iterator[tuple[str, str]]:
    """Yield 1 + 10 + 6 + 6 + 12 files as (path in the run's folder, text)."""
    start = 1_700_000_000_000 + number * 60_000
    yield "meta.yaml", _run_yaml(experiment, run_id, start)
    for index in range(10):
        yield f"params/param_{index:02}", f"{random.random():.6f}"
    for name in ("loss", "accuracy", "val/loss", "val/accuracy", "lr", "seconds"):
        lines = (f"{start + step * 1_000} {random.random()!r} {step}\n" for step in range(10))
        yield f"metrics/{name}", "".join(lines)
    tags = {
        "runName": f"run-{run_id[:6]}",
        "source.name": "train.py",
        "source.type": "LOCAL",
        "source.git.commit": f"{random.getrandbits(160):040x}",
        "user": "trainer",
        "note.content": f"attempt {number}",
    }
    yield from ((f"tags/mlflow.{name}", text) for name, text in tags.items())
    yield from _artifacts(random, run_id)


def _artifacts(random: Random, run_id: str) -> Iterator[tuple[str, str]]:
    """Yield 12: a model's five descriptions, which are alike in many runs, and what is each run's own."""
    model = "artifacts/model"
    yield f"{model}/MLmodel", f"artifact_path: model\nflavors: {{sklearn: {{}}}}\nrun_id: {run_id}\n"
    yield f"{model}/conda.yaml", "channels: [conda-forge]\ndependencies: [python=3.11, pip]\nname: env\n"
    yield f"{model}/python_env.yaml", "python: 3.11.9\nbuild_dependencies: [pip]\n"
    yield f"{model}/requirements.txt", "scikit-learn==1.5.2\nnumpy==2.1.1\n"
    yield f"{model}/input_example.json", '{"columns": ["a", "b"], "data": [[1.0, 2.0]]}\n'
    yield f"{model}/weights.json", _numbers(random, 100)
    for name in ("confusion", "importance", "roc", "residuals", "folds"):
        yield f"artifacts/plots/{name}.json", _numbers(random, 30)
    yield "artifacts/summary.txt", _numbers(random, 5)


def _numbers(random: Random, count: int) -> str:
    return "[" + ", ".join(repr(random.random()) for _ in range(count)) + "]\n"
