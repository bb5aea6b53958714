"""Bring the catalogue of runs up to date, on a schedule: searching thousands of runs stays a few requests."""

from __future__ import annotations

from prefect import flow

from mltrack_tasks import CompactionReport, tasks


@flow(name="mltrack-compact-catalog")
def compact_catalog(rebuild: bool = False, store: str | None = None) -> CompactionReport:
    """Take up what was stored since the last time -> what was done.

    Safe at any time, also beside itself. ``rebuild`` reads every manifest anew: after manifests were removed
    or restored by hand.
    """
    return tasks.compact_catalog(rebuild=rebuild, store=store)


if __name__ == "__main__":
    compact_catalog()
