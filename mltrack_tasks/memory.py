"""How much memory this process may still take, as Linux and its control group say."""

from __future__ import annotations

import re
import sys
from pathlib import Path

_UNKNOWN = 8 * 1024**3
"""[bytes] where nothing says how much there is."""
_NO_LIMIT = 1 << 60
_PROC, _GROUP = Path("/proc"), Path("/sys/fs/cgroup")


def free_memory() -> int:
    """Find how many bytes may still be allocated: of the machine, of the container, by ``ulimit -v``."""
    found = [*_of_machine(), *_of_group(), *_of_limit()]
    return max(0, min(found, default=_UNKNOWN))


def _of_machine() -> list[int]:
    return [size << 10 for size in _numbers(_PROC / "meminfo", "MemAvailable:")]


def _of_group() -> list[int]:
    """What the control group leaves, where it sets a limit. Its page cache gives way, and counts as free."""
    for limit, used, kept in (
        ("memory.max", "memory.current", "memory.stat"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
    ):
        limits, uses = _numbers(_GROUP / limit, ""), _numbers(_GROUP / used, "")
        if limits and uses and limits[0] < _NO_LIMIT:
            return [limits[0] - uses[0] + sum(_numbers(_GROUP / kept, "inactive_file")[:1])]
    return []


def _of_limit() -> list[int]:
    if sys.platform == "win32":
        return []
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft == resource.RLIM_INFINITY:
        return []
    return [soft - (size << 10) for size in _numbers(_PROC / "self/status", "VmSize:")]


def _numbers(path: Path, name: str) -> list[int]:
    """Find the numbers that follow a name at the beginning of a line, if the file is there."""
    try:
        text = path.read_text()
    except OSError:
        return []
    return [int(number) for number in re.findall(rf"(?m)^{name}\s*(\d+)", text)]
