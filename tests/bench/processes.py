"""CPU time and memory of whole families of processes.

The CPU time of a family is the sum over its living members of their own time and that of the children they have waited
for. Postfix's and Dovecot's masters, the postmaster and the parent of our workers wait for each child, so a process
that ended is in its parent's sum, however short it lived. The own time is that of the process's CPU clock, in
nanoseconds: /proc cuts it to ticks of 10 ms, twice, which for the hundred processes of a busy Postfix is a second.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

from tests.bench.rows import Side

_TICK = os.sysconf("SC_CLK_TCK")
_CPUCLOCK_SCHED = 2  # linux/posix-timers.h
_ATTEMPTS = 50


def family(pid: int) -> list[int]:
    """The process and its living descendants."""
    found = [pid]
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = path.read_text().split()
        except OSError:
            continue  # the thread has ended
        for child in children:
            found += family(int(child))
    return found


def cpu_seconds(roots: Mapping[str, int]) -> dict[str, float]:
    """So far, for each program. A process that ends just now could be missed, so look until nothing changed."""
    return {name: _cpu_of_family(pid) for name, pid in roots.items()}


def cpu_seconds_of(side: Side) -> float:
    """So far, of all programs of the side."""
    return sum(cpu_seconds(side.roots()).values())


def _cpu_of_family(root: int) -> float:
    for _ in range(_ATTEMPTS):
        members = family(root)
        try:
            spent = sum(_own_seconds(member) + _childrens_seconds(member) for member in members)
        except OSError:
            continue
        if family(root) == members:
            return spent
    raise RuntimeError(f"the processes below {root} come and go too fast to be counted")


def _own_seconds(pid: int) -> float:
    """With all threads, ended ones too; clock_getcpuclockid(3). Raises OSError for a process that has ended."""
    return time.clock_gettime((~pid << 3) | _CPUCLOCK_SCHED)


def _childrens_seconds(pid: int) -> float:
    """Of children that have ended and were waited for, with theirs: cutime and cstime of proc(5). Raises OSError."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return sum(int(field) for field in fields[13:15]) / _TICK


def pss_mib(roots: Mapping[str, int]) -> dict[str, float]:
    """Proportional set size now, for each program: memory shared by n processes counts 1/n for each."""
    return {name: sum(_pss(member) for member in family(pid)) for name, pid in roots.items()}


def _pss(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0  # ended meanwhile
    return sum(int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:"))
