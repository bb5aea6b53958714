"""Map a task over values. A block needs ``unmapped``, for blocks can be iterated; its name does not."""

import pandas as pd
from prefect import flow, unmapped

from mltrack_tasks import MLTrackStore, store_data

STORE = MLTrackStore(path="mltrack-store")


@flow
def store_months(block_name: str) -> list[str]:
    frames = [pd.DataFrame({"day": range(days)}) for days in (31, 28, 31)]
    names = ["january", "february", "march"]
    refs = store_data.map(frames, names, store=unmapped(STORE)).result()
    again = store_data.map(frames, names, store=block_name).result()
    return [f"{ref.name} {ref.shape} {once == ref}" for ref, once in zip(refs, again, strict=True)]


if __name__ == "__main__":
    STORE.save("examples", overwrite=True)
    print(*store_months("examples"), sep="\n")
