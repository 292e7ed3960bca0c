"""Accounts share the bytes of readers: none can reserve more than its share."""

from __future__ import annotations

import asyncio
import contextlib
import functools

import pytest

from paquebot.runtime.shares import account_shares
from paquebot.runtime.shares.account_shares import AccountReservation, AccountShares
from paquebot.runtime.shares.budget import OverBudget


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_fifty_sessions_of_one_account_leave_bytes_for_another() -> None:
    shares = AccountShares(limit=100, share=40)
    greedy = [asyncio.create_task(shares.of(1).reserve(20)) for _ in range(50)]
    await settle()
    assert [task.done() for task in greedy].count(True) == 2
    assert shares.used == 40
    assert (
        await asyncio.wait_for(shares.of(2).reserve(40), 5)
    ).size == 40  # immediately, although 48 reservations came before
    for task in greedy:
        task.cancel()
    await asyncio.gather(*greedy, return_exceptions=True)


async def test_at_most_a_share_of_each_account_waits_before_others() -> None:
    shares = AccountShares(limit=100, share=50)
    first = [await shares.of(1).reserve(50), await shares.of(2).reserve(50)]
    order: list[int] = []

    async def reader(account_id: int) -> None:
        hold = await shares.of(account_id).reserve(25)
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


async def test_a_reservation_larger_than_a_share_is_granted_alone() -> None:
    shares = AccountShares(limit=100, share=40)
    hold = await shares.of(1).reserve(90)
    assert shares.used == 90
    assert shares.of(1).try_reserve(1) is None
    hold.shrink(30)
    assert (shares.used, shares.of(1).used) == (30, 30)
    small = shares.of(1).try_reserve(10)
    assert small is not None
    hold.release()
    hold.release()
    small.release()
    assert shares.used == 0


async def test_a_wait_that_times_out_or_is_cancelled_reserves_nothing() -> None:
    shares = AccountShares(limit=100, share=60)
    held: list[AccountReservation] = [await shares.of(1).reserve(60)]
    with pytest.raises(OverBudget):
        await shares.of(2).reserve(60, timeout=0.01)
    waiting = asyncio.create_task(shares.of(2).reserve(60))
    await settle()
    waiting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await waiting
    assert shares.of(2).used == 0 and shares.used == 60
    held.pop().release()
    assert shares.used == 0


async def test_small_reservations_do_not_wait_behind_a_long_message() -> None:
    """One slow reader of few bytes, and one message that needs all bytes: all others continue."""
    shares = AccountShares(limit=128, share=32, small=32)
    slow = await shares.of(1).reserve(5)
    slow_small = await shares.of(2).reserve(1)
    long = asyncio.create_task(shares.of(3).reserve(135))
    await settle()
    assert not long.done()
    small = [await asyncio.wait_for(shares.of(account_id).reserve(4), 5) for account_id in (4, 5, 3, 6)]
    assert shares.used == 5 + 1 + 16 and not long.done()
    for hold in (slow, slow_small, *small, await asyncio.wait_for(_after(slow, long), 5)):
        hold.release()
    assert shares.used == 0


async def _after(hold: AccountReservation, waiting: asyncio.Task[AccountReservation]) -> AccountReservation:
    hold.release()
    return await waiting


async def test_no_account_has_all_bytes_for_small_reservations() -> None:
    shares = AccountShares(limit=128, share=32, small=32)
    greedy = [asyncio.create_task(shares.of(1).reserve(4)) for _ in range(50)]
    await settle()
    assert shares.used == 8
    (await asyncio.wait_for(shares.of(2).reserve(4), 5)).release()
    for task in greedy:
        task.cancel()
    await asyncio.gather(*greedy, return_exceptions=True)


@pytest.fixture
def no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every revocable reservation late immediately."""
    for name, value in (("_GRACE_SECONDS", 0.0), ("_RATE", 1e12), ("_REVOKE_SECONDS", 0.0)):
        monkeypatch.setattr(account_shares, name, value)


@pytest.mark.usefixtures("no_grace")
async def test_late_reservations_are_revoked_while_others_wait_the_largest_first() -> None:
    shares = AccountShares(limit=100, share=100)
    ended: list[int] = []
    holds = {length: await shares.of(length).reserve(length) for length in (10, 60, 30)}

    def end(length: int) -> None:
        ended.append(length)
        holds[length].release()

    for length, hold in holds.items():
        hold.revoke_when_late(functools.partial(end, length))
    await asyncio.sleep(0)
    assert ended == []  # no reservation waits
    waiting = await asyncio.wait_for(shares.of(1).reserve(50), 5)
    assert ended == [60]
    more = await asyncio.wait_for(shares.of(2).reserve(40), 5)
    assert ended == [60, 30]
    for hold in (waiting, more, *holds.values()):
        hold.release()
    assert shares.used == 0


async def test_the_first_late_reservation_is_revoked_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """An earlier reservation with time left does not delay it."""
    monkeypatch.setattr(account_shares, "_GRACE_SECONDS", 0.0)
    shares = AccountShares(limit=2**40, share=2**40)
    early, late = await shares.of(1).reserve(2**39), await shares.of(2).reserve(2**38)
    early.revoke_when_late(pytest.fail)
    waiting = asyncio.create_task(shares.of(3).reserve(2**39))
    await settle()
    monkeypatch.setattr(account_shares, "_RATE", 1e15)
    late.revoke_when_late(late.release)
    (await asyncio.wait_for(waiting, 5)).release()
    early.release()


@pytest.mark.usefixtures("no_grace")
async def test_only_reservations_on_their_way_to_a_client_are_revoked() -> None:
    shares = AccountShares(limit=10, share=10)
    searching = await shares.of(1).reserve(10)
    waiting = asyncio.create_task(shares.of(2).reserve(10))
    await settle()
    assert not waiting.done()
    searching.revoke_when_late(searching.release)
    (await asyncio.wait_for(waiting, 5)).release()
    assert shares.used == 0
