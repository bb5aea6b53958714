"""Runs, blobs and model versions made by hand, for tests of lineage."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any

from mltrack_tasks import layout
from mltrack_tasks.modelkeys import version_id
from mltrack_tasks.models import ModelFile, ModelVersion, tree_digest
from mltrack_tasks.refs import DataRef

DAY = date(2024, 1, 15)


def a_version(model: str, files: Mapping[str, DataRef], **more: Any) -> ModelVersion:
    listed = tuple(ModelFile(path, ref.hash, ref.format, ref.size_bytes) for path, ref in files.items())
    tree = tree_digest(listed)
    return ModelVersion(model, version_id(DAY, tree), tree, listed, **more)


def digest_of(number: int) -> str:
    return f"{number:064x}"


def ref_to(number: int) -> DataRef:
    digest = digest_of(number)
    return DataRef(digest, "bin", number, layout.blob_key(digest, "bin"))
