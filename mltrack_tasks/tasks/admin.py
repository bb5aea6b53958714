"""Tasks for the store itself."""

from __future__ import annotations

from mltrack_tasks import access
from mltrack_tasks.access import AccessReport
from mltrack_tasks.artifacts import plain, table
from mltrack_tasks.blocks import MLTrackStore
from mltrack_tasks.errors import MLTrackError
from mltrack_tasks.resolve import find_store
from mltrack_tasks.tasking import mltrack_task, run_logger


@mltrack_task
def check_access(*, write: bool = True, store: MLTrackStore | str | None = None) -> AccessReport:
    """Try what the store needs -> a report with the fix beside each failure, also as a table artifact.

    With ``write`` small objects under ``.probe/`` are written and removed again. A store that cannot be
    opened makes a report too; InvalidInputError or NotFoundError only if ``store`` names none.
    """
    found = _checked(find_store(store), write)
    for check in found.checks:
        if check.ok is False:
            run_logger().warning("%s: %s", check.name, check.detail)
    table("mltrack-access", found.rows(), f"Access to {plain(found.location)}")
    return found


def _checked(block: MLTrackStore, write: bool) -> AccessReport:
    try:
        opened = block.open()
    except MLTrackError as error:
        return access.report_unopened(block.location, error)
    return access.check_access(opened, write=write)
