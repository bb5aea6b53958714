"""Aliases of MLflow's registered models -> promotions, each moved only by the migration that moved it last.

What is about to be moved is written down first. A call that dies between that and the manifest leaves it, and
the next one looks at those aliases again, whatever MLflow says of them by then.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from mltrack_tasks import canonical, events
from mltrack_tasks.digest import sha256_hex
from mltrack_tasks.errors import ConflictError, IntegrityError, InvalidInputError, MLTrackError, NotFoundError
from mltrack_tasks.events import Observe
from mltrack_tasks.migration.hashing import Failed
from mltrack_tasks.migration.modelplan import Move, is_of, left_alone, moves, request_id
from mltrack_tasks.migration.runplan import RunPlan
from mltrack_tasks.migration.scan import Scan
from mltrack_tasks.migration.state import OvertakenError
from mltrack_tasks.migrations import (
    MigratedAlias,
    MigratedVersion,
    moves_key,
    parse_moves,
    parse_moves_key,
)
from mltrack_tasks.modelkeys import alias_folder
from mltrack_tasks.promotions import TAKEN_BACK, Promotion
from mltrack_tasks.recordstore import create_if_absent, read_record
from mltrack_tasks.registry.aliases import current_promotion, parse_event
from mltrack_tasks.registry.moving import append_event, event_of, publish_version, request_of
from mltrack_tasks.registry.numbered import read_number
from mltrack_tasks.registry.reading import read_version, require_in_use
from mltrack_tasks.registry.rolling import unless_deprecated
from mltrack_tasks.stores.base import Store

REFUSED = (ConflictError, IntegrityError, NotFoundError)
"""What keeps one version or alias from being written, and no other."""


class Given(NamedTuple):
    """What became of the aliases."""

    rows: list[MigratedAlias]
    """What the migration's manifest is to say of them."""
    failed: list[Failed]
    moves: tuple[str, ...] = ()
    """What was written down before aliases were moved, and is done with."""


def give_aliases(store: Store, work: RunPlan, versions: Sequence[MigratedVersion], observe: Observe) -> Given:
    """Move the aliases that MLflow has moved since the last finished state, and those of unfinished calls."""
    if work.unchanged and work.previous is not None:
        return Given(list(work.previous.aliases), [], work.previous.moves)
    migration = work.scan.migration
    doubtful, seen = _unfinished(store, work.pending)
    rows, todo = moves(work.scan.registry, work.previous, versions, doubtful)
    here = {(row.model, row.number): row.version for row in versions}
    state = work.previous.number + 1 if work.previous else 1
    known = {(row.model, row.alias): row for row in work.previous.aliases} if work.previous else {}
    targets = [(move, None if move.number is None else here[move.model, move.number]) for move in todo]
    seen |= _write_down(store, migration, state, targets) if targets else set()
    failed: list[Failed] = []
    for move, version in targets:
        try:
            note = _move(store, move, version, work.scan, state, observe)
        except OvertakenError:
            raise
        except REFUSED as error:
            failed.append(refusal_of(move.model, f"alias {move.alias!r}", error))
            rows += [known[place] for place in [(move.model, move.alias)] if place in known]
            continue
        if move.number is not None:
            given = None if note else version
            rows.append(MigratedAlias(move.model, move.alias, move.number, given, note))
        elif note:
            events.logger.warning("the alias %r of %r: %s", move.alias, move.model, note)
    return Given(rows, failed, () if failed else tuple(sorted(seen)))


def refusal_of(model: str, what: str, error: MLTrackError) -> Failed:
    """Name a version or an alias that could not be written."""
    return Failed(f"model {model!r}, {what}", str(error))


def _write_down(
    store: Store, migration: str, state: int, targets: Sequence[tuple[Move, str | None]]
) -> set[str]:
    """Say which aliases are about to be moved -> the id of that."""
    rows = [[move.model, move.alias, move.number, version] for move, version in targets]
    content = {"migration": migration, "number": state, "aliases": rows}
    own = sha256_hex(canonical.dumps(content))[:32]
    create_if_absent(store, moves_key(migration, state, own), content)
    return {own}


def _unfinished(
    store: Store, keys: Sequence[str]
) -> tuple[dict[tuple[str, str], MigratedAlias | None], set[str]]:
    """Read what calls that did not finish were about to move -> (by model and alias, the ids of that)."""
    found: dict[tuple[str, str], MigratedAlias | None] = {}
    seen: set[str] = set()
    for key in keys:
        try:
            rows = parse_moves(read_record(store, key), what=f"{key} in {store.location}")
        except (IntegrityError, NotFoundError) as error:
            events.logger.warning("left out: %s", error)
            continue
        found |= {(model, alias): row for model, alias, row in rows}
        place = parse_moves_key(key)
        seen |= {place[2]} if place else set()
    return found, seen


def _move(
    store: Store, move: Move, version: str | None, scan: Scan, state: int, observe: Observe
) -> str | None:
    """Move an alias, unless somebody else moved it here -> why it was left alone, or None.

    Raises OvertakenError if another call of this migration has moved it since the folder was looked at: that
    call may know better.
    """
    migration = scan.migration
    told = f"MLflow's {move.why}" if move.number is None else f"MLflow's {move.why} of version {move.number}"
    action = "remove" if version is None else "promote"
    reason, own_id = f"migrated: {told}", request_id(migration, state)
    request = request_of(store, move.model, move.alias, action, reason, own_id, observe)
    current = current_promotion(store, move.model, move.alias)
    there = None if current is None else current.version
    note = left_alone(current, _mover(store, current), version, migration)
    if note is not None or there == version:
        return note
    chosen = None if version is None else read_version(store, move.model, version)
    try:
        if chosen is not None:
            require_in_use(store, chosen)
    except InvalidInputError as error:
        return str(error)

    def decide(current: Promotion | None) -> Promotion | None:
        mover = _mover(store, current)
        if current is not None and (
            left_alone(current, mover, version, migration) or current.version == version
        ):
            return None
        if mover is not None and is_of(mover, migration) and mover.at > scan.began:
            raise OvertakenError(migration)
        return event_of(request, current, chosen)

    publish = None if chosen is None else partial(publish_version, request, chosen)
    done = append_event(request, decide, before=publish)
    unless_deprecated(request, done)
    return left_alone(done, _mover(store, done), version, migration)


def _mover(store: Store, current: Promotion | None) -> Promotion | None:
    """The promotion by which an alias came to stand for what it does.

    One that was taken back, as its version was deprecated meanwhile, moved nothing, nor did taking it back.
    """
    while current is not None and _takes_back(current):
        current = _event(store, current, current.number - 2)
    return current


def _takes_back(event: Promotion) -> bool:
    """Whether an event took the one before it back, rather than that somebody chose such a request id."""
    return event.action != "promote" and event.request_id == f"{TAKEN_BACK}{event.number - 1}"


def _event(store: Store, current: Promotion, number: int) -> Promotion | None:
    if number < 1:
        return None
    model, alias = current.model, current.alias
    return read_number(store, alias_folder(model, alias), partial(parse_event, model, alias), number)
