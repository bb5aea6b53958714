"""Store a DataFrame with metadata; get it back by its ref, by the ref's text, or look it up by name."""

import pandas as pd

from mltrack_tasks import MLTrackStore, list_data, retrieve_data, store_data

STORE = MLTrackStore(path="mltrack-store")  # or MLTrackStore(bucket="your-mltrack-bucket")

if __name__ == "__main__":
    frame = pd.DataFrame({"a": [1, 2, 3], "b": [4, 5, 6]})
    metadata = {"experiment": "baseline", "date": "2024-01-15"}
    ref = store_data(frame, name="experiment_results", metadata=metadata, store=STORE)
    print("back by its ref:", retrieve_data(ref, store=STORE).equals(frame))
    print("back by its text:", retrieve_data(str(ref), store=STORE).equals(frame))
    for item in list_data("experiment_results", store=STORE):
        print(item.name, item.ref.shape, item.ref.columns, dict(item.ref.metadata))
