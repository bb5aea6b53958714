"""Counts, while tests run, what they do to a store and what is left of it: ``pytest -p tests.tally``.

``benchmarks/trust.py`` prints the sums. A fault is a call or request that failed on purpose, or whose answer
got lost; a kill is an actor that took no further step. Refs are those that records named when a test looked
at a store afterwards; a store in which a blob was not there, or not what its name says, counts as lost.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from weakref import WeakSet

import pytest

TALLY = "MLTRACK_TALLY"
"""Where the counts go, as JSON."""
_place = os.environ.get(TALLY)  # before tests/conftest.py takes it away
counts: Counter[str] = Counter()
_ended: WeakSet[Any] = WeakSet()


def pytest_configure() -> None:
    """Listen at the places through which every fault, kill and look passes."""
    from mltrack_tasks.stores.observed import FaultyStore
    from tests.floor3 import interleaving, invariants
    from tests.servers.faultproxy import FaultProxy

    FaultyStore.step = _counted_step(FaultyStore.step)  # type: ignore[method-assign]
    interleaving.Turns.__init__ = _mortal(interleaving.Turns.__init__)  # type: ignore[method-assign]
    FaultProxy.__exit__ = _counted_exit(FaultProxy.__exit__)  # type: ignore[method-assign]
    for name in ("every_ref_resolves", "every_blob_hashes_to_its_key"):
        setattr(invariants, name, _counted_look(getattr(invariants, name), invariants))


def _counted_step(step: Callable[..., Any]) -> Callable[..., Any]:
    def counted(self: Any, *args: Any) -> Any:
        try:
            return step(self, *args)
        except Exception as error:
            if str(error).startswith("Injected: ") and self not in _ended:
                _ended.add(self)  # a dead one fails at each later step, too
                counts["kills" if self.how == "crash" else "faults"] += 1
            raise

    return counted


class _Dead(set[str]):
    """Names of actors that take no further step."""

    def add(self, name: str) -> None:
        counts["kills"] += name not in self
        super().add(name)


def _mortal(begin: Callable[..., None]) -> Callable[..., None]:
    def begun(self: Any, *args: Any) -> None:
        begin(self, *args)
        self.dead = _Dead()

    return begun


def _counted_exit(leave: Callable[..., Any]) -> Callable[..., Any]:
    def counted(self: Any, *args: Any) -> Any:
        counts["faults"] += sum(record.fault is not None for record in self.requests)
        return leave(self, *args)

    return counted


def _counted_look(look: Callable[[Any], None], invariants: Any) -> Callable[[Any], None]:
    def counted(store: Any) -> None:
        if look.__name__ == "every_ref_resolves":
            counts["stores"] += 1
            counts["refs"] += sum(1 for _ in invariants.refs(store))
        try:
            look(store)
        except Exception:
            counts["lost"] += 1
            raise

    return counted


@pytest.hookimpl(trylast=True)
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Take what a test printed of the orders that it went through."""
    if report.when == "call":
        counts["tests"] += 1
        counts["failed"] += report.failed
        for states, orders in re.findall(r"([\d,]+) states, ([\d,]+) orders", report.capstdout):
            counts["states"] += int(states.replace(",", ""))
            counts["orders"] += int(orders.replace(",", ""))


def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Take how many inputs Hypothesis tried."""
    said = getattr(item, "hypothesis_statistics", "")
    counts["inputs"] += sum(map(int, re.findall(r"(\d+) passing", said)))
    counts["refused inputs"] += sum(map(int, re.findall(r"(\d+) failing", said)))


def pytest_sessionfinish() -> None:
    """Write the counts."""
    if _place:
        Path(_place).write_text(json.dumps(counts))
