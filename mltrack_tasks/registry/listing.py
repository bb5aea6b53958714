"""What the registry holds: models, what their aliases stand for, and the history of an alias."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

from mltrack_tasks.errors import NotFoundError
from mltrack_tasks.models import ModelVersion
from mltrack_tasks.parallel import map_ordered
from mltrack_tasks.promotions import Promotion, at_time
from mltrack_tasks.registry.aliases import promotions_of, standing_aliases
from mltrack_tasks.registry.reading import (
    deprecated_versions,
    model_names,
    read_promoted,
    resolve,
    version_ids,
    with_standing,
)
from mltrack_tasks.stores.base import Store


@dataclass(frozen=True)
class ModelSummary:
    """One model: its versions in the order of their ids, and what its aliases stand for.

    ``damaged`` says of each alias that cannot be read what is wrong: what it stands for is not known.
    """

    name: str
    versions: tuple[str, ...]
    aliases: Mapping[str, str] = field(default_factory=dict)
    deprecated: tuple[str, ...] = ()
    damaged: Mapping[str, str] = field(default_factory=dict)

    def __hash__(self) -> int:
        return hash((self.name, self.versions))


def resolve_model(store: Store, model_name: str, version_or_alias: str = "production") -> ModelVersion:
    """Read the version that a version id, an alias or ``latest`` stands for, with ``s3_location``.

    Raises NotFoundError that names the aliases there are, IntegrityError for a record that was forged.
    """
    return resolve(store, model_name, version_or_alias)


def list_models(store: Store) -> list[ModelSummary]:
    """List the models of a store with their versions and aliases, by name.

    A LIST per level of the tree and a GET per alias, whatever the number of files. An alias whose events are
    damaged stands in ``damaged`` of its model, and hides nothing else.
    """
    return list(map_ordered(partial(_summary, store), sorted(model_names(store)), store.max_workers))


def model_history(store: Store, model_name: str, alias: str = "production") -> list[Promotion]:
    """Read all promotions of an alias, oldest first. Raises NotFoundError if there never were any."""
    found = promotions_of(store, model_name, alias)
    if not found:
        raise NotFoundError(f"The model {model_name!r} in {store.location} never had an alias {alias!r}.")
    return found


def model_at(store: Store, model_name: str, alias: str, time: datetime) -> ModelVersion:
    """Read the version that an alias stood for at a time, by the clocks of those who promoted.

    Raises NotFoundError if it stood for none then, IntegrityError if that version is another tree by now.
    """
    event = at_time(model_history(store, model_name, alias), time)
    found = None if event is None else read_promoted(store, event)
    if found is None:
        raise NotFoundError(f"The alias {alias!r} of {model_name!r} stood for no version at {time}.")
    return with_standing(store, found)


def _summary(store: Store, name: str) -> ModelSummary:
    versions = tuple(version_ids(store, name))
    gone = tuple(sorted(deprecated_versions(store, name)))
    aliases, damaged = standing_aliases(store, name)
    return ModelSummary(name, versions, aliases, gone, damaged)
