"""Which versions of models a migration has to write, and which aliases it has to move: decided, not done."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import NamedTuple

from mltrack_tasks.errors import InvalidInputError, MLTrackError, NotFoundError, SourceChangedError
from mltrack_tasks.filetree import FILE, Entry, folders_above
from mltrack_tasks.migration.changes import is_same_version, version_signature
from mltrack_tasks.migration.hashing import Failed
from mltrack_tasks.migration.registrychoice import Listed, ListedModel, ListedVersion
from mltrack_tasks.migration.runplan import RunPlan
from mltrack_tasks.migrations import MigratedAlias, MigratedVersion, MigrationManifest
from mltrack_tasks.mlflowdata.facts import RegisteredModel, RegisteredVersion
from mltrack_tasks.models import ModelFile, tree_digest
from mltrack_tasks.promotions import Promotion
from mltrack_tasks.receipts import Place

_EXECUTABLE = 0o100
_NOT_WHOLE = "files of its run were deleted here, or could not be read"
CHANGED = "its files are not those any more that were registered; the version here stays as it was"


class Draft(NamedTuple):
    """One version to be written: versions of MLflow's that have the same files."""

    model: RegisteredModel
    versions: tuple[RegisteredVersion, ...]
    """Oldest first."""
    files: tuple[ModelFile, ...]
    tree_digest: str


class Move(NamedTuple):
    """An alias that is to be moved."""

    model: str
    alias: str
    number: int | None
    """Of MLflow's version; None if MLflow has the alias no more."""
    why: str


class ModelPlan(NamedTuple):
    """What is to be done with the registered models of a folder."""

    rows: tuple[MigratedVersion, ...]
    """What is known without writing anything; of a draft, what was known before."""
    drafts: tuple[Draft, ...]
    failed: tuple[Failed, ...]


def plan_models(work: RunPlan) -> ModelPlan:
    """Compare the registered models with what the last manifest says of them.

    A number of MLflow's that has a version here keeps it, whatever becomes of its files: aliases would follow
    to what is no model any more.
    """
    if work.unchanged and work.previous is not None:
        return ModelPlan(work.previous.versions, (), ())
    judge = _Judge(work)
    named = {model.name for model in work.scan.registry.models}
    rows = [row for row in work.previous.versions if row.model not in named] if work.previous else []
    drafts: list[Draft] = []
    for model in work.scan.registry.models:
        rows += judge.unread(model)
        equal: dict[str, list[_Version]] = {}
        news: set[str] = set()
        for listed in model.versions:
            version, row = judge.of(model, listed)
            rows += [] if row is None else [row]
            if version is not None:
                equal.setdefault(version.digest, []).append(version)
                news |= {version.digest} if version.is_news else set()
        for digest, versions in equal.items():
            if digest in news:
                said = tuple(version.facts for version in versions)
                drafts.append(Draft(model.facts, said, versions[0].files, digest))
    return ModelPlan(tuple(rows), tuple(drafts), tuple(judge.failed))


def rows_of(draft: Draft, version: str | None, note: str | None = None) -> list[MigratedVersion]:
    """What the manifest says of a draft that was written."""
    name = draft.model.name
    return [
        MigratedVersion(name, each.version, version, version_signature(each), note) for each in draft.versions
    ]


def moves(
    registry: Listed,
    previous: MigrationManifest | None,
    versions: Iterable[MigratedVersion],
    doubtful: Mapping[tuple[str, str], MigratedAlias | None],
) -> tuple[list[MigratedAlias], list[Move]]:
    """Compare the aliases with those of the last manifest -> (rows that stay, aliases to move).

    What MLflow has not moved since then is not looked at, nor are models that it has no more. An alias of a
    version whose registering failed waits for it. What the last manifest lists may stand here for what it was
    given before, whatever became of it since: it stays listed, so that it is taken away when MLflow does so.
    ``doubtful`` are aliases that a call which did not finish was about to move, with what it was to say of
    them: they are moved to where they belong in any case.
    """
    here = {(row.model, row.number): row for row in versions}
    before = {place: row for place, row in doubtful.items() if row is not None}
    before |= {(row.model, row.alias): row for row in previous.aliases} if previous else {}
    named = {model.name for model in registry.models}
    stay = [row for row in before.values() if row.model not in named]
    move: list[Move] = []
    for model in registry.models:
        wanted = model.aliases()
        for alias, (number, why) in wanted.items():
            row, known = here.get((model.name, number)), before.get((model.name, alias))
            if row is not None and row.version is None:
                note = f"MLflow's version {number} is not here: {row.note}"
                stay.append(MigratedAlias(model.name, alias, number, None, note))
            elif row is None and number in model.facts.damaged:
                note = f"MLflow's version {number} cannot be read: {model.facts.damaged[number]}"
                stay.append(MigratedAlias(model.name, alias, number, None, note))
            elif row is None and all(number != each.facts.version for each in model.versions):
                note = f"MLflow has no version {number}"
                stay.append(MigratedAlias(model.name, alias, number, None, note))
            elif row is not None and known is not None and _is_settled(known, row, doubtful):
                stay.append(known)
            elif row is not None:
                move.append(Move(model.name, alias, number, why))
            elif known is not None:
                stay.append(known)
        gone = (each for (name, alias), each in before.items() if name == model.name and alias not in wanted)
        move += [Move(model.name, row.alias, None, "no alias any more") for row in gone]
    return stay, move


