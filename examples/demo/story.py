"""The story that the demo tells, as a Prefect flow of the library's tasks."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pandas.testing import assert_frame_equal
from prefect import flow, unmapped

from mltrack_tasks import (
    DataRef,
    MLTrackStore,
    RunManifest,
    get_run,
    list_data,
    retrieve_data,
    store_data,
    store_file,
    store_run,
)

from . import bucket
from .folder import batches_of, contents_below, files_below, restore_batch, store_batch
from .report import Report, amount
from .tree import abbreviate, draw

DATA = Path(__file__).resolve().parents[1] / "data"
TABLE = DATA / "jfk_weather_2013.csv"
MLRUNS = DATA / "mlruns"


@dataclass(frozen=True)
class Stage:
    """Where the story plays: the report, the store's block, and the name that the block is saved under."""

    report: Report
    block: MLTrackStore
    store: str


@flow(name="mltrack-demo")
def tell(store: str) -> None:
    """Store, store again, look, retrieve, compare. Raises at the first thing that is not as it was."""
    stage = Stage(Report(), MLTrackStore.load(store), store)
    values = load_values()
    refs = store_values(stage, values)
    manifest = store_the_run(stage, values, refs)
    store_once_more(stage, values["hourly"], refs["hourly"])
    show_the_bucket(stage, manifest)
    retrieve_everything(stage, values, manifest)
    keep_and_restore_a_folder(stage)
    sum_up(stage)


def load_values() -> dict[str, Any]:
    """Read the table and the images, and work out the months."""
    hourly = pd.read_csv(TABLE, dtype={"origin": "category"}, parse_dates=["time_hour"])
    columns = {"mean_temp": ("temp", "mean"), "rain": ("precip", "sum"), "hours": ("temp", "size")}
    monthly = hourly.groupby(["year", "month"]).agg(**columns)
    return {"hourly": hourly, "monthly": monthly, "images": np.load(DATA / "digits.npy")}


def forecast_error(hourly: pd.DataFrame) -> dict[str, float]:
    """Forecast each hour by the same hour of the day before -> metrics."""
    temp = hourly.set_index("time_hour")["temp"].asfreq("h")
    error = (temp - temp.shift(24)).dropna()
    return {"rmse": float(np.sqrt((error**2).mean())), "hours": len(error)}


def store_values(stage: Stage, values: dict[str, Any]) -> dict[str, DataRef]:
    """Chapter 1: each value, and the table's file as it is, in tasks of their own."""
    stage.report.chapter("1. Store two DataFrames, an array and a file")
    futures = {name: store_data.submit(value, name, store=stage.store) for name, value in values.items()}
    futures["table_file"] = store_file.submit(TABLE, store=stage.store)
    refs = {name: future.result() for name, future in futures.items()}
    for name, ref in refs.items():
        shape = " x ".join(f"{length:,}" for length in ref.shape) if ref.shape else "bytes as they are"
        state = "created" if ref.created else "present"
        stage.report.line(
            f"{name:<11}{shape:<18}{amount(ref.size_bytes):>12}  {state}  {abbreviate(str(ref))}"
        )
    return refs


def store_the_run(stage: Stage, values: dict[str, Any], refs: dict[str, DataRef]) -> RunManifest:
    """Chapter 2: what the run used and made, by ref, with parameters and metrics."""
    stage.report.chapter("2. Store them as a run, with parameters and metrics")
    now = datetime.now(UTC)
    manifest: RunManifest = store_run(
        f"exp_{now:%Y%m%d}_001",
        {name: refs[name] for name in values},
        inputs={"table_file": refs["table_file"]},
        project="weather_forecast",
        storage_mode=("by_project", "by_date", "by_type"),
        params={"method": "same hour of the day before", "lag_hours": 24},
        metrics=forecast_error(values["hourly"]),
        tags={"station": "JFK"},
        started_at=now,
        store=stage.store,
    )
    rmse = manifest.metrics["rmse"]
    stage.report.line(f"{manifest.run_id}: {len(manifest.all_refs)} blobs, rmse {rmse:.2f} F")
    return manifest


def store_once_more(stage: Stage, frame: pd.DataFrame, first: DataRef) -> None:
    """Chapter 3: the same frame again, then under another name."""
    stage.report.chapter("3. Store the same DataFrame again")
    before = bucket.listing(stage.block)
    again = store_data(frame.copy(), "hourly", store=stage.store)
    after = bucket.listing(stage.block)
    stage.report.line(f"before  {_totals(before)}")
    stage.report.line(f"after   {_totals(after)}")
    stage.report.check(not again.created and again == first, "present, with the same ref")
    stage.report.check(after == before, "nothing was uploaded")
    other = store_data(frame, "hourly_v2", store=stage.store)
    blobs, blobs_before = _blobs(bucket.listing(stage.block)), _blobs(before)
    stage.report.check(
        other.hash == first.hash and blobs == blobs_before, "another name for it uploads no data either"
    )


