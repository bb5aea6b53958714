"""Tasks for the store itself."""

from __future__ import annotations

from mltrack_tasks import access
from mltrack_tasks.artifacts import plain, table
from mltrack_tasks.blocks import MLTrackStore
from mltrack_tasks.checking.report import AccessReport
from mltrack_tasks.errors import MLTrackError
from mltrack_tasks.resolve import find_store
from mltrack_tasks.roles import Role, check_role
from mltrack_tasks.tasking import mltrack_task, run_logger


@mltrack_task
def check_access(
    *, role: Role | None = None, write: bool = True, store: MLTrackStore | str | None = None
) -> AccessReport:
    """Try what the store needs -> a report with the fix beside each failure, also as a table artifact.

    Told are: whose credentials these are, where the bucket is, this machine's clock, lifecycle rules that
    would break the store. With ``write`` small objects under ``.probe/`` are written and removed again, with
    their versions: what the server can do, and how fast an upload is. With a ``role`` (reader, writer,
    promoter, admin) each permission of ``iam_policy(role)`` is asked for, by requests that change nothing;
    what cannot be asked so is told as not probed. For the role ``reader`` nothing is written.

    A store that cannot be opened makes a report too; InvalidInputError or NotFoundError only if ``store``
    names none, and InvalidInputError for an unknown role.
    """
    found = _checked(find_store(store), None if role is None else check_role(role), write)
    for check in found.failed:
        run_logger().warning("%s: %s %s", check.name, check.detail, check.fix)
    as_whom = f" as {role}" if role else ""
    table("mltrack-access", found.rows(), f"Access to {plain(found.location)}{as_whom}")
    return found


def _checked(block: MLTrackStore, role: Role | None, write: bool) -> AccessReport:
    try:
        opened = block.open()
    except MLTrackError as error:
        return access.report_unopened(block.location, error)
    return access.check_access(opened, role=role, write=write)
