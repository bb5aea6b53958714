"""Call the tasks in a flow; the run takes the flow run's id."""

import pandas as pd
from prefect import flow

from mltrack_tasks import MLTrackStore, get_run, store_data, store_run

STORE = MLTrackStore(path="mltrack-store")


@flow
def train(learning_rate: float) -> str:
    history = pd.DataFrame({"step": [1, 2, 3], "loss": [1 / (1 + learning_rate * n) for n in range(3)]})
    data = {"history": store_data(history, "history", store=STORE)}
    return store_run(data=data, params={"learning_rate": learning_rate}, project="demo", store=STORE).run_id


if __name__ == "__main__":
    run = get_run(train(0.1), store=STORE)
    print(run.provenance["flow"], dict(run.params), run.data_refs["history"].shape)
