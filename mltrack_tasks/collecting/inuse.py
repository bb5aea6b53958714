"""Runs in use: those from which versions came that an alias stands for, or stood for."""

from __future__ import annotations

from mltrack_tasks.errors import NotFoundError
from mltrack_tasks.registry.aliases import alias_names, promotions_of
from mltrack_tasks.registry.reading import promoted_names, resolve
from mltrack_tasks.registry.removals import removals_of
from mltrack_tasks.stores.base import Store


def sources_in_use(store: Store) -> set[str]:
    """Ids of the runs from which versions came that an alias stands for, or stood for: it may go back."""
    sources: set[str] = set()
    for model in promoted_names(store):
        for alias in alias_names(store, model):
            versions = {event.version for event in promotions_of(store, model, alias)} - {None}
            for version in versions:
                sources.update(_sources_of(store, model, str(version)))
    return sources


def _sources_of(store: Store, model: str, version: str) -> tuple[str, ...]:
    """Ids of the runs from which a version came; none of one that was removed: nothing goes back to it."""
    try:
        return resolve(store, model, version).source_runs
    except NotFoundError:
        if removals_of(store, model, version):
            return ()
        raise
