"""Run the benchmarks named on the command line, or all."""

from __future__ import annotations

import sys

from benchmarks import catalog, memory, query, small_put
from benchmarks.server import target

ALL = {
    "small_put": small_put.run,
    "memory": memory.run,
    "query": query.run,
    "catalog": catalog.run,
}


def main(names: list[str]) -> int:
    """Print each benchmark beside its bar; the exit code counts the bars that were missed."""
    unknown = set(names) - set(ALL)
    if unknown:
        raise SystemExit(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(ALL)}")
    missed = []
    for name in names or ALL:
        with target() as here:
            if not ALL[name](here):
                missed.append(name)
    print(f"bars missed: {', '.join(missed) or 'none'}")
    return len(missed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
