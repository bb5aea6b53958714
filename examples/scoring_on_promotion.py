"""Score new data whenever a model is promoted to production, by a deployment that waits for the event.

The process stays, and runs what a Prefect server tells it (`prefect server start`, PREFECT_API_URL):

    python examples/scoring_on_promotion.py
    python examples/train_register_promote.py      meanwhile, in the same folder: it promotes twice
"""

import pandas as pd
from prefect import flow, serve
from prefect.events import DeploymentEventTrigger

from mltrack_tasks import MLTrackStore, tasks
from mltrack_tasks.content import store_data

try:
    import skops.io
    from sklearn.datasets import load_diabetes
except ImportError as missing:
    raise SystemExit(f"{missing}; this example needs: pip install scikit-learn skops") from None

STORE = MLTrackStore(path="mltrack-store")
PROMOTED = DeploymentEventTrigger(
    name="score what is new after a promotion",
    match={"mltrack.model": "progression", "mltrack.alias": "production"},
    expect={"mltrack.model.promoted", "mltrack.model.rolled_back"},
    # The version of the event: by the time that the run begins, the alias may stand for the next one.
    parameters={"version": "{{ event.payload.version }}"},
)


@flow(log_prints=True)
def score(version: str) -> None:
    folder = tasks.download_model("progression", version, f"scoring/{version}", store=STORE)
    model = skops.io.load(folder / "model.skops")
    new = tasks.list_data("new-patients", store=STORE)[-1]
    rows = tasks.retrieve_data(new.ref, store=STORE)
    scores = pd.DataFrame({"progression": model.predict(rows).round(1)}, index=rows.index)
    made = tasks.store_data(scores, "scores", metadata={"model": version, "of": str(new.ref)}, store=STORE)
    print(f"{version}: {len(scores)} scores in {made}")


if __name__ == "__main__":
    patients = load_diabetes(as_frame=True).data.tail(20)  # as they come from elsewhere
    store_data(STORE.open(), patients, "new-patients")
    serve(score.to_deployment("on-promotion", triggers=[PROMOTED]))
