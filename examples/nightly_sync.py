"""Keep a growing folder in a store: every night what is new is sent, and nothing else.

The process stays, and runs what a Prefect server plans for it (`prefect server start`, PREFECT_API_URL):

    python examples/nightly_sync.py results        at two in the morning, until Ctrl+C
    python examples/nightly_sync.py results 60     every 60 s, to see it work
"""

import sys
from pathlib import Path

from prefect import flow, serve
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy

from mltrack_flows.migrate_to_s3 import migrate_to_s3
from mltrack_tasks import MLTrackStore

STORE = MLTrackStore(path="mltrack-store")
# A night that is not over when the next one begins goes on, and the next one is left out.
ONE_AT_A_TIME = ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW)


@flow(log_prints=True)
def nightly_sync(folder: str) -> None:
    report = migrate_to_s3(local_path=folder, store=STORE)
    print(report.summary())


if __name__ == "__main__":
    folder, *seconds = sys.argv[1:] or ["results"]
    when = {"interval": int(seconds[0])} if seconds else {"cron": "0 2 * * *"}
    given = {"folder": str(Path(folder).resolve())}
    serve(nightly_sync.to_deployment("nightly", concurrency_limit=ONE_AT_A_TIME, parameters=given, **when))
