"""The SMTP side: both servers under the same load in turn, several times, and the figures of each scenario."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.bench.delivery_load import Load, run_load
from tests.bench.engine_costs import engine_costs
from tests.bench.letters import letter_files
from tests.bench.ours import Ours
from tests.bench.peers import Peers
from tests.bench.processes import cpu_seconds, pss_mib
from tests.bench.rows import Row, Side
from tests.bench.scenario import Scenario
from tests.bench.smtp_table import Table
from tests.bench.watch import Watch, watching

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """How much to measure. The probes go to an account after the `mailboxes` that the load goes to, and have
    repetitions of their own, because the reader that polls for them costs the server something."""

    sessions: tuple[int, ...] = (20, 50)
    messages: int = 4000
    repetitions: int = 5
    probed: int = 2
    warm_up: int = 1000
    mailboxes: int = 100
    size: int = 4096
    exact_statistics: bool = True

    @property
    def prober(self) -> int:
        return self.mailboxes


async def idle_memory(side: Side) -> dict[str, float]:
    """PSS in MiB of each program, before anybody has connected."""
    return await asyncio.to_thread(pss_mib, side.roots())


async def measure(ours: Ours, theirs: Peers | None, plan: Plan, scratch: Path, say: Say) -> tuple[list[Row], list[str]]:
    """The rows, and remarks for the reader."""
    sides: list[Side] = [ours, *([theirs] if theirs else [])]
    letters = letter_files(scratch, ours.domain, plan.mailboxes, plan.size)
    remarks = [await _idle_work(sides, say)]
    idle = {side.name: await idle_memory(side) for side in sides}
    async with AsyncExitStack() as stack:
        watches = [await stack.enter_async_context(watching(side, plan.mailboxes)) for side in sides]
        busy = await _warm_up(sides, watches, plan, letters, say)
        scenarios = []
        costs = await engine_costs(ours, exactly=plan.exact_statistics)
        for keep, sessions in itertools.product((False, True), plan.sessions):
            load = Load(sessions, plan.messages, keep, tuple(letters), plan.size)
            scenario = await _scenario(sides, watches, load, plan, say)
            before, costs = costs, await engine_costs(ours, exactly=plan.exact_statistics)
            scenario.costs = costs.since(before)
            scenarios.append(scenario)
    return Table(ours, theirs, scenarios, idle, busy).rows(), remarks


async def _idle_work(sides: Sequence[Side], say: Say) -> str:
    """While one side works the other is idle beside it; what that costs."""
    seconds = 4.0  # also until the memory of the accounts' password hashes is given back
    before = [cpu_seconds(side.roots()) for side in sides]
    await asyncio.sleep(seconds)
    after = [cpu_seconds(side.roots()) for side in sides]
    parts = [
        f"{side.name} {(sum(now.values()) - sum(was.values())) / seconds:.1%}"
        for side, was, now in zip(sides, before, after, strict=True)
    ]
    text = f"Both run all the time and only one has work; of one core the idle take: {', '.join(parts)}."
    say(text)
    return text


async def _warm_up(
    sides: Sequence[Side], watches: Sequence[Watch], plan: Plan, letters: Sequence[Path], say: Say
) -> dict[str, dict[str, float]]:
    """Connections, caches, first files; returns the memory of each side under this load."""
    busy: dict[str, dict[str, float]] = {}
    for side, watch in zip(sides, watches, strict=True):

        def look(side: Side = side) -> None:
            busy[side.name] = pss_mib(side.roots())

        load = Load(max(plan.sessions), plan.warm_up, False, tuple(letters), plan.size)
        result = await run_load(side, watch, load, midway=look)
        say(f"warm-up of {side.name}: {result.delivered:,.0f} delivered/s")
    return busy


async def _scenario(sides: Sequence[Side], watches: Sequence[Watch], load: Load, plan: Plan, say: Say) -> Scenario:
    scenario = Scenario.of(load, sides)
    for number in range(plan.repetitions + plan.probed):
        probed = number >= plan.repetitions
        turn = list(zip(sides, watches, strict=True))
        for side, watch in turn if number % 2 == 0 else reversed(turn):
            result = await run_load(side, watch, load, prober=plan.prober if probed else None)
            (scenario.probed if probed else scenario.results)[side.name].append(result)
            say(
                f"{load.text}, {number + 1} of {plan.repetitions + plan.probed}{' (with probes)' if probed else ''}: "
                f"{side.name} accepted {result.accepted:,.0f}/s, delivered {result.delivered:,.0f}/s, "
                f"CPU {result.cpu_in_all:.2f} s per 1,000"
            )
    return scenario
