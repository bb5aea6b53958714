"""Promoting: an alias is moved to a version that its gates let pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mltrack_tasks.errors import GateError, InvalidInputError
from mltrack_tasks.events import Observe, log_event
from mltrack_tasks.models import ModelVersion
from mltrack_tasks.promotions import Promotion
from mltrack_tasks.registry.aliases import current_promotion
from mltrack_tasks.registry.asking import check_gates, run_gates
from mltrack_tasks.registry.gates import Case
from mltrack_tasks.registry.moving import (
    Request,
    append_event,
    done_before,
    event_of,
    publish_version,
    request_of,
)
from mltrack_tasks.registry.policies import policy_of
from mltrack_tasks.registry.reading import described, read_named, require_in_use
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
    a promotion that is stopped half-way leaves the earlier one in force. When another promotion or policy
    comes first, the gates are asked again.

    Promoting what the alias stands for already appends nothing (``created=False``), and mends its folder
    where a file is missing or another; nor does a call append anything with a
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
    asking = _Asking(request, chosen, checked)

    def decide(current: Promotion | None) -> Promotion | None:
        if current is not None and current.version == chosen.version:
            return None
        reports = asking.reports(current)
        return event_of(request, current, chosen, gates=tuple(reports), approval=approval)

    done = append_event(request, decide, before=lambda: publish_version(request, chosen))
    if not done.created:
        publish_version(request, chosen)  # it was there before, and may have been harmed since
    return unless_deprecated(request, done)


class _Asking:
    """Asks the gates of one promotion; again only when something that they looked at is another by then."""

    def __init__(self, request: Request, chosen: ModelVersion, own: Sequence[Any]) -> None:
        self._request, self._chosen, self._own = request, chosen, own
        self._policy: list[Any] = []
        self._seen: dict[str, Promotion | None] = {}
        self._reports: list[dict[str, Any]] | None = None

    def reports(self, current: Promotion | None) -> list[dict[str, Any]]:
        """Ask the gates of the policy and the caller's -> their reports; GateError if one refuses."""
        policy = policy_of(self._request.store, self._request.model, self._request.alias)
        if self._reports is None or policy != self._policy or not self._as_seen(current):
            self._policy, self._seen = policy, {self._request.alias: current}
            self._reports = self._ask([*policy, *self._own])
        return self._reports

    def _ask(self, gates: Sequence[Any]) -> list[dict[str, Any]]:
        if not gates:
            return []
        store = self._request.store
        case = Case(store, described(store, self._chosen), self._request.alias, self._event_at)
        return _passed(self._chosen, self._request, run_gates(gates, case))

    def _as_seen(self, current: Promotion | None) -> bool:
        now = {alias: self._look(alias) for alias in self._seen if alias != self._request.alias}
        return self._seen == {**now, self._request.alias: current}

    def _event_at(self, alias: str) -> Promotion | None:
        if alias not in self._seen:
            self._seen[alias] = self._look(alias)
        return self._seen[alias]

    def _look(self, alias: str) -> Promotion | None:
        return current_promotion(self._request.store, self._request.model, alias)


def _passed(chosen: ModelVersion, request: Request, reports: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the reports if no gate refuses, else raise GateError."""
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
