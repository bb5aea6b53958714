"""Rows of MLflow's model registry -> facts, as ``rowfacts`` reads those of runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter

from mltrack_tasks.errors import IntegrityError
from mltrack_tasks.mlflowdata import scalars
from mltrack_tasks.mlflowdata.facts import RegisteredModel, RegisteredVersion
from mltrack_tasks.mlflowdata.rows import Grouped, Row, Tables, by_first, pairs
from mltrack_tasks.mlflowdata.words import STAGE_DELETED, model_of_source, stage_of, version_status

_UPDATED = "last_updated_time"
_REGISTERED = ("name", "workspace", "description", _UPDATED)
_OF_REGISTERED: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("registered_model_tags", ("key", "value")),
    ("registered_model_aliases", ("alias", "version")),
    (
        "model_versions",
        (
            *("version", "run_id", "source", "status", "current_stage", "description", "creation_time"),
            *("storage_location", _UPDATED),
        ),
    ),
    ("model_version_tags", ("version", "key", "value")),
)


def gather_registered_models(tables: Tables) -> Iterator[tuple[Row, ...]]:
    """Put together what ``registered_model`` reads, model by model in the order of names."""
    children = [
        Grouped(tables.rows(table, ("name", "workspace", *columns), order=columns[:1]), table)
        for table, columns in _OF_REGISTERED
    ]
    for name, rows in groupby(tables.rows("registered_models", _REGISTERED), key=itemgetter(0)):
        found = [child.take(name) for child in children]
        for row in rows:
            # Recent MLflow takes a name once in each workspace.
            yield row, *(tuple(own[1:] for own in part if own[0] == row[1]) for part in found)


def registered_model(
    row: Row,
    tags: Sequence[Row],
    aliases: Sequence[Row],
    versions: Sequence[Row],
    version_tags: Sequence[Row],
) -> RegisteredModel:
    """Read a registered model; a version that cannot be read is named in ``damaged``, and hides no other."""
    name, _, description, updated = row
    what, tagged = f"The registered model {name!r}", by_first(version_tags)
    damaged: dict[int, str] = {}
    read: list[RegisteredVersion] = []
    changes = [updated]
    for version in versions:
        number = scalars.whole(version[0], f"{what}: version")
        try:
            changes += [version[6], version[8]]
            if version[4] != STAGE_DELETED:
                read.append(_version(version, tagged.get(number, []), what))
        except IntegrityError as error:
            damaged[number] = str(error)
    return RegisteredModel(
        name=scalars.text(name, f"{what}: name"),
        description=scalars.optional_text(description, f"{what}: description") or None,
        tags=pairs(tags, f"{what}: tags"),
        aliases={
            scalars.text(alias, f"{what}: aliases"): scalars.whole(version, f"{what}: aliases")
            for alias, version in aliases
        },
        versions=tuple(read),
        damaged=damaged,
        updated_at=scalars.latest(changes),
    )


def _version(row: Row, tags: Sequence[Row], what: str) -> RegisteredVersion:
    number, run_id, source, status, stage, description, created_at, location, _ = row
    what = f"{what}, version {number!r}"
    source = scalars.optional_text(source, f"{what}: source") or None
    return RegisteredVersion(
        version=scalars.whole(number, f"{what}: version"),
        run_id=scalars.optional_identifier(run_id, f"{what}: run_id"),
        source=source,
        storage_location=scalars.optional_text(location, f"{what}: storage_location") or None,
        model_id=model_of_source(source),
        status=version_status(status, what),
        stage=stage_of(scalars.optional_text(stage, f"{what}: current_stage")),
        description=scalars.optional_text(description, f"{what}: description") or None,
        tags=pairs(tags, f"{what}: tags"),
        created_at=scalars.moment(created_at, f"{what}: creation_time"),
    )
