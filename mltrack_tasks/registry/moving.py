"""Moving an alias: one numbered event is appended, whoever else moves it at the same time."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mltrack_tasks import events
from mltrack_tasks.errors import ConflictError, TransientError
from mltrack_tasks.events import Event, Observe
from mltrack_tasks.fields import checked_text
from mltrack_tasks.modelkeys import check_alias, is_version
from mltrack_tasks.models import ModelVersion
from mltrack_tasks.promotions import Promotion
from mltrack_tasks.registry.aliases import append, current_promotion, find_among, recent_numbers
from mltrack_tasks.registry.materialising import check_places, publish
from mltrack_tasks.registry.removals import outlast_removal
from mltrack_tasks.stores.base import Store

TRIES = 200
"""Events of others that may come in between before a promotion gives up."""

_EVENTS = {
    "promote": events.MODEL_PROMOTED,
    "rollback": events.MODEL_ROLLED_BACK,
    "remove": events.MODEL_ALIAS_REMOVED,
}


@dataclass
class Request:
    """One wish to move an alias, whatever comes in between.

    ``asked`` is the version that it names; ``looked_to`` the number of the last promotion that is known to be
    of another request id, or None if no other call can have this one.
    """

    store: Store
    model: str
    alias: str
    action: str
    reason: str | None
    request_id: str
    observe: Observe
    asked: str | None = None
    looked_to: int | None = None
    removals: int | None = None
    """How often the version had been removed when its folder was written."""


def request_of(
    store: Store,
    model: str,
    alias: str,
    action: str,
    reason: str | None,
    request_id: str | None,
    observe: Observe,
) -> Request:
    """Admit a wish; without a ``request_id`` it is like no other."""
    check_alias(alias)
    reason, request_id = checked_text(reason, "reason"), checked_text(request_id, "request_id")
    return Request(store, model, alias, action, reason, request_id or secrets.token_hex(16), observe)


def done_before(request: Request, given: str | None, version: str | None) -> Promotion | None:
    """Find what a call with the request id ``given`` did before, if it is this call.

    ``version`` is the id that the call asks for, if it names one. Raises ConflictError if another call has
    the request id: nothing would be done, and it would look as if it were.
    """
    if given is None:
        return None
    numbers, request.looked_to = recent_numbers(request.store, request.model, request.alias)
    request.asked = version
    return _done_among(request, numbers)


def _done_meanwhile(request: Request, current: Promotion | None) -> Promotion | None:
    """Find what another try of this call did since the last look: one that is still at work, maybe."""
    if current is None or request.looked_to is None:
        return None
    numbers = range(current.number, request.looked_to, -1)
    request.looked_to = current.number
    return _done_among(request, numbers)


def _done_among(request: Request, numbers: Iterable[int]) -> Promotion | None:
    done = find_among(request.store, request.model, request.alias, request.request_id, numbers)
    if done is None:
        return None
    if done.action != request.action or (is_version(request.asked) and request.asked != done.version):
        raise ConflictError(
            f"The request id {request.request_id!r:.80} was used for another call: {done.action} to "
            f"{done.version} is promotion {done.number} of {request.alias!r}. Give each call its own.",
            existing=(done.action, done.version),
            offered=(request.action, request.asked),
        )
    return done


def append_event(
    request: Request,
    decide: Callable[[Promotion | None], Promotion | None],
    before: Callable[[], None] | None = None,
) -> Promotion:
    """Append what ``decide`` makes of the promotion in force, again and again until nobody was faster.

    ``before`` runs once, when it is decided for the first time; as it may take long, it is decided anew
    afterwards. None of ``decide`` leaves what is in force.
    """
    for _ in range(TRIES):
        current = current_promotion(request.store, request.model, request.alias)
        # Before each try: what was written later than `current` refuses the event, so nothing is missed.
        if done := _done_meanwhile(request, current):
            return done
        event = decide(current)
        if event is None:
            assert current is not None
            return current
        if before is not None:
            before()
            before = None
            continue
        if done := append(request.store, event):
            _tell(request, done)
            return done
    raise TransientError(
        f"The alias {request.alias!r} of {request.model!r} was moved {TRIES} times by others. Try again."
    )


def event_of(
    request: Request,
    current: Promotion | None,
    chosen: ModelVersion | None,
    *,
    gates: tuple[Mapping[str, Any], ...] = (),
    approval: Mapping[str, Any] | None = None,
) -> Promotion:
    """Make the event that follows the one in force."""
    return Promotion(
        model=request.model,
        alias=request.alias,
        number=1 if current is None else current.number + 1,
        version=None if chosen is None else chosen.version,
        tree_digest=None if chosen is None else chosen.tree_digest,
        previous=None if current is None else current.version,
        action=request.action,
        reason=request.reason,
        request_id=request.request_id,
        gates=gates,
        approval=approval,
    )


def require_number(request: Request, current: Promotion | None, number: int | None) -> None:
    """Raise ConflictError unless the promotion of that number is in force."""
    if number is not None and (current is None or current.number != number):
        raise ConflictError(
            f"The alias {request.alias!r} of {request.model!r} was moved meanwhile; it is left as it is.",
            existing=None if current is None else current.number,
            offered=number,
        )


def publish_version(request: Request, chosen: ModelVersion) -> None:
    """Give a version its folder in the registry, if it lacks it."""
    request.removals = outlast_removal(request.store, chosen.model, chosen.version)
    check_places(request.store, chosen.model, chosen.version, [file.path for file in chosen.files])
    publish(request.store, chosen, observe=request.observe)


def _tell(request: Request, done: Promotion) -> None:
    details = {
        **{"model": done.model, "alias": done.alias, "version": done.version, "number": done.number},
        **{"previous": done.previous, "tree_digest": done.tree_digest, "reason": done.reason},
    }
    request.observe(Event(_EVENTS[done.action], f"model.{done.model}", details))
