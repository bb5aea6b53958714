"""The same data under two names is one blob; other column names are other data."""

import pandas as pd

from mltrack_tasks import MLTrackStore, store_data

STORE = MLTrackStore(path="mltrack-store")

if __name__ == "__main__":
    frame = pd.DataFrame({"x": range(1000), "y": range(1000)})
    first = store_data(frame, name="dataset_v1", store=STORE)
    second = store_data(frame, name="dataset_v2", store=STORE)
    other = store_data(frame.rename(columns={"y": "z"}), name="dataset_v3", store=STORE)
    for ref in (first, second, other):
        print(ref.name, "created" if ref.created else "present")
    print("same blob:", first.storage_path == second.storage_path)
    print("another blob:", first.storage_path != other.storage_path)
