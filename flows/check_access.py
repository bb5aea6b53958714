"""Find out whether the worker may do in a store what a role does there, and what to change if not."""

from prefect import flow

from mltrack_tasks import AccessReport, tasks
from mltrack_tasks.forms import StoreChoice, completed
from mltrack_tasks.roles import Role


@flow(name="mltrack-check-access", flow_run_name="check access as {role}")
def check_access(role: Role = "writer", write: bool = True, store: StoreChoice = None) -> AccessReport:
    """Ask for each permission of a role -> a table with the fix beside each failure; fails if there is one.

    Args:
        role: Whose permissions are asked for: those of `iam_policy(role)`.
        write: Also write small objects under `.probe/` and remove them again: what the server can do, and how
            fast an upload is. A reader writes nothing.
        store: A saved block, or as text a block's name, `s3://bucket/prefix`, or a directory.
    """
    found = tasks.check_access(role=role, write=write, store=store)
    found.require_ok()
    return completed(found, str(found))


if __name__ == "__main__":
    check_access()
