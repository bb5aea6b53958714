"""Train, register, and promote behind gates: a model that is worse than the one in production stays out.

Needs scikit-learn, and skops, which saves its models without pickled code, as the gate `pickle` asks.
"""

from pathlib import Path

import pandas as pd
from prefect import flow, task

from mltrack_tasks import DataRef, MLTrackStore, tasks
from mltrack_tasks.errors import InvalidInputError

try:
    import skops.io
    from sklearn.datasets import load_diabetes
    from sklearn.linear_model import Ridge
except ImportError as missing:
    raise SystemExit(f"{missing}; this example needs: pip install scikit-learn skops") from None

STORE = MLTrackStore(path="mltrack-store")
GATES = [{"kind": "not_worse", "metric": "r2"}, {"kind": "pickle"}]


@task
def fit(data: DataRef, alpha: float, folder: Path) -> float:
    rows = tasks.retrieve_data(data, store=STORE)
    x, y = rows.drop(columns="target"), rows["target"]
    model = Ridge(alpha=alpha).fit(x[:300], y[:300])
    folder.mkdir(parents=True, exist_ok=True)
    skops.io.dump(model, folder / "model.skops")
    return round(float(model.score(x[300:], y[300:])), 2)


@flow
def train(alpha: float) -> None:
    data = tasks.store_data(load_diabetes(as_frame=True).frame, "patients", store=STORE)
    folder = Path(f"trained/{alpha}")
    facts = {"metrics": {"r2": fit(data, alpha, folder)}, "params": {"alpha": alpha}}
    facts["training_data"] = {"patients": data}
    made = tasks.register_model.submit(None, "progression", folder, **facts, store=STORE).result()
    tasks.promote_model("progression", made.version, gates=GATES, reason=f"alpha {alpha}", store=STORE)


if __name__ == "__main__":
    for alpha in (1.0, 0.1, 10.0):
        try:
            train(alpha)
        except InvalidInputError as refused:
            print(refused)
    current = tasks.resolve_model("progression", "production", store=STORE)
    folder = tasks.download_model("progression", current.version, f"serving/{current.version}", store=STORE)
    print(type(skops.io.load(folder / "model.skops")).__name__, dict(current.params), dict(current.metrics))
    for model in tasks.list_models(store=STORE):
        print(f"{model.name}: {len(model.versions)} versions, production is {model.aliases['production']}")
    history = tasks.model_history("progression", store=STORE)
    print(pd.DataFrame([(one.number, one.version, one.reason) for one in history]).to_string(header=False))
