"""`paquebot janitor` on a running platform of the benchmark, and what its compaction cost."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
from dataclasses import dataclass

from tests.bench.ours import Ours
from tests.bench.processes import cpu_seconds_of


@dataclass(frozen=True, slots=True)
class Compaction:
    """One run. CPU: of the janitor and of the engines that served it."""

    messages: int
    moved_bytes: int
    requests: int
    cpu_seconds: float
    wall_seconds: float


async def compact(ours: Ours) -> Compaction | str:
    """Compact all accounts, however young their mail. A sentence instead: this platform's janitor does not compact."""
    used, engines = _children(), cpu_seconds_of(ours)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "paquebot", "janitor", "--json", "--data", str(ours.platform.plan.layout.data)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PAQUEBOT_JANITOR_COMPACT_AGE": "0s"},
    )
    out, err = await process.communicate()
    if process.returncode:
        return f"paquebot janitor ended with {process.returncode}: {err.decode(errors='replace').strip()[-500:]}"
    said = json.loads(out)
    if "compacted_messages" not in said:
        return "paquebot janitor does not compact"
    return Compaction(
        messages=said["compacted_messages"],
        moved_bytes=said["compacted_bytes"],
        requests=said["compaction_requests"],
        cpu_seconds=_children() - used + cpu_seconds_of(ours) - engines,
        wall_seconds=said["compaction_seconds"],
    )


def _children() -> float:
    """CPU seconds of this process's children that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
