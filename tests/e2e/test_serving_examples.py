"""The examples that stay and wait for a server: for the next night, and for a promotion."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mltrack_tasks.content import list_data, retrieve_data
from mltrack_tasks.migration import download_from_s3
from mltrack_tasks.registry import model_history
from mltrack_tasks.resolve import open_store
from mltrack_tasks.stores import Store
from tests.e2e.deployed import Deployed, environment
from tests.e2e.site import Site
from tests.floor2.localtrees import seen
from tests.servers.process import running
from tests.wheels import ROOT

pytestmark = pytest.mark.timeout(300)

EXAMPLES = ROOT / "examples"
TICK = "8"
"""[s] between two nights."""
SIZE = 10_000
"""Of a file, in words: too large for a pack, so that it is told of by itself."""


@contextmanager
def served(site: Site, folder: Path, script: str, *arguments: str, known_as: str) -> Iterator[Deployed]:
    """Run an example as a user who has the wheel does, in ``folder``; afterwards the server forgets it."""
    variables = {**environment(site.server, folder, ""), "PYTHONPATH": str(site.package)}
    command = ["env", f"--chdir={folder}", sys.executable, str(EXAMPLES / script), *arguments]
    with running(script, command, folder / "log", variables) as child:
        flow, _, name = known_as.partition("/")
        wanted = {"flows": {"name": {"any_": [flow]}}, "deployments": {"name": {"any_": [name]}}}
        child.wait_until(lambda: bool(site.server.ask("deployments/filter", wanted)), 90)
        [found] = site.server.ask("deployments/filter", wanted)
        try:
            yield Deployed(site.server, found["id"], child)
        finally:
            site.server.ask(f"deployments/{found['id']}", method="DELETE")


def store_of(folder: Path) -> Store:
    return open_store(str(folder / "mltrack-store"))


def test_each_night_sends_what_is_new(site: Site, tmp_path: Path) -> None:
    results = tmp_path / "results"
    results.mkdir()
    (results / "monday.bin").write_bytes(b"monday" * SIZE)
    nights = "nightly-sync/nightly"
    with served(site, tmp_path, "nightly_sync.py", "results", TICK, known_as=nights) as nightly:

        def said(what: str) -> bool:
            return what in nightly.child.log.read_text(encoding="utf-8")

        nightly.until(lambda: said(f" 1 files of {6 * SIZE:,} bytes new"))
        (results / "tuesday.bin").write_bytes(b"tuesday" * SIZE)
        nightly.until(lambda: said(f" 1 files of {7 * SIZE:,} bytes new"))
    download_from_s3(store_of(tmp_path), tmp_path / "back")
    assert seen(tmp_path / "back") == seen(results)


def test_each_promotion_scores_what_is_new(site: Site, tmp_path: Path) -> None:
    with served(site, tmp_path, "scoring_on_promotion.py", known_as="score/on-promotion") as scoring:
        site.client(str(EXAMPLES / "train_register_promote.py"), cwd=tmp_path)
        store = store_of(tmp_path)
        promoted = {one.version for one in model_history(store, "progression")}
        scoring.until(lambda: len(list_data(store, "scores")) == len(promoted))
    scored = {each.ref.metadata["model"]: each.ref for each in list_data(store, "scores")}
    assert scored.keys() == promoted
    assert len(promoted) == 2
    assert {len(retrieve_data(store, ref)) for ref in scored.values()} == {20}
