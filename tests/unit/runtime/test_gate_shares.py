"""Accounts share memory and turns: none can have what is the others'."""

from __future__ import annotations

import asyncio
import contextlib
import functools

import pytest

from paquebot.imap.search.turns import SearchTurns, SearchWork, TooMuchWork
from paquebot.runtime.shares import account_gate
from paquebot.runtime.shares.account_gate import AccountReservation, AccountShares
from paquebot.runtime.shares.in_flight import OverBudget


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_fifty_sessions_of_one_account_leave_room_for_another() -> None:
    shares = AccountShares(limit=100, share=40)
    greedy = [asyncio.create_task(shares.of(1).take(20)) for _ in range(50)]
    await settle()
    assert [task.done() for task in greedy].count(True) == 2
    assert shares.used == 40
    assert (await asyncio.wait_for(shares.of(2).take(40), 5)).octets == 40  # at once, though 48 came before
    for task in greedy:
        task.cancel()
    await asyncio.gather(*greedy, return_exceptions=True)


async def test_in_the_common_line_a_share_of_each_account_is_before_anybody() -> None:
    shares = AccountShares(limit=100, share=50)
    first = [await shares.of(1).take(50), await shares.of(2).take(50)]
    order: list[int] = []

    async def reader(account_id: int) -> None:
        hold = await shares.of(account_id).take(25)
        order.append(account_id)
        await asyncio.sleep(0)
        hold.release()

    waiting = [asyncio.create_task(reader(account_id)) for account_id in (1, 1, 1, 3, 1, 1, 3, 4)]
    await settle()
    for hold in first:
        hold.release()
    await asyncio.wait_for(asyncio.gather(*waiting), 5)
    assert order[:3] == [3, 3, 4] or order.index(4) < 5
    assert shares.used == 0


async def test_what_is_longer_than_a_share_goes_alone() -> None:
    shares = AccountShares(limit=100, share=40)
    hold = await shares.of(1).take(90)
    assert shares.used == 90
    assert shares.of(1).try_take(1) is None
    hold.shrink(30)
    assert (shares.used, shares.of(1).used) == (30, 30)
    small = shares.of(1).try_take(10)
    assert small is not None
    hold.release()
    hold.release()
    small.release()
    assert shares.used == 0


async def test_who_waits_too_long_or_goes_away_holds_nothing() -> None:
    shares = AccountShares(limit=100, share=60)
    held: list[AccountReservation] = [await shares.of(1).take(60)]
    with pytest.raises(OverBudget):
        await shares.of(2).take(60, seconds=0.01)
    waiting = asyncio.create_task(shares.of(2).take(60))
    await settle()
    waiting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await waiting
    assert shares.of(2).used == 0 and shares.used == 60
    held.pop().release()
    assert shares.used == 0


async def test_few_bytes_do_not_wait_behind_a_long_message() -> None:
    """One slow reader of little, and one message that needs all the room: everybody else reads on."""
    shares = AccountShares(limit=128, share=32, few=32)
    slow = await shares.of(1).take(5)
    slow_of_few = await shares.of(2).take(1)
    long = asyncio.create_task(shares.of(3).take(135))
    await settle()
    assert not long.done()
    small = [await asyncio.wait_for(shares.of(account_id).take(4), 5) for account_id in (4, 5, 3, 6)]
    assert shares.used == 5 + 1 + 16 and not long.done()
    for hold in (slow, slow_of_few, *small, await asyncio.wait_for(_after(slow, long), 5)):
        hold.release()
    assert shares.used == 0


async def _after(hold: AccountReservation, waiting: asyncio.Task[AccountReservation]) -> AccountReservation:
    hold.release()
    return await waiting


