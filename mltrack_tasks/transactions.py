"""Promotions that hold only if what follows them succeeds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from threading import Condition

from mltrack_tasks.errors import ConflictError, InvalidInputError
from mltrack_tasks.promotions import Promotion
from mltrack_tasks.registry import undo_promotion
from mltrack_tasks.registry.aliases import find_request
from mltrack_tasks.stores import Store
from mltrack_tasks.tasking import recorded, report, run_logger

_Made = list[tuple[Store, Promotion]]


@dataclass(frozen=True)
class _Move:
    """A call that moves an alias, or tries to."""

    store: Store
    model: str
    alias: str
    request_id: str


class _Block:
    """The calls of one transaction, those of the ones inside it among them."""

    def __init__(self, outer: _Block | None) -> None:
        self.moves: list[_Move] = []
        self._outer, self._changed, self._running, self._failed = outer, Condition(), 0, False

    @contextmanager
    def running(self, move: _Move) -> Iterator[None]:
        """Let a call run while the block holds; what it may have done is known before it begins."""
        with self._changed:
            if self._failed:
                raise ConflictError(
                    f"The promotion_transaction around this call has failed: {move.alias!r} of "
                    f"{move.model!r} is not moved for it any more. Run the whole block again."
                )
            self.moves.append(move)
            self._running += 1
        try:
            if self._outer is None:
                yield
            else:
                with self._outer.running(move):
                    yield
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    def fail(self) -> list[_Move]:
        """Let no further call begin, and wait for those that have -> all of them."""
        with self._changed:
            self._failed = True
            self._changed.wait_for(lambda: not self._running)
            return list(self.moves)

    def taken_back(self, store: Store, undone: Promotion) -> None:
        """Tell the blocks around that an alias was moved once more."""
        if self._outer is not None:
            self._outer.moves.append(_Move(store, undone.model, undone.alias, undone.request_id))
            self._outer.taken_back(store, undone)


_open: ContextVar[_Block | None] = ContextVar("promotions", default=None)


@contextmanager
def promotion_transaction() -> Iterator[None]:
    """Take promotions back if the rest of the block fails: ``with promotion_transaction(): promote; deploy``.

    Whatever ends the block early takes each alias that was moved in it back to what it stood for before, the
    last first, and only while the last of these moves is still the one in force: a newer one of somebody else
    stays. That is an error, Ctrl-C, or Prefect's cancellation of the run (SIGTERM), which leaves the process
    some seconds (30 by default, of the worker) before it is killed. The error that ended the block is raised
    on; what could not be taken back stands in its notes and in the log.

    In the block are the tasks and flows that this process runs for it: called, submitted or mapped with the
    runner of threads, in subflows, and from threads that ``asyncio.to_thread`` starts. One that is still at
    it when the block fails is waited for; one that has not begun fails with ConflictError. A block inside
    another one is part of it. Not in the block are tasks on Dask or in other processes, runs of deployments,
    and the plain functions of ``registry``: they move aliases for good. A process that is killed or loses its
    machine takes nothing back; the alias stands for a complete version all the same.
    """
    block = _Block(_open.get())
    token = _open.set(block)
    try:
        yield
    except BaseException as error:
        for store, promotion in reversed(_joined(_found(block.fail(), error))):
            undone = _take_back(store, promotion, error)
            if undone is not None:
                block.taken_back(store, undone)
        raise
    finally:
        _open.reset(token)


@contextmanager
def moving(store: Store, model: str, alias: str, request_id: str) -> Iterator[None]:
    """Make what a call does under its request id a part of the transaction around it, if there is one.

    Also what it did in an earlier try, and when its answer is lost or an interrupt comes before it.
    """
    block = _open.get()
    if block is None:
        yield
    else:
        with block.running(_Move(store, model, alias, request_id)):
            yield


def _found(moves: Sequence[_Move], error: BaseException) -> _Made:
    """Look up which promotions the calls have made, each once."""
    made: dict[tuple[str, str, str, int], tuple[Store, Promotion]] = {}
    for move in dict.fromkeys(moves):
        try:
            promotion = find_request(move.store, move.model, move.alias, move.request_id)
        except InvalidInputError:  # a name that none can have: the call has written nothing
            continue
        except Exception as failed:  # the other aliases and the block's own error come first
            _tell(error, f"Whether {move.model!r} was promoted to {move.alias!r} is not known: {failed}")
            continue
        if promotion is not None:
            made[move.store.location, move.model, move.alias, promotion.number] = move.store, promotion
    return list(made.values())


def _joined(made: _Made) -> _Made:
    """Join moves of one alias that nobody came between into one: the last, from what was before the first.

    In the order in which each alias was last moved.
    """
    by_alias: dict[tuple[str, str, str], _Made] = {}
    for store, move in made:
        key = (store.location, move.model, move.alias)
        by_alias[key] = [*by_alias.pop(key, []), (store, move)]
    return [each for moves in by_alias.values() for each in _joined_of_one(moves)]


def _joined_of_one(moves: _Made) -> _Made:
    joined: _Made = []
    for store, move in sorted(moves, key=lambda each: each[1].number):  # threads note theirs in any order
        before = joined[-1][1] if joined else None
        if before is not None and before.number + 1 == move.number:
            joined[-1] = store, replace(move, previous=before.previous)
        else:
            joined.append((store, move))
    return joined


def _take_back(store: Store, promotion: Promotion, error: BaseException) -> Promotion | None:
    try:
        with recorded():
            undone = undo_promotion(
                store, promotion, reason=f"taken back: {type(error).__name__}", observe=report
            )
    except Exception as failed:  # whatever it is, the other aliases and the block's own error come first
        _tell(error, f"The promotion {promotion.number} of {promotion.model!r} was not taken back: {failed}")
        return None
    if undone is None:
        run_logger().warning("%s %s was promoted anew meanwhile and stays", promotion.model, promotion.alias)
    return undone


def _tell(error: BaseException, note: str) -> None:
    error.add_note(note)
    run_logger().error("%s", note)
