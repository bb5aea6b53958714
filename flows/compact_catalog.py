"""Bring the catalogue of runs up to date, on a schedule: searching thousands of runs stays a few requests."""

from prefect import flow

from mltrack_tasks import CompactionReport, tasks
from mltrack_tasks.forms import StoreChoice, completed


@flow(name="mltrack-compact-catalog", flow_run_name="compact catalogue")
def compact_catalog(rebuild: bool = False, store: StoreChoice = None) -> CompactionReport:
    """Take up what was stored since the last time -> what was done. Safe at any time, also beside itself.

    Args:
        rebuild: Read every manifest anew: after manifests were removed or restored by hand.
        store: A saved block, or as text a block's name, `s3://bucket/prefix`, or a directory.
    """
    done = tasks.compact_catalog(rebuild=rebuild, store=store)
    return completed(done, str(done))


if __name__ == "__main__":
    compact_catalog()
