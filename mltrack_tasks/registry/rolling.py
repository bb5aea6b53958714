"""Moving an alias back: to the version before, to one that it stood for, or to nothing."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from mltrack_tasks.errors import ConflictError, InvalidInputError, NotFoundError
from mltrack_tasks.events import Observe, log_event
from mltrack_tasks.modelkeys import check_version, version_key
from mltrack_tasks.parallel import run_all
from mltrack_tasks.promotions import TAKEN_BACK, Promotion, earlier_versions
from mltrack_tasks.registry.aliases import promotions_of
from mltrack_tasks.registry.moving import (
    Request,
    append_event,
    done_before,
    event_of,
    publish_version,
    request_of,
    require_number,
)
from mltrack_tasks.registry.reading import deprecation_of, read_promoted, require_in_use
from mltrack_tasks.registry.removals import removals_of
from mltrack_tasks.stores.base import Store


def rollback_model(
    store: Store,
    model_name: str,
    alias: str = "production",
    *,
    to: str | None = None,
    reason: str | None = None,
    if_current: int | None = None,
    request_id: str | None = None,
    observe: Observe = log_event,
) -> Promotion:
    """Move an alias back to the version before, or to one that it stood for (``to``) -> the new promotion.

    A second rollback goes further back. Gates are not asked: what is returned to passed them. With
    ``if_current`` only while the promotion of that number is in force, else ConflictError. Raises
    NotFoundError if there is no earlier version (``remove_alias`` takes the alias away), InvalidInputError if
    the alias never stood for ``to``, or it is deprecated.
    """
    request = request_of(store, model_name, alias, "rollback", reason, request_id, observe)
    if to is not None:
        check_version(to)
    if done := done_before(request, request_id, to):
        return unless_deprecated(request, done)

    def decide(current: Promotion | None) -> Promotion | None:
        require_number(request, current, if_current)
        target = _earlier(request, current, to)
        if current is not None and current.version == target.version:
            return None
        chosen = read_promoted(store, target)
        assert chosen is not None, "earlier versions are versions"
        require_in_use(store, chosen)
        publish_version(request, chosen)
        return event_of(request, current, chosen)

    return unless_deprecated(request, append_event(request, decide))


def remove_alias(
    store: Store,
    model_name: str,
    alias: str,
    *,
    reason: str | None = None,
    if_current: int | None = None,
    request_id: str | None = None,
    observe: Observe = log_event,
) -> Promotion:
    """Let an alias stand for nothing -> the event; its history stays, and ``rollback_model`` undoes it.

    Raises NotFoundError if there is no such alias in use, ConflictError if the promotion of the number
    ``if_current`` is not in force.
    """
    request = request_of(store, model_name, alias, "remove", reason, request_id, observe)
    if done := done_before(request, request_id, None):
        return done

    def decide(current: Promotion | None) -> Promotion | None:
        require_number(request, current, if_current)
        if current is None or current.version is None:
            raise NotFoundError(f"The model {model_name!r} has no alias {alias!r} in use.")
        return event_of(request, current, None)

    return append_event(request, decide)


def undo_promotion(
    store: Store, promotion: Promotion, *, reason: str, observe: Observe = log_event
) -> Promotion | None:
    """Take a promotion back, if it is still the one in force -> the new event, or None if it is not.

    The alias then stands for what it stood for before, or for nothing.
    """
    undo = remove_alias if promotion.previous is None else rollback_model
    before = {} if promotion.previous is None else {"to": promotion.previous}
    try:
        return undo(
            store,
            promotion.model,
            promotion.alias,
            reason=reason,
            if_current=promotion.number,
            request_id=f"{TAKEN_BACK}{promotion.number}",
            observe=observe,
            **before,
        )
    except ConflictError:
        return None


def unless_deprecated(request: Request, done: Promotion) -> Promotion:
    """Take the move back if its version was deprecated or removed meanwhile; also when its answer was lost.

    Each side flags, then looks: whoever deprecates or removes writes that down and then looks at the aliases.
    """
    if done.version is None or done.request_id != request.request_id:
        return done
    fate = _fate(request, done.version)
    if fate is None:
        return done
    undo_promotion(request.store, done, reason=f"{fate} meanwhile", observe=request.observe)
    raise ConflictError(
        f"{done.version} of {request.model!r} was {fate} while it became {request.alias!r}; that was "
        "taken back. Choose another version, or try again."
    )


def _fate(request: Request, version: str) -> str | None:
    """What became of a version since its folder was written: deprecated, removed, or None."""
    place = request.store, request.model, version
    asked: list[Callable[[], Any]] = [
        partial(deprecation_of, *place),
        partial(removals_of, *place),
        partial(request.store.head, version_key(request.model, version)),
    ]
    deprecation, removals, record = run_all(asked, request.store.max_workers)
    if deprecation is not None:
        return "deprecated"
    begun_since = request.removals is not None and len(removals) != request.removals
    return "removed" if begun_since or not all(removals.values()) or record is None else None


def _earlier(request: Request, current: Promotion | None, to: str | None) -> Promotion:
    """Which promotion a rollback from ``current`` leads back to: the newest of the version that it names."""
    history = promotions_of(request.store, request.model, request.alias)
    del history[0 if current is None else current.number :]  # what came since is for the next try
    what = f"The alias {request.alias!r} of {request.model!r}"
    if not history:
        raise NotFoundError(f"{what} does not exist.", details={"model": request.model})
    newest = {event.version: event for event in history}
    if to is not None:
        if to not in newest:
            raise InvalidInputError(f"{what} never stood for {to}; promote it instead (promote_model).")
        return newest[to]
    target = next(iter(earlier_versions(history)), None)
    if target is None:
        raise NotFoundError(f"{what} stood for no version before this one; remove_alias takes it away.")
    return newest[target]
