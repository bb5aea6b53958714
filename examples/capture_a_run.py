"""Record runs of your own code: each call of a task, and what a with-block does."""

import pandas as pd
from prefect import task

from mltrack_tasks import MLTrackStore, capture, current_capture

STORE = MLTrackStore(path="mltrack-store")


@task(retries=2)  # a retry is a new revision of its run
@capture(inputs="frame", params="power", outputs="result", project="demo", store=STORE)
def raise_to(frame: pd.DataFrame, power: int = 2) -> pd.DataFrame:
    current_capture().log_metric("rows", len(frame))
    return frame**power


if __name__ == "__main__":
    with capture("squares", project="demo", store=STORE) as run:
        run.log_metric("total", int(raise_to(pd.DataFrame({"x": [1, 2, 3]}))["x"].sum()))
    print(run.run_id, run.manifest.status, dict(run.manifest.metrics))
