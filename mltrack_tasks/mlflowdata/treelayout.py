"""Find MLflow's stores in a tree of files, from the paths alone.

An experiment is a folder with ``meta.yaml`` that holds runs, or whose name is a number and that has company
which leaves no doubt; the folder around it is the store. What lies inside an experiment belongs to it: a
``meta.yaml`` among a run's artifacts makes no run, as artifacts may come from anybody. Whether a file holds
what its name promises shows when it is read.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from mltrack_tasks.mlflowdata.scalars import is_identifier

TRASH = ".trash"
MODELS = "models"
_RESERVED = frozenset({"tags", "datasets", "traces", MODELS, "artifacts"})
"""Folders of an experiment that are no runs."""
_NUMBER = re.compile(r"[0-9]{1,20}")
_RUN = re.compile(r"[0-9a-f]{32}")
_VERSION = re.compile(r"version-[0-9]{1,18}")
_ARTIFACTS = re.compile(r"(?:^|/)[0-9]{1,20}/(?:[0-9a-f]{32}|models/m-[0-9a-f]{32})/artifacts/")
_DRAWN = 18
"""Digits of the ids that MLflow draws for experiments; older ones were counted."""
_DATABASES = (".db", ".sqlite", ".sqlite3")


@dataclass(frozen=True)
class StoreLayout:
    """One file store. All folders are relative to the tree; ``""`` is the tree itself."""

    root: str
    experiments: dict[str, str] = field(default_factory=dict)
    """Experiment's id -> its folder; one in use goes before one of the same id in the trash."""
    runs: dict[str, str] = field(default_factory=dict)
    """Run's folder -> its id; the folder above it is the experiment's."""
    trashed: set[str] = field(default_factory=set)
    """Those run folders that lie in ``.trash``, with their experiment."""
    logged_models: dict[str, str] = field(default_factory=dict)
    """Logged model's folder -> its id."""
    registered_models: dict[str, str] = field(default_factory=dict)
    """Registered model's folder -> its name."""

    @property
    def models_folder(self) -> str | None:
        """Folder of the model registry, or None without one."""
        return _join(self.root, MODELS) if self.registered_models else None


@dataclass(frozen=True)
class TreeLayout:
    """What MLflow left in a tree."""

    stores: list[StoreLayout]
    databases: list[str]
    """Files whose names are those of databases, outside experiments."""
    bare_artifacts: list[str]
    """Artifact folders of runs and logged models that have no ``meta.yaml``: they need a database."""

    def artifacts_by_id(self) -> dict[str, str]:
        """Id of a run or logged model without ``meta.yaml`` -> its artifact folder; the first if several."""
        found: dict[str, str] = {}
        for folder in self.bare_artifacts:
            found.setdefault(folder.split("/")[-2], folder)
        return found


def layout_of(paths: Sequence[str]) -> TreeLayout:
    """Relative paths of all files of a tree, sorted by their bytes -> what MLflow left in it."""
    metas: dict[str, set[str]] = {}
    databases: list[str] = []
    artifacts: dict[str, None] = {}
    last = "/"
    for path in paths:
        if path.endswith("/meta.yaml"):
            parent, _, name = path[:-10].rpartition("/")
            metas.setdefault(parent, set()).add(name)
        if path.startswith(last):
            continue
        if "/artifacts/" in path and (match := _ARTIFACTS.search(path)):
            last = path[: match.end()]
            artifacts[last[: -len("/artifacts/")]] = None
        elif path.endswith(_DATABASES):
            databases.append(path)
    bare = [folder for folder in artifacts if not _has_meta(folder, metas)]
    stores = _stores(metas, frozenset(bare))
    owned = {folder for store in stores.values() for folder in (*store.runs, *store.logged_models)}
    inside = owned.union(bare, *(store.experiments.values() for store in stores.values()))
    return TreeLayout(
        stores=[stores[root] for root in sorted(stores)],
        databases=[path for path in databases if not _is_inside(path, inside)],
        bare_artifacts=[f"{folder}/artifacts" for folder in bare if not _is_inside(folder, owned)],
    )


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _has_meta(folder: str, metas: Mapping[str, Collection[str]]) -> bool:
    parent, _, name = folder.rpartition("/")
    return name in metas.get(parent, ())


