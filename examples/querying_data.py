"""SQL over stored data where it lies: only the columns and row groups that a query needs are read."""

import pandas as pd

from mltrack_tasks import MLTrackStore, query_data, store_data

STORE = MLTrackStore(path="mltrack-store")

if __name__ == "__main__":
    results = pd.DataFrame({"model": ["a", "b", "c"], "accuracy": [0.85, 0.91, 0.97]})
    prices = pd.DataFrame({"model": ["a", "b", "c"], "cost": [1, 2, 30]})
    ref, costs = store_data(results, "results", store=STORE), store_data(prices, "prices", store=STORE)
    found = query_data(ref, "SELECT * FROM s3object WHERE accuracy > 0.9", store=STORE)
    print(found.frame, f"requests: {found.requests}", sep="\n")
    sql = "SELECT * FROM results JOIN costs USING (model) ORDER BY accuracy / cost DESC"
    print(query_data({"results": ref, "costs": costs}, sql, store=STORE).frame)
