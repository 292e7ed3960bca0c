"""Shares of the event loop, on a clock of the test's own: who used too much waits, and only while others suffer."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable

import pytest
from tests.support.manual_clock import ManualClock

from paquebot.runtime.settings import Seconds
from paquebot.runtime.shares import event_loop
from paquebot.runtime.shares.event_loop import (
    SLICE,
    FairnessSettings,
    LoopShares,
    SessionTurns,
    charge,
    give_way,
    in_slices,
)

SHARE = 0.25


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def shares(clock: ManualClock) -> LoopShares:
    return LoopShares(FairnessSettings(SHARE, Seconds(0.01)), clock=clock)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds of every sleep, none of which is slept."""
    found: list[float] = []
    yield_once = asyncio.sleep

    async def sleep(seconds: float) -> None:
        if seconds:
            found.append(seconds)
        await yield_once(0)

    monkeypatch.setattr(event_loop, "sleep", sleep)
    return found


def working(clock: ManualClock, seconds: float) -> Callable[[], Awaitable[None]]:
    """A session that holds the loop for so long at once, and ends."""

    async def session() -> None:
        clock.now += seconds

    return session


async def others(shares: LoopShares, clock: ManualClock, count: int = 3) -> None:
    """So many other clients did a little, so each party's share is the least."""
    for number in range(count):
        await shares.turns(f"198.51.100.{number}").run(working(clock, 0.0)())


async def held_back(turns: SessionTurns, waits: list[float]) -> float:
    """How long the session waits before its next command."""
    waits.clear()
    await turns.between_commands(more=True)
    return sum(waits)


async def test_who_used_too_much_of_a_contended_loop_waits(
    shares: LoopShares, clock: ManualClock, waits: list[float]
) -> None:
    turns = shares.turns("192.0.2.1")
    await others(shares, clock)
    await turns.run(working(clock, 1.0)())
    shares.note_wait(0.02)
    used_beyond_its_burst = 1.0 - 0.5
    assert await held_back(turns, waits) == pytest.approx(used_beyond_its_burst / SHARE)
    ordinary = shares.turns("192.0.2.2")
    assert await held_back(ordinary, waits) == 0


async def test_nobody_waits_while_the_loop_has_time_for_all(
    shares: LoopShares, clock: ManualClock, waits: list[float]
) -> None:
    turns = shares.turns("192.0.2.1")
    await others(shares, clock)
    await turns.run(working(clock, 1.0)())
    assert await held_back(turns, waits) == 0
    shares.note_wait(0.009)  # less than PAQUEBOT_LOOP_LAG
    assert await held_back(turns, waits) == 0
    shares.note_wait(0.02)
    clock.now += 2.0  # long ago
    assert await held_back(turns, waits) == 0


async def test_a_client_alone_never_waits(shares: LoopShares, clock: ManualClock, waits: list[float]) -> None:
    turns = shares.turns("192.0.2.1")
    for _ in range(20):
        await turns.run(working(clock, 0.5)())
        shares.note_wait(0.5)
        assert await held_back(turns, waits) == 0


async def test_two_have_half_each(shares: LoopShares, clock: ManualClock, waits: list[float]) -> None:
    """As behind two proxies that do not tell their clients: both together use all of the loop."""
    both = [shares.turns(f"192.0.2.{number}") for number in (1, 2)]
    for _ in range(20):
        for turns in both:
            await turns.run(working(clock, 0.1)())
            shares.note_wait(0.1)
            assert await held_back(turns, waits) == 0


async def test_what_was_used_is_forgiven_in_time(shares: LoopShares, clock: ManualClock, waits: list[float]) -> None:
    turns = shares.turns("192.0.2.1")
    await others(shares, clock)
    await turns.run(working(clock, 1.0)())
    clock.now += 0.5 / SHARE
    await others(shares, clock)
    shares.note_wait(0.02)
    assert await held_back(turns, waits) == 0


async def test_a_debt_has_an_end(shares: LoopShares, clock: ManualClock, waits: list[float]) -> None:
    turns = shares.turns("192.0.2.1")
    await others(shares, clock)
    await turns.run(working(clock, 1000.0)())
    await others(shares, clock)
    shares.note_wait(0.02)
    assert await held_back(turns, waits) == pytest.approx(2.5 / SHARE)


async def test_another_connection_is_the_same_client(
    shares: LoopShares, clock: ManualClock, waits: list[float]
) -> None:
    await shares.turns("2001:db8::1").run(working(clock, 1.0)())
    await others(shares, clock)
    shares.note_wait(0.02)
    again = shares.turns("2001:db8::2")  # of the same network of 64 bits
    assert await held_back(again, waits) > 1


