"""Promoting: an alias is moved to a version that its gates let pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mltrack_tasks.errors import GateError, InvalidInputError
from mltrack_tasks.events import Observe, log_event
from mltrack_tasks.models import ModelVersion
from mltrack_tasks.promotions import Promotion
from mltrack_tasks.registry.aliases import current_promotion
from mltrack_tasks.registry.gates import Case, check_gates, run_gates
from mltrack_tasks.registry.moving import (
    Request,
    append_event,
    done_before,
    event_of,
    publish_version,
    request_of,
)
from mltrack_tasks.registry.policies import policy_of
from mltrack_tasks.registry.reading import read_named, require_in_use
from mltrack_tasks.registry.rolling import unless_deprecated
from mltrack_tasks.stores.base import Store


def promote_model(
    store: Store,
    model_name: str,
    version: str,
    alias: str = "production",
    *,
    gates: Sequence[Any] = (),
    reason: str | None = None,
    approval: Mapping[str, Any] | None = None,
    request_id: str | None = None,
    observe: Observe = log_event,
) -> Promotion:
    """Move an alias to a version -> the promotion that is in force then.

    ``version`` is a version id, another alias or ``latest``. First the gates are asked, those of the alias's
    policy and ``gates``; then the version's files are copied by the server into its folder in the registry,
    each proven; then one event is appended. So an alias never stands for a folder that is not complete, and
    a promotion that is stopped half-way leaves the earlier one in force. When another promotion comes
    first, the gates are asked again against it.

    Promoting what the alias stands for already appends nothing (``created=False``), nor does a call with a
    ``request_id`` that was carried out in the last 7 days. Raises GateError if a gate refuses
    (``details["gates"]`` has all reports), InvalidInputError if the version is deprecated,
    NotFoundError if there is none, IntegrityError if a file is missing or damaged; the alias is as it was
    then.
    """
    request = request_of(store, model_name, alias, "promote", reason, request_id, observe)
    checked = check_gates(gates)
    if done := done_before(request, request_id, version):
        return unless_deprecated(request, done)
    chosen = read_named(store, model_name, version)
    require_in_use(store, chosen)
    _check_approval(approval, chosen)
    asked = [*policy_of(store, model_name, alias), *checked]

    def decide(current: Promotion | None) -> Promotion | None:
        if current is not None and current.version == chosen.version:
            return None
        reports = _asked(request, chosen, asked, current)
        return event_of(request, current, chosen, gates=tuple(reports), approval=approval)

    done = append_event(request, decide, before=lambda: publish_version(request, chosen))
    return unless_deprecated(request, done)


def _asked(
    request: Request, chosen: ModelVersion, gates: Sequence[Any], current: Promotion | None
) -> list[dict[str, Any]]:
    """Ask the gates -> their reports; GateError if one refuses."""

    def version_at(alias: str) -> str | None:
        event = current if alias == request.alias else current_promotion(request.store, request.model, alias)
        return None if event is None else event.version

    reports = run_gates(gates, Case(request.store, chosen, request.alias, version_at))
    refused = [report for report in reports if not report["passed"]]
    if refused:
        said = "; ".join(
            f"{report['gate'].get('name', report['gate']['kind'])}: {report['detail']}" for report in refused
        )
        raise GateError(
            f"{chosen.version} of {request.model!r} was not promoted to {request.alias!r}: {said}.",
            details={"gates": reports, "model": request.model, "version": chosen.version},
        )
    return reports


def _check_approval(approval: Mapping[str, Any] | None, chosen: ModelVersion) -> None:
    """An approval is of certain bytes: that of another tree is none."""
    if approval is None:
        return
    if not isinstance(approval, Mapping) or approval.get("tree_digest") != chosen.tree_digest:
        raise InvalidInputError(
            f"The approval is not of {chosen.version} of {chosen.model!r}: it must name the tree digest "
            f"{chosen.tree_digest}."
        )
