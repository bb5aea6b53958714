"""Store what one run used and made; find it again by its id."""

import pandas as pd

from mltrack_tasks import MLTrackStore, get_run, retrieve_data, store_run

STORE = MLTrackStore(path="mltrack-store")

if __name__ == "__main__":
    train = pd.DataFrame({"age": [34, 51, 28], "churned": [False, True, False]})
    test = pd.DataFrame({"age": [45, 39], "churned": [True, False]})
    data = {"train_data": train, "test_data": test, "model_params": {"max_depth": 10}}
    metrics = {"accuracy": 0.89, "f1": 0.87}
    where = {"project": "customer_churn", "storage_mode": ["by_project", "by_date"]}
    store_run("exp_20240115_001", data, metrics=metrics, tags={"version": "1.0"}, **where, store=STORE)
    run = get_run("exp_20240115_001", store=STORE)
    print(run.run_id, sorted(run.data_refs), dict(run.metrics), dict(run.values))
    print("back:", retrieve_data(run.data_refs["train_data"], store=STORE).equals(train))
