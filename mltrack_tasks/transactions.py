"""Promotions that hold only if what follows them succeeds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace

from mltrack_tasks.promotions import Promotion
from mltrack_tasks.registry import undo_promotion
from mltrack_tasks.stores import Store
from mltrack_tasks.tasking import recorded, report, run_logger

_Made = list[tuple[Store, Promotion]]
_open: ContextVar[_Made | None] = ContextVar("promotions", default=None)


@contextmanager
def promotion_transaction() -> Iterator[None]:
    """Take promotions back if the rest of the block fails: ``with promotion_transaction(): promote; deploy``.

    Whatever ends the block early (an error, a cancellation) takes each alias that was moved in it by tasks of
    this process back to what it stood for before, the last first, and only while the last of these moves is
    still the one in force: a newer one of somebody else stays. A block inside another one is part of it. A
    process that is killed rolls nothing back; the alias stands for a complete version all the same. The
    error that ended the block is raised on.
    """
    outer, made = _open.get(), _Made()
    token = _open.set(made)
    try:
        yield
    except BaseException as error:
        for store, promotion in reversed(_joined(made)):
            undone = _take_back(store, promotion, error)
            if undone is not None:
                made.append((store, undone))
        raise
    finally:
        _open.reset(token)
        if outer is not None:
            outer.extend(made)


def note_promotion(store: Store, promotion: Promotion, request_id: str | None) -> None:
    """Remember a promotion for the transaction around it, if it was made by this call or a try before."""
    made = _open.get()
    if made is not None and (promotion.created or promotion.request_id == request_id):
        made.append((store, promotion))


def _joined(made: _Made) -> _Made:
    """Join moves of one alias that nobody came between into one: the last, from what was before the first."""
    by_alias: dict[tuple[str, str, str], _Made] = {}
    for store, move in sorted(made, key=lambda each: each[1].number):  # threads note theirs in any order
        moves = by_alias.setdefault((store.location, move.model, move.alias), [])
        before = moves[-1][1] if moves else None
        if before is not None and before.number + 1 == move.number:
            moves[-1] = store, replace(move, previous=before.previous)
        elif before is None or before.number < move.number:
            moves.append((store, move))
    return [each for moves in by_alias.values() for each in moves]


def _take_back(store: Store, promotion: Promotion, error: BaseException) -> Promotion | None:
    try:
        with recorded():
            undone = undo_promotion(
                store, promotion, reason=f"taken back: {type(error).__name__}", observe=report
            )
    except Exception as failed:  # whatever it is, the other aliases and the block's own error come first
        error.add_note(
            f"The promotion {promotion.number} of {promotion.model!r} was not taken back: {failed}"
        )
        return None
    if undone is None:
        run_logger().warning("%s %s was promoted anew meanwhile and stays", promotion.model, promotion.alias)
    return undone
