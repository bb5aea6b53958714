"""Run examples one after another under one Prefect server, and write down what each printed.

    python run_examples.py RESULTS.json WORKDIR EXAMPLE.py ...

In a process of its own, because the surroundings are sealed first; in one process, because a server takes
20 s to start. Each example gets an empty folder of WORKDIR as its working directory.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import runpy
import sys
import traceback
from pathlib import Path
from types import ModuleType


def run_one(example: Path, folder: Path) -> dict[str, str]:
    """Run one example as a script -> what it printed, and its traceback if it failed."""
    folder.mkdir()
    os.chdir(folder)
    output, failure = io.StringIO(), ""
    try:
        with contextlib.redirect_stdout(output):
            runpy.run_path(str(example), run_name="__main__")
    except Exception:
        failure = traceback.format_exc()
    return {"output": output.getvalue(), "failure": failure}


def main(results: Path, workdir: Path, examples: list[Path]) -> None:
    """Seal the surroundings, start the server, run all, write the results."""
    load_module(examples[0].parent / "demo" / "surroundings.py").enter(workdir, keep_aws=False)

    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        found = {example.name: run_one(example, workdir / example.stem) for example in examples}
    results.write_text(json.dumps(found))


def load_module(path: Path) -> ModuleType:
    """Import a file of the examples, which are no package -> the module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), [Path(name) for name in sys.argv[3:]])
