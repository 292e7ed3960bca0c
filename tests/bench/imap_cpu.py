"""CPU time of a side's processes, from /proc; engines and ended children included."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from bench.rows import Side

_TICK = os.sysconf("SC_CLK_TCK")
_TIMES = (11, 12, 13, 14)  # utime, stime, cutime, cstime behind the name in /proc/PID/stat, proc(5)


def cpu_seconds(side: Side) -> float:
    """So far, of every process of the side and of those that they have waited for."""
    return sum(_used(member) for root in side.roots().values() for member in _family(root))


def _family(pid: int) -> Iterator[int]:
    yield pid
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = path.read_text().split()
        except OSError:  # ended meanwhile: its parent has its times now
            continue
        for child in children:
            yield from _family(int(child))


def _used(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return 0.0
    return sum(int(fields[index]) for index in _TIMES) / _TICK
