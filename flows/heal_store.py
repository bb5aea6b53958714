"""Mend what an audit found damaged or missing."""

from prefect import flow

from mltrack_tasks import HealReport, tasks
from mltrack_tasks.forms import OptionalText, StoreChoice, completed, run_name


@flow(name="mltrack-heal-store", flow_run_name=run_name("heal store"))
def heal_store(
    audit: OptionalText = None,
    replicas: list[str] | None = None,
    local_path: OptionalText = None,
    dry_run: bool = False,
    store: StoreChoice = None,
) -> HealReport:
    """Write again what is damaged or missing -> what became of each object; fails when something stays lost.

    Args:
        audit: Id of the audit, as `verify_store` reports it; by default the newest, and what the newest
            of other levels and parts told of wrong bytes.
        replicas: Other stores that may have the bytes: blocks' names, `s3://bucket/prefix`, or directories.
        local_path: Folder on the machine of the worker that may have them, such as one that was migrated.
        dry_run: Only say what could be healed.
        store: A saved block, or as text a block's name, `s3://bucket/prefix`, or a directory.
    """
    done = tasks.heal_store(
        audit=audit, replicas=replicas or (), local_path=local_path, dry_run=dry_run, store=store
    )
    done.require_ok()
    return completed(done, str(done))


if __name__ == "__main__":
    heal_store()
