"""Make a few thousand bytes a large blob, in every module that knows the limits."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType

SMALL = {"SINGLE_PUT_LIMIT": 6_000, "PART_SIZE": 2_500, "READ_SIZE": 2_000, "ASK_FIRST_ABOVE": 4_000}
LARGE = bytes(range(256)) * 28
"""Above the limit: three parts."""


def shrink(change: Callable[[ModuleType, str, int], object]) -> None:
    """Call ``change(module, name, size)`` for each limit in each module that has it."""
    for name, module in list(sys.modules.items()):
        if name.startswith("mltrack_tasks"):
            for limit, size in SMALL.items():
                if hasattr(module, limit):
                    change(module, limit, size)
