"""Registries that MLflow itself filled, for the tests of their migration."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput

MLMODEL = b"flavors:\n  python_function:\n    loader_module: mlflow.sklearn\n"
SIZES = {"MLmodel": 0, "data/packed": 9_000, "weights.bin": 50_000}
"""Files of a model [bytes]: one for the manifest, one for a pack, and a blob."""


class Site(NamedTuple):
    """MLflow in a folder: its client, and the folder that is migrated."""

    client: MlflowClient
    tree: Path
    experiment: str

    def run(self, **metrics: float) -> str:
        """Make a run that has ended -> its id."""
        run = self.client.create_run(self.experiment).info.run_id
        self.client.log_param(run, "depth", "3")
        for name, value in metrics.items():
            self.client.log_metric(run, name, value)
        self.client.set_terminated(run)
        return run

    def artifacts(self, run: str) -> Path:
        """Folder of a run's artifacts."""
        return Path(self.client.get_run(run).info.artifact_uri.removeprefix("file://"))

    def files(self, run: str, weights: bytes, path: str = "model") -> None:
        """Write a model's files as artifacts of a run, as MLflow 2 did: one of each size class."""
        write_model(self.artifacts(run) / path, weights)

    def logged(self, run: str, weights: bytes, name: str = "model") -> str:
        """Log a model as MLflow 3 does, beside its run -> its id."""
        model = self.client.create_logged_model(self.experiment, name=name, source_run_id=run)
        self.client.log_outputs(run, [LoggedModelOutput(model.model_id, step=0)])
        write_model(Path(model.artifact_location.removeprefix("file://")), weights)
        self.client.finalize_logged_model(model.model_id, "READY")
        return str(model.model_id)

    def version(self, name: str, source: str, run: str | None = None, **more: str | None) -> int:
        """Register a version -> its number."""
        with contextlib.suppress(Exception):
            self.client.create_registered_model(name)
        return int(self.client.create_model_version(name, source, run_id=run, **more).version)  # type: ignore[arg-type]

    def stage(self, name: str, number: int, stage: str) -> None:
        """Move a version to a stage."""
        self.client.transition_model_version_stage(name, str(number), stage)


def write_model(folder: Path, weights: bytes) -> None:
    """Write the files of a model."""
    for path, size in SIZES.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(weights * size or MLMODEL + b"# " + weights)


@contextlib.contextmanager
def at_work(folder: Path, kind: str) -> Iterator[Site]:
    """MLflow in a folder: ``kind`` is ``files`` (a file store) or ``sqlite``."""
    uri = f"file://{folder}/mlruns" if kind == "files" else f"sqlite:///{folder}/mlflow.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        client = MlflowClient(uri, registry_uri=uri)
        yield Site(client, folder / "mlruns", client.create_experiment("churn"))
