"""The registered models of a folder that is migrated, and where in it the files of their versions lie."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from mltrack_tasks import layout
from mltrack_tasks.errors import InvalidInputError, MLTrackError
from mltrack_tasks.filetree import FILE, LINK, Entry, folders_above
from mltrack_tasks.localtree import LocalTree
from mltrack_tasks.migration.databases import Registry
from mltrack_tasks.migration.loggedmodels import MAX_META, Logged
from mltrack_tasks.migration.registrychoice import Listed, ListedModel, ListedVersion, choose
from mltrack_tasks.migrations import MigrationManifest
from mltrack_tasks.mlflowdata.facts import RegisteredModel, RegisteredVersion
from mltrack_tasks.mlflowdata.filestore import read_registered_model
from mltrack_tasks.mlflowdata.modelsources import Artifacts, Candidates, candidates
from mltrack_tasks.mlflowdata.treelayout import StoreLayout, TreeLayout
from mltrack_tasks.models import MAX_FILES


def list_models(
    tree: LocalTree,
    entries: Sequence[Entry],
    chosen: Sequence[Entry],
    found: TreeLayout,
    registries: Sequence[Registry],
    logged: Mapping[str, Logged],
    unreadable: Iterable[str],
) -> Listed:
    """Read the registered models of file stores, and find where the files of all versions lie.

    Of a model that several registries have, the one is taken that ``choose`` takes.
    ``registries`` are those of databases. ``entries`` are all there is, of which ``chosen`` is migrated, and
    ``unreadable`` are paths that could not be listed: a version that has something there is not whole.
    """
    if not registries and not any(store.registered_models for store in found.stores):
        return Listed()
    missing = _missing(entries, chosen, unreadable)
    every = [*registries, *_in_file_stores(tree, chosen, found, missing)]
    taken, left_out = _takeable(every)
    artifacts = {place: _artifacts(tree.root, found, logged, place) for _, _, place in taken}
    places = [
        {each.version: candidates(each, own, artifacts[place]) for each in model.versions}
        for model, own, place in taken
    ]
    there = _Files({folder for own in places for each in own.values() for folder in each.folders})
    there.look(entries, missing)
    models = [
        ListedModel(model, tuple(there.listed(each, own[each.version]) for each in _numbered(model)), place)
        for (model, _, place), own in zip(taken, places, strict=True)
    ]
    damaged = [(name, registry.place, why) for registry in every for name, why in registry.damaged]
    return choose(models, damaged, left_out)


def _numbered(model: RegisteredModel) -> list[RegisteredVersion]:
    """The versions as MLflow numbers them, oldest first: from 1, each number once."""
    found: dict[int, RegisteredVersion] = {}
    for version in model.versions:
        if version.version >= 1:
            found.setdefault(version.version, version)
    return [found[number] for number in sorted(found)]


_Takeable = tuple[RegisteredModel, Mapping[str, RegisteredModel], str]
"""A model, all those of its registry by name, and the place of that."""


def _takeable(registries: Iterable[Registry]) -> tuple[list[_Takeable], list[tuple[str, str]]]:
    """Find the models whose names can be kept, each once in a registry, and say why others cannot."""
    left_out: list[tuple[str, str]] = []
    found: list[_Takeable] = []
    for registry in registries:
        own = {model.name: model for model in reversed(registry.models)}
        for model in registry.models:
            if reason := _refused(model.name):
                left_out.append((model.name, reason))
            elif own[model.name] is not model:
                left_out.append((model.name, f"another workspace of {registry.place!r} has it, too"))
            else:
                found.append((model, own, registry.place))
    return found, left_out


def too_many(files: int) -> str:
    """Why so many files are no version."""
    return f"It has {files:,} files; a version holds {MAX_FILES:,}."


def files_of_models(entries: Iterable[Entry], models: Iterable[ListedModel]) -> Iterator[Entry]:
    """Choose the files that versions consist of."""
    folders = {version.folder for model in models for version in model.versions if version.folder}
    if folders:
        for entry in entries:
            if entry.kind == FILE and not folders.isdisjoint((entry.path, *folders_above(entry.path))):
                yield entry


def has_all(registry: Listed, previous: MigrationManifest) -> bool:
    """Whether a manifest says something of each version and alias that there is now."""
    versions = {(row.model, row.number) for row in previous.versions}
    aliases = {(row.model, row.alias) for row in previous.aliases}
    return all(
        versions.issuperset((model.name, version.facts.version) for version in model.versions)
        and aliases.issuperset((model.name, alias) for alias in model.aliases())
        for model in registry.models
    )


def _refused(name: str) -> str:
    try:
        layout.encode_segment(name, what="The model")
    except InvalidInputError as error:
        return str(error)
    return ""


def _artifacts(root: Path, found: TreeLayout, logged: Mapping[str, Logged], place: str) -> Artifacts:
    """Find the artifacts of runs and logged models, as the registry at ``place`` means them.

    A tree may hold a copy of a store, which has the same ids: of two, what is in use goes before what lies in
    the trash, then the registry's own store before others.
    """
    own_store = any(_place(store) == place for store in found.stores)
    lying = [(False, own_store, folder, key) for key, folder in found.artifacts_by_id().items()]
    for store in found.stores:
        for folder, key in (*store.runs.items(), *store.logged_models.items()):
            lying.append((folder in store.trashed, _place(store) != place, f"{folder}/artifacts", key))
    folders: dict[str, str] = {}
    for _, _, folder, key in sorted(lying):
        folders.setdefault(key, folder)
    named = {(model.run_id, model.name): model.model_id for model in logged.values() if model.name}
    return Artifacts(root, folders, named)


class _Files:
    """Which folders of interest have files, and whether all of them are migrated."""

    def __init__(self, wanted: set[str]) -> None:
        self._wanted, self._filled, self._partial = wanted, Counter[str](), dict[str, str]()

    def look(self, entries: Sequence[Entry], missing: Mapping[str, str]) -> None:
        """Go through all there is, and what is not migrated of it."""
        for entry in entries:
            for folder in self._around(entry.path):
                if entry.kind == LINK:
                    self._partial[folder] = f"{entry.path!r:.200} is a symbolic link"
                elif entry.kind == FILE:
                    self._filled[folder] += 1
        for path, reason in missing.items():
            for folder in self._around(path):
                self._partial[folder] = reason

    def listed(self, version: RegisteredVersion, where: Candidates) -> ListedVersion:
        """Take the first folder that has files, if they are all migrated."""
        for folder in where.folders:
            if reason := self._partial.get(folder):
                return ListedVersion(version, None, reason)
            if self._filled[folder] > MAX_FILES:
                return ListedVersion(version, None, too_many(self._filled[folder]))
            if folder in self._filled:
                return ListedVersion(version, folder)
        return ListedVersion(version, None, where.otherwise)

    def _around(self, path: str) -> Iterator[str]:
        return (each for each in (path, *folders_above(path)) if each in self._wanted)


def _missing(entries: Iterable[Entry], chosen: Iterable[Entry], unreadable: Iterable[str]) -> dict[str, str]:
    """Name what is there, or may be, and is not migrated -> why not."""
    taken = {entry.path for entry in chosen}
    absent = (entry.path for entry in entries if entry.kind == FILE and entry.path not in taken)
    return {
        **{path: f"{path!r:.200} is left out by include or exclude" for path in absent},
        **{path: f"{path!r:.200} could not be taken" for path in unreadable},
    }


def _in_file_stores(
    tree: LocalTree, entries: Sequence[Entry], found: TreeLayout, missing: Mapping[str, str]
) -> Iterator[Registry]:
    for store in found.stores:
        if store.registered_models:
            yield _read_store(tree, entries, store, missing)


def _place(store: StoreLayout) -> str:
    return store.root or "."


def _read_store(
    tree: LocalTree, entries: Sequence[Entry], store: StoreLayout, missing: Mapping[str, str]
) -> Registry:
    """Read the models of a file store; one that lacks anything says nothing.

    Else an alias whose file could not be listed would be taken away, as if MLflow had done so.
    """
    files: dict[str, list[Entry]] = {folder: [] for folder in store.registered_models}
    below = f"{store.models_folder}/"
    cut = below.count("/") + 1
    for entry in entries:
        if entry.kind == FILE and entry.path.startswith(below):
            folder = "/".join(entry.path.split("/")[:cut])
            if folder in files and entry.size <= MAX_META:
                files[folder].append(entry)
    registry = Registry(_place(store), [], [])
    partial = {above: why for path, why in missing.items() for above in (path, *folders_above(path))}
    for folder, name in store.registered_models.items():
        if folder in partial:
            registry.damaged.append((name, f"not all of it is there: {partial[folder]}"))
            continue
        try:
            bodies = {entry.path[len(folder) + 1 :]: tree.read(entry) for entry in files[folder]}
            registry.models.append(
                read_registered_model(bodies, what=f"The registered model {folder!r}", name=name)
            )
        except MLTrackError as error:
            registry.damaged.append((name, str(error)))
    return registry
