"""What people see of a promotion: the version beside the one before, or the gates that refused it."""

from __future__ import annotations

from mltrack_tasks.artifacts import markdown, plain
from mltrack_tasks.errors import GateError
from mltrack_tasks.modelkeys import promoted_folder
from mltrack_tasks.objectlinks import links
from mltrack_tasks.promotions import Promotion
from mltrack_tasks.promotiontext import compared, refused
from mltrack_tasks.registry.aliases import current_promotion
from mltrack_tasks.registry.reading import described, read_version
from mltrack_tasks.runlinks import footer
from mltrack_tasks.stores import Store
from mltrack_tasks.tasking import in_run, run_logger


def show_promotion(store: Store, done: Promotion) -> None:
    """Show a promotion as the artifact ``mltrack-promotion``, and say so if it is no longer in force.

    The alias has moved by then: whatever cannot be read or shown leaves a warning, and the work whole.
    """
    if not in_run():
        return
    try:
        _show(store, done)
    except Exception as failed:  # a damaged record of the version before, Prefect's API, whatever it is
        run_logger().warning(
            "Promotion %d of %r to %r holds, but cannot be shown: %s: %s",
            *(done.number, done.model, done.alias, type(failed).__name__, failed),
        )


def show_refusal(error: GateError, alias: str) -> None:
    """Show what every gate said as the artifact ``mltrack-promotion-refused``, before the error is raised."""
    if not in_run():
        return
    try:
        details = error.details
        what = f"{plain(details['model'])} {details['version']} was not promoted to {plain(alias)}"
        markdown("mltrack-promotion-refused", refused(details, alias) + footer(), what)
    except Exception as failed:  # it must not hide what the gates said
        run_logger().warning("The gates' reports cannot be shown: %s: %s", type(failed).__name__, failed)


def _show(store: Store, done: Promotion) -> None:
    if not done.created:
        _say_if_superseded(store, done)
    if done.version is None:
        return
    # As the gates saw them: with what was measured after registration.
    version, before = described(store, read_version(store, done.model, done.version)), None
    if done.previous is not None:
        before = described(store, read_version(store, done.model, done.previous))
    what = f"Promotion {done.number} of {plain(done.model)} {done.version} as {plain(done.alias)}"
    files = links(store, [promoted_folder(done.model, done.version)])
    markdown("mltrack-promotion", compared(done, version, before) + files + footer(), what)


def _say_if_superseded(store: Store, done: Promotion) -> None:
    now = current_promotion(store, done.model, done.alias)
    if now is not None and now.number != done.number:
        run_logger().warning(
            "An earlier try of this call made promotion %d, of %s. %r was moved since, and stands for %s; it "
            "is left there.",
            *(done.number, done.version or "nothing", done.alias, now.version or "nothing"),
        )
