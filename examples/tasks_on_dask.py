"""Run the tasks in the processes of a Dask cluster (pip install mltrack_tasks[dask]), here on one machine."""

import numpy as np
from prefect import flow, unmapped
from prefect_dask import DaskTaskRunner

from mltrack_tasks import MLTrackStore, retrieve_data, store_data

STORE = MLTrackStore(path="mltrack-store")
CLUSTER = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}


@flow(task_runner=DaskTaskRunner(cluster_kwargs=CLUSTER))
def on_dask() -> list[int]:
    refs = store_data.map([np.full(4, n) for n in range(4)], "constant", store=unmapped(STORE)).result()
    return [int(array.sum()) for array in retrieve_data.map(refs, store=unmapped(STORE)).result()]


if __name__ == "__main__":  # Dask's processes import this file again
    print("sums:", on_dask())
