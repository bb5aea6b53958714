"""Run the benchmarks named on the command line, or nearly all; one alone may have options of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import nullcontext

from benchmarks import catalog, collecting, heads, memory, migration, query, small_put, trust, verification
from benchmarks.server import target

ALL: dict[str, Callable[..., bool]] = {
    "small_put": small_put.run,
    "verification": verification.run,
    "collecting": collecting.run,
    "heads": heads.run,
    "memory": memory.run,
    "query": query.run,
    "catalog": catalog.run,
    "migration": migration.run,
    "trust": trust.run,
}
WITH_OPTIONS = {"migration", "trust"}
WITHOUT_SERVER = {"verification", "collecting", "trust"}
WHEN_NAMED = {"trust"}
"""What runs tests that others run anyway."""


def main(arguments: list[str]) -> int:
    """Print each benchmark beside its bar; the exit code counts the bars that were missed."""
    first = next((at for at, each in enumerate(arguments) if each.startswith("-")), len(arguments))
    names, options = arguments[:first], arguments[first:]
    unknown = set(names) - set(ALL)
    if unknown:
        raise SystemExit(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(ALL)}")
    if options and (len(names) != 1 or names[0] not in WITH_OPTIONS):
        raise SystemExit(f"options go to one of {', '.join(WITH_OPTIONS)} alone, not {' '.join(options)}")
    missed = []
    for name in names or [each for each in ALL if each not in WHEN_NAMED]:
        with nullcontext() if name in WITHOUT_SERVER else target() as here:
            if not ALL[name](*([here] if here else []), *([options] if options else [])):
                missed.append(name)
    print(f"bars missed: {', '.join(missed) or 'none'}")
    return len(missed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
