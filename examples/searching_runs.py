"""Search runs by what they were, and by SQL; compacted, that takes a few requests for any number of runs."""

from mltrack_tasks import MLTrackStore, compact_catalog, list_runs, query_runs, store_run

STORE = MLTrackStore(path="mltrack-store")

if __name__ == "__main__":
    for depth in range(1, 9):
        metrics = {"accuracy": round(0.8 + depth / 50, 2)}
        store_run(f"tree-{depth}", project="churn", params={"depth": depth}, metrics=metrics, store=STORE)
    print(compact_catalog(store=STORE).runs)  # the flow of this name is for a schedule
    print([run.run_id for run in list_runs(project="churn", metrics={"accuracy": "> 0.9"}, store=STORE)])
    sql = "SELECT run_id, metrics.accuracy FROM runs WHERE params.depth > 5 ORDER BY metrics.accuracy DESC"
    print(query_runs(sql, store=STORE).frame)
