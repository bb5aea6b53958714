"""The record of a version: created once, the same for all who register the same bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mltrack_tasks import modelkeys, provenance
from mltrack_tasks.errors import ConflictError, IntegrityError, NotFoundError
from mltrack_tasks.models import ModelVersion
from mltrack_tasks.recordstore import create_record
from mltrack_tasks.registry.reading import read_version
from mltrack_tasks.stores.base import Store


def stored_version(store: Store, version: ModelVersion) -> ModelVersion | None:
    """Read the record of a version if it is there; IntegrityError if it is of other bytes."""
    try:
        found = read_version(store, version.model, version.version)
    except NotFoundError:
        return None
    if found.tree_digest != version.tree_digest:
        raise IntegrityError(
            f"{version.version} of {version.model!r} in {store.location} is the tree {found.tree_digest}, "
            f"and its id was given to {version.tree_digest}. One of the two records was forged."
        )
    return found


def create_version(
    store: Store, version: ModelVersion, origin: Mapping[str, Any] | None = None
) -> ModelVersion:
    """Create the record of a version -> what is stored, ours or that of whoever was faster."""
    key = modelkeys.version_key(version.model, version.version)
    what = f"{version.version} of model {version.model!r}"
    try:
        record, created = create_record(
            store, key, version.to_content(), what=what, origin=origin or provenance.of_run()
        )
    except ConflictError:
        found = stored_version(store, version)
        if found is None:
            raise
        return found
    return replace(ModelVersion.from_record(record, what=key), created=created)
