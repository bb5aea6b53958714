"""A version's files into a temporary folder, and from there into memory."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any

from mltrack_tasks.registry.downloading import download_model
from mltrack_tasks.registry.loading import load_folder
from mltrack_tasks.stores.base import Store


def load_model(
    store: Store,
    model_name: str,
    version_or_alias: str = "production",
    *,
    trusted_digest: str | None = None,
    flavor: str | None = None,
) -> Any:
    """Load a version into memory -> what its author saved: an estimator, a booster, a pyfunc model.

    An MLflow model is loaded by MLflow: by its native flavor if it has one beside ``python_function``, else
    as ``mlflow.pyfunc.load_model`` does; ``flavor`` asks for one of the two. Without ``MLmodel``, a version
    of one pickle is unpickled. What could run its author's code is refused, unless ``trusted_digest`` is the
    version's ``tree_digest``: an alias may have moved since somebody looked, the digest has not.

    Files are proven by digest, and come through the read cache where the store has one. They lie in a
    temporary folder that goes with the model, or when the process ends: some libraries read on from there.

    Raises NotFoundError, ArchivedError, IntegrityError, and InvalidInputError for what is not loaded: code
    without ``trusted_digest``, a digest of another tree, a missing library, files of no known kind.
    """
    folder = Path(tempfile.mkdtemp(prefix="mltrack-model-"))
    try:
        version, path = download_model(store, model_name, version_or_alias, folder / "model")
        model = load_folder(path, version, trusted_digest=trusted_digest, flavor=flavor)
    except BaseException:
        _remove(folder, os.getpid())
        raise
    _remove_after(model, folder)
    return model


def _remove_after(model: object, folder: Path) -> None:
    try:
        weakref.finalize(model, _remove, folder, os.getpid())
    except TypeError:  # a list, a dict, a number: nothing that would read on from a file
        _remove(folder, os.getpid())


def _remove(folder: Path, made_by: int) -> None:
    # A fork has the model as well, and ends first.
    if os.getpid() == made_by:
        shutil.rmtree(folder, ignore_errors=True)
