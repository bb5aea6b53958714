"""A downloaded model -> the object that it is, if loading it runs nothing that nobody looked at."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

from mltrack_tasks.errors import IntegrityError, InvalidInputError, MLTrackError
from mltrack_tasks.filetree import FILE, FOLDER
from mltrack_tasks.localtree import LocalTree
from mltrack_tasks.mlflowdata.mlmodel import MLMODEL, load_model_yaml
from mltrack_tasks.models import ModelVersion
from mltrack_tasks.pickles import find_pickles
from mltrack_tasks.registry.modeltrust import PYFUNC, leading_out, objections
from mltrack_tasks.stores.files import hash_file, os_errors

FLAVORS = (
    *(
        "catboost",
        "diffusers",
        "dspy",
        "h2o",
        "johnsnowlabs",
        "keras",
        "langchain",
        "lightgbm",
        "llama_index",
    ),
    *("onnx", "openai", "paddle", "pmdarima", "prophet", "pytorch", "sentence_transformers", "shap"),
    *("sklearn", "spacy", "spark", "statsmodels", "tensorflow", "transformers", "xgboost"),
)
"""Modules of MLflow 3.17 that load a model, beside ``python_function``. No other name reaches an import."""
_SKOPS = (0, 13)
"""Older versions of skops run what they were not told to trust: CVE-2025-54412, 54413, 54886."""
_EXAMPLE = "saved_input_example_info"
_SHOWN = 5
_BROKEN = (
    *(AttributeError, TypeError, ValueError, LookupError, EOFError, OSError, RecursionError),
    *(pickle.UnpicklingError, zipfile.BadZipFile),
)
_JOBLIB = b"joblib.numpy_pickle"
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x5d\x00", b"\x04\x22\x4d\x18", b"x")
"""What files begin with that joblib compressed: gzip, bzip2, xz, lzma, lz4, zlib."""


def load_folder(
    folder: str | Path, version: ModelVersion, *, trusted_digest: str | None = None, flavor: str | None = None
) -> Any:
    """Load a downloaded version -> what its author saved.

    An MLflow model is loaded by MLflow: by its native flavor if it has one beside ``python_function`` (of
    scikit-learn: the estimator itself, not a wrapper), else as ``mlflow.pyfunc.load_model`` does; ``flavor``
    asks for one of the two, by its name in ``MLmodel``. Without ``MLmodel``, a version of one pickle is
    unpickled; for anything else use ``download_model``.

    Loaded at once is what is data alone: scikit-learn and LightGBM as skops with types of their own, and the
    native formats of XGBoost, LightGBM, CatBoost and ONNX. Whatever could run its author's code (pickles,
    source, a loader or type that is not known) is an InvalidInputError that names it. Who has looked at it
    calls again with ``trusted_digest``, the version's ``tree_digest``: then it runs. Data of a hostile model
    may still crash the process, in the libraries that read it.

    Raises IntegrityError unless the folder holds exactly the files of the version, InvalidInputError if a
    library is missing or ``trusted_digest`` is that of another tree, or ``MLmodel`` leads out of its folder.
    """
    if trusted_digest is not None and trusted_digest != version.tree_digest:
        raise InvalidInputError(
            f"trusted_digest is {trusted_digest!r:.80}, and the tree digest of {_name(version)} is "
            f"{version.tree_digest}: somebody looked at another model."
        )
    root = Path(folder).absolute()
    _prove(root, version)
    pickled = [f"{each} ({each.reason})" for each in _pickles(root, version)]
    if any(file.path == MLMODEL for file in version.files):
        return _load_mlflow(root, version, pickled, trusted_digest is not None, flavor)
    if len(version.files) != 1 or not pickled or flavor is not None:
        raise InvalidInputError(
            f"{_name(version)} is neither an MLflow model nor one pickle; nothing here knows how to load it. "
            "Use download_model, and load its files yourself."
        )
    if trusted_digest is None:
        raise _untrusted(version, pickled)
    return _unpickle(root / version.files[0].path, version)


def _load_mlflow(
    root: Path, version: ModelVersion, pickled: list[str], trusted: bool, flavor: str | None
) -> Any:
    what = f"{MLMODEL} of {_name(version)}"
    with os_errors(str(root)):
        model = load_model_yaml((root / MLMODEL).read_bytes(), what=what)
    flavors = _flavors(model, what)
    chosen = _chosen(flavors, flavor, version)
    outside = leading_out(model)
    if outside:
        raise InvalidInputError(
            f"{what} leads out of its folder, where its digest vouches for nothing: {_some(outside)}."
        )
    found = pickled + objections(chosen, flavors, [file.path for file in version.files])
    if found and not trusted:
        raise _untrusted(version, found)
    _require_skops()
    with _load_errors(version):
        import mlflow
        from mlflow.models import Model

        read = Model.load(str(root))
        if not trusted and (read.flavors, read.saved_input_example_info) != (flavors, model.get(_EXAMPLE)):
            raise _untrusted(version, [f"{what}, which MLflow reads in another way"])
        module = getattr(mlflow, "pyfunc" if chosen == PYFUNC else chosen)
        return module.load_model(str(root))


def _flavors(model: Mapping[str, Any], what: str) -> dict[str, dict[str, Any]]:
    flavors = model.get("flavors")
    if not isinstance(flavors, dict) or not all(isinstance(fields, dict) for fields in flavors.values()):
        raise IntegrityError(f"{what} has no flavors, which MLflow always writes.")
    return flavors


def _chosen(flavors: Mapping[str, Any], flavor: str | None, version: ModelVersion) -> str:
    native = [name for name in flavors if name in FLAVORS]
    loadable = native + [PYFUNC] * (PYFUNC in flavors)
    wanted = flavor or (native[0] if len(native) == 1 else PYFUNC)
    if wanted in loadable:
        return wanted
    named = ", ".join(map(repr, loadable)) or "none"
    raise InvalidInputError(
        f"{_name(version)} has no flavor {wanted!r} that MLflow could load; it has {named}. Say flavor=..., "
        "or use download_model."
    )


def _unpickle(path: Path, version: ModelVersion) -> Any:
    """Read a pickle with what wrote it: pickle, or joblib, which puts arrays between the opcodes."""
    with _load_errors(version), path.open("rb") as file:
        body = file.read(1 << 20)
        if _JOBLIB in body or body.startswith(_COMPRESSED) or path.suffix == ".joblib":
            import joblib  # type: ignore[import-untyped]

            return joblib.load(path)
        file.seek(0)
        return pickle.load(file)


@contextmanager
def _load_errors(version: ModelVersion) -> Iterator[None]:
    """Translate what loading raises where this machine is not as the one that the model was made on."""
    try:
        yield
    except ImportError as error:
        needs = version.mlflow.get("requirements")
        hint = f" It was made with: {_some(needs)}." if isinstance(needs, list) and needs else ""
        raise InvalidInputError(
            f"{_name(version)} needs a library that is not installed: {error}.{hint} "
            "(MLflow itself is the extra `mlflow`.)"
        ) from error
    except MLTrackError:
        raise
    except _BROKEN as error:
        raise _unloadable(version, error) from error
    except _mlflow_exception() as error:
        raise _unloadable(version, error) from error


def _unloadable(version: ModelVersion, error: Exception) -> InvalidInputError:
    return InvalidInputError(
        f"{_name(version)} cannot be loaded here: {type(error).__name__}: {str(error)[:300]}. Compare the "
        "versions of its libraries with those installed, or use download_model."
    )


def _mlflow_exception() -> tuple[type[Exception], ...]:
    try:
        from mlflow.exceptions import MlflowException
    except ImportError:
        return ()
    return (MlflowException,)


def _prove(root: Path, version: ModelVersion) -> None:
    """Raise IntegrityError unless a folder holds the files of a version, and nothing else."""
    if not root.is_dir():
        raise InvalidInputError(f"There is no folder {root}; download the version into it first.")
    with LocalTree(root) as tree:
        found = tree.scan()
    here = {entry.path for entry in found.entries if entry.kind == FILE}
    others = [entry.path for entry in found.entries if entry.kind not in (FILE, FOLDER)]
    wanted = {file.path: file.digest for file in version.files}
    strange = [*here.symmetric_difference(wanted), *others, *(path for path, _ in found.left_out)]
    with os_errors(str(root)):
        strange += [path for path in here & wanted.keys() if hash_file(root / path) != wanted[path]]
    if strange:
        raise IntegrityError(
            f"{root} does not hold the files of {_name(version)}: see {_some(sorted(strange))}. Download it "
            "again."
        )


def _pickles(root: Path, version: ModelVersion) -> list[Any]:
    sizes = {file.path: file.size_bytes for file in version.files}
    with os_errors(str(root)):
        return find_pickles(sizes, lambda path: (root / path).open("rb"))


def _require_skops() -> None:
    try:
        found = installed_version("skops")
    except PackageNotFoundError:
        return  # the import will say so
    numbers = tuple(int(part) for part in found.split(".")[:2] if part.isdigit())
    if numbers < _SKOPS:
        raise InvalidInputError(
            f"skops {found} is installed, which runs more than it is told to trust. Upgrade it to 0.13."
        )


def _untrusted(version: ModelVersion, found: list[str]) -> InvalidInputError:
    return InvalidInputError(
        f"Loading {_name(version)} may run code of whoever made it: {_some(found)}. Look at it; if you "
        f"trust it, call again with trusted_digest={version.tree_digest!r}.",
        details={"found": list(found), "tree_digest": version.tree_digest},
    )


def _some(texts: list[Any]) -> str:
    more = f" and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
    return "; ".join(str(text)[:200] for text in texts[:_SHOWN]) + more


def _name(version: ModelVersion) -> str:
    return f"{version.version} of {version.model!r}"
