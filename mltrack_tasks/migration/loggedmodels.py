"""Models that MLflow 3 keeps beside the runs that logged them: their folders belong to these runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mltrack_tasks import events
from mltrack_tasks.errors import MLTrackError
from mltrack_tasks.filetree import FILE, Entry
from mltrack_tasks.localtree import LocalTree
from mltrack_tasks.migration.groups import RunGroup
from mltrack_tasks.mlflowdata.filestore import META, read_logged_model
from mltrack_tasks.mlflowdata.treelayout import TreeLayout

MAX_META = 1024 * 1024
"""[bytes] of a ``meta.yaml`` that is looked at; MLflow's have some hundred."""


class Logged(NamedTuple):
    """A model that a run logged."""

    model_id: str
    run_id: str
    name: str | None


def model_runs(tree: LocalTree, entries: Sequence[Entry], found: TreeLayout) -> dict[str, Logged]:
    """Read which run logged each model of a file store, by the model's folder.

    A model whose description is damaged belongs to no run, with a warning in the log; its files are kept.
    """
    wanted = {f"{folder}/{META}": folder for store in found.stores for folder in store.logged_models}
    runs: dict[str, Logged] = {}
    for entry in entries:
        folder = wanted.get(entry.path)
        if folder is None or entry.kind != FILE or entry.size > MAX_META:
            continue
        try:
            model = read_logged_model({META: tree.read(entry)}, what=f"The logged model {folder!r}")
        except MLTrackError as error:
            events.logger.warning("of no run: %s", error)
            continue
        if model.source_run_id is not None:
            runs[folder] = Logged(model.model_id, model.source_run_id, model.name)
    return runs


def with_models(groups: Sequence[RunGroup], models: Mapping[str, Logged]) -> list[RunGroup]:
    """Give runs the folders of the models that they logged, after their own."""
    folders: dict[str, list[str]] = {}
    for folder, model in models.items():
        folders.setdefault(model.run_id, []).append(folder)
    return [
        group._replace(folders=(*group.folders, *sorted(folders[group.run_id])))
        if group.run_id in folders
        else group
        for group in groups
    ]
