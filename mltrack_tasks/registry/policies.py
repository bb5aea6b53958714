"""Policies: the gates that a version of a model must always pass to become ``staging`` or ``production``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mltrack_tasks import events
from mltrack_tasks.errors import FormatError, InvalidInputError, TransientError
from mltrack_tasks.events import Event, Observe, log_event
from mltrack_tasks.fields import Fields
from mltrack_tasks.modelkeys import GUARDED_ALIASES, policy_folder
from mltrack_tasks.records import Record
from mltrack_tasks.recordstore import same_content
from mltrack_tasks.registry.asking import check_gates, written
from mltrack_tasks.registry.numbered import create_number, list_numbered, read_number
from mltrack_tasks.stores.base import Store

_TRIES = 100


def set_policy(
    store: Store, model_name: str, alias: str, gates: Sequence[Any], *, observe: Observe = log_event
) -> list[Any]:
    """Say which gates guard an alias of a model from now on -> the gates; an empty list guards nothing.

    A new numbered record; earlier ones stay. The same policy again writes nothing. Raises InvalidInputError
    for an alias other than ``staging`` and ``production``, and for gates that are functions.
    """
    folder = policy_folder(model_name, alias)
    checked = check_gates(gates)
    content = {"model": model_name, "alias": alias, "gates": written(checked)}
    what = f"The policy of {alias!r} of {model_name!r}"
    for _ in range(_TRIES):
        number = len(list_numbered(store, folder))
        if number and same_content(read_number(store, folder, _content, number), content):
            return checked
        if create_number(store, folder, number + 1, content, what=what):
            details = {"model": model_name, "alias": alias, "number": number + 1, "gates": content["gates"]}
            observe(Event(events.MODEL_POLICY_SET, f"model.{model_name}", details))
            return checked
    raise TransientError(f"The policy of {alias!r} of {model_name!r} is being changed by others. Try again.")


def policy_of(store: Store, model_name: str, alias: str) -> list[Any]:
    """Read the gates that guard an alias of a model; none without a policy, or if the alias is free."""
    if alias not in GUARDED_ALIASES:
        return []
    folder = policy_folder(model_name, alias)
    number = len(list_numbered(store, folder))
    return read_number(store, folder, _gates, number) if number else []


def _content(record: Record, number: int, what: str) -> dict[str, Any]:
    return dict(record.content)


def _gates(record: Record, number: int, what: str) -> list[Any]:
    try:
        return check_gates(Fields(record.content, what).items("gates"))
    except InvalidInputError as error:
        raise FormatError(
            f"{what} has a gate that this version of mltrack_tasks does not know: {error} Upgrade "
            "mltrack_tasks; until then nothing is promoted past it."
        ) from error