def _is_settled(known: MigratedAlias, row: MigratedVersion, doubtful: Container[tuple[str, str]]) -> bool:
    """Whether an alias was given to what it is to stand for, and nobody may have moved it since."""
    given = known[2:] == (row.number, row.version, None)
    return given and (known.model, known.alias) not in doubtful


def is_of(event: Promotion, migration: str) -> bool:
    """Whether a promotion was written by a migration."""
    return event.request_id.rpartition("#")[0] == f"migration:{migration}"


def request_id(migration: str, number: int) -> str:
    """What a migration calls its promotions on the way to its state ``number``."""
    return f"migration:{migration}#{number}"


def left_alone(
    current: Promotion | None, mover: Promotion | None, wanted: str | None, migration: str
) -> str | None:
    """Why an alias is not moved to ``wanted`` (None: to nothing), or None if it is, or stands there already.

    Only what this migration wrote itself is moved on: somebody who moved the alias here knows better.
    ``mover`` is the promotion by which it came to stand for what it does.
    """
    if mover is None or (current and current.version == wanted) or is_of(mover, migration):
        return None
    what = f"{mover.action}, number {mover.number}, to {mover.version or 'nothing'}"
    return f"{mover.actor} moved it here ({what}); it stays so"


class _Version(NamedTuple):
    """A version of MLflow's whose files are here."""

    facts: RegisteredVersion
    files: tuple[ModelFile, ...]
    digest: str
    """Of the tree of its files."""
    is_news: bool


class _Judge:
    """Decides about one version after the other."""

    def __init__(self, work: RunPlan) -> None:
        previous = work.previous.versions if work.previous else ()
        self._before = {(row.model, row.number): row for row in previous}
        self._work, self._files = work, _files_of(work)
        paths = {failure.path for failure in work.failed}
        self._doubtful = {each for path in paths for each in (path, *folders_above(path))}
        self.failed: list[Failed] = []

    def of(
        self, model: ListedModel, version: ListedVersion
    ) -> tuple[_Version | None, MigratedVersion | None]:
        """Decide about a version -> (it, if its files are here and are those that it had; what is known)."""
        facts, name = version.facts, model.name
        known = self._before.get((name, facts.version))
        if known is not None and (known.version is None or not is_same_version(known, facts)):
            known = None
        try:
            files = self._whole(version)
            digest = tree_digest(files) if files else ""
        except InvalidInputError as error:
            return None, known or _without(name, facts, str(error))
        except MLTrackError as error:
            self.failed += [] if known else [Failed(f"model {name!r}, version {facts.version}", str(error))]
            return None, known
        if not files:
            return None, known or _without(name, facts, version.reason or _NOT_WHOLE)
        if known is None or known.version is None:
            return _Version(facts, files, digest, True), None
        if not digest.startswith(known.version.partition("_")[2]):
            return None, known._replace(note=CHANGED)
        is_news = known.signature != version_signature(facts)
        return _Version(facts, files, digest, is_news), known._replace(note=None)

    def unread(self, model: ListedModel) -> list[MigratedVersion]:
        """What is known of versions that cannot be read for a while: they stay what they are here."""
        known = (self._before.get((model.name, number)) for number in model.facts.damaged)
        return [row for row in known if row is not None and row.version is not None]

    def _whole(self, version: ListedVersion) -> tuple[ModelFile, ...]:
        """The files of a version, or none if they are not all here."""
        folder, places = version.folder, self._work.places
        if not folder:
            return ()
        if folder in self._doubtful:
            raise SourceChangedError("some of its files could not be read; it is registered when they can")
        entries = self._files[folder]
        if not self._work.staying.isdisjoint((folder, *folders_above(folder))):
            return ()
        if any(entry.digest not in places or places[entry.digest].offset is not None for entry in entries):
            raise NotFoundError("the store has not all of its files as blobs")
        return tuple(_model_file(folder, entry, places[entry.digest]) for entry in entries)


def _without(model: str, facts: RegisteredVersion, note: str) -> MigratedVersion:
    return MigratedVersion(model, facts.version, None, version_signature(facts), note)


def _files_of(work: RunPlan) -> dict[str, list[Entry]]:
    """Files of each folder that a version lies in."""
    models = work.scan.registry.models
    found: dict[str, list[Entry]] = {v.folder: [] for m in models for v in m.versions if v.folder}
    for entry in work.entries if found else ():
        if entry.kind == FILE:
            for folder in (entry.path, *folders_above(entry.path)):
                if folder in found:
                    found[folder].append(entry)
    return found


def _model_file(folder: str, entry: Entry, place: Place) -> ModelFile:
    path = entry.path[len(folder) + 1 :] or entry.path.rpartition("/")[2]
    return ModelFile(path, entry.digest, place.format, entry.size, bool(entry.mode & _EXECUTABLE))
