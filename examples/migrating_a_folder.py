"""Move a folder into a store, see what a second call finds, delete what is proven stored, restore a part."""

from datetime import timedelta
from pathlib import Path

from mltrack_tasks import MLTrackStore
from mltrack_tasks.migration import download_from_s3, migrate_to_s3

STORE = MLTrackStore(path="mltrack-store").open()
RESULTS = Path("results")

if __name__ == "__main__":
    for run in ("monday", "tuesday"):
        (RESULTS / run).mkdir(parents=True)
        (RESULTS / run / "log.txt").write_text(f"accuracy on {run}: 0.9\n")
        (RESULTS / run / "curve.svg").write_bytes(bytes(40_000))
    print(migrate_to_s3(STORE, RESULTS, dry_run=True).summary())
    print(migrate_to_s3(STORE, RESULTS).summary())
    print(migrate_to_s3(STORE, RESULTS).summary())
    print(migrate_to_s3(STORE, RESULTS, delete_after_upload=True, min_age=timedelta(0)).deleted_files)
    print(download_from_s3(STORE, "back", run_ids=["tuesday"]).written_files)
