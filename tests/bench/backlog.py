"""How fast `delivery` drains what was accepted while it was away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from tests.bench.engine_costs import engine_costs, metric
from tests.bench.flood import Flood
from tests.bench.letters import letter_files
from tests.bench.ours import Ours
from tests.bench.processes import cpu_seconds, family
from tests.bench.rows import Row, Spread
from tests.bench.watch import watching

_LOOK_SECONDS = 0.1
_DEADLINE_SECONDS = 600.0
_SESSIONS = 50
_SERVICE = "delivery"


async def rows(ours: Ours, messages: int, mailboxes: int, scratch: Path, say: Callable[[str], None]) -> list[Row]:
    """Accept `messages` of 4 KiB with `delivery` killed, start it, and see each in its mailbox, exactly once.

    The rate is from the first look that found something delivered to the one that found all, so that it is that of
    draining and not of starting a process; the row with `wait` has the time from the start of the process.
    """
    letters = letter_files(scratch, ours.domain, mailboxes, 4096)
    supervisor = ours.platform.stack.supervisor
    async with asyncio.timeout(_DEADLINE_SECONDS), watching(ours, mailboxes) as watch:
        before = await watch.counts()
        await supervisor.pause(_SERVICE)
        try:
            took = await Flood(ours, _SESSIONS, messages, letters, keep=True).run()
            say(f"{messages:,} messages accepted without delivery, {messages / took:,.0f}/s")
            assert await watch.counts() == before, "something was delivered without delivery"
            costs = await engine_costs(ours, exactly=False, away=(_SERVICE,))
        finally:
            start = time.perf_counter()
            await supervisor.resume(_SERVICE)
        spent = {"postgres": cpu_seconds(ours.roots())["postgres"]}
        rate, wait = await _drain(ours, messages, start)
        found = [new - old for new, old in zip(await watch.counts(), before, strict=True)]
        assert found == [messages // mailboxes] * mailboxes, "a message is missing or there twice"
    now = cpu_seconds(ours.roots())  # delivery began at 0
    cpu = (now[_SERVICE] + now["postgres"] - spent["postgres"]) * 1000 / messages
    asked = (await engine_costs(ours, exactly=False)).since(costs)
    processes = workers(ours)
    say(f"backlog drained at {rate:,.0f}/s by {processes} process{'es' if processes > 1 else ''} of delivery")
    return [
        _row("backlog_drained_per_second", "backlog drained per second and `delivery` process", rate / processes,
             "1/s", floor=3000, goal=8000),
        _row("backlog_wait", f"from the start of `delivery` until {messages:,} messages are delivered", wait, "s"),
        _row("backlog_cpu", "CPU seconds of `delivery` and PostgreSQL per 1,000 of the backlog", cpu, "s"),
        _row("backlog_transactions", "PostgreSQL transactions per 1,000 of the backlog",
             asked.transactions * 1000 / messages),
    ]  # fmt: skip


def _row(
    key: str, title: str, value: float, unit: str = "", floor: float | None = None, goal: float | None = None
) -> Row:
    more = floor is not None
    return Row(key, title, unit, Spread.of([value]), None, floor, goal, higher_is_better=more, relative=False)


def workers(ours: Ours) -> int:
    """Processes of `delivery` that deliver: with several, a parent and a front belong to the family too."""
    members = len(family(ours.roots()[_SERVICE]))
    return members if members == 1 else members - 2


async def _drain(ours: Ours, messages: int, start: float) -> tuple[float, float]:
    """Messages a second, and seconds since `start`, once all are delivered."""
    first: tuple[float, float] | None = None
    while True:
        try:
            done = await asyncio.to_thread(metric, ours, _SERVICE, "paquebot_delivery_recipients_total", '"delivered"')
        except OSError:
            done = 0.0  # it does not listen yet
        now = time.perf_counter()
        if done >= messages:
            break
        if done and first is None:
            first = now, done
        await asyncio.sleep(_LOOK_SECONDS)
    began, had = first if first is not None else (start, 0.0)
    return (messages - had) / (now - began), now - start
