"""Shares of the event loop, on a manual clock: a client that used too much waits, but only while others are delayed."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable

import pytest

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
from tests.support.manual_clock import ManualClock

SHARE = 0.25


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def shares(clock: ManualClock) -> LoopShares:
    return LoopShares(FairnessSettings(SHARE, Seconds(0.01)), clock=clock)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds of every sleep, without sleeping."""
    found: list[float] = []
    yield_once = asyncio.sleep

    async def sleep(seconds: float) -> None:
        if seconds:
            found.append(seconds)
        await yield_once(0)

    monkeypatch.setattr(event_loop, "sleep", sleep)
    return found


def working(clock: ManualClock, seconds: float) -> Callable[[], Awaitable[None]]:
    """Return a session that occupies the loop for `seconds`, and ends."""

    async def session() -> None:
        clock.now += seconds

    return session


async def others(shares: LoopShares, clock: ManualClock, count: int = 3) -> None:
    """Let `count` other clients use a little time, so that each client's share is the minimum."""
    for number in range(count):
        await shares.turns(f"198.51.100.{number}").run(working(clock, 0.0)())


async def held_back(turns: SessionTurns, waits: list[float]) -> float:
    """Return how long the session waits before its next command."""
    waits.clear()
    await turns.between_commands(more=True)
    return sum(waits)


async def test_a_client_above_its_share_of_a_busy_loop_waits(
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


async def test_no_client_waits_while_the_loop_has_time_for_all(
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


async def test_the_only_client_never_waits(shares: LoopShares, clock: ManualClock, waits: list[float]) -> None:
    turns = shares.turns("192.0.2.1")
    for _ in range(20):
        await turns.run(working(clock, 0.5)())
        shares.note_wait(0.5)
        assert await held_back(turns, waits) == 0


async def test_two_have_half_each(shares: LoopShares, clock: ManualClock, waits: list[float]) -> None:
    """As behind two proxies that hide their clients: both together use all of the loop."""
    both = [shares.turns(f"192.0.2.{number}") for number in (1, 2)]
    for _ in range(20):
        for turns in both:
            await turns.run(working(clock, 0.1)())
            shares.note_wait(0.1)
            assert await held_back(turns, waits) == 0


async def test_used_time_is_forgiven_after_a_while(shares: LoopShares, clock: ManualClock, waits: list[float]) -> None:
    turns = shares.turns("192.0.2.1")
    await others(shares, clock)
    await turns.run(working(clock, 1.0)())
    clock.now += 0.5 / SHARE
    await others(shares, clock)
    shares.note_wait(0.02)
    assert await held_back(turns, waits) == 0


async def test_a_debt_has_a_maximum(shares: LoopShares, clock: ManualClock, waits: list[float]) -> None:
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
    again = shares.turns("2001:db8::2")  # of the same /64
    assert await held_back(again, waits) > 1


async def test_sessions_of_an_account_share_its_time(
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


async def test_delayed_sessions_resume_one_after_another(
    shares: LoopShares, clock: ManualClock, waits: list[float]
) -> None:
    """Otherwise all would be ready at the same moment, and other sessions would wait for all of them."""
    sessions = [shares.turns("192.0.2.1") for _ in range(5)]
    await others(shares, clock)
    await sessions[0].run(working(clock, 1.0)())
    shares.note_wait(0.02)
    times = [await held_back(turns, waits) for turns in sessions[1:]]
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert gaps == [pytest.approx(SLICE / SHARE)] * 3


async def test_only_time_on_the_loop_is_charged(shares: LoopShares, clock: ManualClock, waits: list[float]) -> None:
    """The session uses half a second in steps; in the minute between the steps it waits."""

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
    charge(1.0)  # outside a session no client is charged


async def test_long_work_yields_when_its_slice_is_over(shares: LoopShares, clock: ManualClock) -> None:
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


async def test_a_pipeline_yields_after_each_command(shares: LoopShares) -> None:
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


async def test_work_outside_a_session_does_not_yield() -> None:
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


async def test_idle_clients_are_forgotten(shares: LoopShares, clock: ManualClock) -> None:
    """There are many addresses: those without a session and without a debt take no memory."""
    for number in range(5000):
        await shares.turns(f"client {number}").run(working(clock, 0.01)())
        clock.now += 1.0
    assert shares.parties < 2200


def test_a_share_is_a_part() -> None:
    for wrong in (0.0, -1.0, 1.5):
        with pytest.raises(ValueError, match="PAQUEBOT_LOOP_SHARE"):
            FairnessSettings(wrong)
