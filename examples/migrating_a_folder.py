"""Move a folder into a store, see what a second call finds, and restore it; no Prefect server is needed."""

from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from mltrack_tasks import MLTrackStore
from mltrack_tasks.migration import download_from_s3, migrate_to_s3

STORE = MLTrackStore(path="mltrack-store").open()

if __name__ == "__main__":
    with TemporaryDirectory() as scratch:
        results = Path(scratch, "results")
        for run in ("monday", "tuesday"):
            (results / run / "plots").mkdir(parents=True)
            (results / run / "log.txt").write_text(f"accuracy on {run}: 0.9\n")
            (results / run / "plots" / "curve.svg").write_bytes(bytes(40_000))

        print(migrate_to_s3(STORE, results, name="results", dry_run=True).summary())
        stored = migrate_to_s3(STORE, results, name="results")
        print(stored.summary(), stored.runs)
        print(migrate_to_s3(STORE, results, name="results").summary())

        done = migrate_to_s3(STORE, results, name="results", delete_after_upload=True, min_age=timedelta(0))
        print(done.summary(), "|", list(results.iterdir()))
        back = download_from_s3(STORE, Path(scratch, "back"), run_ids=["tuesday"])
        print(back.written_files, Path(back.local_path, "tuesday", "log.txt").read_text(), end="")
