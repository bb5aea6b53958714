"""Promote a model by hand, from the UI or from a pipeline, with the approval of a person if wanted."""

from __future__ import annotations

import math
from typing import Annotated, Any

from prefect import flow
from prefect.flow_runs import pause_flow_run
from prefect.input import RunInput
from pydantic import Field

from mltrack_tasks import Promotion, tasks
from mltrack_tasks.errors import InvalidInputError
from mltrack_tasks.tasks.registry import check_promotion


class Approval(RunInput):
    """What a person says of a promotion."""

    approve: bool = Field(description="Promote this version?")
    by: str = Field(min_length=1, description="Who says so.")
    comment: str | None = Field(default=None, description="Why.")


@flow(name="mltrack-promote-model")
def promote_model(
    model_name: str,
    version: str = "latest",
    alias: str = "production",
    gates: list[dict[str, Any]] | None = None,
    reason: str | None = None,
    approval: bool = False,
    approval_timeout_minutes: Annotated[float, Field(gt=0, le=525_600)] = 60,
    store: str | None = None,
) -> Promotion:
    """Move an alias to a version whose gates pass.

    Args:
        model_name: Name of the model.
        version: A version id, an alias such as `staging`, or `latest`.
        alias: What will stand for the version.
        gates: Gates beside those of the alias's policy, each with its `kind`.
        reason: Why; it is kept.
        approval: Wait for a person, who is shown the version and its tree digest.
        approval_timeout_minutes: How long to wait, a year at most.
        store: A block's name, `s3://bucket/prefix`, or a directory.
    """
    # Nobody is to be asked for what could not be carried out.
    check_promotion(alias, gates or ())
    chosen = tasks.resolve_model(model_name, version, store=store)
    said = None
    if approval:
        if chosen.deprecated is not None:
            raise InvalidInputError(
                f"{chosen.version} of {model_name!r} is deprecated; choose another version."
            )
        form = Approval.with_initial_data(
            description=f"Promote **{chosen.version}** to **{alias}**? Tree digest `{chosen.tree_digest}`."
        )
        answer = pause_flow_run(wait_for_input=form, timeout=math.ceil(approval_timeout_minutes * 60))
        if not answer.approve:
            raise InvalidInputError(
                f"{answer.by} did not approve {chosen.version}: {answer.comment or 'no'}."
            )
        said = {"by": answer.by, "comment": answer.comment, "tree_digest": chosen.tree_digest}
    # The version, not the alias: what was approved must be what is promoted.
    return tasks.promote_model(
        model_name, chosen.version, alias, gates=gates or (), reason=reason, approval=said, store=store
    )