def _is_inside(path: str, folders: Collection[str]) -> bool:
    return any(above in folders for above in _above(path))


def _above(path: str) -> Iterator[str]:
    end = path.find("/")
    while end != -1:
        yield path[:end]
        end = path.find("/", end + 1)


def _stores(metas: Mapping[str, Collection[str]], bare: Collection[str]) -> dict[str, StoreLayout]:
    """Folder -> names in it that have meta.yaml, and what is no store's -> root -> store."""
    stores: dict[str, StoreLayout] = {}
    taken = set(bare)
    candidates = [folder for folder in _outermost_first(metas) if _may_be_experiment(folder, metas)]
    sure = {_root_of(folder) for folder in candidates if _is_surely_experiment(folder, metas)}
    for folder in candidates:
        root = _root_of(folder)
        if root in sure and folder not in taken and not _is_inside(folder, taken):
            taken.add(folder)
            _add_experiment(stores.setdefault(root, StoreLayout(root)), folder, metas)
    _add_registries(stores, metas, taken)
    return stores


def _root_of(experiment: str) -> str:
    parent = experiment.rpartition("/")[0]
    return parent.rpartition("/")[0] if _last(parent) == TRASH else parent


def _holds_runs(folder: str, metas: Mapping[str, Collection[str]]) -> bool:
    return any(map(_RUN.fullmatch, metas.get(folder, ())))


def _may_be_experiment(folder: str, metas: Mapping[str, Collection[str]]) -> bool:
    parent, _, name = folder.rpartition("/")
    if _NUMBER.fullmatch(name) and _last(parent) != MODELS:
        return True
    return is_identifier(name) and _holds_runs(folder, metas)


def _is_surely_experiment(folder: str, metas: Mapping[str, Collection[str]]) -> bool:
    """Tell an experiment from a folder like ``2024``: by its runs, the default id or an id that was drawn."""
    name = _last(folder)
    return name == "0" or len(name) == _DRAWN or _holds_runs(folder, metas)


def _outermost_first(metas: Mapping[str, Collection[str]]) -> list[str]:
    folders = [_join(parent, name) for parent, names in metas.items() for name in names]
    # Before what lies in the trash beside it, which is one level further down.
    return sorted(folders, key=lambda folder: (folder.count("/"), folder))


def _last(folder: str) -> str:
    return folder.rpartition("/")[2]


def _add_experiment(store: StoreLayout, folder: str, metas: Mapping[str, Collection[str]]) -> None:
    store.experiments.setdefault(_last(folder), folder)
    trashed = _last(folder.rpartition("/")[0]) == TRASH
    for run_id in sorted(metas.get(folder, ())):
        if is_identifier(run_id) and run_id not in _RESERVED:
            store.runs[f"{folder}/{run_id}"] = run_id
            if trashed:
                store.trashed.add(f"{folder}/{run_id}")
    models = f"{folder}/{MODELS}"
    for model_id in sorted(metas.get(models, ())):
        if is_identifier(model_id):
            store.logged_models[f"{models}/{model_id}"] = model_id


def _add_registries(
    stores: dict[str, StoreLayout], metas: Mapping[str, Collection[str]], taken: Collection[str]
) -> None:
    """Add the registered models; a registry may also stand alone, if one of its models has a version."""
    for folder in sorted(metas):
        if _last(folder) != MODELS or _is_inside(folder, taken):
            continue
        names = sorted(name for name in metas[folder] if f"{folder}/{name}" not in taken)
        root = folder.rpartition("/")[0]
        versioned = (metas.get(f"{folder}/{name}", ()) for name in names)
        if root not in stores and not any(_VERSION.fullmatch(v) for versions in versioned for v in versions):
            continue
        registered = stores.setdefault(root, StoreLayout(root)).registered_models
        registered.update((f"{folder}/{name}", name) for name in names)
