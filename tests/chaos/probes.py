"""Liveness, readiness and figures of each service, asked while an engine is away: the answers come in time, whatever
they say (a kubelet that gets no answer kills)."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from paquebot.cli.engines.ports import LOOPBACK
from tests.chaos.ledger import Ledger
from tests.chaos.processes import pressure, waited

ANSWER_SECONDS = 4.0
_EVERY = 1.0
_STARVED = 1.0
"""Seconds without a processor, or in which a timer of our own did not run, after which no service is blamed."""
_PRESSED = 90.0
"""Percent of the last 10 s in which a task of this machine waited for a processor: engines are late then, too."""
_TICK = 0.1
_WORKER = re.compile(r"^worker \d+: ")
PATHS = ("/livez", "/readyz", "/metrics")


@dataclass(frozen=True, slots=True)
class Probed:
    """A process of the platform and the port of its health."""

    name: str
    port: int
    pid: int


@dataclass(slots=True)
class Asked:
    """What the probes of one fault found. `unready`: processes that said so of themselves, and what they missed."""

    answers: int = 0
    slowest: float = 0.0
    not_judged: int = 0
    """No answers in time, while it or this process did not get to run."""
    unready: dict[str, set[str]] = field(default_factory=dict)

    def __str__(self) -> str:
        words = [f"{self.answers} probes answered, the slowest in {self.slowest:.1f} s"]
        words += [f"{self.not_judged} not judged"] * bool(self.not_judged)
        unready = [f"{name} ({', '.join(sorted(self.unready[name]))})" for name in sorted(self.unready)]
        words += ["unready: " + " ".join(unready)] * bool(unready)
        return ", ".join(words)


@contextlib.asynccontextmanager
async def asking(probed: Sequence[Probed], ledger: Ledger, during: str) -> AsyncIterator[Asked]:
    """Ask everything each second until the end of the block; what is not answered in time is a finding."""
    asked = Asked()
    lags: list[tuple[float, float]] = []
    rounds: set[asyncio.Task[None]] = set()

    async def lag() -> None:
        while True:
            began = time.monotonic()
            await asyncio.sleep(_TICK)
            lags.append((began, time.monotonic() - began - _TICK))

    async def one(process: Probed, path: str, before: dict[int, float]) -> None:
        began = time.monotonic()
        why = await _unanswered(process, path, asked)
        took = time.monotonic() - began
        if not why:
            asked.answers += 1
            asked.slowest = max(asked.slowest, took)
        elif (
            pressure() > _PRESSED
            or _starved(before, waited(process.pid))
            or any(late > _STARVED for at, late in lags if at > began - 1)
        ):
            asked.not_judged += 1
        else:
            ledger.find(f"{during}: {process.name} gave no answer to {path}: {why}")

    async def ask() -> None:
        while True:
            for process in probed:
                before = waited(process.pid)
                for path in PATHS:
                    rounds.add(task := asyncio.create_task(one(process, path, before)))
                    task.add_done_callback(rounds.discard)
            await asyncio.sleep(_EVERY)

    always = [asyncio.create_task(lag()), asyncio.create_task(ask())]
    try:
        yield asked
    finally:
        always[1].cancel()
        await asyncio.gather(*rounds)
        always[0].cancel()
        await asyncio.wait(always)


def _starved(before: dict[int, float], after: dict[int, float]) -> bool:
    return any(after[pid] - seconds > _STARVED for pid, seconds in before.items() if pid in after)


async def _unanswered(process: Probed, path: str, asked: Asked) -> str:
    """Why there was no whole answer; empty: there was one."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            answer = await _get(process.port, path)
    except TimeoutError:
        return f"not within {ANSWER_SECONDS:g} s"
    except OSError as error:
        return repr(error)
    if not answer.startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 503 ")):
        return repr(answer[:80])
    if path == "/livez" and not answer.startswith(b"HTTP/1.1 200 "):
        return f"it wants to be killed: {answer[-200:]!r}"
    if path == "/readyz" and not answer.startswith(b"HTTP/1.1 200 "):
        lines = answer.partition(b"\r\n\r\n")[2].decode("utf-8", "replace").splitlines()
        asked.unready.setdefault(process.name, set()).update(_WORKER.sub("", line).partition(":")[0] for line in lines)
    return ""


async def _get(port: int, path: str) -> bytes:
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        return await reader.read()
    finally:
        writer.close()