async def test_sessions_of_an_account_share_what_is_its(
    shares: LoopShares, clock: ManualClock, waits: list[float]
) -> None:
    one, other = shares.turns("192.0.2.1"), shares.turns("192.0.2.2")
    for turns in (one, other):
        turns.belongs_to(7)
    await others(shares, clock)
    await one.run(working(clock, 1.0)())
    shares.note_wait(0.02)
    assert await held_back(other, waits) > 1
    stranger = shares.turns("192.0.2.1")  # from the same address, but not of the account
    assert await held_back(stranger, waits) == 0


async def test_sessions_held_back_come_one_after_another(
    shares: LoopShares, clock: ManualClock, waits: list[float]
) -> None:
    """Or they would all be ready at the same moment, and others wait for all of them."""
    sessions = [shares.turns("192.0.2.1") for _ in range(5)]
    await others(shares, clock)
    await sessions[0].run(working(clock, 1.0)())
    shares.note_wait(0.02)
    times = [await held_back(turns, waits) for turns in sessions[1:]]
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert gaps == [pytest.approx(SLICE / SHARE)] * 3


async def test_only_what_holds_the_loop_is_charged(shares: LoopShares, clock: ManualClock, waits: list[float]) -> None:
    """Half a second in steps of its own; the minute between them the session waited for others."""

    async def session() -> str:
        for _ in range(5):
            clock.now += 0.1
            await asyncio.sleep(0)
        return "done"

    async def world() -> None:
        for _ in range(5):
            clock.now += 12.0
            await asyncio.sleep(0)

    turns = shares.turns("192.0.2.1")
    result, _ = await asyncio.gather(turns.run(session()), world())
    assert result == "done"
    assert turns.used == pytest.approx(0.5)


async def test_work_elsewhere_is_charged_by_the_session_that_asked(
    shares: LoopShares, clock: ManualClock, waits: list[float]
) -> None:
    async def session() -> None:
        charge(1.0)

    turns = shares.turns("192.0.2.1")
    await others(shares, clock)
    await turns.run(session())
    shares.note_wait(0.02)
    assert await held_back(turns, waits) == pytest.approx(0.5 / SHARE)
    charge(1.0)  # no session: nobody is charged


async def test_long_work_gives_way_when_its_slice_is_over(shares: LoopShares, clock: ManualClock) -> None:
    steps: list[str] = []

    async def session() -> None:
        async for number in in_slices(range(6)):
            steps.append(str(number))
            clock.now += SLICE * 0.6

    async def other() -> None:
        for _ in range(3):
            steps.append("other")
            await asyncio.sleep(0)

    await asyncio.gather(shares.turns("192.0.2.1").run(session()), other())
    assert steps == ["0", "1", "other", "2", "3", "other", "4", "5", "other"]


async def test_a_pipeline_gives_way_after_each_command(shares: LoopShares) -> None:
    steps: list[str] = []

    async def session(turns: SessionTurns) -> None:
        for number in range(3):
            steps.append(str(number))
            await turns.between_commands(more=True)

    async def other() -> None:
        for _ in range(3):
            steps.append("other")
            await asyncio.sleep(0)

    turns = shares.turns("192.0.2.1")
    await asyncio.gather(turns.run(session(turns)), other())
    assert steps == ["0", "other", "1", "other", "2", "other"]


async def test_outside_a_session_nothing_gives_way() -> None:
    await give_way()
    assert [number async for number in in_slices(range(3))] == [0, 1, 2]


async def test_failures_and_cancellation_pass_through(shares: LoopShares) -> None:
    async def fails() -> None:
        await asyncio.sleep(0)
        raise LookupError

    async def waits_for_ever() -> None:
        await asyncio.Event().wait()

    with pytest.raises(LookupError):
        await shares.turns("192.0.2.1").run(fails())
    task = asyncio.ensure_future(shares.turns("192.0.2.1").run(waits_for_ever()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_who_rested_is_forgotten(shares: LoopShares, clock: ManualClock) -> None:
    """Addresses are many: those without a session, and without a debt, take no memory."""
    for number in range(5000):
        await shares.turns(f"client {number}").run(working(clock, 0.01)())
        clock.now += 1.0
    assert shares.parties < 2200


def test_a_share_is_a_part() -> None:
    for wrong in (0.0, -1.0, 1.5):
        with pytest.raises(ValueError, match="PAQUEBOT_LOOP_SHARE"):
            FairnessSettings(wrong)
