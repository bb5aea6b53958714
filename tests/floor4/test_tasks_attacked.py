"""Tasks and flows of the registry under what people do to them: nested transactions, late refusals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import httpx
import pytest
from prefect import flow
from prefect.exceptions import ParameterTypeError
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from flows import promote_model as promote_flow
from mltrack_tasks import (
    Promotion,
    promote_model,
    promotion_transaction,
    registry,
    remove_alias,
    rollback_model,
    tasking,
    transactions,
)
from mltrack_tasks.errors import InvalidInputError
from mltrack_tasks.registry import undo_promotion
from mltrack_tasks.resolve import open_store
from mltrack_tasks.stores import Store
from tests.servers.faultproxy import Answer, Fault, FaultProxy


class StoppedError(Exception):
    """What ends a transaction."""


def standing(where: str) -> str:
    return registry.resolve_model(open_store(where), "m").version


def stopped(*steps: Callable[[], object]) -> None:
    """A transaction that fails after these steps."""

    def block() -> None:
        with promotion_transaction():
            for step in steps:
                step()
            raise StoppedError

    with pytest.raises(StoppedError):
        block()


def whole(step: Callable[[], object]) -> None:
    """A transaction that succeeds."""
    with promotion_transaction():
        step()


def test_an_alias_that_was_moved_twice_goes_back_to_where_it_was(where: str, versions: list[str]) -> None:
    first, second, third, fourth = versions
    promote_model.fn("m", first, store=where)
    stopped(
        lambda: promote_model.fn("m", second, store=where),
        lambda: promote_model.fn("m", third, store=where),
        lambda: rollback_model.fn("m", store=where),
    )
    assert standing(where) == first
    stopped(
        lambda: promote_model.fn("m", second, store=where),
        lambda: registry.promote_model(open_store(where), "m", third),
        lambda: promote_model.fn("m", fourth, store=where),
    )
    assert standing(where) == third, "what somebody else promoted in between stays"


def test_a_transaction_in_a_transaction_is_part_of_it(where: str, versions: list[str]) -> None:
    first, second, third, _ = versions
    promote_model.fn("m", first, store=where)
    stopped(lambda: whole(lambda: promote_model.fn("m", second, store=where)))
    assert standing(where) == first
    seen = []
    stopped(
        lambda: promote_model.fn("m", second, store=where),
        lambda: stopped(lambda: promote_model.fn("m", third, store=where)),
        lambda: seen.append(standing(where)),
    )
    assert seen == [second]
    assert standing(where) == first


def test_an_alias_that_was_removed_comes_back(where: str, versions: list[str]) -> None:
    promote_model.fn("m", versions[0], store=where)
    stopped(lambda: remove_alias.fn("m", "production", store=where))
    assert standing(where) == versions[0]


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"alias": "latest"}, InvalidInputError),
        ({"gates": [{"kind": "no"}]}, ParameterTypeError),
        ({"version": "the first"}, InvalidInputError),
        ({"approval_timeout_minutes": 0}, ParameterTypeError),
        ({"approval_timeout_minutes": float("nan")}, ParameterTypeError),
        ({"approval_timeout_minutes": float("inf")}, ParameterTypeError),
    ],
)
def test_nobody_is_asked_for_what_cannot_be_done(
    given: dict[str, Any],
    error: type[Exception],
    where: str,
    versions: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def asked(**options: Any) -> NoReturn:
        raise AssertionError("somebody was asked")

    monkeypatch.setattr(promote_flow, "pause_flow_run", asked)
    registry.deprecate_version(open_store(where), "m", versions[0])
    given = {**given, "version": versions[0]} if "version" in given else given
    with pytest.raises(error):
        promote_flow.promote_model("m", **given, approval=True, store=where)


def test_what_cannot_be_taken_back_hides_neither_the_error_nor_the_other_aliases(
    where: str, versions: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    promote_model.fn("m", versions[0], store=where)

    def failing(store: Store, promotion: Promotion, **options: Any) -> Promotion | None:
        if promotion.alias != "production":
            raise OSError("the network is gone")
        return undo_promotion(store, promotion, **options)

    monkeypatch.setattr(transactions, "undo_promotion", failing)
    stopped(
        lambda: promote_model.fn("m", versions[1], store=where),
        lambda: promote_model.fn("m", versions[1], "champion", store=where),
    )
    assert standing(where) == versions[0]


def damaged(where: str, version: str) -> None:
    [record] = Path(where).rglob(f"models/development/m/{version}.json")
    record.chmod(0o644)
    record.write_text("{")


def refused_event(**event: Any) -> NoReturn:
    raise ValueError("no such label")


def test_what_cannot_be_shown_or_told_leaves_the_promotion_whole(
    where: str, versions: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The alias has moved by then: a failed task run would say that it has not."""

    @flow
    def release(version: str) -> Promotion:
        return promote_model("m", version, store=where)

    @flow
    def remove() -> Promotion:
        return remove_alias("m", "production", store=where)

    @flow
    def back() -> Promotion:
        return rollback_model("m", store=where)

    assert release(versions[0]).number == 1
    damaged(where, versions[0])
    assert release(versions[1]).number == 2
    assert "Promotion 2 of 'm' to 'production' holds, but cannot be shown: IntegrityError" in caplog.text
    monkeypatch.setattr(tasking, "emit_event", refused_event)
    assert [release(versions[2]).number, remove().number, back().number] == [3, 4, 5]
    for name in ("promoted", "alias_removed", "rolled_back"):
        assert (
            f"The event mltrack.model.{name} could not be emitted: ValueError('no such label')" in caplog.text
        )
    assert standing(where) == versions[2]


def test_an_api_that_takes_no_artifact_leaves_the_promotion_whole(
    where: str, versions: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    @flow
    def release() -> Promotion:
        return promote_model("m", versions[0], store=where)

    url = httpx.URL(PREFECT_API_URL.value())
    with FaultProxy(str(url.copy_with(path="/"))) as proxy:
        proxy.script(Fault("answer", match=r"/artifacts/\?$", answer=Answer(403, "No")))
        changed = {PREFECT_API_URL: f"{proxy.url}{url.path}", PREFECT_CLIENT_MAX_RETRIES: 0}
        with temporary_settings(changed):
            assert release().number == 1
    assert "The artifact 'mltrack-promotion' could not be shown" in caplog.text
