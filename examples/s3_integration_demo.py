"""Data, runs and a folder of MLflow's in an S3 bucket and back: what mltrack_tasks does, in half a minute.

    python examples/s3_integration_demo.py

Nothing has to be configured: S3 is served from memory (moto) and Prefect starts a server of its own, both in
this process's care and gone with it. The machine's settings for Prefect and AWS are not read.

With MLTRACK_S3_BUCKET set, the same happens in that bucket with your AWS settings (environment, profile, SSO,
role; also AWS_ENDPOINT_URL), under a fresh prefix which stays. Prefect is the demo's own here, too.

Ends with 0 if everything came back as it was stored, else with 1.
"""

from __future__ import annotations

import atexit
import io
import os
import shutil
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from demo import surroundings

if TYPE_CHECKING:
    from mltrack_tasks import MLTrackStore


def main() -> int:
    """Prepare the surroundings and the bucket, and tell the story -> exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True, errors="replace")
    named = os.environ.get("MLTRACK_S3_BUCKET")
    home = Path(tempfile.mkdtemp(prefix="mltrack-demo-"))
    # Registered before Prefect is imported, so that it runs after Prefect has ended its server.
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    surroundings.enter(home, keep_aws=bool(named))

    from demo import bucket
    from demo.report import CheckFailed

    from mltrack_tasks import MLTrackError

    try:
        with nullcontext(bucket.users_own(named)) if named else bucket.embedded() as block:
            _run(block, "your bucket" if named else "an S3 in this process's memory", keeps=bool(named))
    except (CheckFailed, MLTrackError) as error:
        print(f"\nThe demo failed: {error}", file=sys.stderr)
        return 1
    return 0


def _run(block: MLTrackStore, where: str, *, keeps: bool) -> None:
    from demo import bucket

    print(f"mltrack_tasks: data and runs in S3, each content once\n\nStore: {block.location} ({where})")
    bucket.require_access(block)
    begun = time.monotonic()
    block.save("demo")
    print(f"Prefect: a temporary server, ready in {time.monotonic() - begun:.0f} s")

    from demo.story import tell

    try:
        tell("demo")
    finally:
        if keeps:
            print(f"\nThe demo's objects stay. To remove them:\n   aws s3 rm --recursive {block.location}/")


if __name__ == "__main__":
    sys.exit(main())
