"""Promote a model by hand, from the UI or from a pipeline, with the approval of a person if wanted."""

import math
from collections.abc import Callable
from typing import Annotated, Any

from prefect import flow
from prefect.flow_runs import pause_flow_run
from prefect.input import RunInput
from pydantic import Field

from mltrack_tasks import ModelVersion, Promotion, tasks
from mltrack_tasks.errors import InvalidInputError, NotFoundError
from mltrack_tasks.forms import OptionalText, StoreChoice, completed
from mltrack_tasks.tasks.registry import Gate, check_promotion


class Approval(RunInput):
    """What a person says of a promotion."""

    approve: bool = Field(description="Promote this version?")
    by: str = Field(min_length=1, description="Who says so.")
    comment: str | None = Field(default=None, description="Why.")


@flow(name="mltrack-promote-model", flow_run_name="promote {model_name} {version} to {alias}")
def promote_model(
    model_name: Annotated[str, Field(min_length=1)],
    version: Annotated[str, Field(min_length=1)] = "latest",
    alias: Annotated[str, Field(min_length=1)] = "production",
    gates: tuple[Gate, ...] = (),
    reason: OptionalText = None,
    approval: bool = False,
    approval_timeout_minutes: Annotated[float, Field(gt=0, le=525_600)] = 60,
    store: StoreChoice = None,
) -> Promotion:
    """Move an alias to a version whose gates pass.

    Args:
        model_name: Name of the model.
        version: A version id, an alias such as `staging`, or `latest`.
        alias: What will stand for the version.
        gates: What the version must pass beside the alias's policy.
        reason: Why; it is kept.
        approval: Wait for a person, who is shown the version, its tree digest and what it replaces. If the
            alias is moved before the answer, the answer is to another question, and nothing is promoted.
        approval_timeout_minutes: How long to wait, a year at most.
        store: A saved block, or as text a block's name, `s3://bucket/prefix`, or a directory.
    """
    # Nobody is to be asked for what could not be carried out.
    check_promotion(alias, gates)
    chosen = tasks.resolve_model(model_name, version, store=store)
    said: dict[str, Any] | None = None
    asked: list[Any] = [*gates]
    if approval:
        if chosen.deprecated is not None:
            raise InvalidInputError(
                f"{chosen.version} of {model_name!r} is deprecated; choose another version."
            )
        before = _standing(model_name, alias, store)
        form = Approval.with_initial_data(
            description=f"Promote **{chosen.version}** to **{alias}**, in place of {before or 'nothing'}? "
            f"Tree digest `{chosen.tree_digest}`."
        )
        answer = pause_flow_run(wait_for_input=form, timeout=math.ceil(approval_timeout_minutes * 60))
        if not answer.approve:
            raise InvalidInputError(
                f"{answer.by} did not approve {chosen.version}: {answer.comment or 'no'}."
            )
        said = {"by": answer.by, "comment": answer.comment, "tree_digest": chosen.tree_digest}
        asked.append(_unmoved(alias, before))
    # The version, not the alias: what was approved must be what is promoted.
    done = tasks.promote_model(
        model_name, chosen.version, alias, gates=asked, reason=reason, approval=said, store=store
    )
    return completed(done, f"{alias} of {model_name} stands for {done.version}")


def _standing(model_name: str, alias: str, store: StoreChoice) -> str | None:
    try:
        # Not as a task run: that of a first promotion would fail for all to see.
        return tasks.resolve_model.fn(model_name, alias, store=store).version
    except NotFoundError:
        return None


def _unmoved(alias: str, before: str | None) -> Callable[[ModelVersion, ModelVersion | None], bool | str]:
    """A gate, so that it is asked again whenever another promotion comes first."""

    def unmoved(version: ModelVersion, current: ModelVersion | None) -> bool | str:
        now = current.version if current else None
        if now == before:
            return True
        return (
            f"{alias} stands for {now or 'nothing'} now, and stood for {before or 'nothing'} when the "
            "approval was asked for; run it again"
        )

    return unmoved
