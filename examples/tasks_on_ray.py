"""Run the tasks in the processes of a Ray cluster (pip install prefect-ray), here on one machine."""

import numpy as np
from prefect import flow, unmapped
from prefect_ray import RayTaskRunner

from mltrack_tasks import MLTrackStore, retrieve_data, store_data

STORE = MLTrackStore(path="mltrack-store")
CLUSTER = {"num_cpus": 2, "include_dashboard": False}


@flow(task_runner=RayTaskRunner(init_kwargs=CLUSTER))
def on_ray() -> list[int]:
    refs = store_data.map([np.full(4, n) for n in range(4)], "constant", store=unmapped(STORE)).result()
    return [int(array.sum()) for array in retrieve_data.map(refs, store=unmapped(STORE)).result()]


if __name__ == "__main__":  # Ray's processes may import this file again
    print("sums:", on_ray())
