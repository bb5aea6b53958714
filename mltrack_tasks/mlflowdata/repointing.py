"""Addresses of artifacts in a tree that MLflow wrote elsewhere -> addresses in the folder where it lies now.

An address is taken for one of the tree if it ends in the very place that the run, model or experiment has in
its store, such as ``<experiment>/<run>/artifacts``. All others stay as they are: those of servers and
buckets, ``runs:/`` and ``models:/``, and whatever is not as MLflow writes it. No new address leads out of the
folder.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import yaml

from mltrack_tasks.errors import IntegrityError
from mltrack_tasks.mlflowdata.addresses import ARTIFACTS, Bases, Segments, base_of, moved, read_address
from mltrack_tasks.mlflowdata.filestore import META
from mltrack_tasks.mlflowdata.treelayout import MODELS, StoreLayout, TreeLayout
from mltrack_tasks.mlflowdata.yamls import load_mapping

MAX_META = 256 << 10
"""[bytes] Larger files are left alone; MLflow's have some hundred, and the description of a model."""
USUAL_NAME = "mlruns"
VERSION_FIELDS = ("source", "storage_location")
_VERSION = re.compile(r"(.*)/version-[0-9]{1,18}/meta\.yaml", re.DOTALL)


class _Owner(NamedTuple):
    """Who has an address of its own."""

    meta: str
    field: str
    place: Segments
    """Where in its store."""
    store: str

    @property
    def folder(self) -> str:
        """Where its artifacts are in the tree."""
        return self.meta.removesuffix(META) + ARTIFACTS


def metas_of(paths: Iterable[str], found: TreeLayout) -> list[str]:
    """Choose the files of a tree that ``repointed`` wants to see."""
    wanted = {owner.meta for store in found.stores for owner in _owners(store)}
    models = _registered(found)
    return [path for path in paths if path in wanted or _store_of_version(path, models) is not None]


def repointed(
    files: Mapping[str, bytes], found: TreeLayout, root: Path, *, artifacts: Collection[str] | None = None
) -> dict[str, bytes]:
    """Re-point the addresses in files of file stores -> the files that change, with one line or two replaced.

    ``files`` are those of ``metas_of``, by their paths relative to ``root``, which is absolute.
    ``artifacts`` are the artifact folders that hold files: then a store's old folder is only one that had
    some of them or that has the store's name, because artifacts may have been kept apart from the store.
    """
    owners = [owner for store in found.stores for owner in _owners(store) if owner.meta in files]
    addresses = [read_address(_text(files[owner.meta], owner.field)) for owner in owners]
    bases, usual = Bases(), _usual_names(found, root)
    for owner, address in zip(owners, addresses, strict=True):
        base = base_of(address, owner.place)
        if base and (artifacts is None or owner.folder in artifacts or base[-1] in usual[owner.store]):
            bases.learn(base, (owner.store,))
    changed: dict[str, bytes] = {}
    for owner, address in zip(owners, addresses, strict=True):
        base = base_of(address, owner.place)
        if address is not None and bases.folder_of(base, (owner.store,)) is not None:
            new = moved(address, root, (owner.store, *owner.place))
            _replace(changed, files, owner.meta, owner.field, new)
    for path, store in _versions(files, found):
        for field in VERSION_FIELDS:
            new = bases.moved(_text(files[path], field), root, near=store)
            _replace(changed, files, path, field, new)
    return changed


def _owners(store: StoreLayout) -> Iterator[_Owner]:
    # What is in the trash has the address that it had before, and will have when it is taken out.
    for key, folder in store.experiments.items():
        yield _Owner(f"{folder}/{META}", "artifact_location", (key,), store.root)
    for folder, run in store.runs.items():
        place = (folder.split("/")[-2], run, ARTIFACTS)
        yield _Owner(f"{folder}/{META}", "artifact_uri", place, store.root)
    for folder, model in store.logged_models.items():
        above = folder.split("/")[-3]
        yield _Owner(f"{folder}/{META}", "artifact_location", (above, MODELS, model, ARTIFACTS), store.root)


def _usual_names(found: TreeLayout, root: Path) -> dict[str, frozenset[str]]:
    """Root of a store -> names that its folder will have had."""
    of_tree = frozenset({USUAL_NAME, root.name})
    folders = [store.root for store in found.stores]
    return {each: frozenset({each.split("/")[-1]}) if each else of_tree for each in folders}


def _registered(found: TreeLayout) -> dict[str, str]:
    return {folder: store.root for store in found.stores for folder in store.registered_models}


def _store_of_version(path: str, models: Mapping[str, str]) -> str | None:
    match = _VERSION.fullmatch(path) if path.endswith(META) else None
    return models.get(match[1]) if match else None


def _versions(files: Iterable[str], found: TreeLayout) -> Iterator[tuple[str, str]]:
    models = _registered(found)
    for path in files:
        store = _store_of_version(path, models)
        if store is not None:
            yield path, store


def _text(data: bytes, field: str) -> object:
    if len(data) > MAX_META:
        return None
    try:
        return load_mapping(data, META).get(field)
    except IntegrityError:
        return None  # MLflow cannot read it either, so no address in it is used


def _replace(
    changed: dict[str, bytes], files: Mapping[str, bytes], path: str, field: str, value: str | None
) -> None:
    before = changed.get(path, files[path])
    after = before if value is None else with_field(before, field, value)
    if after != before:
        changed[path] = after


def with_field(data: bytes, field: str, value: str) -> bytes:
    """Replace the value of a field of a YAML mapping, and no other byte.

    The same bytes come back if the field is not written in one obvious way, or if a reader would see any
    other change.
    """
    fields, text = load_mapping(data, META), data.decode()
    found = list(re.finditer(rf"^{field}:[^\r\n]*(?:\r?\n +[^\r\n]*)*", text, re.MULTILINE))
    if len(found) != 1:
        return data
    line = yaml.safe_dump({field: value}, allow_unicode=True, default_flow_style=False, width=1 << 30)
    new = f"{text[: found[0].start()]}{line[:-1]}{text[found[0].end() :]}".encode()
    try:
        return new if load_mapping(new, META) == {**fields, field: value} else data
    except IntegrityError:
        return data
