"""The model registry, as plain functions over a store: docs/format.md has the records."""

from __future__ import annotations

from mltrack_tasks.registry.copying import copy_model
from mltrack_tasks.registry.deprecating import deprecate_version
from mltrack_tasks.registry.downloading import download_model
from mltrack_tasks.registry.listing import (
    ModelSummary,
    list_models,
    model_at,
    model_history,
    resolve_model,
)
from mltrack_tasks.registry.loadmodel import load_model
from mltrack_tasks.registry.policies import policy_of, set_policy
from mltrack_tasks.registry.promoting import promote_model
from mltrack_tasks.registry.registering import register_model
from mltrack_tasks.registry.rolling import remove_alias, rollback_model, undo_promotion

__all__ = [
    "ModelSummary",
    "copy_model",
    "deprecate_version",
    "download_model",
    "list_models",
    "load_model",
    "model_at",
    "model_history",
    "policy_of",
    "promote_model",
    "register_model",
    "remove_alias",
    "resolve_model",
    "rollback_model",
    "set_policy",
    "undo_promotion",
]