async def test_no_account_has_all_the_room_for_few_bytes() -> None:
    shares = AccountShares(limit=128, share=32, few=32)
    greedy = [asyncio.create_task(shares.of(1).take(4)) for _ in range(50)]
    await settle()
    assert shares.used == 8
    (await asyncio.wait_for(shares.of(2).take(4), 5)).release()
    for task in greedy:
        task.cancel()
    await asyncio.gather(*greedy, return_exceptions=True)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers are late at once, but wait their turn to be ended."""
    for name, value in (("_PATIENCE", 0.0), ("_RATE", 1e12), ("_NEXT", 0.0)):
        monkeypatch.setattr(account_gate, name, value)


@pytest.mark.usefixtures("impatient")
async def test_who_reads_slowly_is_ended_while_others_wait_the_largest_first() -> None:
    shares = AccountShares(limit=100, share=100)
    ended: list[int] = []
    holds = {octets: await shares.of(octets).take(octets) for octets in (10, 60, 30)}

    def end(octets: int) -> None:
        ended.append(octets)
        holds[octets].release()

    for octets, hold in holds.items():
        hold.until_late(functools.partial(end, octets))
    await asyncio.sleep(0)
    assert ended == []  # nobody waits
    waiting = await asyncio.wait_for(shares.of(1).take(50), 5)
    assert ended == [60]
    more = await asyncio.wait_for(shares.of(2).take(40), 5)
    assert ended == [60, 30]
    for hold in (waiting, more, *holds.values()):
        hold.release()
    assert shares.used == 0


async def test_who_is_late_first_is_ended_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever began before and may still take its time keeps nobody from looking."""
    monkeypatch.setattr(account_gate, "_PATIENCE", 0.0)
    shares = AccountShares(limit=2**40, share=2**40)
    patient, hasty = await shares.of(1).take(2**39), await shares.of(2).take(2**38)
    patient.until_late(pytest.fail)
    waiting = asyncio.create_task(shares.of(3).take(2**39))
    await settle()
    monkeypatch.setattr(account_gate, "_RATE", 1e15)
    hasty.until_late(hasty.release)
    (await asyncio.wait_for(waiting, 5)).release()
    patient.release()


@pytest.mark.usefixtures("impatient")
async def test_only_readers_who_write_to_a_client_are_ended() -> None:
    shares = AccountShares(limit=10, share=10)
    searching = await shares.of(1).take(10)
    waiting = asyncio.create_task(shares.of(2).take(10))
    await settle()
    assert not waiting.done()
    searching.until_late(searching.release)
    (await asyncio.wait_for(waiting, 5)).release()
    assert shares.used == 0


async def test_accounts_take_turns_however_many_sessions_work() -> None:
    turns = SearchTurns()
    order: list[int] = []

    async def work(account_id: int) -> None:
        for _ in range(5):
            await turns.wait(account_id)
            order.append(account_id)

    await asyncio.gather(*(work(1) for _ in range(20)), work(2), work(3))
    assert sorted(order[:15]) == [1] * 5 + [2] * 5 + [3] * 5
    assert len(order) == 22 * 5


async def test_one_turn_a_round_of_the_loop() -> None:
    """Whatever else is ready runs between any two turns."""
    turns = SearchTurns()
    rounds, turn_in = 0, list[int]()

    async def count() -> None:
        nonlocal rounds
        while True:
            rounds += 1
            await asyncio.sleep(0)

    async def work() -> None:
        for _ in range(10):
            await turns.wait(1)
            turn_in.append(rounds)

    counting = asyncio.create_task(count())
    await asyncio.gather(*(work() for _ in range(10)))
    counting.cancel()
    assert len(turn_in) == len(set(turn_in)) == 100


async def test_a_cancelled_wait_costs_no_turn() -> None:
    turns = SearchTurns()
    gone = [asyncio.create_task(turns.wait(1)) for _ in range(3)]
    await asyncio.sleep(0)
    for task in gone:
        task.cancel()
    await asyncio.wait_for(turns.wait(1), 5)


async def test_work_is_counted_and_bounded() -> None:
    work = SearchWork(SearchTurns(), account_id=1, turn=10, limit=100)
    await work.begin()
    for _ in range(10):
        await work.did(10)
    with pytest.raises(TooMuchWork):
        await work.did(1)
