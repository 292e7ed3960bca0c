"""One repetition of the SMTP load on one side, with all that is measured of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.bench.flood import Flood
from tests.bench.probe import probing
from tests.bench.processes import cpu_seconds
from tests.bench.rows import Side
from tests.bench.watch import Watch

_DEADLINE_SECONDS = 300.0
_WATCHERS = 4  # accounts that are asked for at a time, so at most 200 STATUS a second
_NO_MORE = -1


class Miscounted(Exception):
    """More or fewer messages arrived than were sent."""


@dataclass(frozen=True, slots=True)
class Load:
    """`sessions` connections at a time, `messages` in all, one of them for each of `letters` after the other."""

    sessions: int
    messages: int
    keep: bool
    letters: tuple[Path, ...]
    size: int = 4096

    @property
    def text(self) -> str:
        each = self.messages // len(self.letters)
        return f"{self.sessions} sessions, {'one message' if not self.keep else f'{each} messages'} per connection"


@dataclass(frozen=True, slots=True)
class Result:
    """Rates are per second, `cpu` in seconds for each 1,000 messages and program, `delays` in seconds."""

    messages: int
    accepted: float
    delivered: float
    cpu: dict[str, float]
    delays: list[float]

    @property
    def cpu_in_all(self) -> float:
        return sum(self.cpu.values())


async def run_load(
    side: Side, watch: Watch, load: Load, prober: int | None = None, midway: Callable[[], None] | None = None
) -> Result:
    """Run it and wait until every message is visible. `prober`: the account that probes go to, else no probes;
    `midway` is called in a thread when a third has been sent. Raises Miscounted, TimeoutError."""
    before = watch.last
    spent = cpu_seconds(side.roots())
    async with asyncio.timeout(_DEADLINE_SECONDS):
        if prober is None:
            accepted, delivered = await _flood(side, watch, load, before, midway)
            delays: list[float] = []
        else:
            async with probing(side, prober, load.size) as probe:
                accepted, delivered = await _flood(side, watch, load, before, midway)
            delays = probe.delays
    now, messages = cpu_seconds(side.roots()), load.messages + len(delays)
    cpu = {name: (now[name] - spent[name]) * 1000 / messages for name in now}
    each = load.messages // len(load.letters)
    for account, (old, new) in enumerate(zip(before, await watch.counts(), strict=True)):
        wanted = old + (each if account < len(load.letters) else 0)
        if new != wanted:
            raise Miscounted(f"{side.name}: {new} messages for {side.address(account)}, not {wanted}")
    return Result(load.messages, load.messages / accepted, load.messages / delivered, cpu, delays)


async def _flood(
    side: Side, watch: Watch, load: Load, before: list[int], midway: Callable[[], None] | None
) -> tuple[float, float]:
    """Seconds until the last 250, and until the last message is visible."""
    flood = Flood(side, load.sessions, load.messages, list(load.letters), load.keep)
    complete: asyncio.Queue[int] = asyncio.Queue()

    def sent(account: int) -> None:
        complete.put_nowait(account)
        if midway is not None and account == len(load.letters) // 3:
            asyncio.get_running_loop().run_in_executor(None, midway)

    async def look() -> float:
        last = 0.0
        while (account := await complete.get()) != _NO_MORE:
            last = await watch.arrival(account, before[account] + flood.each)
        return last

    start = time.perf_counter()
    looking = [asyncio.create_task(look()) for _ in range(_WATCHERS)]
    accepted = await flood.run(sent)
    await asyncio.sleep(0)  # for the last call of `sent`
    for _ in looking:
        complete.put_nowait(_NO_MORE)
    return accepted, max(await asyncio.gather(*looking)) - start
