"""Take a promotion back, by hand or from the UI."""

from __future__ import annotations

from prefect import flow

from mltrack_tasks import Promotion, tasks


@flow(name="mltrack-rollback-model")
def rollback_model(
    model_name: str,
    alias: str = "production",
    to: str | None = None,
    reason: str | None = None,
    store: str | None = None,
) -> Promotion:
    """Move an alias back to the version before, or to one that it stood for.

    Args:
        model_name: Name of the model.
        alias: The alias to move.
        to: A version that it stood for; by default the one before.
        reason: Why; it is kept.
        store: A block's name, `s3://bucket/prefix`, or a directory.
    """
    return tasks.rollback_model(model_name, alias, to=to, reason=reason, store=store)
