"""The measured process of what is called from Python: our operation, our flow, and prefect-aws's S3Bucket.

Reads one JSON object from stdin, prints one as its last line. Imports come before the clock starts.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from benchmarks.migration_measure import anonymous

Act = Callable[[], object]


def main() -> None:
    """Do what is asked; print wall, cpu [s], baseline [bytes of anonymous RSS before] and events."""
    given = json.load(sys.stdin)
    events: Counter[str] = Counter()
    signal.signal(signal.SIGTERM, _end)
    act = {"ours": _ours, "flow": _flow, "prefect-aws": _prefect_aws}[given.pop("who")](given, events)
    baseline = anonymous(Path("/proc/self/status"))
    before, start = _cpu(), time.perf_counter()
    act()
    told = {
        "wall": time.perf_counter() - start,
        "cpu": _cpu() - before,
        "baseline": baseline,
        "events": events,
    }
    print()
    print(json.dumps(told))


def _cpu() -> float:
    """Seconds of this process, its threads, and the children it waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _ours(given: dict[str, Any], events: Counter[str]) -> Act:
    from mltrack_tasks.events import Event
    from mltrack_tasks.migration import download_from_s3, migrate_to_s3
    from mltrack_tasks.stores import open_s3
    from mltrack_tasks.stores.s3_settings import Keys, S3Settings

    store = open_s3(S3Settings(keys=Keys(*given["keys"]), **given["settings"]))
    options: dict[str, Any] = given["options"]

    def observe(event: Event) -> None:
        events[event.name] += 1

    if given["step"] == "restored":
        return lambda: download_from_s3(store, Path(given["restored"]), observe=observe)
    return lambda: migrate_to_s3(store, Path(given["tree"]), observe=observe, **options)


def _flow(given: dict[str, Any], events: Counter[str]) -> Act:
    from flows.migrate_to_s3 import migrate_to_s3

    settings = given["settings"]
    place = f"s3://{settings['bucket']}/{settings['prefix']}"
    return lambda: migrate_to_s3(local_path=given["tree"], store=place, **given["options"])


def _end(number: int, frame: FrameType | None) -> None:
    """End as a run of Prefect does that is cancelled: by an exception in the main thread."""
    raise SystemExit(128 + number)


def _prefect_aws(given: dict[str, Any], events: Counter[str]) -> Act:
    from prefect_aws import AwsClientParameters, AwsCredentials, S3Bucket

    settings, (access_key, secret_key) = given["settings"], given["keys"]
    credentials = AwsCredentials(
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        region_name=settings["region"],
        aws_client_parameters=AwsClientParameters(endpoint_url=settings["endpoint_url"]),
    )
    bucket = S3Bucket(bucket_name=settings["bucket"], credentials=credentials)
    prefix = settings["prefix"]
    if given["step"] == "restored":
        return lambda: bucket.get_directory(prefix, given["restored"])
    return lambda: bucket.put_directory(given["tree"], prefix)


if __name__ == "__main__":
    main()