def show_the_bucket(stage: Stage, manifest: RunManifest) -> None:
    """Chapter 4: the tree, and a look at the blobs that does without the library."""
    stage.report.chapter("4. What is in the bucket (digests shortened)")
    for line in draw(f"{stage.block.location}/", bucket.listing(stage.block)).splitlines():
        stage.report.line(line)
    for ref in manifest.all_refs:
        body = bucket.raw_bytes(stage.block, ref.storage_path)
        named_by_bytes = hashlib.sha256(body).hexdigest() == ref.storage_path.split("/")[-2]
        stage.report.check(named_by_bytes, f"sha256sum of {abbreviate(ref.storage_path)} is its name")


def retrieve_everything(stage: Stage, values: dict[str, Any], manifest: RunManifest) -> None:
    """Chapter 5: all of it back by the run's id alone, compared with what was stored."""
    stage.report.chapter("5. Retrieve everything by the run's id")
    found = get_run(manifest.run_id, store=stage.store)
    stage.report.check(found == manifest, "the run: parameters, metrics, tags, times and refs")
    futures = {name: retrieve_data.submit(ref, store=stage.store) for name, ref in found.data_refs.items()}
    back = {name: future.result() for name, future in futures.items()}
    for name in ("hourly", "monthly"):
        same = _same_frame(back[name], values[name])
        stage.report.check(same, f"{name}: values, types, index and order of columns")
    same = np.array_equal(back["images"], values["images"]) and back["images"].dtype == np.uint8
    stage.report.check(same, "images: values, shape and type")
    table_file = retrieve_data(str(found.inputs["table_file"]), store=stage.store)
    stage.report.check(table_file == TABLE.read_bytes(), "the file, byte for byte, by its ref's text")
    names = sorted(item.name for item in list_data(store=stage.store))
    expected = sorted([*values, "hourly_v2", TABLE.name])
    stage.report.check(names == expected, f"the names: {', '.join(names)}")


def keep_and_restore_a_folder(stage: Stage) -> None:
    """Chapter 6: a folder that MLflow wrote, file by file, as a run; and back into an empty folder."""
    stage.report.chapter("6. Store each file of an mlruns folder, and restore the folder")
    begun, paths = stage.report.seconds(), files_below(MLRUNS)
    stored = store_batch.map(
        batches_of(list(paths)), folder=unmapped(MLRUNS), store=unmapped(stage.store)
    ).result()
    refs = {name: ref for batch in stored for name, ref in batch.items()}
    run_id = store_run("digits_mlruns", refs, project="digits", store=stage.store).run_id
    size = sum(path.stat().st_size for path in paths.values())
    created = sum(ref.created for ref in refs.values())
    stage.report.line(f"{len(paths)} files, {amount(size)}: {created} created, {len(refs) - created} present")
    with tempfile.TemporaryDirectory() as folder:
        found = get_run(run_id, store=stage.store).data_refs
        batches = [{name: found[name] for name in batch} for batch in batches_of(list(found))]
        restore_batch.map(batches, folder=unmapped(Path(folder)), store=unmapped(stage.store)).result()
        same = contents_below(Path(folder)) == contents_below(MLRUNS)
    stage.report.check(same, "the restored folder has the same files, byte for byte")
    stage.report.line(f"there and back in {stage.report.seconds() - begun:.1f} s")


def sum_up(stage: Stage) -> None:
    """The last lines: figures of the whole."""
    entries = bucket.listing(stage.block)
    stage.report.chapter(f"All {stage.report.passed} checks passed in {stage.report.seconds():.1f} s.")
    stage.report.line(f"blobs      {_totals(_blobs(entries))}")
    stage.report.line(f"all objects{_totals(entries)}")


def _same_frame(found: pd.DataFrame, expected: pd.DataFrame) -> bool:
    try:
        assert_frame_equal(found, expected, check_exact=True, check_categorical=True, check_freq=True)
    except AssertionError as difference:
        print(difference)
        return False
    return True


def _blobs(entries: dict[str, bucket.Entry]) -> dict[str, bucket.Entry]:
    return {key: entry for key, entry in entries.items() if key.startswith("data/")}


def _totals(entries: dict[str, bucket.Entry]) -> str:
    return f"{len(entries):>4} objects, {sum(entry.size_bytes for entry in entries.values()):>9,} bytes"
