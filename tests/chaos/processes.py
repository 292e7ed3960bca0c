"""What /proc shows of a process and its children."""

from __future__ import annotations

from pathlib import Path


def family(pid: int) -> list[int]:
    """A process and its descendants: PostgreSQL's are in sessions of their own."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(found for child in children for found in family(int(child)))]


def waited(pid: int) -> dict[int, float]:
    """For each of a family, the seconds for which it was ready to run and had no processor, so far."""
    found: dict[int, float] = {}
    for each in family(pid):
        try:
            found[each] = int(Path(f"/proc/{each}/schedstat").read_text().split()[1]) / 1e9
        except (OSError, IndexError):  # it has ended, or the kernel does not count
            continue
    return found


def pressure() -> float:
    """Percent of the last 10 s in which at least one task of the machine waited for a processor; 0: unknown."""
    try:
        return float(Path("/proc/pressure/cpu").read_text().split()[1].removeprefix("avg10="))
    except (OSError, IndexError, ValueError):
        return 0.0
