"""The tables and the bars of the migration benchmark: from measures to text, and to met or missed."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from benchmarks.migration_measure import Measure

OURS, RIVAL = "ours", "s5cmd"


@dataclass(frozen=True)
class Bar:
    """At most so many times s5cmd's wall or CPU seconds in a step; or so many MB above the imports."""

    step: str
    wall: float | None = None
    cpu: float | None = None
    memory: float | None = None


@dataclass(frozen=True)
class Row:
    """All rounds of one step by one way."""

    step: str
    who: str
    files: int
    """A slow tool may have had a smaller tree of the same kind."""
    measures: Sequence[Measure]

    def median(self, what: Callable[[Measure], float]) -> float:
        return statistics.median(map(what, self.measures))

    @property
    def wall(self) -> float:
        return self.median(lambda each: each.wall)

    @property
    def cpu(self) -> float:
        return self.median(lambda each: each.cpu)

    @property
    def peak(self) -> float:
        """The highest of all rounds [MB]: memory is a bound, not a mean."""
        return max(each.peak for each in self.measures)


HEAD = (
    f"  {'step':9} {'who':12} {'files':>7} {'n':>2} {'wall s':>8} {'(min-max)':>17} {'CPU s':>8} "
    f"{'/s5cmd: wall':>13} {'CPU':>6} {'peak MB':>8} {'start s':>8}"
)


def table(rows: Sequence[Row], starts: dict[str, float]) -> Iterator[str]:
    """Yield the lines: seconds, and a file's seconds beside those of s5cmd in the same step."""
    yield HEAD
    rivals = {row.step: row for row in rows if row.who == RIVAL}
    for row in rows:
        walls = [each.wall for each in row.measures]
        rival = rivals.get(row.step)
        ratios = [_text(_ratio(row, rival, what)) for what in ("wall", "cpu")]
        start = starts.get(row.who, row.median(lambda each: each.start))
        yield (
            f"  {row.step:9} {row.who:12} {row.files:7,} {len(walls):2} {row.wall:8.2f} "
            f"{f'({min(walls):.2f}-{max(walls):.2f})':>17} {row.cpu:8.2f} "
            f"{ratios[0]:>13} {ratios[1]:>6} {row.peak:8.0f} {start:8.2f}"
        )
    for row in rows:
        events: Counter[str] = Counter()
        for each in row.measures:
            events.update(each.events)
        if events:
            told = ", ".join(f"{name} {count / len(row.measures):,.0f}" for name, count in events.items())
            yield f"  events of {row.step}: {told}"


def judge(bars: Sequence[Bar], rows: Sequence[Row]) -> Iterator[tuple[str, bool | None]]:
    """Yield (what the bar says and what was measured, met or not); None where it was not measured."""
    by = {(row.step, row.who): row for row in rows}
    for bar in bars:
        ours, rival = by.get((bar.step, OURS)), by.get((bar.step, RIVAL))
        for what, limit in (("wall", bar.wall), ("cpu", bar.cpu)):
            if limit is not None:
                found = _ratio(ours, rival, what)
                line = f"{bar.step}, {what}: at most {limit:.2f}x s5cmd, measured {_text(found)}"
                yield line, None if found is None else found <= limit
        if bar.memory is not None:
            peak = None if ours is None else ours.peak
            shown = "-" if peak is None else f"{peak:.0f} MB"
            line = f"{bar.step}, memory: at most {bar.memory:.0f} MB above the imports, measured {shown}"
            yield line, None if peak is None else peak <= bar.memory


def _ratio(row: Row | None, rival: Row | None, what: str) -> float | None:
    """Compare seconds per file; None where one of them was not measured."""
    if row is None or rival is None:
        return None
    base: float = getattr(rival, what) / rival.files
    mine: float = getattr(row, what) / row.files
    return mine / base if base else None


def _text(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.2f}x"
