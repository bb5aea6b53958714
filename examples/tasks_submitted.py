"""Submit tasks, so that they run side by side; what crosses between them is refs, never the data."""

import numpy as np
from prefect import flow

from mltrack_tasks import MLTrackStore, retrieve_data, store_data

STORE = MLTrackStore(path="mltrack-store")


@flow
def two_arrays() -> list[int]:
    ones = store_data.submit(np.ones((2, 3)), "ones", store=STORE)
    squares = store_data.submit(np.arange(4) ** 2, "squares", store=STORE)
    back = [retrieve_data.submit(ref, store=STORE) for ref in (ones, squares)]  # waits for each ref
    return [int(future.result().sum()) for future in back]


if __name__ == "__main__":
    print("sums:", two_arrays())
