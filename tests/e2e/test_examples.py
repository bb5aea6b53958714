"""Every example runs, prints what its reader is told to expect, and stays short."""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.servers.process import running

EXAMPLES = Path(__file__).parents[2] / "examples"
ROOT = EXAMPLES.parent
RUNNER = Path(__file__).with_name("run_examples.py")
NO_EXAMPLES = {"make_data.py", "s3_integration_demo.py"}
SERVED = {"nightly_sync.py", "scoring_on_promotion.py"}
"""They wait for a server: test_serving_examples.py."""
MOST_LINES = 22
LONGER = {"train_register_promote.py": 60, "scoring_on_promotion.py": 50, "nightly_sync.py": 40}
"""Pipelines of several steps, and how many lines they may have."""
VERSION = re.compile(r"v\d{8}_[0-9a-f]{6}")
"""Ids of model versions tell the day, and the files that the installed scikit-learn made."""

EXPECTED = {
    "basic_data_storage.py": """\
back by its ref: True
back by its text: True
experiment_results (3, 2) ('a', 'b') {'date': '2024-01-15', 'experiment': 'baseline'}
""",
    "capture_a_run.py": "squares finished {'total': 14}\n",
    "content_deduplication.py": """\
dataset_v1 created
dataset_v2 present
dataset_v3 created
same blob: True
another blob: True
""",
    "migrating_a_folder.py": """\
4 files, 80,049 bytes: 1 files of 40,000 bytes to send; about 16 requests ($0.0001), \
$0.0000 a month for what is new, 0 s at 50 MB/s
4 files, 80,049 bytes: 1 files of 40,000 bytes new, 2 runs written
nothing new: 4 files, 80,049 bytes are stored as they are
4
2
""",
    "querying_data.py": """\
  model  accuracy
0     b      0.91
1     c      0.97
requests: 1
  model  accuracy  cost
0     a      0.85     1
1     b      0.91     2
2     c      0.97    30
""",
    "searching_runs.py": """\
8
['tree-8', 'tree-7', 'tree-6']
   run_id  accuracy
0  tree-8      0.96
1  tree-7      0.94
2  tree-6      0.92
""",
    "storing_ml_runs.py": """\
exp_20240115_001 ['model_params', 'test_data', 'train_data'] {'accuracy': 0.89, 'f1': 0.87} \
{'model_params': {'max_depth': 10}}
back: True
""",
    "tasks_in_a_flow.py": "train {'learning_rate': 0.1} (3, 2)\n",
    "tasks_in_an_async_flow.py": """\
{'answer': 0, 'question': 0}
{'answer': 1, 'question': 1}
{'answer': 4, 'question': 2}
""",
    "tasks_mapped.py": "january (31, 1) True\nfebruary (28, 1) True\nmarch (31, 1) True\n",
    "tasks_on_dask.py": "sums: [0, 4, 8, 12]\n",
    "tasks_on_ray.py": "sums: [0, 4, 8, 12]\n",
    "tasks_outside_a_flow.py": """\
notes.txt bin 15
the loss falls
created again: False b'the loss falls\\n'
""",
    "tasks_submitted.py": "sums: [6, 14]\n",
    "train_register_promote.py": """\
v<id> of 'progression' was not promoted to 'production': not_worse: r2 is 0.14, and 0.51 in v<id> \
(production); tolerance 0.
Ridge {'alpha': 0.1} {'r2': 0.51}
progression: 3 versions, production is v<id>
0  1  v<id>  alpha 1.0
1  2  v<id>  alpha 0.1
""",
}

NEEDS = {"tasks_on_ray.py": "prefect_ray"}
"""What the locked versions lack: Ray takes 200 MB."""
TRIED = sorted(name for name in EXPECTED if find_spec(NEEDS.get(name, "prefect")))

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    folder = tmp_path_factory.mktemp("examples")
    for name in ("work", "temporary"):
        (folder / name).mkdir()
    answer = folder / "results.json"
    command = [sys.executable, RUNNER, answer, folder / "work", *(EXAMPLES / name for name in TRIED)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder / "temporary")}
    with tempfile.TemporaryDirectory(dir="/tmp") as short:  # a path of Ray's sockets has 107 bytes at most
        env["RAY_TMPDIR"] = short
        with running("examples", [str(part) for part in command], folder / "log", env) as child:
            assert child.process.wait(240) == 0, child.tail()
    found: dict[str, dict[str, str]] = json.loads(answer.read_text())
    return found


@pytest.mark.parametrize("name", TRIED)
def test_an_example_prints_what_it_promises(name: str, results: dict[str, dict[str, str]]) -> None:
    output, failure = (results[name][key] for key in ("output", "failure"))
    assert (VERSION.sub("v<id>", output), failure) == (EXPECTED[name], "")


def test_no_example_is_left_out() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} - NO_EXAMPLES == {*EXPECTED, *SERVED}


@pytest.mark.parametrize("name", sorted({*EXPECTED, *SERVED}))
def test_an_example_is_short_and_guarded(name: str) -> None:
    text = (EXAMPLES / name).read_text()
    assert len(text.splitlines()) <= LONGER.get(name, MOST_LINES)
    assert 'if __name__ == "__main__":' in text
