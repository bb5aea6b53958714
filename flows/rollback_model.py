"""Take a promotion back, by hand or from the UI."""

from prefect import flow

from mltrack_tasks import Promotion, tasks
from mltrack_tasks.forms import OptionalText, StoreChoice, completed


@flow(name="mltrack-rollback-model", flow_run_name="roll back {alias} of {model_name}")
def rollback_model(
    model_name: str,
    alias: str = "production",
    to: OptionalText = None,
    reason: OptionalText = None,
    store: StoreChoice = None,
) -> Promotion:
    """Move an alias back to the version before, or to one that it stood for.

    Args:
        model_name: Name of the model.
        alias: The alias to move.
        to: A version that it stood for; by default the one before.
        reason: Why; it is kept.
        store: A saved block, or as text a block's name, `s3://bucket/prefix`, or a directory.
    """
    done = tasks.rollback_model(model_name, alias, to=to, reason=reason, store=store)
    return completed(done, f"{alias} of {model_name} stands for {done.version}")
