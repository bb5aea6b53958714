"""Which registered model is meant where several registries of a folder have one of its name.

A folder may hold a copy of MLflow's store: a backup beside the one in use. What was taken at the last
migration stays taken. At the first, what changed last is the one in use; if that does not tell, none is
taken, and both are named.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from mltrack_tasks.errors import InvalidInputError
from mltrack_tasks.migrations import MigrationManifest, TakenRegistry
from mltrack_tasks.mlflowdata.facts import RegisteredModel, RegisteredVersion
from mltrack_tasks.modelkeys import check_alias

STAGES = {"Production": "production", "Staging": "staging"}
"""Stages of MLflow that are aliases here; of several versions in one, the newest counts."""


class ListedVersion(NamedTuple):
    """A version of MLflow's, and where its files lie in the folder."""

    facts: RegisteredVersion
    folder: str | None
    """Or a single file; None if its files are not all in what is migrated."""
    reason: str = ""


class ListedModel(NamedTuple):
    """A registered model of MLflow's."""

    facts: RegisteredModel
    versions: tuple[ListedVersion, ...]
    place: str = ""
    """Of its registry in the folder: a database, or a file store."""

    @property
    def name(self) -> str:
        """Its name, here as there."""
        return self.facts.name

    def aliases(self) -> dict[str, tuple[int, str]]:
        """What each alias is to stand for -> (number of MLflow's version, in words what says so).

        A stage counts where there is no alias of the name. Of those that no alias here may be called, none.
        """
        found: dict[str, tuple[int, str]] = {}
        for version, *_ in self.versions:
            if alias := STAGES.get(version.stage or ""):
                found[alias] = (version.version, f"stage {version.stage}")
        for alias, number in self.facts.aliases.items():
            if number >= 1 and not refused_alias(alias):
                found[alias] = (number, f"alias {alias!r}")
        return dict(sorted(found.items()))


class Listed(NamedTuple):
    """All registered models of a folder, each name once, and what cannot be taken over."""

    models: tuple[ListedModel, ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()
    """(model, model and number, or model@alias, reason)."""
    every: tuple[ListedModel, ...] = ()
    """Those that were not chosen, too."""
    damaged: tuple[tuple[str, str, str], ...] = ()
    """(model, place, why it cannot be read)."""
    refused: tuple[tuple[str, str], ...] = ()
    """What no choice changes: (model, reason)."""

    def as_before(self, previous: MigrationManifest | None) -> Listed:
        """Choose again, knowing what the last migration took."""
        if previous is None or not previous.registries:
            return self
        return choose(self.every, self.damaged, self.refused, previous.registries)

    def taken(self, previous: MigrationManifest | None) -> tuple[TakenRegistry, ...]:
        """What the next migration is to know of this choice, and of earlier ones of other models."""
        rows = {row.model: row for row in (previous.registries if previous else ())}
        for model in self.models:
            rows[model.name] = TakenRegistry(model.name, model.place, _milliseconds(model))
        return tuple(sorted(rows.values()))


def choose(
    every: Sequence[ListedModel],
    damaged: Sequence[tuple[str, str, str]],
    refused: Sequence[tuple[str, str]],
    before: Iterable[TakenRegistry] = (),
) -> Listed:
    """Choose one model of each name: the one of the registry taken ``before``, else the one changed last.

    What cannot be read may be the one that is meant: its copies are not taken in its place, but where another
    registry was taken before.
    """
    known = {row.model: row for row in before}
    named: dict[str, list[ListedModel]] = {}
    for model in every:
        named.setdefault(model.name, []).append(model)
    models: list[ListedModel] = []
    left_out = [*refused, *((name, why) for name, _, why in damaged)]
    for name in sorted(named):
        unread = [place for own, place, _ in damaged if own == name]
        chosen, reason = _choice(named[name], unread, known.get(name))
        if chosen is not None:
            models.append(chosen)
            left_out += _left_out_of(chosen.facts)
        left_out += [
            (name, f"{reason}; the one of {each.place!r} is left out")
            for each in named[name]
            if each is not chosen
        ]
    return Listed(tuple(models), tuple(left_out), tuple(every), tuple(damaged), tuple(refused))


def _choice(
    models: Sequence[ListedModel], unread: Sequence[str], known: TakenRegistry | None
) -> tuple[ListedModel | None, str]:
    """Choose one of the models of a name -> (it, or None, why others are left out)."""
    for model in models:
        if known is not None and model.place == known.place:
            return model, f"the registry of {known.place!r} has it, and was taken before"
    if unread:
        return None, f"the one of {unread[0]!r} cannot be read, and may be the one that is meant"
    if known is not None and known.changed_ms is not None:
        models = [model for model in models if (_milliseconds(model) or 0) >= known.changed_ms]
        if not models:
            return None, f"it was taken from {known.place!r} before, which has it no more; this one is older"
    newest = max(map(_changed, models))
    last, *others = sorted(
        (model for model in models if _changed(model) == newest),
        key=lambda model: (model.place.count("/"), model.place),
    )
    if differing := [other for other in others if other.facts != last.facts]:
        return None, (
            f"{last.place!r} and {differing[0].place!r} have it, differ, and do not say which changed last; "
            f"leave one out, such as exclude=['{differing[0].place}/*']"
        )
    return last, f"the registry of {last.place!r} has it, too, and is the one that is taken"


def _changed(model: ListedModel) -> datetime:
    return model.facts.updated_at or _NEVER


_NEVER = datetime(1970, 1, 1, tzinfo=UTC)


def _milliseconds(model: ListedModel) -> int | None:
    """When it was changed last, in MLflow's own words; None if that is not said, or cannot be."""
    moment = model.facts.updated_at
    return None if moment is None or moment < _NEVER else (moment - _NEVER) // timedelta(milliseconds=1)


def _left_out_of(model: RegisteredModel) -> list[tuple[str, str]]:
    """Versions that cannot be read, and aliases that none here may be called."""
    versions = [(f"{model.name} {number}", why) for number, why in sorted(model.damaged.items())]
    refused = ((alias, refused_alias(alias)) for alias in model.aliases)
    return [*versions, *((f"{model.name}@{alias}", why) for alias, why in refused if why)]


def refused_alias(alias: str) -> str:
    """Why no alias here may be called so, or ``""``."""
    try:
        check_alias(alias)
    except InvalidInputError as error:
        return str(error)
    return ""
