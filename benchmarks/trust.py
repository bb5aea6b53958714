"""What the tests did to stores, and what was left: inputs tried, faults injected, kills survived, blobs lost.

The tests are those of the suite; ``--profile thorough`` tries many more inputs and orders, and takes an hour
or two. Bars: no test fails, and nothing is lost.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage

from tests.tally import TALLY

PARTS: dict[str, tuple[str, ...]] = {
    "hostile bytes": (
        *("floor0/test_canonical.py", "floor0/test_layout.py", "floor0/test_records.py"),
        *("floor1/test_frames_hostile.py", "floor1/test_mlflow_hostile.py", "floor1/test_parquet_bombs.py"),
        *("floor3/test_hostile.py", "floor3/test_migration_hostile.py"),
    ),
    "forged records": ("floor3/test_hostile_records.py",),
    "faults and kills": (
        *("floor3/test_faults.py", "floor3/test_collecting.py", "floor3/test_collecting_kept.py"),
        *("floor3/test_removing.py", "floor3/test_removing_many.py", "floor3/test_removing_versions.py"),
        *("floor3/test_heal.py", "floor3/test_verify_resumed.py", "floor3/test_replication.py"),
        *("floor3/test_registry.py", "floor3/test_registry_machine.py", "floor3/test_revisions.py"),
        *("floor3/test_migration_machine.py", "floor3/test_migration_requests.py", "floor3/test_views.py"),
    ),
    "all orders": ("floor3/test_collecting_races.py", "floor3/test_catalog_races.py"),
}
COUNTED = {
    "hostile bytes": ("inputs",),
    "forged records": ("inputs",),
    "faults and kills": ("faults", "kills", "refs"),
    "all orders": ("orders",),
}
"""What there must be some of in a part, else nothing was listened to."""
SHOWN = {
    "tests": "tests",
    "inputs": "inputs tried",
    "faults": "faults injected",
    "kills": "kills",
    "states": "states",
    "orders": "orders",
    "stores": "stores looked at afterwards",
    "refs": "refs in them",
}


def run(options: Sequence[str] = ()) -> bool:
    """Print the sums of each part; True if no test failed and nothing was lost."""
    profile, parts = _asked(options)
    print(f"what tests do to stores (profile {profile}, one process)")
    met = [_part(name, profile) for name in parts]
    return all(met)


def _asked(options: Sequence[str]) -> tuple[str, Sequence[str]]:
    """Read ``--profile <name>`` and ``--part <name>``."""
    given = dict(zip(options[::2], options[1::2], strict=False))
    profile, part = given.pop("--profile", "default"), given.pop("--part", None)
    if given or len(options) % 2 or profile not in ("brief", "default", "thorough"):
        raise SystemExit("trust takes --profile brief, default or thorough, and --part <one of its parts>")
    if part is not None and part not in PARTS:
        raise SystemExit(f"there is no part {part!r}; there are {', '.join(PARTS)}")
    return profile, [part] if part else list(PARTS)


def _part(name: str, profile: str) -> bool:
    began, spent = time.monotonic(), _children()
    with tempfile.TemporaryDirectory(prefix="mltrack-trust-") as folder:
        place = Path(folder, "counts.json")
        paths = [str(Path("tests", each)) for each in PARTS[name]]
        options = ["-p", "tests.tally", "-n", "0", "-q", "-W", "ignore", "-o", "timeout=0"]
        answer = subprocess.run(
            [sys.executable, "-m", "pytest", *options, *paths],
            env={**os.environ, TALLY: str(place), "MLTRACK_TEST_PROFILE": profile},
            capture_output=True,
            text=True,
            check=False,
        )
        if not place.exists():
            raise SystemExit(answer.stdout[-2_000:] + answer.stderr[-2_000:])
        counts = json.loads(place.read_text())
    told = ", ".join(f"{counts[key]:,} {what}" for key, what in SHOWN.items() if counts.get(key))
    lost, failed = counts.get("lost", 0), counts.get("failed", 0)
    seconds = f"{_children() - spent:.0f} s CPU, {time.monotonic() - began:.0f} s"
    print(f"  {name}: {told}; {lost} lost, {failed} tests failed  ({seconds})", flush=True)
    if answer.returncode:
        print(answer.stdout[-2_000:])
    return answer.returncode == 0 and not lost and not failed and all(map(counts.get, COUNTED[name]))


def _children() -> float:
    used = getrusage(RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
